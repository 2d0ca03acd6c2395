/**
 * Bundles src/ into ../qwidgets/static: the widget itself, and what an exported page needs beside.
 *
 * `node build.mjs` builds once; `node build.mjs --watch` rebuilds on every change, unminified.
 */

import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const STATIC = join(HERE, "..", "qwidgets", "static");
// Every widget instance carries the bundle across the wire, so its size is paid on each display.
const BUNDLE_LIMIT = 100_000;

const watch = process.argv.includes("--watch");

/** @type {esbuild.BuildOptions} */
const shared = {
  absWorkingDir: HERE,
  outdir: STATIC,
  bundle: true,
  target: "es2022",
  // The notebook page has an AMD loader: a dependency's UMD preamble must not register with it.
  define: { "define.amd": "false" },
  legalComments: "inline",
  minify: !watch,
  sourcemap: watch ? "inline" : false,
  metafile: true,
  logLevel: "info",
};
/** @type {esbuild.BuildOptions[]} */
const builds = [
  { ...shared, entryPoints: { index: "src/index.ts", style: "src/style.css" }, format: "esm" },
  // What an exported page needs to show widgets; installed with the package, sent by no widget.
  { ...shared, entryPoints: { page: "src/page.ts" }, format: "iife", globalName: "qwidgetsPage" },
];

await mkdir(STATIC, { recursive: true });
if (watch) {
  for (const options of builds) await (await esbuild.context(options)).watch();
} else {
  for (const options of builds) {
    const { metafile } = await esbuild.build(options);
    for (const [path, { bytes }] of Object.entries(metafile.outputs)) {
      if (path.endsWith("index.js") && bytes > BUNDLE_LIMIT) {
        console.error(`${path} has ${bytes} bytes, more than the ${BUNDLE_LIMIT} allowed.`);
        process.exitCode = 1;
      }
    }
  }
}
