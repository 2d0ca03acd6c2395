// What the attack lens shows, as numbers: pictures of an image, its attack and its spreads.

import type { WireLens } from "./contract";
import { decode } from "./cube";
import { minus, significant } from "./dom";
import type { Table } from "./readings";

/** Digits that single precision has. */
const DIGITS = 7;

/** How an input lies on the screen. What is no image is a row of its coordinates. */
export interface Layout {
  channels: number;
  height: number;
  width: number;
  image: boolean;
}

export function layout(shape: readonly number[]): Layout {
  const [a = 1, b = 1, c = 1] = shape;
  if (shape.length === 3) return { channels: a, height: b, width: c, image: true };
  if (shape.length === 2) return { channels: 1, height: a, width: b, image: true };
  const width = shape.reduce((product, size) => product * size, 1);
  return { channels: 1, height: 1, width, image: false };
}

/** One value and its standard error for each channel of a pixel. */
export interface Reading {
  image: number[];
  perturbation: number[];
  attacked: number[];
  position?: [number, number][];
  momentum?: [number, number][];
}

/** Of a regression: what should be, what the network says, and what it says under attack. */
export interface Answer {
  target: Float32Array;
  output: Float32Array;
  attacked: Float32Array;
  /** Whether they are images with the pixels of the input. */
  pictured: boolean;
}

export class Seen {
  readonly layout: Layout;
  readonly image: Float32Array;
  readonly attacked: Float32Array;
  readonly perturbation: Float32Array;
  /** Empty where there are no classes. */
  readonly probability: Float32Array;
  readonly attackedProbability: Float32Array;
  readonly answer: Answer | null;
  /** How much the perturbation must grow to fill the range of the image on either side. */
  readonly amplification: number;
  private readonly spreads = new Map<string, Float32Array>();

  constructor(readonly of: WireLens) {
    const values = of.values ?? {};
    const read = (name: string) => {
      const array = values[name];
      if (!array) throw new Error(`the lens has no ${name}`);
      return decode(array);
    };
    this.layout = layout(of.shape ?? []);
    this.image = read("image");
    this.attacked = read("attacked");
    this.answer = null;
    this.probability = this.attackedProbability = new Float32Array();
    if (values.target) {
      const { channels, height, width, image } = layout(values.target.shape);
      const { height: rows, width: columns } = this.layout;
      const pictured = image && channels === 1 && height === rows && width === columns;
      const [target, output] = [read("target"), read("output")];
      this.answer = { target, output, attacked: read("attacked_output"), pictured };
    } else {
      this.probability = read("probability");
      this.attackedProbability = read("attacked_probability");
    }
    this.perturbation = this.attacked.map((value, i) => value - (this.image[i] as number));
    const [low, high] = this.range;
    const largest = this.perturbation.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    this.amplification = largest > 0 ? (high - low) / 2 / largest : 1;
    for (const name of ["position_std", "momentum_std"]) {
      for (const each of [name, `${name}_error`])
        if (each in values) this.spreads.set(each, read(each));
    }
  }

  get range(): [number, number] {
    return this.of.range ?? [0, 1];
  }

  get pixels(): number {
    return this.layout.width * this.layout.height;
  }

  spread(name: "position_std" | "momentum_std"): Float32Array | undefined {
    const values = this.spreads.get(name);
    return values && this.overChannels(values);
  }

  /** Everything at one pixel, channel by channel. */
  at(pixel: number): Reading {
    const { channels } = this.layout;
    const each = (values: Float32Array) =>
      Array.from({ length: channels }, (_, c) => values[c * this.pixels + pixel] as number);
    const spread = (name: string) => {
      const [values, errors] = [this.spreads.get(name), this.spreads.get(`${name}_error`)];
      if (!values || !errors) return undefined;
      const error = each(errors);
      return each(values).map((value, c): [number, number] => [value, error[c] as number]);
    };
    const found: Reading = {
      image: each(this.image),
      perturbation: each(this.perturbation),
      attacked: each(this.attacked),
    };
    const [position, momentum] = [spread("position_std"), spread("momentum_std")];
    if (position && momentum) Object.assign(found, { position, momentum });
    return found;
  }

  /** Classes by their larger probability, the most probable first; at most `count` of them, in the
   * order of the classes. */
  leading(count: number): number[] {
    const weight = (c: number) =>
      Math.max(this.probability[c] as number, this.attackedProbability[c] as number);
    return Array.from(this.probability, (_, c) => c)
      .sort((a, b) => weight(b) - weight(a))
      .slice(0, count)
      .sort((a, b) => a - b);
  }

  /** Root mean square over the channels: one number for each pixel. */
  private overChannels(values: Float32Array): Float32Array {
    const { channels } = this.layout;
    if (channels === 1) return values;
    return Float32Array.from({ length: this.pixels }, (_, pixel) => {
      let sum = 0;
      for (let c = 0; c < channels; c++) sum += (values[c * this.pixels + pixel] as number) ** 2;
      return Math.sqrt(sum / channels);
    });
  }
}

/** The smallest and the largest of some values; a spread call of them all ends where the stack does. */
export function extent(...arrays: readonly Float32Array[]): [number, number] {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const values of arrays) {
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return [low, high];
}

/** The two ends of a colour bar, with as many digits as tell them apart. */
export function ends(low: number, high: number): { low: string; high: string } {
  for (let digits = 2; ; digits++) {
    const [first, last] = [significant(low, digits), significant(high, digits)];
    if (first !== last || low === high || digits === DIGITS)
      return { low: minus(first), high: minus(last) };
  }
}

/** Root of the mean squared error of an answer. */
export function rootMeanSquare(values: Float32Array, target: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < target.length; i++)
    sum += ((values[i] as number) - (target[i] as number)) ** 2;
  return Math.sqrt(sum / target.length);
}

/** All that is seen: a row for each channel of a pixel, then one for each class or output. */
export function tableOf(seen: Seen | null, labels: readonly string[]): Table {
  const place = ["row", "column", "channel"];
  const spreads = ["position_std", "position_std_error", "momentum_std", "momentum_std_error"];
  const columns = ["series", ...place, "image", "perturbation", "attacked", ...spreads];
  const rows: Table["rows"] = [];
  if (seen) {
    const { width, channels } = seen.layout;
    for (let pixel = 0; pixel < seen.pixels; pixel++) {
      const { image, perturbation, attacked, position, momentum } = seen.at(pixel);
      for (let c = 0; c < channels; c++) {
        const where = [Math.floor(pixel / width) + 1, (pixel % width) + 1, c + 1];
        const values = [image[c], perturbation[c], attacked[c]];
        const found = [position?.[c], momentum?.[c]].flatMap((pair) => pair ?? [NaN, NaN]);
        rows.push(["pixels", ...where, ...values, ...found]);
      }
    }
    const none = columns.slice(1).map(() => undefined);
    seen.answer?.target.forEach((value, i) => {
      const { output, attacked } = seen.answer as Answer;
      const nothing = [undefined, undefined, undefined];
      rows.push(["outputs", ...none, ...nothing, i + 1, value, output[i], attacked[i]]);
    });
    seen.probability.forEach((value, c) => {
      const name = labels[c] ?? String(c);
      rows.push(["classes", ...none, name, value, seen.attackedProbability[c]]);
    });
  }
  const classes = ["class", "probability", "attacked_probability"];
  const outputs = seen?.answer ? ["coordinate", "target", "output", "attacked_output"] : [];
  return { columns: [...columns, ...classes, ...outputs], rows };
}
