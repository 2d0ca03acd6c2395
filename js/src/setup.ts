// What to train next: data, model, regularizer and window width; a question before work is lost; and
// the way back to what was kept.

import type { Commands } from "./commands";
import type { Run, Traits } from "./contract";
import type { Cube } from "./cube";
import { h } from "./dom";
import { busy } from "./refine";

type Options = readonly (readonly [value: string, text: string])[];

const DATA: Options = [
  ["digits", "digits (8 × 8)"],
  ["moons", "moons (2-D)"],
  ["mnist", "MNIST (28 × 28)"],
];
const REGRESSIONS: Options = [
  ["friedman", "Friedman (10-D)"],
  ["temperature", "temperature (map)"],
];
const MODELS: Options = [
  ["mlp", "mlp"],
  ["conv", "conv"],
  ["resnet", "resnet"],
  ["attention", "attention"],
  ["encoder_decoder", "encoder-decoder"],
];
const REGULARIZERS: Options = [
  ["gradient", "input gradient"],
  ["weight_decay", "weight decay"],
  ["label_smoothing", "label smoothing"],
];

const OF_IMAGES = ["mlp", "conv", "resnet", "attention"];
/** What suits the data. Where there is a `best` model, it is not left to what is shown. */
const SUITS: Record<string, { models: readonly string[]; best?: string; regression?: boolean }> = {
  digits: { models: OF_IMAGES },
  moons: { models: ["mlp"], best: "mlp" },
  mnist: { models: OF_IMAGES },
  friedman: { models: ["mlp"], best: "mlp", regression: true },
  temperature: {
    models: [...OF_IMAGES, "encoder_decoder"],
    best: "encoder_decoder",
    regression: true,
  },
};

let serial = 0;

function menu(css: string, name: string, options: Options, regressions: Options = []) {
  const id = `qw-setup-${++serial}`;
  const unchanged = h("option", { value: "" }, "as shown");
  const list = (some: Options) => some.map(([value, text]) => h("option", { value }, text));
  const select = h("select", { id }, unchanged, ...list(options));
  if (regressions.length)
    select.append(h("optgroup", { label: "regressions" }, ...list(regressions)));
  const element = h("div", { class: `qw-control ${css}` }, h("label", { for: id }, name), select);
  return { element, select };
}

export class Setup {
  private readonly data = menu("qw-data", "Data", DATA, REGRESSIONS);
  private readonly model = menu("qw-model", "Model", MODELS);
  private readonly regularizer = menu("qw-regularizer", "Regularizer", REGULARIZERS);
  private readonly width = h("input", {
    id: `qw-setup-${++serial}`,
    type: "number",
    min: 0,
    step: "any",
    placeholder: "default",
  });
  private readonly train = h("button", { type: "button", class: "qw-train-new" }, "Train");
  private readonly runs = h("select", { id: `qw-setup-${++serial}`, class: "qw-runs" });
  private readonly kept = h(
    "div",
    { class: "qw-control qw-kept", hidden: true },
    h("label", { for: this.runs.id }, "Kept in this session"),
    this.runs,
  );
  readonly element = h(
    "div",
    { class: "qw-setup qw-screen-only" },
    this.kept,
    h(
      "details",
      {},
      h("summary", { tabindex: 0, "data-lm-suppress-shortcuts": "true" }, "Train something else"),
      this.data.element,
      this.model.element,
      this.regularizer.element,
      h(
        "div",
        { class: "qw-control qw-width" },
        h(
          "label",
          { for: this.width.id, title: "standard deviation s, input units" },
          "Window width",
        ),
        this.width,
      ),
      this.train,
    ),
  );

  constructor(
    guard: Guard,
    private readonly commands: Commands,
  ) {
    this.train.addEventListener("click", () => {
      if (this.width.reportValidity()) guard.ask(this.chosen());
    });
    this.runs.addEventListener("change", () =>
      this.commands.ask({ type: "show", index: this.runs.selectedIndex }),
    );
    this.data.select.addEventListener("change", () => this.fit());
  }

  show({ names, shown }: Traits["runs"], run: Run, cube: Cube | null, live: boolean): void {
    this.element.hidden = !live || Boolean(cube?.models.length);
    this.kept.hidden = names.length < 2;
    if (names.join("\n") !== [...this.runs.options].map(({ text }) => text).join("\n")) {
      this.runs.replaceChildren(...names.map((name) => h("option", { title: name }, name)));
    }
    this.runs.selectedIndex = shown;
    this.runs.disabled = busy(run);
    this.train.disabled = busy(run);
  }

  /** Offer what suits the data, and take back what does not. */
  private fit(): void {
    const suits = SUITS[this.data.select.value];
    const offer = ({ select }: typeof this.model, fits: (value: string) => boolean) => {
      for (const option of select.options)
        option.disabled = option.value !== "" && !fits(option.value);
      if (select.selectedOptions[0]?.disabled) select.value = "";
    };
    offer(this.model, (value) => !suits || suits.models.includes(value));
    // Smooth labels are probabilities of classes.
    offer(this.regularizer, (value) => !(suits?.regression && value === "label_smoothing"));
    if (suits?.best) this.model.select.value = suits.best;
  }

  private chosen(): Record<string, unknown> {
    const chosen: Record<string, unknown> = {};
    for (const [name, { select }] of [
      ["data", this.data],
      ["model", this.model],
      ["regularizer", this.regularizer],
    ] as const) {
      if (select.value) chosen[name] = select.value;
    }
    if (this.width.value) chosen.width = this.width.valueAsNumber;
    return chosen;
  }
}

/** Asks before a training throws away what is shown, and offers to keep it. */
export class Guard {
  private readonly words = h("p", { id: `qw-setup-${++serial}` });
  private readonly keep = h("button", { type: "button", class: "qw-guard-keep" }, "Keep it, train");
  private readonly replace = h(
    "button",
    { type: "button", class: "qw-guard-replace" },
    "Replace it",
  );
  private readonly leave = h("button", { type: "button", class: "qw-guard-leave" }, "Not now");
  readonly element = h(
    "div",
    {
      class: "qw-guard qw-screen-only",
      role: "alertdialog",
      "aria-labelledby": this.words.id,
      hidden: true,
    },
    this.words,
    this.keep,
    this.replace,
    this.leave,
  );
  private wanted: Record<string, unknown> = {};
  private from: HTMLElement | null = null;

  constructor(
    private readonly commands: Commands,
    /** What would be lost, in words; nothing if nothing would. */
    private readonly atStake: () => string,
  ) {
    this.keep.addEventListener("click", () => this.go(true));
    this.replace.addEventListener("click", () => this.go(false));
    this.leave.addEventListener("click", () => this.close());
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
  }

  /** Train with these settings, at once if nothing is lost by it. */
  ask(settings: Record<string, unknown>): void {
    this.wanted = settings;
    const stake = this.atStake();
    if (!stake) {
      this.go(false);
      return;
    }
    this.from = document.activeElement as HTMLElement | null;
    this.words.textContent = `A new training takes the place of ${stake}.`;
    this.element.hidden = false;
    this.keep.focus();
  }

  private go(keep: boolean): void {
    this.close();
    this.commands.ask({ type: "train", keep, ...this.wanted });
  }

  /** Give the focus back, unless the person is elsewhere already. */
  close(): void {
    if (this.element.hidden) return;
    const focused = this.element.contains(document.activeElement);
    this.element.hidden = true;
    if (focused) this.from?.focus();
  }
}

/** What a cube holds, for the guard. */
export function stakes(cube: Cube | null): string {
  if (!cube || cube.finished < 2) return "";
  const epochs = cube.finished - 1;
  const refined = cube.refined.length;
  const networks = `${cube.networks} network${cube.networks === 1 ? "" : "s"}`;
  const trained = `${networks} trained for ${epochs} epoch${epochs === 1 ? "" : "s"}`;
  return refined ? `${trained} and ${refined} refined one${refined === 1 ? "" : "s"}` : trained;
}
