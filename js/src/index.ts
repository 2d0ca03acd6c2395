// The Explorer in the browser. `initialize` links the cube to the bqplot marks, with or without a
// view; `render` lays out the page and places the bqplot figures in it.

import type { AnyModel } from "@anywidget/types";
import {
  type EpochMessage,
  MARKS,
  type MarkName,
  PANELS,
  type Panel,
  type Traits,
  type WireCube,
} from "./contract";
import { Controls } from "./controls";
import { Cube } from "./cube";
import { h } from "./dom";
import { FigureReader } from "./figure";
import { Header, Readout } from "./header";
import { Hover } from "./hover";
import { drawMarks, type Mark, type Marks } from "./marks";
import { PhaseSpace } from "./phase";
import { Plane } from "./plane";
import { seriesOf } from "./readings";
import { type Choice, Choices } from "./state";

type Changed = ReadonlySet<keyof Choice> | "all";

/** What a bqplot figure view needs in order to be shown inside our own element. */
interface FigureView {
  el: HTMLElement;
  luminoWidget: { processMessage(message: unknown): void };
  remove(): void;
}

interface FigureModel {
  get(name: "marks"): Mark[];
}

interface Manager {
  get_model(id: string): Promise<Mark & FigureModel>;
  create_view(model: unknown): Promise<FigureView>;
}

const idOf = (reference: string) => reference.slice("IPY_MODEL_".length);
const managerOf = (model: AnyModel<Traits>) => model.widget_manager as unknown as Manager;

const TITLES = {
  tradeoff: "Accuracy and robustness",
  curves: "Training",
  robustness: "Robust accuracy",
};

/** Let the arrow keys read the values of a panel, as the pointer does. */
function makeReadable(area: HTMLElement, title: string): void {
  area.tabIndex = 0;
  area.setAttribute("role", "group");
  area.setAttribute("aria-label", `${title}: the arrow keys read its values`);
}

class Explorer {
  private readonly choices: Choices;
  private readonly views = new Set<(changed: Changed) => void>();
  private cube: Cube | null = null;
  private marks: Marks | null = null;
  /** Place of each mark among those of its figure. */
  private readonly order = new Map<MarkName, number>();

  constructor(private readonly model: AnyModel<Traits>) {
    this.choices = new Choices(model);
    this.choices.onChange((changed) => this.draw(changed));
    model.on("change:cube", () => this.readCube());
    model.on("msg:custom", (message: EpochMessage, buffers: DataView[]) => {
      if (message.type === "epoch") this.readEpoch(message, buffers);
    });
    this.readCube();
  }

  async link(): Promise<void> {
    const manager = managerOf(this.model);
    const references = this.model.get("marks");
    const models: Mark[] = await Promise.all(
      MARKS.map((name) => manager.get_model(idOf(references[name]))),
    );
    this.marks = Object.fromEntries(MARKS.map((name, i) => [name, models[i]])) as Marks;
    const figures = this.model.get("figures");
    for (const panel of PANELS) {
      const inside = (await manager.get_model(idOf(figures[panel]))).get("marks");
      for (const name of MARKS) {
        const index = inside.indexOf(this.marks[name]);
        if (index >= 0) this.order.set(name, index);
      }
    }
    this.draw("all");
  }

  mount(el: HTMLElement): () => void {
    const { model, choices } = this;
    const header = new Header((command) => model.send(command));
    const controls = new Controls(choices, model.get("heading"));
    const readout = new Readout();
    const plane = new Plane(choices);
    const phase = new PhaseSpace();
    const panel = (css: string, title: string, note: (Node | string)[], body: HTMLElement) =>
      h(
        "section",
        { class: `qw-panel ${css}`, "aria-label": title },
        h(
          "div",
          { class: "qw-panel-head" },
          h("h3", {}, title),
          h("span", { class: "qw-note" }, ...note),
        ),
        body,
      );
    const slot = () => h("div", { class: "qw-figure" });
    const figures: Record<Panel, HTMLElement> = {
      plane: plane.attack,
      neighborhood: plane.neighborhood,
      tradeoff: slot(),
      curves: slot(),
      robustness: slot(),
    };
    const notes = {
      tradeoff: "— Pareto front",
      curves: "clean —  robust - -",
      robustness: "± 1 standard error",
    };
    const framed = (name: keyof typeof notes) =>
      panel(`qw-${name}`, TITLES[name], [notes[name]], figures[name]);
    const panels = h(
      "div",
      { class: "qw-panels" },
      plane.element,
      panel(
        "qw-phase-space",
        "Phase space",
        ["Wigner function W; negative: not classical"],
        phase.element,
      ),
      framed("tradeoff"),
      framed("curves"),
      framed("robustness"),
    );
    const series = (name: Panel) => (this.cube ? seriesOf(name, this.cube, choices.now) : []);
    const readers = PANELS.map((name) => {
      const area = figures[name];
      const described =
        name === "plane" || name === "neighborhood" ? "Uncertainty plane" : TITLES[name];
      makeReadable(area, described);
      const placed = () =>
        series(name).flatMap((one) => {
          const index = this.order.get(one.mark);
          return index === undefined ? [] : [{ index, series: one }];
        });
      return new FigureReader(area, placed, name === "curves" || name === "robustness");
    });
    makeReadable(phase.area, "Phase space");
    const body = h("div", { class: "qw-body" }, controls.element, panels);
    const root = h("div", { class: "qw-root" }, header.element, readout.element, body);
    const hover = new Hover(root, [...readers, phase]);
    el.classList.add("qw-explorer");
    // Keys pressed here belong to the controls, not to the notebook's shortcuts. JupyterLab looks
    // for the mark from the focused element upwards and takes the first selector that matches, so
    // it must stand on every element that can have the focus.
    for (const element of [el, ...root.querySelectorAll("input, select, button, [tabindex]")]) {
      element.setAttribute("data-lm-suppress-shortcuts", "true");
    }
    el.append(root);

    const show = (changed: Changed) => {
      const { cube } = this;
      root.classList.toggle("qw-waiting", !cube);
      if (!cube) return;
      if (changed === "all") {
        controls.setCube(cube);
        readout.setCube(cube);
      } else controls.show();
      readout.show(cube, choices.now);
      plane.show(cube, choices.now);
      if (changed === "all" || changed.size > 1 || !changed.has("attack_epsilon"))
        phase.show(cube, choices.now);
      hover.refresh();
    };
    const showHeading = () => header.setHeading(model.get("heading"));
    const showRun = () => header.setRun(model.get("run"));
    model.on("change:heading", showHeading);
    model.on("change:run", showRun);
    this.views.add(show);
    showHeading();
    showRun();
    show("all");
    const removeFigures = this.placeFigures(figures);

    return () => {
      this.views.delete(show);
      model.off("change:heading", showHeading);
      model.off("change:run", showRun);
      header.dispose();
      controls.dispose();
      phase.dispose();
      hover.dispose();
      removeFigures();
    };
  }

  dispose(): void {
    this.choices.dispose();
    this.views.clear();
  }

  private placeFigures(slots: Record<Panel, HTMLElement>): () => void {
    const manager = managerOf(this.model);
    const references = this.model.get("figures");
    let removed = false;
    const placed: FigureView[] = [];
    for (const name of PANELS) {
      void (async () => {
        const view = await manager.create_view(await manager.get_model(idOf(references[name])));
        if (removed) return view.remove();
        placed.push(view);
        slots[name].append(view.el);
        // bqplot draws once it is told that it is in the page; a Lumino parent would send the same.
        for (const type of ["before-attach", "after-attach"]) {
          view.luminoWidget.processMessage({ type, isConflatable: false, conflate: () => false });
        }
      })();
    }
    return () => {
      removed = true;
      for (const view of placed) view.remove();
    };
  }

  private readCube(): void {
    const wire = this.model.get("cube");
    this.cube = "axes" in wire ? new Cube(wire as WireCube) : null;
    this.draw("all");
  }

  private readEpoch(message: EpochMessage, buffers: DataView[]): void {
    const { cube, choices } = this;
    if (!cube) return;
    // Whoever watches the newest epoch keeps watching the newest; a scrubbed-back view stays put.
    const following = choices.now.epoch === cube.finished - 1;
    cube.append(message.epoch, message.names, buffers);
    cube.momentumLimit = message.momentum_limit;
    cube.excessLimit = message.excess_limit;
    if (following) choices.choose({ epoch: cube.finished - 1 });
    this.draw("all");
  }

  private draw(changed: Changed): void {
    const { cube, marks } = this;
    if (cube && marks && cube.finished > 0) drawMarks(marks, cube, this.choices.now, changed);
    for (const show of this.views) show(changed);
  }
}

export default () => {
  let explorer: Explorer;
  return {
    initialize({ model }: { model: AnyModel<Traits> }): () => void {
      explorer = new Explorer(model);
      // Not awaited: the figures may take longer to load than a widget may take to start.
      void explorer.link();
      return () => explorer.dispose();
    },
    render({ el }: { el: HTMLElement }): () => void {
      return explorer.mount(el);
    },
  };
};
