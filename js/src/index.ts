// The Explorer in the browser. `initialize` links the cube to the bqplot marks, with or without a
// view; `render` lays out the page and places the bqplot figures in it.

import type { AnyModel } from "@anywidget/types";
import {
  type Command,
  type EpochMessage,
  MARKS,
  type MarkName,
  PANELS,
  type Panel,
  type Run,
  type Traits,
  type WireCube,
} from "./contract";
import { Controls } from "./controls";
import { Cube } from "./cube";
import { h } from "./dom";
import { EmptyState } from "./empty";
import { type Exportable, ExportMenu, type Scheme } from "./export";
import { FigureReader } from "./figure";
import { Header, Readout } from "./header";
import { Hover } from "./hover";
import { drawMarks, type Mark, type Marks } from "./marks";
import { PhaseSpace } from "./phase";
import { Plane } from "./plane";
import { inWords, Problems, type Remedy } from "./problems";
import { seriesOf, tableOf } from "./readings";
import { FullScreen } from "./screen";
import { type Choice, Choices } from "./state";
import { type Hint, Tour } from "./tour";

type Changed = ReadonlySet<keyof Choice> | "all";

/** One view of the Explorer in a page, as the model's side sees it. */
interface View {
  show(changed: Changed): void;
  showRun(): void;
  problems: Problems;
}

/** What a bqplot figure view needs in order to be shown inside our own element. */
interface FigureView {
  el: HTMLElement;
  luminoWidget: { processMessage(message: unknown): void };
  remove(): void;
}

/** What a model knows of the kernel behind it. */
interface Live {
  comm_live: boolean;
  on(name: "comm_live_update", callback: () => void): void;
}

interface FigureModel {
  get(name: "marks"): Mark[];
}

interface Manager {
  get_model(id: string): Promise<Mark & FigureModel & Live>;
  create_view(model: unknown): Promise<FigureView>;
}

const idOf = (reference: string) => reference.slice("IPY_MODEL_".length);
const managerOf = (model: AnyModel<Traits>) => model.widget_manager as unknown as Manager;

const GONE = "No kernel: run the cell again to train. What is shown can still be explored.";

const TITLES: Record<Panel, string> = {
  plane: "Uncertainty plane",
  neighborhood: "Uncertainty plane",
  tradeoff: "Accuracy and robustness",
  curves: "Training",
  robustness: "Robust accuracy",
};

/** Do something, and show if it fails; a later success takes the message away. */
function attempt(problems: Problems, what: string, action: () => void, remedy: Remedy): void {
  try {
    action();
    problems.show(what, "");
  } catch (error) {
    problems.show(what, `${what}. ${inWords(error)}`, remedy);
  }
}

/** What a person who sees an Explorer for the first time may not find. */
function hints(controls: Controls, plane: Plane, menu: ExportMenu): Hint[] {
  const control = (css: string) => controls.element.querySelector<HTMLElement>(css);
  const all: [HTMLElement | null, string][] = [
    [
      control(".qw-epsilon"),
      "Move the adversarial radius: every panel redraws at once, also while the networks train.",
    ],
    [
      plane.element,
      "Point at a dot, a line or the map, or go there with Tab and the arrow keys: the numbers, with standard errors.",
    ],
    [
      control(".qw-epoch"),
      "Play the epochs and watch the networks learn. Dots mark trained networks.",
    ],
    [menu.element, "Save each panel as a picture or its numbers as a table."],
  ];
  return all.flatMap(([target, text]) => (target ? [{ target, text }] : []));
}

const withoutFigures = (error: unknown) =>
  "The figures cannot be shown: the front end of bqplot did not load. Install bqplot where Jupyter " +
  `runs, restart Jupyter and reload this page. (${inWords(error)})`;

/** Let the arrow keys read the values of a panel, as the pointer does. */
function makeReadable(area: HTMLElement, title: string): void {
  area.tabIndex = 0;
  area.setAttribute("role", "group");
  area.setAttribute("aria-label", `${title}: the arrow keys read its values`);
}

class Explorer {
  private readonly choices: Choices;
  private readonly views = new Set<View>();
  private cube: Cube | null = null;
  private marks: Marks | null = null;
  /** Whether there is a kernel to train in. */
  private live = true;
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
    const models = await Promise.all(
      MARKS.map((name) => manager.get_model(idOf(references[name]))),
    );
    this.marks = Object.fromEntries(MARKS.map((name, i) => [name, models[i] as Mark])) as Marks;
    const [model] = models;
    model?.on("comm_live_update", () => this.setLive(model.comm_live));
    if (model) this.setLive(model.comm_live);
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
    const empty = new EmptyState(() => header.trainAgain());
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
    const problems = new Problems();
    const run = (action: () => Promise<void>) => {
      action().catch((error: unknown) => problems.show("action", `${inWords(error)}.`));
    };
    const series = (name: Panel) => (this.cube ? seriesOf(name, this.cube, choices.now) : []);
    const readers = PANELS.map((name) => {
      const placed = () =>
        series(name).flatMap((one) => {
          const index = this.order.get(one.mark);
          return index === undefined ? [] : [{ index, series: one }];
        });
      makeReadable(figures[name], TITLES[name]);
      return new FigureReader(figures[name], placed, name === "curves" || name === "robustness");
    });
    makeReadable(phase.area, "Phase space");
    const body = h("div", { class: "qw-body" }, controls.element, panels, empty.element);
    const root = h("div", { class: "qw-root" }, header.element, readout.element, body);
    const hover = new Hover(root, [...readers, phase]);
    const sections = [...panels.querySelectorAll<HTMLElement>(".qw-panel")];
    const shownIn = (name: string): Panel[] =>
      name === "plane" && choices.now.plane === "neighborhood" ? ["neighborhood"] : [name as Panel];
    const parts: Exportable[] = sections.map((element) => {
      const name = [...element.classList].find((css) => css !== "qw-panel")?.slice(3) ?? "panel";
      return {
        name,
        title: element.getAttribute("aria-label") ?? name,
        element,
        table: () =>
          name === "phase-space" ? phase.table() : tableOf(shownIn(name).flatMap(series)),
      };
    });
    const whole = {
      name: "explorer",
      title: "Everything",
      element: root,
      table: () =>
        tableOf(
          parts.flatMap(({ name }) =>
            name === "phase-space" ? [] : shownIn(name).flatMap(series),
          ),
        ),
    };
    const inColors = <T>(scheme: Scheme, work: () => T): T => {
      const css = `qw-in-${scheme}`;
      el.classList.add(css);
      phase.recolor();
      try {
        return work();
      } finally {
        el.classList.remove(css);
        phase.recolor();
      }
    };
    const menu = new ExportMenu([...parts, whole], run, inColors, () => readout.text);
    const screen = new FullScreen(el, run);
    const tour = new Tour(hints(controls, plane, menu));
    header.element.append(
      h("div", { class: "qw-tools qw-screen-only" }, menu.element, screen.button, tour.button),
    );
    root.append(tour.element, problems.element);
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
      empty.show(cube !== null, this.run);
      if (!cube) return;
      const all = changed === "all";
      const again = { label: "Draw again", action: () => show("all") };
      // Each part by itself: one that fails leaves the others as they should be.
      const part = (name: string, draw: () => void) =>
        attempt(problems, `The ${name} cannot be drawn`, draw, again);
      part("controls", () => (all ? controls.setCube(cube) : controls.show()));
      part("readout line", () => {
        if (all) readout.setCube(cube);
        readout.show(cube, choices.now);
      });
      part("uncertainty plane", () => plane.show(cube, choices.now));
      if (all || changed.size > 1 || !changed.has("attack_epsilon"))
        part("phase space", () => phase.show(cube, choices.now));
      part("values", () => hover.refresh());
      if (all) tour.offer();
    };
    const showHeading = () => header.setHeading(model.get("heading"));
    const showRun = () => {
      header.setRun(this.run);
      empty.show(this.cube !== null, this.run);
    };
    const showProblem = () =>
      problems.show("kernel", model.get("problem"), undefined, () =>
        model.send({ type: "dismiss" } satisfies Command),
      );
    const view = { show, showRun, problems };
    model.on("change:heading", showHeading);
    model.on("change:run", showRun);
    model.on("change:problem", showProblem);
    this.views.add(view);
    showHeading();
    showRun();
    showProblem();
    show("all");
    const removeFigures = this.placeFigures(figures, problems);

    return () => {
      this.views.delete(view);
      model.off("change:heading", showHeading);
      model.off("change:run", showRun);
      model.off("change:problem", showProblem);
      menu.dispose();
      screen.dispose();
      tour.dispose();
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

  private placeFigures(slots: Record<Panel, HTMLElement>, problems: Problems): () => void {
    const manager = managerOf(this.model);
    const references = this.model.get("figures");
    let removed = false;
    const placed: FigureView[] = [];
    const place = async (name: Panel) => {
      const view = await manager.create_view(await manager.get_model(idOf(references[name])));
      if (removed) return view.remove();
      placed.push(view);
      slots[name].append(view.el);
      // bqplot draws once it is told that it is in the page; a Lumino parent would send the same.
      for (const type of ["before-attach", "after-attach"]) {
        view.luminoWidget.processMessage({ type, isConflatable: false, conflate: () => false });
      }
    };
    for (const name of PANELS) {
      place(name).catch((error: unknown) => problems.show("figures", withoutFigures(error)));
    }
    return () => {
      removed = true;
      for (const view of placed) view.remove();
    };
  }

  /** How far the training is; it ends with the kernel. */
  private get run(): Run {
    const run = this.model.get("run");
    return this.live || run.phase === "done" ? run : { ...run, phase: "gone", message: GONE };
  }

  private setLive(live: boolean): void {
    this.live = live;
    for (const view of this.views) view.showRun();
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
    if (cube && marks && cube.finished > 0) {
      const again = { label: "Draw again", action: () => this.draw("all") };
      const draw = () => drawMarks(marks, cube, this.choices.now, changed);
      this.attempt("The figures cannot be drawn", draw, again);
    }
    for (const view of this.views) view.show(changed);
  }

  /** Do something for all views, and show in all of them if it fails. */
  private attempt(what: string, action: () => void, remedy?: Remedy): void {
    try {
      action();
    } catch (error) {
      this.tell(what, error, remedy);
    }
  }

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
