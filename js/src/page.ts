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
    await manager.set_state(read("state"));
    const view = await manager.create_view(await manager.get_model(read("view").model_id));
    Widget.attach(view.luminoWidget, page.querySelector("main") ?? page);
    line?.remove();
  } catch (error) {
    if (line) line.textContent = `The plots cannot be drawn: ${error}`;
    throw error;
  }
}
