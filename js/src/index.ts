// The Explorer in the browser. `initialize` links the cube to the bqplot marks, with or without a
// view; `render` adds a view to a page.

import type { AnyModel } from "@anywidget/types";
import { type Linked, link } from "./bqplot";
import type { EpochMessage, RefinedMessage, Run, Traits, WireCube } from "./contract";
import { Cube } from "./cube";
import { Drawing } from "./drawing";
import { type Changed, drawMarks } from "./marks";
import { inWords, type Remedy } from "./problems";
import { Choices } from "./state";
import { type Explored, View } from "./view";

const GONE = "No kernel: run the cell again to train. What is shown can still be explored.";

class Explorer implements Explored {
  readonly choices: Choices;
  cube: Cube | null = null;
  private readonly views = new Set<View>();
  private linked: Linked | null = null;
  private readonly drawing = new Drawing((changed) => {
    this.drawFigures(changed);
    for (const view of this.views) view.show(changed);
  });
  private connected = true;

  constructor(readonly model: AnyModel<Traits>) {
    this.choices = new Choices(model);
    this.choices.onChange((changed) => this.drawing.now(changed));
    model.on("change:cube", () => this.readCube());
    model.on("change:refined", () => this.readRefined());
    model.on("msg:custom", (message: EpochMessage | RefinedMessage, buffers: DataView[]) => {
      if (message.type === "epoch") this.readEpoch(message, buffers);
      if (message.type === "refined") this.readRefinedEpoch(message, buffers);
    });
    this.readCube();
  }

  async link(): Promise<void> {
    this.linked = await link(this.model, (live) => {
      this.connected = live;
      for (const view of this.views) view.showRun();
    });
    this.drawing.ask("all");
  }

  mount(el: HTMLElement): () => void {
    const view = new View(this, el);
    this.views.add(view);
    return () => {
      this.views.delete(view);
      view.dispose();
    };
  }

  dispose(): void {
    this.choices.dispose();
    this.drawing.dispose();
    this.views.clear();
  }

  get order() {
    return this.linked?.order ?? new Map();
  }

  get live(): boolean {
    // A page says so itself, before it is known to have no kernel.
    return this.connected && this.model.get("lens").live !== false;
  }

  get run(): Run {
    const run = this.model.get("run");
    return this.live || run.phase === "done" ? run : { ...run, phase: "gone", message: GONE };
  }

  private readCube(): void {
    const wire = this.model.get("cube");
    this.cube = "axes" in wire ? new Cube(wire as WireCube) : null;
    this.readRefined();
  }

  private readRefined(): void {
    this.cube?.setRefined(this.model.get("refined"));
    this.drawing.ask("all");
  }

  private readRefinedEpoch(message: RefinedMessage, buffers: DataView[]): void {
    this.cube?.appendRefined(message, buffers);
    this.drawing.ask("all");
  }

  private readEpoch(message: EpochMessage, buffers: DataView[]): void {
    const { cube, choices } = this;
    if (!cube) return;
    // Whoever watches the newest epoch keeps watching the newest; a scrubbed-back view stays put.
    const following = choices.now.epoch === cube.finished - 1;
    cube.append(message.epoch, message.names, buffers);
    cube.momentumLimit = message.momentum_limit;
    cube.excessLimit = message.excess_limit;
    this.drawing.ask("all");
    // A choice is drawn at once, with what waits.
    if (following) choices.choose({ epoch: cube.finished - 1 });
  }

  private drawFigures(changed: Changed): void {
    const { cube, linked } = this;
    if (!cube || !linked || cube.finished === 0) return;
    try {
      drawMarks(linked.marks, cube, this.choices.now, changed);
    } catch (error) {
      const again = { label: "Draw again", action: () => this.drawing.ask("all") };
      this.tell("The figures cannot be drawn", error, again);
    }
  }

  /** Show in all views what went wrong. */
  tell(what: string, error: unknown, remedy?: Remedy): void {
    for (const { problems } of this.views)
      problems.show(what, `${what}. ${inWords(error)}`, remedy);
  }
}

export default () => {
  let explorer: Explorer;
  return {
    initialize({ model }: { model: AnyModel<Traits> }): () => void {
      explorer = new Explorer(model);
      // Not awaited: the figures may take longer to load than a widget may take to start.
      explorer
        .link()
        .catch((error: unknown) => explorer.tell("The figures cannot be linked", error));
      return () => explorer.dispose();
    },
    render({ el }: { el: HTMLElement }): () => void {
      return explorer.mount(el);
    },
  };
};
