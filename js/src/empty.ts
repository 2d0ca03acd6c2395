// What stands in the panels before there is anything to show.

import type { Run } from "./contract";
import { h, say } from "./dom";

const WORDS: Partial<Record<Run["phase"], string>> = {
  empty: "Nothing is trained yet.",
  measuring: "Your models are being measured: the first of them is on its way.",
  failed: "The training failed before its first epoch was finished.",
  cancelled: "The training was cancelled before its first epoch was finished.",
  gone: "There is no kernel any more, and nothing was trained: run the cell again.",
  paused: "The training is paused before its first epoch: Resume lets it go on.",
};
const WAITING =
  "The first networks are on their way. From the first epoch on everything here can be moved, also while they train.";

export class EmptyState {
  private readonly text = h("p");
  private readonly message = h("p", { class: "qw-empty-message" });
  private readonly again = h("button", { type: "button", class: "qw-empty-again" }, "Train again");
  readonly element = h("div", { class: "qw-empty" }, this.text, this.message, this.again);

  constructor(train: () => void) {
    this.again.addEventListener("click", train);
  }

  show(filled: boolean, { phase, message }: Run): void {
    this.element.hidden = filled;
    say(this.text, WORDS[phase] ?? WAITING);
    say(this.message, phase === "failed" ? message : "");
    this.again.hidden = !(phase === "failed" || phase === "cancelled");
  }
}
