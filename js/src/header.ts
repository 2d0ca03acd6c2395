// Title, progress of the training with its buttons, and the readout line that says it in words.

import type { Command, Run, Traits } from "./contract";
import type { Cube } from "./cube";
import { h, percent, setting, significant } from "./dom";
import type { Choice } from "./state";

type Send = (command: Command) => void;

/** A command is sent again until the kernel has acted on it: right after a page was reloaded, a
 * notebook may lose messages while it connects its widgets anew. All commands may come twice. */
const RETRY_MS = 1500;
const RETRIES = 20;

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
  private phase: Run["phase"] = "empty";
  private retry: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly send: Send) {
    this.element = h(
      "header",
      { class: "qw-header" },
      h("div", { class: "qw-heading" }, this.title, this.subtitle),
      h(
        "div",
        { class: "qw-run" },
        this.status,
        this.progress,
        this.pause,
        this.cancel,
        this.train,
      ),
    );
    this.pause.addEventListener("click", () =>
      this.command(this.phase === "paused" ? "resume" : "pause"),
    );
    this.cancel.addEventListener("click", () => this.command("cancel"));
    this.train.addEventListener("click", () => this.command("train"));
  }

  dispose(): void {
    clearTimeout(this.retry);
  }

  setHeading({ title, subtitle }: Traits["heading"]): void {
    this.title.textContent = title;
    this.subtitle.textContent = subtitle;
  }

  setRun({ phase, fraction, message }: Run): void {
    if (phase !== this.phase) clearTimeout(this.retry);
    this.phase = phase;
    const busy = phase === "preparing" || phase === "training" || phase === "paused";
    const value = Math.round(100 * fraction);
    this.status.textContent = message;
    this.status.classList.toggle("qw-failed", phase === "failed");
    this.bar.style.width = `${value}%`;
    this.progress.setAttribute("aria-valuenow", String(value));
    this.pause.textContent = phase === "paused" ? "Resume" : "Pause";
    for (const element of [this.progress, this.pause, this.cancel]) element.hidden = !busy;
    this.train.hidden = !(phase === "cancelled" || phase === "failed");
  }

  private command(type: Command["type"], tries = 0): void {
    clearTimeout(this.retry);
    this.send({ type });
    if (tries < RETRIES) this.retry = setTimeout(() => this.command(type, tries + 1), RETRY_MS);
  }
}

/** Letters of a class that the readout has room for; a longer name is cut short. */
const CLASS_ROOM = 24;

/** The state of the Explorer in one line of text, with standard errors. */
export class Readout {
  readonly element = h("p", { class: "qw-readout", "aria-live": "polite" });
  private readonly fields = new Map<string, HTMLElement>();
  private readonly position = h("span", {}, "σx");
  private readonly momentum = h("span", {}, "σp");

  constructor() {
    const field = (key: string, before: string | Node) => {
      const value = h("b", { class: `qw-readout-${key}` }, "–");
      this.fields.set(key, value);
      return h("span", {}, before, before && " ", value);
    };
    this.element.append(
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

  /** Leave room for the longest name of a class. */
  setCube({ labels }: Cube): void {
    const longest = Math.max(...labels.map((name) => name.length));
    this.element.style.setProperty("--qw-class-room", `${Math.min(longest, CLASS_ROOM) + 1}ch`);
  }

  show(cube: Cube, choice: Choice): void {
    const { label, epoch, attack_epsilon: radius } = choice;
    const place = cube.place(choice.epsilon, choice.regularization);
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
    this.position.textContent = neighborhood ? "Δx" : "σx";
    this.momentum.textContent = neighborhood ? "Δp" : "σp";
    this.write("epsilon", setting(choice.epsilon));
    this.write("regularization", setting(choice.regularization));
    this.write("label", cube.labels[label] ?? "–");
    this.write("epoch", String(cube.trainedEpochs(epoch)));
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
    this.write("kind", this.kind(place.trained, product, epoch, neighborhood));
  }

  private kind(trained: boolean, product: number, epoch: number, neighborhood: boolean): string {
    if (neighborhood && Number.isNaN(product)) return "neighbourhood not measured at this epoch";
    if (!Number.isFinite(product)) return "undefined: a network diverged or its loss is zero";
    if (!trained) return "interpolated between trained networks";
    return epoch === 0 ? "untrained network" : "trained network";
  }

  private write(key: string, text: string): void {
    const field = this.fields.get(key);
    if (field && field.textContent !== text) field.textContent = text;
  }
}

/** Value to three digits and its standard error to one. */
export function withError(value: number, error: number): string {
  if (!Number.isFinite(value)) return "–";
  return Number.isFinite(error)
    ? `${significant(value)} ± ${significant(error, 1)}`
    : significant(value);
}

function accuracy(value: number, error: number): string {
  return Number.isFinite(value) ? `${percent(value)} ± ${(100 * error).toFixed(1)}` : "–";
}
