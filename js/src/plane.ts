// The uncertainty plane: the packet along the attack, or the neighbourhood of the class, which share
// a panel. Both figures keep their place and size, so that a change of view moves nothing.

import type { Cube } from "./cube";
import { h, say } from "./dom";
import type { Choice, Choices } from "./state";

const VIEWS: [Choice["plane"], string][] = [
  ["attack", "along the attack"],
  ["neighborhood", "class neighbourhood"],
];

/** A colour bar between its two ends. */
export function legend(low: string, high: string, css: string): HTMLElement {
  return h("span", { class: "qw-legend" }, low, h("i", { class: css }), high);
}

export class Plane {
  readonly attack = h("div", { class: "qw-figure qw-plane-attack" });
  readonly neighborhood = h("div", { class: "qw-figure qw-plane-neighborhood" });
  private readonly select = h(
    "select",
    { class: "qw-plane-view", "aria-label": "What the uncertainty plane shows", hidden: true },
    ...VIEWS.map(([, name]) => h("option", {}, name)),
  );
  private readonly note = h("span", { class: "qw-note" });
  private readonly missing = h("p", { class: "qw-missing" });
  /** What the note tells of: the highest excess, or the bound. */
  private noted: string | null = null;
  readonly element = h(
    "section",
    { class: "qw-panel qw-plane", "aria-label": "Uncertainty plane" },
    h(
      "div",
      { class: "qw-panel-head" },
      h("h3", {}, "Uncertainty plane"),
      h("span", { class: "qw-plane-head" }, this.note, this.select),
    ),
    h("div", { class: "qw-stack" }, this.attack, this.neighborhood, this.missing),
  );

  constructor(choices: Choices) {
    this.select.addEventListener("change", () => {
      const [plane] = VIEWS[this.select.selectedIndex] as (typeof VIEWS)[number];
      choices.choose({ plane });
    });
  }

  show(cube: Cube, choice: Choice): void {
    const measured = cube.measured();
    const plane = measured ? choice.plane : "attack";
    this.select.hidden = !measured;
    this.select.selectedIndex = VIEWS.findIndex(([name]) => name === plane);
    this.attack.classList.toggle("qw-away", plane !== "attack");
    this.neighborhood.classList.toggle("qw-away", plane !== "neighborhood");
    this.missing.hidden = plane === "attack" || cube.measured(choice.epoch);
    const epoch = cube.trainedEpochs(choice.epoch);
    say(this.missing, `Not measured at epoch ${epoch}; see the last one.`);
    const high = plane === "attack" ? `${Math.round(100 * cube.excessLimit)}%` : "";
    if (high === this.noted) return;
    this.noted = high;
    if (high) this.note.replaceChildren("excess ", legend("0", high, "qw-excess-bar"));
    else this.note.replaceChildren(h("i", { class: "qw-bound-line" }), "its bound");
  }
}
