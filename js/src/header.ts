// Title, progress of the training with its buttons, and the readout line that says it in words.

import type { Commands } from "./commands";
import type { Run, Traits } from "./contract";
import type { Cube } from "./cube";
import { h, percent, say, setting, significant, withError } from "./dom";
import { kindOf, settingsOf } from "./readings";
import { busy } from "./refine";
import type { Choice } from "./state";

export class Header {
  readonly element: HTMLElement;
  private readonly title = h("h2");
  private readonly subtitle = h("span", { class: "qw-subtitle" });
  private readonly status = h("span", { class: "qw-status", role: "status" });
  private readonly bar = h("i");
  private readonly progress = h(
    "div",
    {
      class: "qw-progress",
      role: "progressbar",
      "aria-label": "Training",
      "aria-valuemin": 0,
      "aria-valuemax": 100,
    },
    this.bar,
  );
  private readonly pause = h("button", { type: "button", class: "qw-pause" }, "Pause");
  private readonly cancel = h("button", { type: "button", class: "qw-cancel" }, "Cancel");
  private readonly train = h("button", { type: "button", class: "qw-train" }, "Train again");
  private readonly running = h(
    "div",
    { class: "qw-run" },
    this.progress,
    this.status,
    h("div", { class: "qw-run-buttons" }, h("div", {}, this.pause, this.cancel), this.train),
  );
  private phase: Run["phase"] = "empty";

  constructor(
    private readonly commands: Commands,
    trainAgain: () => void,
  ) {
    this.element = h(
      "header",
      { class: "qw-header" },
      h("div", { class: "qw-heading" }, this.title, this.subtitle),
      this.running,
    );
    this.pause.addEventListener("click", () =>
      commands.ask({ type: this.phase === "paused" ? "resume" : "pause" }),
    );
    this.cancel.addEventListener("click", () => commands.ask({ type: "cancel" }));
    this.train.addEventListener("click", trainAgain);
  }

  dispose(): void {
    this.commands.settle();
  }

  setHeading({ title, subtitle }: Traits["heading"]): void {
    say(this.title, title);
    say(this.subtitle, subtitle);
  }

  setRun({ phase, fraction, message }: Run): void {
    if (phase !== this.phase) this.commands.settle();
    this.phase = phase;
    const working = busy({ phase, fraction, message });
    const value = Math.round(100 * fraction);
    say(this.status, message);
    this.status.classList.toggle("qw-failed", phase === "failed");
    this.bar.style.width = `${value}%`;
    this.progress.setAttribute("aria-valuenow", String(value));
    say(this.pause, phase === "paused" ? "Resume" : "Pause");
    // Where there was work once its bar and buttons keep their room: nothing moves when it ends.
    if (working) this.running.classList.add("qw-has-run");
    for (const element of [this.progress, this.pause, this.cancel])
      element.classList.toggle("qw-away", !working);
    this.train.classList.toggle("qw-away", !(phase === "cancelled" || phase === "failed"));
  }
}

/** Letters of a class and of a model that the readout has room for; a longer name is cut short. */
const CLASS_ROOM = 24;
const MODEL_ROOM = 32;
/** What says which network of a grid it is; models of one's own have names. */
const OF_GRID = ["epsilon", "regularization", "epoch"];

/** The state of the Explorer in one line of text, with standard errors. */
export class Readout {
  readonly element = h("p", { class: "qw-readout", "aria-live": "polite" });
  private readonly fields = new Map<string, HTMLElement>();
  private readonly position = h("span", {}, "σx");
  private readonly momentum = h("span", {}, "σp");

  constructor() {
    const field = (key: string, before: string | Node, hidden = false) => {
      const value = h("b", { class: `qw-readout-${key}` }, "–");
      this.fields.set(key, value);
      return h("span", { hidden }, before, before && " ", value);
    };
    this.element.append(
      field("model", "model", true),
      field("epsilon", "ε"),
      field("regularization", "λ"),
      field("label", "class"),
      field("epoch", "epoch"),
      field("position", this.position),
      field("momentum", this.momentum),
      field("product", "product"),
      field("clean", "clean"),
      field("robust", "robust"),
      field("kind", ""),
    );
  }

  /** The line as it is read. */
  get text(): string {
    const parts = [...this.element.querySelectorAll<HTMLElement>(":scope > :not([hidden])")];
    return parts.map((part) => part.textContent).join(", ");
  }

  /** Have the parts of a grid or of models, with room for the longest names. */
  setCube({ labels, models }: Cube): void {
    const own = models.length > 0;
    for (const [key, field] of this.fields) {
      if (key === "model") field.parentElement?.toggleAttribute("hidden", !own);
      if (OF_GRID.includes(key)) field.parentElement?.toggleAttribute("hidden", own);
    }
    const room = (names: readonly string[], most: number) =>
      `${Math.min(Math.max(...names.map((name) => name.length)), most) + 1}ch`;
    this.element.style.setProperty("--qw-class-room", room(labels, CLASS_ROOM));
    if (own) this.element.style.setProperty("--qw-model-room", room(models, MODEL_ROOM));
  }

  show(cube: Cube, choice: Choice): void {
    const { label, epoch, attack_epsilon: radius } = choice;
    const place = cube.place(choice);
    const neighborhood = choice.plane === "neighborhood" && cube.measured();
    const at = (name: string) =>
      cube.at(neighborhood ? `neighborhood_${name}` : name, place, epoch, label);
    const [position, momentum] = [at("position_std"), at("momentum_std")];
    const product = neighborhood
      ? position * momentum
      : cube.at("uncertainty_product", place, epoch, label);
    const bound = neighborhood
      ? `${significant(at("bound"))}, B ${significant(at("boundary"))}`
      : "0.500";
    this.element.classList.toggle("qw-of-class", neighborhood);
    say(this.position, neighborhood ? "Δx" : "σx");
    say(this.momentum, neighborhood ? "Δp" : "σp");
    this.write("epsilon", setting(choice.epsilon));
    this.write("regularization", setting(choice.regularization));
    this.write("label", cube.labels[label] ?? "–");
    this.write("epoch", String(cube.epochOf(place, epoch)));
    this.write("model", settingsOf(cube, place, choice).model ?? "");
    this.write("position", withError(position, at("position_std_error")));
    this.write("momentum", withError(momentum, at("momentum_std_error")));
    this.write("product", `${significant(product)} (bound ${bound})`);
    this.write(
      "clean",
      accuracy(
        cube.at("clean_accuracy", place, epoch),
        cube.at("clean_accuracy_error", place, epoch),
      ),
    );
    const robust = accuracy(
      cube.robust(place, epoch, radius),
      cube.robust(place, epoch, radius, "robust_accuracy_error"),
    );
    this.write("robust", `${robust} at ${setting(radius)}`);
    const missing = neighborhood && Number.isNaN(product);
    let kind = kindOf(cube, place, epoch);
    if (missing) kind = "neighbourhood not measured at this epoch";
    else if (!Number.isFinite(product)) kind = "undefined: a network diverged or its loss is zero";
    this.write("kind", kind);
  }

  private write(key: string, text: string): void {
    const field = this.fields.get(key);
    if (field) say(field, text);
  }
}

function accuracy(value: number, error: number): string {
  return Number.isFinite(value) ? `${percent(value)} ± ${(100 * error).toFixed(1)}` : "–";
}
