/**
 * Bundles src/ into ../qwidgets/static and copies beside it what an exported page needs.
 *
 * `node build.mjs` builds once; `node build.mjs --watch` rebuilds on every change, unminified.
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const STATIC = join(HERE, "..", "qwidgets", "static");
// Every widget instance carries the bundle across the wire, so its size is paid on each display.
const BUNDLE_LIMIT = 100_000;

const watch = process.argv.includes("--watch");

/** @type {esbuild.BuildOptions} */
const options = {
  absWorkingDir: HERE,
  entryPoints: { index: "src/index.ts", style: "src/style.css" },
  outdir: STATIC,
  bundle: true,
  format: "esm",
  target: "es2022",
  // The notebook page has an AMD loader: a dependency's UMD preamble must not register with it.
  define: { "define.amd": "false" },
  legalComments: "inline",
  minify: !watch,
  sourcemap: watch ? "inline" : false,
  metafile: true,
  logLevel: "info",
};

/** Puts the loader and the widget manager of exported pages beside the bundle. */
async function copyPageParts() {
  const modules = join(HERE, "node_modules");
  const loader = await readFile(join(modules, "requirejs", "require.js"), "utf8");
  const { code } = await esbuild.transform(loader, { minify: true, legalComments: "inline" });
  await writeFile(join(STATIC, "require.js"), code);

  const manager = join(modules, "@jupyter-widgets", "html-manager", "dist", "embed-amd.js");
  const text = await readFile(manager, "utf8");
  // The source map is not shipped, so a page must not ask for it.
  await writeFile(
    join(STATIC, "embed-amd.js"),
    text.replace(/\n\/\/# sourceMappingURL=\S+\s*$/, "\n"),
  );
}

await mkdir(STATIC, { recursive: true });
await copyPageParts();
if (watch) {
  const context = await esbuild.context(options);
  await context.watch();
} else {
  const { metafile } = await esbuild.build(options);
  for (const [path, { bytes }] of Object.entries(metafile.outputs)) {
    if (path.endsWith("index.js") && bytes > BUNDLE_LIMIT) {
      console.error(`${path} has ${bytes} bytes, more than the ${BUNDLE_LIMIT} allowed.`);
      process.exitCode = 1;
    }
  }
}
