// Refine: train a network exactly where the sliders stand, and come back to those refined before.

import type { Commands } from "./commands";
import type { Run } from "./contract";
import type { Cube } from "./cube";
import { h, say, setting } from "./dom";
import type { Choice, Choices } from "./state";

const BUSY: readonly Run["phase"][] = ["preparing", "training", "refining", "measuring", "paused"];
export const busy = ({ phase }: Run) => BUSY.includes(phase);

export class Refine {
  private readonly button = h(
    "button",
    { type: "button", class: "qw-refine", disabled: true },
    "Refine here",
  );
  private readonly why = h("span", { class: "qw-refine-why qw-note" });
  private readonly points = h("ul", { class: "qw-refined", "aria-label": "Refined networks" });
  readonly element = h(
    "div",
    { class: "qw-control qw-refine-box" },
    h("div", { class: "qw-refine-line qw-screen-only" }, this.button, this.why),
    this.points,
  );
  private key = "";

  constructor(
    private readonly choices: Choices,
    commands: Commands,
    private readonly live: () => boolean,
  ) {
    this.button.addEventListener("click", () => {
      const { epsilon, regularization } = choices.now;
      commands.ask({ type: "refine", epsilon, regularization });
    });
  }

  show(cube: Cube, choice: Choice, run: Run): void {
    const place = cube.place(choice);
    const [ready, why] = this.state(place.trained, place.refined !== undefined, run);
    this.button.disabled = !ready;
    this.button.title = why;
    say(this.why, why);
    this.list(cube, choice);
    this.element.hidden = cube.models.length > 0 || (!this.live() && cube.refined.length === 0);
  }

  private state(trained: boolean, refined: boolean, run: Run): [boolean, string] {
    if (!this.live()) return [false, ""];
    if (run.phase === "refining") return [false, "refining …"];
    if (busy(run)) return [false, "after the training"];
    if (trained) return [false, refined ? "refined here" : "trained here already"];
    return [true, "train exactly here"];
  }

  private list(cube: Cube, choice: Choice): void {
    const here = cube.place(choice).refined;
    const key = cube.refined
      .map((one) => [one.epsilon, one.regularization, one.complete, one === here].join())
      .join(";");
    if (key === this.key) return;
    this.key = key;
    const held = this.points.contains(document.activeElement);
    this.points.replaceChildren(
      ...cube.refined.map((one) => {
        const name = `ε ${setting(one.epsilon)}, λ ${setting(one.regularization)}`;
        const button = h(
          "button",
          {
            type: "button",
            title: one.complete ? `Go to the refined network at ${name}` : "Not trained to its end",
            "aria-pressed": String(one === here),
            "data-lm-suppress-shortcuts": "true",
          },
          one.complete ? name : `${name} …`,
        );
        const { epsilon, regularization } = one;
        button.addEventListener("click", () => this.choices.choose({ epsilon, regularization }));
        return h("li", {}, button);
      }),
    );
    if (held) this.points.querySelector<HTMLElement>("[aria-pressed=true]")?.focus();
  }
}
