// The attack lens: an image, what the attack does to it, what the network says of both, and the
// spreads of every pixel. The kernel computes it; hovering a pixel reads it in all pictures at once.

import type { WireLens } from "./contract";
import type { Cube } from "./cube";
import { h, minus, percent, say, setting, significant, withError } from "./dom";
import { type Answer, ends, extent, type Reading, rootMeanSquare, Seen, tableOf } from "./pixels";
import type { Table } from "./readings";
import type { Choice, Choices } from "./state";
import { onTheme, RAMPS, type Ramp, ramp } from "./theme";

/** Classes whose probabilities are shown, at most. */
const BARS = 10;
const CHANNELS = ["R", "G", "B"];
const PROBABILITIES = "class probabilities";

/** One of the pictures side by side, with a bar that tells its colours. Both are no canvas: the
 * browser makes each canvas a layer, and all that lies over one another, to be sorted anew in every
 * frame of a move that does not change them. */
class Picture {
  private readonly image = h("img", { decoding: "sync", draggable: "false" });
  private readonly mark = h("i", { class: "qw-lens-mark", hidden: true });
  readonly cells = h("div", { class: "qw-lens-cells qw-lens-none" }, this.image, this.mark);
  private readonly bar = h("span", { class: "qw-lens-bar", "aria-hidden": true });
  private readonly low = h("span");
  private readonly high = h("span");
  private readonly scale = h(
    "div",
    { class: "qw-lens-scale qw-away" },
    this.low,
    this.bar,
    this.high,
  );
  private readonly caption = h("figcaption");
  readonly element: HTMLElement;

  constructor(css: string) {
    const frame = h("div", { class: "qw-lens-frame" }, this.cells);
    const attributes = { class: `qw-lens-picture ${css}` };
    this.element = h("figure", attributes, frame, this.caption, this.scale);
  }

  caps(text: string): void {
    say(this.caption, text);
    this.image.alt = text;
  }

  /** Draw one colour for each pixel, and the bar beneath; none leaves the place empty. */
  draw(
    { layout: { width, height, image } }: Seen,
    color: ((pixel: number) => readonly number[]) | null,
    bar?: { colors: Ramp; low: string; high: string },
  ): void {
    this.cells.classList.toggle("qw-lens-none", !color);
    const long = Math.max(width, height);
    const share = (side: number) => (image ? `${(100 * side) / long}%` : "100%");
    this.cells.style.width = share(width);
    this.cells.style.height = share(height);
    if (color) this.image.src = pictureOf(width, height, color);
    this.scale.classList.toggle("qw-away", !bar);
    if (!bar) return;
    this.bar.style.backgroundImage = gradient(bar.colors);
    say(this.low, bar.low);
    say(this.high, bar.high);
  }

  /** Outline a pixel, or none. */
  point({ layout: { width, height } }: Seen, pixel: number | null): void {
    this.mark.hidden = pixel === null;
    if (pixel === null) return;
    const { style } = this.mark;
    style.left = `${(100 * (pixel % width)) / width}%`;
    style.top = `${(100 * Math.floor(pixel / width)) / height}%`;
    style.width = `${100 / width}%`;
    style.height = `${100 / height}%`;
  }
}

/** The address of a picture of one colour for each pixel. */
function pictureOf(
  width: number,
  height: number,
  color: (pixel: number) => readonly number[],
): string {
  const easel = document.createElement("canvas");
  easel.width = width;
  easel.height = height;
  const picture = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) picture.data.set([...color(i), 255], 4 * i);
  easel.getContext("2d")?.putImageData(picture, 0, 0);
  return easel.toDataURL();
}

/** A ramp from left to right; all of its stops are among the nine. */
function gradient(colors: Ramp): string {
  const stops = Array.from({ length: 9 }, (_, i) => `rgb(${colors(i / 8).map(Math.round)})`);
  return `linear-gradient(90deg, ${stops})`;
}

export class Lens {
  private readonly pictures = {
    image: new Picture("qw-lens-image"),
    perturbation: new Picture("qw-lens-perturbation"),
    attacked: new Picture("qw-lens-attacked"),
    position: new Picture("qw-lens-position"),
    momentum: new Picture("qw-lens-momentum"),
    target: new Picture("qw-lens-target"),
    output: new Picture("qw-lens-output"),
    attackedOutput: new Picture("qw-lens-attacked-output"),
  };
  private readonly saying = h("p", {}, PROBABILITIES);
  private readonly rows = h("ol", { class: "qw-lens-classes" });
  private readonly note = h("span", { class: "qw-note" });
  private readonly readout = h("p", { class: "qw-lens-readout", "aria-live": "polite" });
  private readonly back = step("qw-lens-back", "‹", "Previous test image of the class");
  private readonly next = step("qw-lens-next", "›", "Next test image of the class");
  private readonly which = h("span", { class: "qw-lens-which" });
  private readonly strip = h(
    "div",
    {
      class: "qw-lens-strip",
      tabindex: 0,
      role: "group",
      "aria-label": "Pixels; the arrow keys read one after another",
    },
    ...Object.values(this.pictures).map(({ element }) => element),
  );
  private readonly missing = h("p", { class: "qw-lens-missing" });
  private readonly body = h(
    "div",
    { class: "qw-lens-body" },
    this.strip,
    h("div", { class: "qw-lens-said" }, this.saying, this.rows),
  );
  readonly element = h(
    "section",
    { class: "qw-panel qw-lens", "aria-label": "Attack lens" },
    h(
      "div",
      { class: "qw-panel-head" },
      h("h3", {}, "Attack lens"),
      this.note,
      h("span", { class: "qw-lens-choose" }, this.back, this.which, this.next),
    ),
    h("div", { class: "qw-stack" }, this.body, this.missing),
    this.readout,
  );
  private of: WireLens = { state: "empty", message: "" };
  private seen: Seen | null = null;
  private colors: Record<keyof typeof RAMPS, Ramp> | null = null;
  private pixel: number | null = null;
  private labels: readonly string[] = [];
  private cube: Cube | null = null;
  private choice: Choice | null = null;
  /** Whether the sliders ask for something else than was seen. */
  private elsewhere = false;
  private readonly forget: () => void;

  constructor(
    private readonly choices: Choices,
    private readonly live: () => boolean,
  ) {
    this.back.addEventListener("click", () => this.turn(-1));
    this.next.addEventListener("click", () => this.turn(1));
    for (const { cells } of Object.values(this.pictures)) {
      cells.addEventListener("pointermove", (event) => this.point(this.under(cells, event)));
      cells.addEventListener("pointerleave", () => this.point(null));
    }
    this.showAnswers(false);
    this.strip.addEventListener("keydown", (event) => this.walk(event));
    this.strip.addEventListener("blur", () => this.point(null));
    this.forget = onTheme(() => this.recolor());
  }

  dispose(): void {
    this.forget();
  }

  /** Show what the kernel saw. */
  setLens(lens: WireLens): void {
    this.seen = lens.state === "ready" ? new Seen(lens) : null;
    if (this.seen && this.pixel !== null && this.pixel >= this.seen.pixels) this.pixel = null;
    this.of = lens;
    this.missing.hidden = this.seen !== null;
    this.body.classList.toggle("qw-away", this.seen === null);
    this.paint();
    this.tell();
  }

  /** Note where the sliders are: what was seen may be of another place. */
  show(cube: Cube, choice: Choice): void {
    this.labels = cube.labels;
    this.cube = cube;
    this.choice = { ...choice };
    this.tell();
  }

  /** What is seen as numbers. */
  table(): Table {
    return tableOf(this.seen, this.labels);
  }

  private turn(by: number): void {
    const { seen } = this;
    if (!seen) return;
    const { image = 0, images = 1 } = seen.of;
    this.choices.choose({ image: (image + by + images) % images });
  }

  /** Paint with the colours that hold now. */
  recolor(): void {
    this.colors = null;
    this.paint();
  }

  private paint(): void {
    const { seen, pictures } = this;
    if (!seen) return;
    const [low, high] = seen.range;
    const { channels } = seen.layout;
    const byte = (value: number) => (255 * (value - low)) / (high - low);
    const picture = (values: Float32Array, brightness: (value: number) => number) => {
      const at = (pixel: number, c: number) =>
        brightness(values[c * seen.pixels + pixel] as number);
      if (channels === 3) return (pixel: number) => [0, 1, 2].map((c) => at(pixel, c));
      return (pixel: number) => {
        let sum = 0;
        for (let c = 0; c < channels; c++) sum += at(pixel, c);
        return [sum / channels, sum / channels, sum / channels];
      };
    };
    const grey: Ramp = (share) => [255 * share, 255 * share, 255 * share];
    const bar = { colors: grey, ...ends(low, high) };
    const name = this.name(seen.of.label ?? 0);
    const asColors = channels === 3 ? "; channels as red, green, blue" : "";
    pictures.image.caps(
      seen.answer ? `input, ${name}${asColors}` : `${nounOf(seen)}, class ${name}`,
    );
    pictures.image.draw(seen, picture(seen.image, byte), bar);
    pictures.attacked.caps(`attacked ${nounOf(seen)}`);
    pictures.attacked.draw(seen, picture(seen.attacked, byte), bar);

    const most = (high - low) / 2 / seen.amplification;
    const zero = seen.perturbation.every((value) => value === 0);
    pictures.perturbation.caps(
      zero
        ? "no perturbation"
        : `perturbation, shown × ${minus(significant(seen.amplification, 2))}`,
    );
    // Kept: to ask for a colour makes the browser work out the styles of the page at once.
    this.colors ??= {
      diverging: ramp(this.element, RAMPS.diverging),
      sequential: ramp(this.element, RAMPS.sequential),
    };
    const { diverging, sequential } = this.colors;
    const share = (value: number) => (zero ? 0.5 : 0.5 + value / (2 * most));
    const colored =
      channels === 3
        ? picture(seen.perturbation, (value) => 255 * share(value))
        : (pixel: number) => {
            let sum = 0;
            for (let c = 0; c < channels; c++) {
              sum += seen.perturbation[c * seen.pixels + pixel] as number;
            }
            return diverging(share(sum / channels));
          };
    const side = minus(significant(most, 2));
    const signed = { colors: channels === 3 ? grey : diverging, low: `−${side}`, high: `+${side}` };
    pictures.perturbation.draw(seen, colored, zero ? undefined : signed);

    const overall = channels > 1 ? ", rms of channels" : "";
    for (const [part, name, text, unit] of [
      [pictures.position, "position_std", "position σx", "input units"],
      [pictures.momentum, "momentum_std", "momentum σp", "1 / input units"],
    ] as const) {
      const values = seen.spread(name);
      part.caps(`${text} (${unit}${overall})`);
      if (!values) {
        part.draw(seen, null);
        continue;
      }
      const [least, largest] = extent(values);
      const span = largest - least || 1;
      part.draw(seen, (pixel) => sequential(((values[pixel] as number) - least) / span), {
        colors: sequential,
        ...ends(least, largest),
      });
    }
    this.showAnswers(Boolean(seen.answer?.pictured));
    this.saying.textContent = seen.answer ? "root mean squared error" : PROBABILITIES;
    if (seen.answer) this.drawAnswer(seen, seen.answer, sequential);
    else this.drawClasses(seen);
    this.point(this.pixel);
  }

  /** The pictures of answers that are images. */
  private showAnswers(there: boolean): void {
    const { target, output, attackedOutput } = this.pictures;
    for (const { element } of [target, output, attackedOutput]) element.hidden = !there;
  }

  private drawAnswer(
    seen: Seen,
    { target, output, attacked, pictured }: Answer,
    colors: Ramp,
  ): void {
    const line = (name: string, text: string) =>
      h("li", {}, h("span", {}, name), h("span", {}), h("span", {}, text));
    const lines = [
      line("clean", this.amount(rootMeanSquare(output, target))),
      line("attacked", this.amount(rootMeanSquare(attacked, target))),
    ];
    if (target.length === 1)
      for (const [name, values] of [
        ["target", target],
        ["says", output],
        ["says attacked", attacked],
      ] as const)
        lines.push(line(name, this.amount(values[0] as number)));
    this.rows.replaceChildren(...lines);
    if (!pictured) return;
    // One scale for all three, so that colours compare.
    const [low, high] = extent(target, output, attacked);
    const bar = { colors, ...ends(low, high) };
    const unit = seen.of.unit ? ` (${seen.of.unit})` : "";
    for (const [part, name, values] of [
      [this.pictures.target, "target", target],
      [this.pictures.output, "output", output],
      [this.pictures.attackedOutput, "output under attack", attacked],
    ] as const) {
      part.caps(name + unit);
      const share = (pixel: number) => ((values[pixel] as number) - low) / (high - low || 1);
      part.draw(seen, (pixel) => colors(share(pixel)), bar);
    }
  }

  /** An amount in the unit of the targets. */
  private amount(value: number): string {
    return `${signed(value, false)} ${this.seen?.of.unit ?? ""}`.trim();
  }

  private drawClasses(seen: Seen): void {
    const bar = (css: string, value: number) => {
      const fill = h("i", { class: css });
      fill.style.width = `${100 * value}%`;
      return fill;
    };
    const shown = seen.leading(BARS);
    this.rows.replaceChildren(
      ...shown.map((c) => {
        const clean = seen.probability[c] as number;
        const attacked = seen.attackedProbability[c] as number;
        const title = `${this.name(c)}: clean ${percent(clean)}, attacked ${percent(attacked)}`;
        return h(
          "li",
          { title, class: c === seen.of.label ? "qw-lens-true" : undefined },
          h("span", {}, this.name(c)),
          h("div", {}, bar("qw-lens-clean", clean), bar("qw-lens-after", attacked)),
          h("span", {}, `${percent(clean, 0)} → ${percent(attacked, 0)}`),
        );
      }),
    );
    const all = seen.probability.length;
    if (all > BARS)
      this.rows.append(h("li", { class: "qw-lens-more" }, `the ${BARS} most probable of ${all}`));
  }

  private tell(): void {
    const { seen, choice, cube } = this;
    const of = seen?.of;
    this.elsewhere = Boolean(of && choice && cube && elsewhere(of, choice, cube));
    const { image = 0, images = 0 } = of ?? {};
    say(this.which, seen ? `${nounOf(seen)} ${image + 1} of ${images}` : "");
    for (const button of [this.back, this.next]) button.disabled = images < 2 || !this.live();
    say(this.missing, cube ? why(this.of, this.live()) : "");
    say(this.note, of ? whose(of) : "");
    this.element.classList.toggle("qw-lens-elsewhere", this.elsewhere);
    if (this.pixel === null) say(this.readout, this.verdict());
  }

  /** What the attack came to, in words. */
  private verdict(): string {
    const { seen } = this;
    if (!seen) return "";
    const radius = minus(setting(seen.of.attack_epsilon ?? 0));
    const stays = "This page has no kernel: the lens stays with this network and image.";
    const rest =
      !this.live() && this.elsewhere
        ? stays
        : seen.of.message || `Point at a ${seen.layout.image ? "pixel" : "coordinate"} to read it.`;
    if (seen.answer) {
      const { target, output, attacked } = seen.answer;
      const [before, after] = [output, attacked].map((v) => this.amount(rootMeanSquare(v, target)));
      return `Clean it is off by ${before}, attacked at radius ${radius} by ${after}. ${rest}`;
    }
    const top = (values: Float32Array) => values.indexOf(extent(values)[1]);
    const [a, b] = [top(seen.probability), top(seen.attackedProbability)];
    const says = (c: number, values: Float32Array) =>
      c < 0 ? "nothing" : `${this.name(c)} (${percent(values[c] as number)})`;
    const before = says(a, seen.probability);
    const after = says(b, seen.attackedProbability);
    const told = `Clean it is read as ${before}, attacked at radius ${radius} as ${after}. `;
    return told + rest;
  }

  private name(c: number): string {
    return this.labels[c] ?? String(c);
  }

  private under(cells: HTMLElement, event: PointerEvent): number | null {
    const { seen } = this;
    if (!seen) return null;
    const { width, height } = seen.layout;
    const box = cells.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * height);
    return x >= 0 && x < width && y >= 0 && y < height ? y * width + x : null;
  }

  private walk(event: KeyboardEvent): void {
    const { seen } = this;
    if (!seen) return;
    const { width, height } = seen.layout;
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, -1],
      ArrowDown: [0, 1],
    };
    const move = steps[event.key];
    if (event.key === "Escape") this.point(null);
    if (!move) return;
    event.preventDefault();
    const now = this.pixel ?? -1;
    const clamp = (value: number, size: number) => Math.min(Math.max(value, 0), size - 1);
    const x = now < 0 ? 0 : clamp((now % width) + move[0], width);
    const y = now < 0 ? 0 : clamp(Math.floor(now / width) + move[1], height);
    this.point(y * width + x);
  }

  private point(pixel: number | null): void {
    const { seen } = this;
    if (!seen) return;
    this.pixel = pixel;
    for (const picture of Object.values(this.pictures)) picture.point(seen, pixel);
    say(this.readout, pixel === null ? this.verdict() : describe(seen, pixel));
  }
}

/** A pixel's numbers in one line. */
export function describe(seen: Seen, pixel: number): string {
  const { width, channels, image } = seen.layout;
  const reading: Reading = seen.at(pixel);
  const channel = (c: number) => (channels === 1 ? "" : `${channels === 3 ? CHANNELS[c] : c} `);
  const list = (values: string[]) => values.map((text, c) => channel(c) + text).join(", ");
  const plain = (values: number[]) => list(values.map((value) => signed(value, false)));
  const place = image
    ? `row ${Math.floor(pixel / width) + 1}, column ${(pixel % width) + 1}`
    : `coordinate ${pixel + 1}`;
  const parts = [
    place,
    `${nounOf(seen)} ${plain(reading.image)}`,
    `perturbation ${list(reading.perturbation.map((value) => signed(value, true)))}`,
    `attacked ${plain(reading.attacked)}`,
  ];
  if (reading.position && reading.momentum) {
    const spread = (values: [number, number][]) =>
      list(values.map((pair) => minus(withError(...pair))));
    parts.push(`σx ${spread(reading.position)}`, `σp ${spread(reading.momentum)}`);
  }
  if (seen.answer?.pictured) {
    const { target, output, attacked } = seen.answer;
    for (const [name, values] of [
      ["target", target],
      ["output", output],
      ["under attack", attacked],
    ] as const)
      parts.push(`${name} ${signed(values[pixel] as number, false)}`);
  }
  return parts.join(" · ");
}

function signed(value: number, plus: boolean): string {
  const text = minus(significant(Math.abs(value), 3));
  return `${value < 0 ? "−" : plus && value > 0 ? "+" : ""}${text}`;
}

/** What an input is called: those of a regression and those without pixels are no images. */
function nounOf({ answer, layout }: Seen): string {
  return answer || !layout.image ? "input" : "image";
}

function whose(of: WireLens): string {
  const { epsilon = 0, regularization = 0, kind, model, epoch = 0 } = of;
  if (kind === "own") return `of ${model}`;
  const what = kind === "refined" ? "refined" : "trained";
  const point = minus(`ε ${setting(epsilon)}, λ ${setting(regularization)}`);
  return `of the ${what} network at ${point}, after epoch ${epoch}`;
}

/** Whether a choice asks for another network, image or attack than was seen. */
function elsewhere(of: WireLens, choice: Choice, cube: Cube): boolean {
  const differs = (a: number | undefined, b: number) => Math.abs((a ?? 0) - b) > 1e-9;
  if (of.label !== choice.label || differs(of.attack_epsilon, choice.attack_epsilon)) return true;
  if (cube.models.length) return of.model !== choice.model;
  const point = cube.place(choice).refined ?? cube.nearest(choice);
  return differs(of.epsilon, point.epsilon) || differs(of.regularization, point.regularization);
}

function why({ state, message, live }: WireLens, kernel: boolean): string {
  if (state === "ready") return "";
  if (message) return message;
  if (live === false) return "This page was written without looking through the lens.";
  return kernel ? "Looking through the lens …" : "There is no kernel to look through the lens.";
}

function step(css: string, text: string, label: string): HTMLButtonElement {
  const shown = `${css} qw-screen-only`;
  return h("button", { type: "button", class: shown, "aria-label": label, disabled: true }, text);
}
