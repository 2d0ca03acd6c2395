// The widget manager of an exported page: what a notebook does for the Explorer, without a kernel.
// The page calls `load` for each installed front-end module, then `start`.

import * as base from "@jupyter-widgets/base";
import { ManagerBase } from "@jupyter-widgets/base-manager";
import { Widget } from "@lumino/widgets";

type Module = object;
/** What an AMD module calls; the installed front ends are such modules. */
type Define = {
  (dependencies: string[], factory: (...parts: Module[]) => Module): void;
  amd: object;
};

const modules = new Map<string, Module>([["@jupyter-widgets/base", base]]);

function find(name: string): Module {
  const module = modules.get(name);
  if (!module) throw new Error(`the front-end module ${name} is not in this page`);
  return module;
}

class PageManager extends ManagerBase {
  protected override async loadClass(className: string, moduleName: string) {
    const found = (find(moduleName) as Record<string, unknown>)[className];
    if (!found) throw new Error(`the front-end module ${moduleName} has no ${className}`);
    return found as typeof base.WidgetModel & typeof base.WidgetView;
  }

  protected override async _create_comm(): Promise<base.IClassicComm> {
    throw new Error("a page has no kernel to talk to");
  }

  protected override async _get_comm_info() {
    return {};
  }
}

/** Arrays of a model in the page, as `packed` of companion.py wrote them. */
interface Packed {
  /** Where in the state they belong, one for each array. */
  paths: (string | number)[][];
  /** Bytes of one number, one for each array. */
  sizes: number[];
  /** Lengths in bytes, one for each array. */
  lengths: number[];
  /** All arrays, deflated, in base64. */
  data: string;
}

interface PageState {
  state: Record<string, { state: base.Dict<base.BufferJSON>; packed?: Packed }>;
}

function fromBase64(data: string): Uint8Array<ArrayBuffer> {
  const letters = atob(data);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** Numbers of `size` bytes from all their first bytes, then all their second ones, and so on: like
 * beside like packs better. */
function interleave(parts: Uint8Array, size: number): DataView {
  const bytes = new Uint8Array(parts.length);
  const count = parts.length / size;
  let from = 0;
  for (let b = 0; b < size; b++) {
    for (let n = 0, to = b; n < count; n++, to += size) bytes[to] = parts[from++] as number;
  }
  return new DataView(bytes.buffer);
}

/** Put the arrays back into the states, where the manager expects them. */
async function unpack({ state }: PageState): Promise<void> {
  for (const model of Object.values(state)) {
    if (!model.packed) continue;
    const { paths, sizes, lengths, data } = model.packed;
    const packed = new Blob([fromBase64(data)]).stream();
    const inflated = packed.pipeThrough(new DecompressionStream("deflate"));
    const all = new Uint8Array(await new Response(inflated).arrayBuffer());
    let start = 0;
    const arrays = lengths.map((length, i) => {
      start += length;
      return interleave(all.subarray(start - length, start), sizes[i] as number);
    });
    base.put_buffers(model.state, paths, arrays);
    delete model.packed;
  }
}

/** Run a module's source, which calls the `define` it is given. */
export function load(name: string, run: (define: Define) => void): void {
  const define: Define = Object.assign(
    (dependencies: string[], factory: (...parts: Module[]) => Module) => {
      modules.set(name, factory(...dependencies.map(find)));
    },
    { amd: {} },
  );
  run(define);
}

/** Show the widget whose state lies inside `page`, in place of its loading line. */
export async function start(page: HTMLElement): Promise<void> {
  const read = (kind: string) =>
    JSON.parse(page.querySelector(`script[type$="widget-${kind}+json"]`)?.textContent ?? "");
  const line = page.querySelector<HTMLElement>(".qw-loading");
  try {
    const manager = new PageManager();
    const state = read("state");
    await unpack(state);
    await manager.set_state(state);
    const view = await manager.create_view(await manager.get_model(read("view").model_id));
    Widget.attach(view.luminoWidget, page.querySelector("main") ?? page);
    line?.remove();
  } catch (error) {
    if (line) line.textContent = `The plots cannot be drawn: ${error}`;
    throw error;
  }
}
