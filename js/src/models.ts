// The menu of models of one's own, in the place of the sliders that choose a network of a grid.

import type { Cube } from "./cube";
import { h } from "./dom";
import type { Choice, Choices } from "./state";

let serial = 0;

export class Models {
  private readonly select = h("select", { id: `qw-models-${++serial}` });
  readonly element = h(
    "div",
    { class: "qw-control qw-models", hidden: true },
    h("div", { class: "qw-control-head" }, h("label", { for: this.select.id }, "Model")),
    this.select,
  );

  constructor(choices: Choices) {
    this.select.addEventListener("change", () => choices.choose({ model: this.select.value }));
  }

  setCube({ models }: Cube): void {
    this.element.hidden = models.length === 0;
    this.select.replaceChildren(...models.map((name) => h("option", { value: name }, name)));
    this.select.disabled = models.length < 2;
  }

  show({ model }: Choice): void {
    this.select.value = model;
  }
}
