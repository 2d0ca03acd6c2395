// The input plane of two-dimensional data: decision regions, test points, where the attack takes
// them, and the density of the packet. Drawn from what is here: it never waits for the kernel.

import type { WireLens, WireRegions } from "./contract";
import type { Cube } from "./cube";
import { h, minus, say, svg, ticks } from "./dom";
import { Field } from "./field";
import { type Hit, nextOf, type Readable } from "./hover";
import { kindOf, type Quantity, settingsOf, type Table } from "./readings";
import type { Choice, Choices } from "./state";
import { onTheme, parseColor } from "./theme";

/** Okabe and Ito's colours for classes. */
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442"];
const classColor = (c: number) => COLORS[c % COLORS.length] as string;
/** How strongly a sure region is coloured, and the densest place of the packet. */
const REGION = 0.45;
const PACKET = 0.8;
/** Beyond this distance, in pixels, the pointer means no test point but the place under it. */
const REACH = 7;
/** Classes whose probabilities are read at a place, at most. */
const READ = 4;

/** A test point on the screen, in pixels. */
interface Dot {
  x: number;
  y: number;
  point: number;
}

export class InputPlane implements Readable {
  private readonly canvas = h("canvas", { role: "img", "aria-label": "Decision regions" });
  private readonly overlay = svg("svg", { class: "qw-phase-axes", "aria-hidden": "true" });
  private readonly axes = svg("g");
  private readonly marks = svg("g");
  private readonly ring = svg("circle", { class: "qw-looked-at", r: 6.5 });
  private readonly note = h("span", { class: "qw-note" });
  private readonly readout = h("p", { class: "qw-regions-readout" });
  private readonly body = h("div", { class: "qw-regions-body" }, this.canvas, this.overlay);
  readonly area = this.body;
  readonly element = h(
    "section",
    { class: "qw-panel qw-input-plane", "aria-label": "Input plane", hidden: true },
    h("div", { class: "qw-panel-head" }, h("h3", {}, "Input plane"), this.note),
    this.body,
    this.readout,
  );
  private size = { width: 0, height: 0 };
  private readonly observer = new ResizeObserver(([entry]) => {
    if (entry) this.size = entry.contentRect;
    this.recolor();
  });
  private readonly forget = onTheme(() => this.recolor());
  private field: Field | null = null;
  private probabilities: Float32Array | null = null;
  private last: { cube: Cube; choice: Choice } | null = null;
  private lens: WireLens = { state: "empty", message: "" };
  private dots: Dot[] = [];
  private chosen = "in the lens";
  private readonly buffer = document.createElement("canvas");

  constructor(
    private readonly choices: Choices,
    private readonly live: () => boolean,
  ) {
    this.overlay.append(this.axes, this.marks, this.ring);
    this.observer.observe(this.body);
  }

  dispose(): void {
    this.observer.disconnect();
    this.forget();
  }

  setRegions(regions: WireRegions): void {
    this.field = regions.state === "ready" ? new Field(regions) : null;
    this.element.hidden = this.field === null;
    this.recolor();
  }

  /** Ring the point that the lens is seen to look at. */
  setLens(lens: WireLens): void {
    this.lens = lens;
    this.tell();
  }

  /** Say what becomes of a chosen point. */
  setPanels(on: ReadonlySet<string>): void {
    this.chosen = on.has("lens") ? "in the lens" : "chosen";
    this.tell();
  }

  show(cube: Cube, choice: Choice): void {
    this.last = { cube, choice: { ...choice } };
    this.recolor();
  }

  private get frame() {
    const side = Math.min(this.size.width - 62, this.size.height - 56);
    return { left: 48, top: 12, side };
  }

  /** What is drawn, as numbers. */
  table(): Table {
    const { field, last } = this;
    return field && last ? field.table(last.cube, last.choice) : { columns: [], rows: [] };
  }

  /** Draw everything, with the colours that hold now. */
  recolor(): void {
    const { field, last } = this;
    const { left, top, side } = this.frame;
    if (!field || !last || side < 60) return;
    const { cube, choice } = last;
    const place = cube.place(choice);
    // Of a network that came after the last survey nothing is known yet.
    if (Math.max(...place.networks) >= field.networks) return;
    this.probabilities = field.probabilities(place);
    const name = cube.labels[choice.label] ?? "";
    const kind = place.trained ? "" : "interpolated · ";
    say(this.note, `${kind}packet of ${name}, epoch ${field.of.epoch ?? 0}`);
    this.paint(field, cube, choice);
    this.drawAxes(field, left, top, side);
    const scale = (value: number) => ((value - field.low) / (field.high - field.low)) * side;
    const at = ([x, y]: readonly [number, number]) =>
      [left + scale(x), top + side - scale(y)] as const;
    const lines: Node[] = [];
    const dots: Node[] = [];
    this.dots = [];
    field.labels.forEach((label, i) => {
      const from = field.point(i);
      const to = field.moved(cube, place, choice.attack_epsilon, i);
      const [[x, y], [u, v]] = [at(from), at(to)];
      this.dots.push({ x, y, point: i });
      const broken = field.says(this.probabilities as Float32Array, to) !== label;
      if (Math.hypot(u - x, v - y) > 0.5) {
        const css = broken ? "qw-attack qw-attack-broken" : "qw-attack";
        lines.push(svg("line", { class: css, x1: x, y1: y, x2: u, y2: v }));
        dots.push(svg("circle", { class: css, cx: u, cy: v, r: 1.3 }));
      }
      dots.push(
        svg("circle", { class: "qw-test-point", cx: x, cy: y, r: 2.5, fill: classColor(label) }),
      );
    });
    const reference = field.of.references?.[choice.label];
    if (reference) {
      const [x, y] = at(reference as [number, number]);
      dots.push(svg("circle", { class: "qw-window-center", cx: x, cy: y, r: 5 }));
    }
    this.marks.replaceChildren(...lines, ...dots);
    this.tell();
  }

  /** Which of the points the lens shows; -1 for none of them. */
  private get looked(): number {
    const { field, lens } = this;
    if (!field || lens.state !== "ready") return -1;
    const ofClass = (label: number, i: number) =>
      label === lens.label && field.image(i) === lens.image;
    return field.labels.findIndex(ofClass);
  }

  private paint(field: Field, cube: Cube, choice: Choice): void {
    const probabilities = this.probabilities as Float32Array;
    const { size, classes } = field;
    const cells = size * size;
    const style = getComputedStyle(this.element);
    const [back, ink] = ["--qw-panel", "--qw-text"].map((name) =>
      parseColor(style.getPropertyValue(name)),
    ) as [number[], number[]];
    const colors = Array.from({ length: classes }, (_, c) => parseColor(classColor(c)));
    const density = field.density(probabilities, choice.label, cube.width);
    const image = new ImageData(size, size);
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const cell = row * size + column;
        let best = 0;
        for (let c = 1; c < classes; c++) {
          if (
            (probabilities[c * cells + cell] as number) >
            (probabilities[best * cells + cell] as number)
          )
            best = c;
        }
        const sure =
          ((probabilities[best * cells + cell] as number) - 1 / classes) / (1 - 1 / classes);
        const packet = PACKET * (density[cell] as number);
        const color = [0, 1, 2].map((i) => {
          const region = REGION * (0.35 + 0.65 * sure);
          const ground =
            (back[i] as number) * (1 - region) + ((colors[best] as number[])[i] as number) * region;
          return ground * (1 - packet) + (ink[i] as number) * packet;
        });
        // The first row of a picture is its upper end.
        image.data.set([...color, 255], 4 * ((size - 1 - row) * size + column));
      }
    }
    this.buffer.width = size;
    this.buffer.height = size;
    this.buffer.getContext("2d")?.putImageData(image, 0, 0);
    const { left, top, side } = this.frame;
    const ratio = window.devicePixelRatio || 1;
    const pixels = Math.round(side * ratio);
    Object.assign(this.canvas, { width: pixels, height: pixels });
    Object.assign(this.canvas.style, {
      left: `${left}px`,
      top: `${top}px`,
      width: `${side}px`,
      height: `${side}px`,
    });
    const context = this.canvas.getContext("2d");
    if (!context) return;
    context.imageSmoothingQuality = "high";
    // Cells are centred on their points, of which the outermost lie on the frame.
    context.drawImage(this.buffer, 0.5, 0.5, size - 1, size - 1, 0, 0, pixels, pixels);
  }

  private drawAxes(field: Field, left: number, top: number, side: number): void {
    const { width, height } = this.size;
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const parts: Node[] = [
      svg("rect", { class: "qw-frame", x: left, y: top, width: side, height: side }),
    ];
    for (const value of ticks(field.low, field.high, 5)) {
      const along = ((value - field.low) / (field.high - field.low)) * side;
      const [x, y, bottom] = [left + along, top + side - along, top + side];
      parts.push(
        svg("line", { class: "qw-tick", x1: x, x2: x, y1: bottom, y2: bottom + 4 }),
        svg("text", { x, y: bottom + 16, "text-anchor": "middle" }, minus(value)),
        svg("line", { class: "qw-tick", x1: left - 4, x2: left, y1: y, y2: y }),
        svg("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, minus(value)),
      );
    }
    const middle = { "text-anchor": "middle", class: "qw-axis-label" };
    parts.push(
      svg(
        "text",
        { x: left + side / 2, y: top + side + 33, ...middle },
        "first coordinate (input units)",
      ),
      svg(
        "text",
        { transform: `translate(13 ${top + side / 2}) rotate(-90)`, ...middle },
        "second coordinate (input units)",
      ),
    );
    this.axes.replaceChildren(...parts);
  }

  read(x: number, y: number): Hit | null {
    const { field } = this;
    if (!field) return null;
    let best: Dot | null = null;
    let least = REACH;
    for (const dot of this.dots) {
      const distance = Math.hypot(dot.x - x, dot.y - y);
      if (distance <= least) [best, least] = [dot, distance];
    }
    if (best) return this.atPoint(best);
    const { left, top, side } = this.frame;
    const [across, up] = [(x - left) / side, (top + side - y) / side];
    if (!(across >= 0 && across <= 1 && up >= 0 && up <= 1)) return null;
    const value = (share: number) => field.low + share * (field.high - field.low);
    return this.atPlace(x, y, [value(across), value(up)]);
  }

  step(from: Hit | null, dx: number, dy: number): Hit | null {
    const first = this.dots[Math.max(this.looked, 0)];
    const dot = from ? nextOf(this.dots, from, [dx, dy]) : first;
    return dot ? this.atPoint(dot) : from;
  }

  /** What is said of a test point, before and after its attack. */
  private atPoint({ x, y, point }: Dot): Hit | null {
    const { field, probabilities, last } = this;
    if (!field || !probabilities || !last) return null;
    const { cube, choice } = last;
    const from = field.point(point);
    const to = field.moved(cube, cube.place(choice), choice.attack_epsilon, point);
    const label = field.labels[point] as number;
    const [clean, attacked] = [from, to].map((place) => field.said(probabilities, place)) as [
      number[],
      number[],
    ];
    const [before, after] = [from, to].map((place) => field.says(probabilities, place));
    const name = (c = 0) => cube.labels[c] ?? String(c);
    const change =
      before === after
        ? `read as ${name(before)}, clean and attacked`
        : `read as ${name(before)}, attacked as ${name(after)}`;
    const hit = this.hit(x, y, from, [
      share("p clean", clean[label] as number),
      share("p attacked", attacked[label] as number),
    ]);
    if (!hit) return null;
    Object.assign(hit.reading, { label: name(label), attack: choice.attack_epsilon, note: change });
    if (!this.live()) return hit;
    hit.reading.note = `${change}. ${point === this.looked ? "It is" : "Click or Enter:"} ${this.chosen}`;
    return { ...hit, choose: () => this.choices.choose({ label, image: field.image(point) }) };
  }

  /** What is said of any place. */
  private atPlace(x: number, y: number, place: [number, number]): Hit | null {
    const { field, probabilities, last } = this;
    if (!field || !probabilities || !last) return null;
    const said = field.said(probabilities, place).slice(0, READ);
    return this.hit(
      x,
      y,
      place,
      said.map((value, c) => share(last.cube.labels[c] ?? String(c), value)),
    );
  }

  private hit(
    x: number,
    y: number,
    [first, second]: [number, number],
    said: Quantity[],
  ): Hit | null {
    const { field, last } = this;
    if (!field || !last) return null;
    const { cube, choice } = last;
    const epoch = field.of.epoch ?? 0;
    const place = cube.place(choice);
    const coordinate = (name: string, symbol: string, value: number): Quantity => ({
      ...{ name, symbol, value },
      unit: "input units",
      error: Number.NaN,
    });
    return {
      x,
      y,
      reading: {
        kind: kindOf(cube, place, epoch),
        ...settingsOf(cube, place, choice),
        epoch,
        quantities: [coordinate("x", "x₁", first), coordinate("y", "x₂", second), ...said],
      },
    };
  }

  /** Say what the attack came to, and ring the point that is in the lens. */
  private tell(): void {
    const { field, probabilities, last } = this;
    if (!field || !probabilities || !last) return;
    const { cube, choice } = last;
    const place = cube.place(choice);
    const misread = field.labels.reduce((count, label, i) => {
      const to = field.moved(cube, place, choice.attack_epsilon, i);
      return count + (field.says(probabilities, to) === label ? 0 : 1);
    }, 0);
    const seen = this.dots[this.looked];
    this.ring.setAttribute("visibility", seen ? "visible" : "hidden");
    if (seen) {
      this.ring.setAttribute("cx", String(seen.x));
      this.ring.setAttribute("cy", String(seen.y));
    }
    const ring = seen ? `; the ringed one is ${this.chosen}` : "";
    say(
      this.readout,
      `${misread} of ${field.labels.length} points shown are misread after the attack${ring}`,
    );
  }
}

/** A probability, without a standard error. */
const share = (symbol: string, value: number): Quantity => ({
  name: `probability of ${symbol}`,
  symbol,
  unit: "%",
  value,
  error: Number.NaN,
});
