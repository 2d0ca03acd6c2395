// Phase space of the packet along the attack: Wigner heat map on a canvas, both marginals in SVG.

import { type Cube, type Place, single } from "./cube";
import { h, minus, svg, ticks } from "./dom";
import type { Hit, Readable } from "./hover";
import { kindOf, type Quantity, type Reading, settingsOf, type Table } from "./readings";
import type { Choice } from "./state";
import { onTheme, parseColor } from "./theme";
import { PhaseTransform } from "./wigner";

/** Rows of the picture; it is even in the momentum, so that half of them are computed. */
const HALF_ROWS = 40;
const ROWS = 2 * HALF_ROWS + 1;
/** |W| of a unit packet never exceeds 1 / pi: a fixed colour scale for every network. */
const LIMIT = 1 / Math.PI;
/** Colour follows |W|^GAMMA, so that the faint negative parts can be seen; the bar shows it. */
const GAMMA = 0.6;
/** Colours on either side of zero. */
const SHADES = 1023;
/** Half the position axis, in window widths: as far as the packets are sent. */
const SPAN = 5;
/** Values that the colour bar names. */
const BAR_TICKS = [-0.3, -0.1, -0.01, 0, 0.01, 0.1, 0.3];
/** Shade of a value, -1 to 1. */
const shadeOf = (w: number) => Math.sign(w) * (Math.abs(w) / LIMIT) ** GAMMA;

let serial = 0;

interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** What is on the screen, for those who read its values. */
interface Shown {
  cube: Cube;
  choice: Choice;
  place: Place;
  frame: Frame;
  span: number;
  kMax: number;
  /** Rows of the momenta from 0 upwards. */
  wigner: Float32Array;
  density: Record<"now" | "reference", Float32Array>;
  spectrum: Record<"now" | "reference", Float32Array>;
}

export class PhaseSpace implements Readable {
  readonly element = h("div", { class: "qw-phase-body" });
  readonly area = this.element;
  private readonly canvas = h("canvas", {
    class: "qw-phase-canvas",
    role: "img",
    "aria-label": "Wigner function",
    // Until it has its place.
    hidden: true,
  });
  private readonly overlay = svg("svg", { class: "qw-phase-axes", "aria-hidden": "true" });
  private readonly axes = svg("g");
  private readonly paths = {
    positionReference: svg("path", { class: "qw-reference-line" }),
    position: svg("path", { class: "qw-now-area" }),
    momentumReference: svg("path", { class: "qw-reference-line" }),
    momentum: svg("path", { class: "qw-now-area" }),
  };
  private palette: Uint32Array | null = null;
  private readonly buffer = document.createElement("canvas");
  /** Known from the observer: to ask the element would make the browser lay out the page at once,
   * in the middle of a slider's move. */
  private size = { width: 0, height: 0 };
  private readonly observer = new ResizeObserver(([entry]) => {
    if (entry) this.size = entry.contentRect;
    this.redraw();
  });
  private readonly forget = onTheme(() => this.recolor());
  private last: { cube: Cube; choice: Choice } | null = null;
  private shown: Shown | null = null;
  private readonly barColors = `qw-wigner-colors-${++serial}`;
  private axesKey = "";
  private momenta: number[] = [];
  private transform: PhaseTransform | null = null;

  constructor() {
    this.overlay.append(this.axes, ...Object.values(this.paths));
    this.element.append(this.canvas, this.overlay);
    this.observer.observe(this.element);
  }

  show(cube: Cube, choice: Choice): void {
    this.last = { cube, choice };
    this.redraw();
  }

  dispose(): void {
    this.observer.disconnect();
    this.forget();
  }

  /** Paint with the colours that hold now. */
  recolor(): void {
    this.palette = null;
    this.redraw();
  }

  read(x: number, y: number): Hit | null {
    const { shown } = this;
    if (!shown) return null;
    const { frame, cube, span, kMax } = shown;
    const across = (x - frame.left) / frame.width;
    const up = 1 - (y - frame.top) / frame.height;
    const n = cube.t.length;
    const [first, last] = [cube.t[0] as number, cube.t[n - 1] as number];
    const column = Math.round((((2 * across - 1) * span - first) / (last - first)) * (n - 1));
    const row = Math.round((2 * up - 1) * HALF_ROWS);
    const t = cube.t[column];
    const inColumn = t !== undefined && across >= -0.01 && across <= 1.01;
    const inRow = Math.abs(row) <= HALF_ROWS;
    const k = (kMax * row) / HALF_ROWS;
    const position: Quantity = number("t", "t", "input units", t ?? Number.NaN);
    const momentum: Quantity = number("k", "k", "1 / input units", k);
    const hit = (reading: Reading): Hit => ({
      x: inColumn ? frame.left + ((t + span) / (2 * span)) * frame.width : x,
      y: inRow ? frame.top + (0.5 - row / (2 * HALF_ROWS)) * frame.height : y,
      reading,
    });
    if (inColumn && inRow) {
      const value = shown.wigner[Math.abs(row) * n + column] as number;
      return hit(this.reading(shown, position, momentum, number("wigner", "W", "ħ = 1", value)));
    }
    if (inColumn && y < frame.top) {
      const value = shown.density.now[column] as number;
      return hit(
        this.reading(shown, position, number("density", "|ψ(t)|²", "1 / input units", value)),
      );
    }
    if (inRow && across > 1) {
      const value = shown.spectrum.now[Math.abs(row)] as number;
      return hit(this.reading(shown, momentum, number("density", "|ψ(k)|²", "input units", value)));
    }
    return null;
  }

  step(from: Hit | null, dx: number, dy: number): Hit | null {
    const { shown } = this;
    if (!shown) return null;
    const { frame, span, cube } = shown;
    const [x, y] = from
      ? [from.x, from.y]
      : [frame.left + frame.width / 2, frame.top + frame.height / 2];
    if (!from) return this.read(x, y);
    const n = cube.t.length;
    const step = ((cube.t[n - 1] as number) - (cube.t[0] as number)) / (n - 1);
    const cell = [(frame.width * step) / (2 * span), frame.height / (2 * HALF_ROWS)] as const;
    // Some cells at a time: a map of this size is not read cell by cell.
    return this.read(x + 4 * dx * cell[0], y + 4 * dy * cell[1]) ?? from;
  }

  /** The map and both marginals, a row for each number. */
  table(): Table {
    const { shown } = this;
    const rows: Table["rows"] = [];
    if (shown) {
      const { cube, span, kMax, wigner, density, spectrum } = shown;
      const n = cube.t.length;
      const near = cube.t.flatMap((t, i) => (Math.abs(t) <= span ? [[t, i] as const] : []));
      for (const name of ["now", "reference"] as const) {
        for (const [t, i] of near) rows.push([`density, ${name}`, t, undefined, density[name][i]]);
        for (let r = -HALF_ROWS; r <= HALF_ROWS; r++) {
          const value = spectrum[name][Math.abs(r)];
          rows.push([`density, ${name}`, undefined, (kMax * r) / HALF_ROWS, value]);
        }
      }
      for (let r = -HALF_ROWS; r <= HALF_ROWS; r++) {
        for (const [t, i] of near) {
          rows.push(["wigner", t, (kMax * r) / HALF_ROWS, wigner[Math.abs(r) * n + i]]);
        }
      }
    }
    return { columns: ["series", "t", "k", "value"], rows };
  }

  private reading({ cube, choice, place }: Shown, ...quantities: Quantity[]): Reading {
    return {
      kind: kindOf(cube, place, choice.epoch),
      ...settingsOf(cube, place, choice),
      epoch: cube.epochOf(place, choice.epoch),
      label: cube.labels[choice.label] ?? "–",
      quantities,
      note: "of one reference image: no standard error",
    };
  }

  private redraw(): void {
    const { width, height } = this.size;
    if (!this.last || width < 80 || height < 80) return;
    const { cube, choice } = this.last;
    const frame: Frame = { left: 48, top: 46, width: width - 48 - 110, height: height - 46 - 42 };
    const span = SPAN * cube.width;
    const kMax = cube.momentumLimit;
    this.drawAxes(frame, width, height, span, kMax);
    if (!this.transform || this.momenta[HALF_ROWS] !== kMax) {
      this.momenta = Array.from({ length: HALF_ROWS + 1 }, (_, r) => (kMax * r) / HALF_ROWS);
      this.transform = new PhaseTransform(cube.t, this.momenta);
    }

    const place = cube.place(choice);
    const psi = cube.packet(place, choice.epoch, choice.label);
    const reference = cube.packet(single(0), choice.epoch, choice.label);
    const wigner = this.transform.wigner(psi);
    this.drawHeat(frame, wigner, cube.t, span);

    const density = psi.map((value) => value * value);
    const densityReference = reference.map((value) => value * value);
    const spectrum = this.transform.momentumDensity(psi);
    const spectrumReference = this.transform.momentumDensity(reference);
    const peakX = Math.max(...density, ...densityReference);
    const peakK = Math.max(...spectrum, ...spectrumReference);
    const rise = frame.top - 8;
    const side = 40;
    const along = (values: Float32Array) => {
      const path: number[] = [];
      for (let i = 0; i < values.length; i++) {
        const t = cube.t[i] as number;
        if (Math.abs(t) > span) continue;
        path.push(frame.left + ((t + span) / (2 * span)) * frame.width);
        path.push(frame.top - 2 - (rise * (values[i] as number)) / peakX);
      }
      return line(path);
    };
    const across = (values: Float32Array) => {
      const path: number[] = [];
      for (let r = -HALF_ROWS; r <= HALF_ROWS; r++) {
        const value = values[Math.abs(r)] as number;
        path.push(frame.left + frame.width + 3 + (side * value) / peakK);
        path.push(frame.top + (0.5 - r / (2 * HALF_ROWS)) * frame.height);
      }
      return line(path);
    };
    this.paths.position.setAttribute("d", along(density));
    this.paths.positionReference.setAttribute("d", along(densityReference));
    this.paths.momentum.setAttribute("d", across(spectrum));
    this.paths.momentumReference.setAttribute("d", across(spectrumReference));
    this.shown = {
      cube,
      choice: { ...choice },
      place,
      frame,
      span,
      kMax,
      wigner,
      density: { now: density, reference: densityReference },
      spectrum: { now: spectrum, reference: spectrumReference },
    };
  }

  /** `w` holds the rows of the momenta from 0 upwards. */
  private drawHeat(frame: Frame, w: Float32Array, t: readonly number[], span: number): void {
    const n = t.length;
    const step = ((t[n - 1] as number) - (t[0] as number)) / (n - 1);
    this.palette ??= this.readPalette();
    const { palette } = this;
    const image = new ImageData(n, ROWS);
    const pixels = new Uint32Array(image.data.buffer);
    const scale = SHADES / LIMIT;
    for (let r = 0; r <= HALF_ROWS; r++) {
      const above = (HALF_ROWS - r) * n;
      const below = (HALF_ROWS + r) * n;
      for (let i = 0; i < n; i++) {
        const shade = Math.round((w[r * n + i] as number) * scale);
        const color = palette[SHADES + Math.max(-SHADES, Math.min(SHADES, shade))] as number;
        pixels[above + i] = color;
        pixels[below + i] = color;
      }
    }
    if (this.buffer.width !== n) this.buffer.width = n;
    if (this.buffer.height !== ROWS) this.buffer.height = ROWS;
    this.buffer.getContext("2d")?.putImageData(image, 0, 0);
    const ratio = window.devicePixelRatio || 1;
    const size = [Math.round(frame.width * ratio), Math.round(frame.height * ratio)] as const;
    if (this.canvas.width !== size[0]) this.canvas.width = size[0];
    if (this.canvas.height !== size[1]) this.canvas.height = size[1];
    const context = this.canvas.getContext("2d");
    if (!context) return;
    // Its edges are not quite opaque: what was drawn before must not show through.
    context.globalCompositeOperation = "copy";
    context.imageSmoothingEnabled = true;
    // The part of the packet's own grid that the axis shows; cells are centred on their points.
    const first = ((-span - (t[0] as number)) / step + 0.5) as number;
    context.drawImage(this.buffer, first, 0.5, (2 * span) / step, ROWS - 1, 0, 0, size[0], size[1]);
  }

  private drawAxes(frame: Frame, width: number, height: number, span: number, kMax: number): void {
    const key = [width, height, span, kMax].join();
    if (key === this.axesKey) return;
    this.axesKey = key;
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.canvas.hidden = false;
    const { style } = this.canvas;
    style.left = `${frame.left}px`;
    style.top = `${frame.top}px`;
    style.width = `${frame.width}px`;
    style.height = `${frame.height}px`;
    const bottom = frame.top + frame.height;
    const parts: Node[] = [
      svg("rect", {
        class: "qw-frame",
        x: frame.left,
        y: frame.top,
        width: frame.width,
        height: frame.height,
      }),
      svg(
        "text",
        {
          x: frame.left + frame.width / 2,
          y: height - 6,
          "text-anchor": "middle",
          class: "qw-axis-label",
        },
        "position along the attack t (input units)",
      ),
      svg(
        "text",
        {
          transform: `translate(13 ${frame.top + frame.height / 2}) rotate(-90)`,
          "text-anchor": "middle",
          class: "qw-axis-label",
        },
        "momentum k (1 / input units)",
      ),
    ];
    for (const t of ticks(-span, span, 5)) {
      const x = frame.left + ((t + span) / (2 * span)) * frame.width;
      parts.push(
        svg("line", { class: "qw-tick", x1: x, x2: x, y1: bottom, y2: bottom + 4 }),
        svg("text", { x, y: bottom + 16, "text-anchor": "middle" }, minus(t)),
      );
    }
    for (const k of ticks(-kMax, kMax, 5)) {
      const y = frame.top + (1 - (k + kMax) / (2 * kMax)) * frame.height;
      parts.push(
        svg("line", { class: "qw-tick", x1: frame.left - 4, x2: frame.left, y1: y, y2: y }),
        svg("text", { x: frame.left - 7, y: y + 4, "text-anchor": "end" }, minus(k)),
      );
    }
    this.axes.replaceChildren(...parts, this.colorBar(frame));
  }

  /** What the colours mean: even steps of shade, so that the values stand where they look alike. */
  private colorBar(frame: Frame): SVGElement {
    const x = frame.left + frame.width + 58;
    const at = (shade: number) => frame.top + (0.5 - shade / 2) * frame.height;
    const stop = (shade: number, color: string) =>
      svg("stop", { offset: (1 - shade) / 2, style: `stop-color: var(--qw-${color})` });
    const gradient = svg(
      "linearGradient",
      { id: this.barColors, x1: 0, y1: 0, x2: 0, y2: 1 },
      stop(1, "deep"),
      stop(0.6, "positive"),
      stop(0, "panel"),
      stop(-1, "negative"),
    );
    const bar = svg("rect", {
      class: "qw-wigner-bar",
      style: `fill: url(#${this.barColors})`,
      x,
      y: frame.top,
      width: 9,
      height: frame.height,
    });
    const labels = BAR_TICKS.flatMap((w) => {
      const y = at(shadeOf(w));
      return [
        svg("line", { class: "qw-tick", x1: x + 9, x2: x + 12, y1: y, y2: y }),
        svg("text", { x: x + 15, y: y + 4 }, minus(w)),
      ];
    });
    const title = svg(
      "text",
      { x: x + 40, y: frame.top - 10, "text-anchor": "end", class: "qw-axis-label" },
      "W (ħ = 1)",
    );
    return svg("g", { class: "qw-wigner-scale" }, gradient, bar, ...labels, title);
  }

  /** Colours from the theme's negative through its background to its positive, each as the four
   * bytes of a pixel. */
  private readPalette(): Uint32Array {
    const style = getComputedStyle(this.element);
    const read = (name: string) => parseColor(style.getPropertyValue(name));
    const [low, zero, high, deep] = [
      read("--qw-negative"),
      read("--qw-panel"),
      read("--qw-positive"),
      read("--qw-deep"),
    ];
    const out = new Uint8ClampedArray(4 * (2 * SHADES + 1));
    for (let c = -SHADES; c <= SHADES; c++) {
      const shade = shadeOf((c / SHADES) * LIMIT);
      const mix = (a: number[], b: number[], w: number) =>
        a.map((v, i) => v + ((b[i] as number) - v) * w);
      const color =
        shade < 0
          ? mix(zero, low, -shade)
          : shade < 0.6
            ? mix(zero, high, shade / 0.6)
            : mix(high, deep, (shade - 0.6) / 0.4);
      out.set([...color, 255], 4 * (SHADES + c));
    }
    return new Uint32Array(out.buffer);
  }
}

/** A number without a standard error. */
const number = (name: string, symbol: string, unit: string, value: number): Quantity => ({
  name,
  symbol,
  unit,
  value,
  error: Number.NaN,
});

/** SVG path through x, y, x, y, ..., to a tenth of a pixel. */
function line(path: number[]): string {
  return `M${path.map((value) => Math.round(10 * value) / 10).join(" ")}`;
}
