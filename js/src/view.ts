// One view of the Explorer in a page: its parts, laid out, and each drawn by itself.

import type { AnyModel } from "@anywidget/types";
import { placeFigures } from "./bqplot";
import { Commands } from "./commands";
import {
  type MarkName,
  PANELS,
  type Panel,
  type PanelName,
  type Request,
  type Run,
  type Traits,
} from "./contract";
import { Controls } from "./controls";
import type { Cube } from "./cube";
import { h, say } from "./dom";
import { EmptyState } from "./empty";
import { type Exportable, ExportMenu, type Scheme } from "./export";
import { FigureReader } from "./figure";
import { Header, Readout } from "./header";
import { Hover } from "./hover";
import { Lens } from "./lens";
import type { Changed } from "./marks";
import { Models } from "./models";
import { PhaseSpace } from "./phase";
import { Plane } from "./plane";
import { inWords, Problems, type Remedy } from "./problems";
import { type Series, seriesOf, type Table, tableOf } from "./readings";
import { busy, Refine } from "./refine";
import { InputPlane } from "./regions";
import { FullScreen } from "./screen";
import { Guard, Setup, stakes } from "./setup";
import type { Choices } from "./state";
import { type Hint, Tour } from "./tour";

/** What all views of an Explorer show. */
export interface Explored {
  readonly model: AnyModel<Traits>;
  readonly choices: Choices;
  readonly cube: Cube | null;
  /** How far the work is; it ends with the kernel. */
  readonly run: Run;
  /** Whether there is a kernel to work in. */
  readonly live: boolean;
  /** Place of each mark among those of its figure. */
  readonly order: ReadonlyMap<MarkName, number>;
}

const TITLES: Record<Panel, string> = {
  plane: "Uncertainty plane",
  neighborhood: "Uncertainty plane",
  tradeoff: "Accuracy and robustness",
  curves: "Training",
  robustness: "Robust accuracy",
};
const NOTES = {
  tradeoff: "— Pareto front",
  curves: "clean —  robust - -",
  robustness: "± 1 standard error",
};
const PHASE_NOTE = "Wigner function W; negative: not classical";

const withoutFigures = (error: unknown) =>
  "The figures cannot be shown: the front end of bqplot did not load. Install bqplot where Jupyter " +
  `runs, restart Jupyter and reload this page. (${inWords(error)})`;

export class View {
  readonly problems = new Problems();
  private readonly readout = new Readout();
  private readonly phase = new PhaseSpace();
  private readonly inputs: InputPlane;
  private readonly commands: Commands;
  /** Its own, as a click may come before the lens has been seen. */
  private readonly looking: Commands;
  private readonly header: Header;
  private readonly guard: Guard;
  private readonly empty: EmptyState;
  private readonly controls: Controls;
  private readonly models: Models;
  private readonly refine: Refine;
  private readonly setup: Setup;
  private readonly plane: Plane;
  private readonly lens: Lens;
  private readonly hover: Hover;
  private readonly tour: Tour;
  private readonly root: HTMLElement;
  private readonly panels: Record<PanelName, HTMLElement>;
  /** Says so where none of the panels chosen can be on the page. */
  private readonly none = h("p", { class: "qw-none", role: "status" });
  private readonly placed: (wanted: ReadonlySet<string>) => void;
  /** Which of the panels are on the page. */
  private on: ReadonlySet<string> = new Set();
  /** Which of the trainings that are kept is on the page. */
  private shown = 0;
  private readonly ends: (() => void)[] = [];

  constructor(
    private readonly explored: Explored,
    private readonly el: HTMLElement,
  ) {
    const { model, choices } = explored;
    const send = (request: Request) => model.send(request);
    const live = () => explored.live;
    this.commands = new Commands(send);
    this.looking = new Commands(send);
    this.guard = new Guard(this.commands, () => stakes(explored.cube));
    const trainAgain = () => this.guard.ask({});
    this.header = new Header(this.commands, trainAgain);
    this.empty = new EmptyState(trainAgain);
    this.controls = new Controls(choices);
    this.models = new Models(choices);
    this.refine = new Refine(choices, this.commands, live);
    this.setup = new Setup(this.guard, this.commands);
    this.controls.element.prepend(this.models.element);
    this.controls.element.append(
      this.refine.element,
      this.setup.element,
      this.controls.legend.element,
    );
    this.plane = new Plane(choices);
    this.lens = new Lens(choices, live);
    this.inputs = new InputPlane(choices, live);

    const slot = () => h("div", { class: "qw-figure" });
    const figures: Record<Panel, HTMLElement> = {
      plane: this.plane.attack,
      neighborhood: this.plane.neighborhood,
      tradeoff: slot(),
      curves: slot(),
      robustness: slot(),
    };
    const framed = (name: keyof typeof NOTES) =>
      panel(`qw-${name}`, TITLES[name], NOTES[name], figures[name]);
    this.panels = {
      plane: this.plane.element,
      phase_space: panel("qw-phase-space", "Phase space", PHASE_NOTE, this.phase.element),
      tradeoff: framed("tradeoff"),
      curves: framed("curves"),
      robustness: framed("robustness"),
      input_plane: this.inputs.element,
      lens: this.lens.element,
    };
    const panels = h("div", { class: "qw-panels" }, ...Object.values(this.panels), this.none);
    this.root = h(
      "div",
      { class: "qw-root" },
      ...[this.header.element, this.guard.element, this.readout.element],
      h("div", { class: "qw-body" }, this.controls.element, panels, this.empty.element),
    );
    this.hover = new Hover(this.root, [...this.readers(figures), this.phase, this.inputs]);
    makeReadable(this.phase.area, "Phase space");
    makeReadable(this.inputs.area, "Input plane", "its test points, Enter chooses one");

    const run = (action: () => Promise<void>) => {
      action().catch((error: unknown) => this.problems.show("action", `${inWords(error)}.`));
    };
    const menu = new ExportMenu(
      this.exportables(panels),
      run,
      (scheme, work) => this.inColors(scheme, work),
      () => this.readout.text,
    );
    const screen = new FullScreen(el, run);
    this.tour = new Tour(() => {
      const pointed = this.on.has("plane") ? this.plane.element : panels;
      return hints(this.controls, pointed, menu, explored.cube);
    });
    const tools = [menu.element, screen.button, this.tour.button];
    this.header.element.append(h("div", { class: "qw-tools qw-screen-only" }, ...tools));
    this.root.append(this.tour.element, this.problems.element);
    el.classList.add("qw-explorer");
    // Keys pressed here belong to the controls, not to the notebook's shortcuts. JupyterLab looks
    // for the mark from the focused element upwards and takes the first selector that matches, so
    // it must stand on every element that can have the focus.
    for (const element of [
      el,
      ...this.root.querySelectorAll("input, select, button, [tabindex]"),
    ]) {
      element.setAttribute("data-lm-suppress-shortcuts", "true");
    }
    el.append(this.root);

    this.ends.push(
      () => this.looking.settle(),
      ...[
        menu,
        screen,
        this.tour,
        this.header,
        this.controls,
        this.phase,
        this.inputs,
        this.lens,
        this.hover,
      ].map((part) => () => part.dispose()),
    );
    this.placed = placeFigures(model, figures, (error) =>
      this.problems.show("figures", withoutFigures(error)),
    );
    this.ends.push(() => this.placed(new Set()));
    this.listen();
  }

  dispose(): void {
    for (const end of this.ends) end();
  }

  /** Show what follows from what changed. */
  show(changed: Changed = "all"): void {
    const { cube, choices, run } = this.explored;
    const all = changed === "all";
    this.root.classList.toggle("qw-waiting", !cube);
    this.empty.show(cube !== null, run);
    if (!cube) return;
    this.part("controls", () => {
      if (all) {
        this.controls.setCube(cube);
        this.models.setCube(cube);
        this.root.classList.toggle("qw-of-models", cube.models.length > 0);
        // They were not trained here.
        this.panels.curves.hidden = cube.models.length > 0;
        this.arrange();
      } else this.controls.show();
      this.models.show(choices.now);
    });
    this.part("readout line", () => {
      if (all) this.readout.setCube(cube);
      this.readout.show(cube, choices.now);
    });
    const { on } = this;
    if (on.has("plane")) this.part("uncertainty plane", () => this.plane.show(cube, choices.now));
    this.part("refining", () => this.refine.show(cube, choices.now, run));
    if (on.has("phase_space") && (all || changed.size > 1 || !changed.has("attack_epsilon")))
      this.part("phase space", () => this.phase.show(cube, choices.now));
    if (on.has("input_plane")) this.part("input plane", () => this.inputs.show(cube, choices.now));
    if (on.has("lens"))
      this.part("words of the attack lens", () => this.lens.show(cube, choices.now));
    this.part("values", () => this.hover.refresh());
    if (all) this.tour.offer();
  }

  /** Show how far the work is, and whether there can be any. */
  showRun(): void {
    const { model, cube, choices, run, live } = this.explored;
    if (!live) {
      // Nobody is there to act, or to say so.
      this.commands.settle();
      this.looking.settle();
      this.guard.close();
    }
    // It asks whether to begin, and something has begun.
    if (busy(run)) this.guard.close();
    this.header.setRun(run);
    this.empty.show(cube !== null, run);
    if (cube) {
      this.refine.show(cube, choices.now, run);
      this.lens.show(cube, choices.now);
    }
    this.setup.show(model.get("runs"), run, cube, live);
  }

  /** Another of those that are kept is shown, as was asked for; or one was named anew, as in every
   * epoch, which is no answer to anything. */
  private showRuns(): void {
    const { shown } = this.explored.model.get("runs");
    if (shown !== this.shown) this.commands.settle();
    this.shown = shown;
    this.showRun();
  }

  /** Show what changes in the kernel, now and until the end. */
  private listen(): void {
    const { model } = this.explored;
    const shown = {
      panels: () => this.showPanels(),
      heading: () => this.showHeading(),
      run: () => this.showRun(),
      runs: () => this.showRuns(),
      problem: () => this.showProblem(),
      lens: () => this.showLens(),
      regions: () => this.showRegions(),
    };
    for (const [name, show] of Object.entries(shown)) {
      model.on(`change:${name}`, show);
      this.ends.push(() => model.off(`change:${name}`, show));
      show();
    }
  }

  /** Have on the page what is wanted there, and draw it. */
  private showPanels(): void {
    const { model, live } = this.explored;
    this.on = new Set(model.get("panels"));
    const all = Object.entries(this.panels);
    for (const [name, element] of all) element.classList.toggle("qw-off", !this.on.has(name));
    this.root.classList.toggle("qw-some", this.on.size < all.length);
    this.arrange();
    this.controls.legend.setPanels(this.on);
    this.inputs.setPanels(this.on);
    const plane: Panel[] = this.on.has("plane") ? ["neighborhood"] : [];
    this.placed(new Set([...this.on, ...plane]));
    this.show();
    const looking = this.on.has("lens") || this.on.has("input_plane");
    if (looking && live && model.get("lens").state === "empty") this.looking.ask({ type: "look" });
  }

  /** Say how many panels stand side by side: four are two and two. The lens has its own row, or is
   * beside the input plane where only these two are. */
  private arrange(): void {
    const seen = Object.entries(this.panels).flatMap(([name, { hidden }]) =>
      this.on.has(name) && !hidden ? [name] : [],
    );
    const beside = seen.join() === "input_plane,lens";
    const count = beside ? 2 : seen.filter((name) => name !== "lens").length;
    const abreast = String(count === 4 ? 2 : Math.min(Math.max(count, 1), 3));
    if (abreast !== this.root.dataset.abreast) {
      this.root.dataset.abreast = abreast;
      this.root.style.setProperty("--qw-abreast", abreast);
    }
    this.root.classList.toggle("qw-beside", beside);
    say(this.none, seen.length || this.awaited() ? "" : this.noneOf());
  }

  /** Whether a panel may still come: an input plane does once the kernel has drawn it. */
  private awaited(): boolean {
    const { cube, model, live } = this.explored;
    if (!cube) return true;
    if (!live || !this.on.has("input_plane")) return false;
    const { state, shape } = model.get("lens");
    return state === "empty" || shape?.join() === "2";
  }

  private noneOf(): string {
    const titles = [...this.on].map((name) =>
      this.panels[name as PanelName].getAttribute("aria-label"),
    );
    return `Panels chosen: ${titles.join(", ")}. These data have none of them.`;
  }

  private showHeading(): void {
    const heading = this.explored.model.get("heading");
    this.header.setHeading(heading);
    this.controls.setHeading(heading);
  }

  private showProblem(): void {
    const { model } = this.explored;
    // It may be the answer to what was asked for.
    this.commands.settle();
    this.problems.show("kernel", model.get("problem"), undefined, () =>
      model.send({ type: "dismiss" } satisfies Request),
    );
  }

  private showLens(): void {
    const lens = this.explored.model.get("lens");
    if (lens.state !== "empty") this.looking.settle();
    this.part("attack lens", () => this.lens.setLens(lens));
    this.arrange();
    this.part("point in the lens", () => this.inputs.setLens(lens));
    this.hover.refresh();
  }

  private showRegions(): void {
    const regions = this.explored.model.get("regions");
    this.part("input plane", () => this.inputs.setRegions(regions));
    this.root.classList.toggle("qw-two-dimensional", regions.state === "ready");
    this.arrange();
    this.hover.refresh();
  }

  /** Draw a part by itself: one that fails leaves the others as they should be. */
  private part(name: string, draw: () => void): void {
    const again = () => {
      this.show();
      this.showLens();
      this.showRegions();
    };
    const remedy: Remedy = { label: "Draw again", action: again };
    const what = `The ${name} cannot be drawn`;
    try {
      draw();
      this.problems.show(what, "");
    } catch (error) {
      this.problems.show(what, `${what}. ${inWords(error)}`, remedy);
    }
  }

  /** Everything that a figure shows. */
  private series(name: Panel): Series[] {
    const { cube, choices } = this.explored;
    return cube ? seriesOf(name, cube, choices.now) : [];
  }

  private readers(figures: Record<Panel, HTMLElement>): FigureReader[] {
    return PANELS.map((name) => {
      const placed = () =>
        this.series(name).flatMap((series) => {
          const index = this.explored.order.get(series.mark);
          return index === undefined ? [] : [{ index, series }];
        });
      makeReadable(figures[name], TITLES[name]);
      return new FigureReader(figures[name], placed, name === "curves" || name === "robustness");
    });
  }

  /** What can be saved: each panel, and all of them. */
  private exportables(panels: HTMLElement): Exportable[] {
    const { explored } = this;
    // What is no figure has numbers of its own kind.
    const own: Record<string, () => Table> = {
      "phase-space": () => this.phase.table(),
      "input-plane": () => this.inputs.table(),
      lens: () => this.lens.table(),
    };
    const figure = (name: string) => {
      const other = explored.choices.now.plane === "neighborhood" && explored.cube?.measured();
      return this.series(name === "plane" && other ? "neighborhood" : (name as Panel));
    };
    const parts = [...panels.querySelectorAll<HTMLElement>(".qw-panel")].map((element) => {
      const name = [...element.classList].find((css) => css !== "qw-panel")?.slice(3) ?? "panel";
      const title = element.getAttribute("aria-label") ?? name;
      return { name, title, element, table: own[name] ?? (() => tableOf(figure(name))) };
    });
    const figures = parts.filter(({ name }) => !(name in own));
    const seen = () => figures.filter(({ element }) => !element.classList.contains("qw-off"));
    const table = () => tableOf(seen().flatMap(({ name }) => figure(name)));
    return [...parts, { name: "explorer", title: "Everything", element: this.root, table }];
  }

  /** Do something while the page has the colours of a scheme, unseen. */
  private inColors<T>(scheme: Scheme, work: () => T): T {
    const { el, phase, inputs, lens } = this;
    const css = `qw-in-${scheme}`;
    const recolor = () => {
      for (const part of [phase, inputs, lens]) part.recolor();
    };
    el.classList.add(css);
    recolor();
    try {
      return work();
    } finally {
      el.classList.remove(css);
      recolor();
    }
  }
}

function panel(css: string, title: string, note: string, body: HTMLElement): HTMLElement {
  const head = h("div", { class: "qw-panel-head" }, h("h3", {}, title));
  head.append(h("span", { class: "qw-note" }, note));
  return h("section", { class: `qw-panel ${css}`, "aria-label": title }, head, body);
}

/** Let the arrow keys read the values of a panel, as the pointer does. */
function makeReadable(area: HTMLElement, title: string, what = "its values"): void {
  area.tabIndex = 0;
  area.setAttribute("role", "group");
  area.setAttribute("aria-label", `${title}: the arrow keys read ${what}`);
}

/** What a person who sees an Explorer for the first time may not find. */
function hints(
  controls: Controls,
  pointed: HTMLElement,
  menu: ExportMenu,
  cube: Cube | null,
): Hint[] {
  // Models of one's own have no sliders that choose among trained networks.
  const own = Boolean(cube?.models.length);
  const control = (css: string) => (own ? null : controls.element.querySelector<HTMLElement>(css));
  const all: [HTMLElement | null, string][] = [
    [
      control(".qw-epsilon"),
      "Move the adversarial radius: every panel redraws at once, also while the networks train.",
    ],
    [
      pointed,
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
