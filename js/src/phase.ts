// Phase space of the packet along the attack: Wigner heat map on a canvas, both marginals in SVG.

import { type Cube, single } from "./cube";
import { h, svg, ticks } from "./dom";
import type { Choice } from "./state";
import { momentumDensity, wigner } from "./wigner";

const ROWS = 81;
/** |W| of a unit packet never exceeds 1 / pi: a fixed colour scale for every network. */
const LIMIT = 1 / Math.PI;
/** Colour follows |W|^GAMMA, so that the faint negative parts can be seen; the bar shows it. */
const GAMMA = 0.6;
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
  private palette: Uint8ClampedArray | null = null;
  private readonly buffer = document.createElement("canvas");
  private readonly observer = new ResizeObserver(() => this.redraw(true));
  private readonly themes = new MutationObserver(() => this.onTheme());
  private readonly scheme = matchMedia("(prefers-color-scheme: dark)");
  private last: { cube: Cube; choice: Choice } | null = null;
  private axesKey = "";

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
    this.redraw(false);
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
      this.redraw(false);
    });
  };

  private redraw(resized: boolean): void {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!this.last || width < 80 || height < 80) return;
    const { cube, choice } = this.last;
    const frame: Frame = { left: 48, top: 46, width: width - 48 - 50, height: height - 46 - 42 };
    if (resized) this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const span = SPAN * cube.width;
    const kMax = cube.momentumLimit;
    this.drawAxes(frame, width, height, span, kMax);

    const place = cube.place(choice.epsilon, choice.regularization);
    const psi = cube.packet(place, choice.epoch, choice.label);
    const reference = cube.packet(single(0), choice.epoch, choice.label);
    const k = Array.from({ length: ROWS }, (_, r) => kMax * ((2 * r) / (ROWS - 1) - 1));
    this.drawHeat(frame, psi, cube.t, k, span);

    const x = (t: number) => frame.left + ((t + span) / (2 * span)) * frame.width;
    const y = (value: number) => frame.top + (1 - (value + kMax) / (2 * kMax)) * frame.height;
    const spectrum = momentumDensity(psi, cube.t, k);
    const spectrumReference = momentumDensity(reference, cube.t, k);
    const peakX = Math.max(...psi.map((v) => v * v), ...reference.map((v) => v * v));
    const peakK = Math.max(...spectrum, ...spectrumReference);
    const rise = frame.top - 8;
    const side = 40;
    const along = (packet: Float32Array) =>
      line(
        cube.t
          .map((t, i): [number, number] => [t, (packet[i] as number) ** 2])
          .filter(([t]) => Math.abs(t) <= span)
          .map(([t, v]) => [x(t), frame.top - 2 - (rise * v) / peakX]),
      );
    const across = (density: Float32Array) =>
      line(
        k.map((value, i) => [
          frame.left + frame.width + 3 + (side * (density[i] as number)) / peakK,
          y(value),
        ]),
      );
    this.paths.position.setAttribute("d", along(psi));
    this.paths.positionReference.setAttribute("d", along(reference));
    this.paths.momentum.setAttribute("d", across(spectrum));
    this.paths.momentumReference.setAttribute("d", across(spectrumReference));
  }

  private drawHeat(
    frame: Frame,
    psi: Float32Array,
    t: readonly number[],
    k: number[],
    span: number,
  ): void {
    const step = ((t[t.length - 1] as number) - (t[0] as number)) / (t.length - 1);
    const w = wigner(psi, step, k);
    const n = t.length;
    this.palette ??= this.readPalette();
    const image = new ImageData(n, ROWS);
    for (let r = 0; r < ROWS; r++) {
      for (let i = 0; i < n; i++) {
        const value = (w[(ROWS - 1 - r) * n + i] as number) / LIMIT;
        const shade = Math.sign(value) * Math.min(Math.abs(value), 1) ** GAMMA;
        const c = 4 * Math.round(128 + 127 * shade);
        image.data.set(this.palette.subarray(c, c + 4), 4 * (r * n + i));
      }
    }
    this.buffer.width = n;
    this.buffer.height = ROWS;
    this.buffer.getContext("2d")?.putImageData(image, 0, 0);
    const ratio = window.devicePixelRatio || 1;
    const { style } = this.canvas;
    style.left = `${frame.left}px`;
    style.top = `${frame.top}px`;
    style.width = `${frame.width}px`;
    style.height = `${frame.height}px`;
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

  /** 256 colours from the theme's negative through its background to its positive colour. */
  private readPalette(): Uint8ClampedArray {
    const style = getComputedStyle(this.element);
    const read = (name: string) => parseColor(style.getPropertyValue(name));
    const [low, zero, high, deep] = [
      read("--qw-negative"),
      read("--qw-panel"),
      read("--qw-positive"),
      read("--qw-deep"),
    ];
    const out = new Uint8ClampedArray(4 * 256);
    for (let c = 0; c < 256; c++) {
      const shade = (c - 128) / 127;
      const mix = (a: number[], b: number[], w: number) =>
        a.map((v, i) => v + ((b[i] as number) - v) * w);
      const color =
        shade < 0
          ? mix(zero, low, -shade)
          : shade < 0.6
            ? mix(zero, high, shade / 0.6)
            : mix(high, deep, (shade - 0.6) / 0.4);
      out.set([...color, 255], 4 * c);
    }
    return out;
  }
}

function parseColor(text: string): number[] {
  const hex = text.trim().replace("#", "");
  return [0, 2, 4].map((i) => Number.parseInt(hex.slice(i, i + 2), 16));
}

function line(points: [number, number][]): string {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}
