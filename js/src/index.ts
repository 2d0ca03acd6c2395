// The Explorer in the browser. `initialize` links the cube to the bqplot marks, with or without a
// view; `render` lays out the page and places the bqplot figures in it.

import type { AnyModel } from "@anywidget/types";
import { Commands } from "./commands";
import {
  type EpochMessage,
  MARKS,
  PANELS,
  type Panel,
  type RefinedMessage,
  type Traits,
  type WireCube,
} from "./contract";
import { Controls } from "./controls";
import { Cube } from "./cube";
import { h } from "./dom";
import { Header, Readout } from "./header";
import { Lens } from "./lens";
import { drawMarks, type Mark, type Marks } from "./marks";
import { Models } from "./models";
import { PhaseSpace } from "./phase";
import { legend, Plane } from "./plane";
import { Refine } from "./refine";
import { InputPlane } from "./regions";
import { Guard, Setup, stakes } from "./setup";
import { type Choice, Choices } from "./state";

type Changed = ReadonlySet<keyof Choice> | "all";

/** What a bqplot figure view needs in order to be shown inside our own element. */
interface FigureView {
  el: HTMLElement;
  luminoWidget: { processMessage(message: unknown): void };
  remove(): void;
}

interface Manager {
  get_model(id: string): Promise<Mark>;
  create_view(model: unknown): Promise<FigureView>;
}

const idOf = (reference: string) => reference.slice("IPY_MODEL_".length);
const managerOf = (model: AnyModel<Traits>) => model.widget_manager as unknown as Manager;

const TITLES = {
  tradeoff: "Accuracy and robustness",
  curves: "Training",
  robustness: "Robust accuracy",
};

class Explorer {
  private readonly choices: Choices;
  private readonly views = new Set<(changed: Changed) => void>();
  private cube: Cube | null = null;
  private marks: Marks | null = null;

  constructor(private readonly model: AnyModel<Traits>) {
    this.choices = new Choices(model);
    this.choices.onChange((changed) => this.draw(changed));
    model.on("change:cube", () => this.readCube());
    model.on("change:refined", () => this.readRefined());
    model.on("msg:custom", (message: EpochMessage | RefinedMessage, buffers: DataView[]) => {
      if (message.type === "epoch") this.readEpoch(message, buffers);
      if (message.type === "refined") this.readRefinedEpoch(message, buffers);
    });
    this.readCube();
  }

  async link(): Promise<void> {
    const manager = managerOf(this.model);
    const references = this.model.get("marks");
    const models = await Promise.all(
      MARKS.map((name) => manager.get_model(idOf(references[name]))),
    );
    this.marks = Object.fromEntries(MARKS.map((name, i) => [name, models[i]])) as Marks;
    this.draw("all");
  }

  mount(el: HTMLElement): () => void {
    const { model, choices } = this;
    const live = () => model.get("lens").live !== false;
    const commands = new Commands((request) => model.send(request));
    const guard = new Guard(commands, () => stakes(this.cube));
    const header = new Header(commands, () => guard.ask({}));
    const controls = new Controls(choices, model.get("heading"));
    const models = new Models(choices);
    const refine = new Refine(choices, commands, live);
    const setup = new Setup(guard, commands);
    controls.element.prepend(models.element);
    controls.element.append(refine.element, setup.element);
    const lens = new Lens(choices);
    const plain = new InputPlane();
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
        ["Wigner function · ", legend("−1/π", "1/π", "qw-wigner-bar")],
        phase.element,
      ),
      framed("tradeoff"),
      framed("curves"),
      framed("robustness"),
      plain.element,
      lens.element,
    );
    const body = h("div", { class: "qw-body" }, controls.element, panels);
    const root = h(
      "div",
      { class: "qw-root" },
      header.element,
      guard.element,
      readout.element,
      body,
    );
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
        models.setCube(cube);
        root.classList.toggle("qw-of-models", cube.models.length > 0);
      } else controls.show();
      models.show(choices.now);
      refine.show(cube, choices.now, model.get("run"));
      lens.show(cube, choices.now);
      plain.show(cube, choices.now);
      readout.show(cube, choices.now);
      plane.show(cube, choices.now);
      if (changed === "all" || changed.size > 1 || !changed.has("attack_epsilon"))
        phase.show(cube, choices.now);
    };
    const showHeading = () => header.setHeading(model.get("heading"));
    const showRuns = () => setup.show(model.get("runs"), model.get("run"), this.cube, live());
    const showRun = () => {
      header.setRun(model.get("run"));
      if (this.cube) refine.show(this.cube, choices.now, model.get("run"));
      showRuns();
    };
    const looking = new Commands((request) => model.send(request));
    const showLens = () => {
      const seen = model.get("lens");
      if (seen.state !== "empty") looking.settle();
      lens.setLens(seen);
    };
    model.on("change:heading", showHeading);
    model.on("change:run", showRun);
    model.on("change:runs", showRuns);
    const showRegions = () => {
      plain.setRegions(model.get("regions"));
      root.classList.toggle("qw-two-dimensional", model.get("regions").state === "ready");
    };
    model.on("change:lens", showLens);
    model.on("change:regions", showRegions);
    this.views.add(show);
    showHeading();
    showRun();
    show("all");
    showLens();
    showRegions();
    if (live()) looking.ask({ type: "look" });
    if (model.get("lens").state !== "empty") looking.settle();
    const removeFigures = this.placeFigures(figures);

    return () => {
      this.views.delete(show);
      model.off("change:heading", showHeading);
      model.off("change:run", showRun);
      model.off("change:runs", showRuns);
      model.off("change:lens", showLens);
      model.off("change:regions", showRegions);
      plain.dispose();
      looking.settle();
      lens.dispose();
      header.dispose();
      controls.dispose();
      phase.dispose();
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
    this.cube?.setRefined(this.model.get("refined"));
    this.draw("all");
  }

  private readRefined(): void {
    this.cube?.setRefined(this.model.get("refined"));
    this.draw("all");
  }

  private readRefinedEpoch(message: RefinedMessage, buffers: DataView[]): void {
    this.cube?.appendRefined(message, buffers);
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
