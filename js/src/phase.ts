// Phase space of the packet along the attack: Wigner heat map on a canvas, both marginals in SVG.

import { type Cube, single } from "./cube";
import { h, svg, ticks } from "./dom";
import type { Choice } from "./state";
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

interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
}

export class PhaseSpace {
  readonly element = h("div", { class: "qw-phase-body" });
  private readonly canvas = h("canvas", { role: "img", "aria-label": "Wigner function" });
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
  private readonly themes = new MutationObserver(() => this.onTheme());
  private readonly scheme = matchMedia("(prefers-color-scheme: dark)");
  private last: { cube: Cube; choice: Choice } | null = null;
  private axesKey = "";
  private momenta: number[] = [];
  private transform: PhaseTransform | null = null;

  constructor() {
    this.overlay.append(this.axes, ...Object.values(this.paths));
    this.element.append(this.canvas, this.overlay);
    this.observer.observe(this.element);
    this.themes.observe(document.body, {
      attributes: true,
      attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"],
    });
    this.scheme.addEventListener("change", this.onTheme);
  }

  show(cube: Cube, choice: Choice): void {
    this.last = { cube, choice };
    this.redraw();
  }

  dispose(): void {
    this.observer.disconnect();
    this.themes.disconnect();
    this.scheme.removeEventListener("change", this.onTheme);
  }

  /** Colours are read in the next frame, once the new style sheet holds. */
  private readonly onTheme = () => {
    requestAnimationFrame(() => {
      this.palette = null;
      this.redraw();
    });
  };

  private redraw(): void {
    const { width, height } = this.size;
    if (!this.last || width < 80 || height < 80) return;
    const { cube, choice } = this.last;
    const frame: Frame = { left: 48, top: 46, width: width - 48 - 50, height: height - 46 - 42 };
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
    this.drawHeat(frame, this.transform.wigner(psi), cube.t, span);

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
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    // The part of the packet's own grid that the axis shows; cells are centred on their points.
    const first = ((-span - (t[0] as number)) / step + 0.5) as number;
    context.drawImage(this.buffer, first, 0.5, (2 * span) / step, ROWS - 1, 0, 0, size[0], size[1]);
  }

  private drawAxes(frame: Frame, width: number, height: number, span: number, kMax: number): void {
    const key = [width, height, span, kMax].join();
    if (key === this.axesKey) return;
    this.axesKey = key;
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
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
        svg("text", { x, y: bottom + 16, "text-anchor": "middle" }, String(t).replace("-", "−")),
      );
    }
    for (const k of ticks(-kMax, kMax, 5)) {
      const y = frame.top + (1 - (k + kMax) / (2 * kMax)) * frame.height;
      parts.push(
        svg("line", { class: "qw-tick", x1: frame.left - 4, x2: frame.left, y1: y, y2: y }),
        svg(
          "text",
          { x: frame.left - 7, y: y + 4, "text-anchor": "end" },
          String(k).replace("-", "−"),
        ),
      );
    }
    this.axes.replaceChildren(...parts);
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
      const shade = Math.sign(c) * (Math.abs(c) / SHADES) ** GAMMA;
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

export function parseColor(text: string): number[] {
  const hex = text.trim().replace("#", "");
  return [0, 2, 4].map((i) => Number.parseInt(hex.slice(i, i + 2), 16));
}

/** SVG path through x, y, x, y, ..., to a tenth of a pixel. */
function line(path: number[]): string {
  return `M${path.map((value) => Math.round(10 * value) / 10).join(" ")}`;
}
