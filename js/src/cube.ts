// The numbers of a sweep in the browser, and their interpolation between trained networks.

import type { RefinedMessage, WireArray, WireCube, WireRefined } from "./contract";

/** IEEE half precision to double; browsers without Float16Array need it spelt out. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

let halves: Float32Array | undefined;

export function decode({ dtype, shape, data }: WireArray): Float32Array {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  decodeInto(values, dtype, data);
  return values;
}

function decodeInto(target: Float32Array, dtype: WireArray["dtype"], data: DataView): void {
  // Buffers from a socket need not be aligned, so bytes are copied before they are read as numbers.
  const bytes = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
  if (dtype === "float32") {
    target.set(new Float32Array(bytes));
    return;
  }
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => fromHalf(bits));
  const table = halves;
  new Uint16Array(bytes).forEach((bits, i) => {
    target[i] = table[bits] as number;
  });
}

/** Grid values along one slider. Equal steps of `position` are equal steps of the slider. */
export class Axis {
  constructor(
    readonly values: readonly number[],
    readonly spacing: "linear" | "log",
  ) {}

  get last(): number {
    return this.values.length - 1;
  }

  /** Value at a fractional grid position; geometric between positive values of a log axis. */
  value(position: number): number {
    const i = Math.min(Math.max(Math.floor(position), 0), Math.max(this.last - 1, 0));
    const a = this.values[i] as number;
    const b = this.values[Math.min(i + 1, this.last)] as number;
    const w = Math.min(Math.max(position - i, 0), 1);
    if (w === 0) return a;
    if (w === 1) return b;
    return this.spacing === "log" && a > 0 ? a * (b / a) ** w : a + (b - a) * w;
  }

  /** Fractional grid position of a value, clamped to the grid; the inverse of `value`. */
  position(value: number): number {
    const { values, last } = this;
    if (!(value > (values[0] as number))) return 0;
    if (value >= (values[last] as number)) return last;
    let i = 0;
    while ((values[i + 1] as number) <= value) i++;
    const a = values[i] as number;
    const b = values[i + 1] as number;
    const w =
      this.spacing === "log" && a > 0
        ? Math.log(value / a) / Math.log(b / a)
        : (value - a) / (b - a);
    // A grid value that went through text or single precision is still that grid point.
    const position = i + w;
    const nearest = Math.round(position);
    return Math.abs(position - nearest) < 1e-6 ? nearest : position;
  }
}

/** Networks that a point of the (epsilon, regularization) surface is read from. */
export interface Place {
  networks: readonly number[];
  weights: readonly number[];
  /** True at a grid point: the numbers are one trained network's, not an interpolation. */
  trained: boolean;
  /** The refined network whose point it is. */
  refined?: Refined;
}

/** What says where a person is among the networks. */
export interface Point {
  epsilon: number;
  regularization: number;
  model: string;
}

/** A network between those of the grid; it comes behind them in the numbering. */
export interface Refined {
  epsilon: number;
  regularization: number;
  epochs: number;
  finished: number;
  complete: boolean;
  stored: Map<string, Float32Array>;
}

const near = (a: number, b: number) => Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b));

/** One trained network as a place, by its index in the grid. */
export const single = (network: number): Place => ({
  networks: [network],
  weights: [1],
  trained: true,
});

interface Stored {
  data: Float32Array;
  dtype: WireArray["dtype"];
  /** Numbers per epoch. */
  block: number;
  /** Numbers per network and epoch. */
  tail: number;
}

export class Cube {
  readonly epsilon: Axis;
  readonly regularization: Axis;
  readonly attack: Axis;
  readonly labels: readonly string[];
  /** What a label is: a class, or a group of inputs. */
  readonly group: string;
  readonly t: readonly number[];
  readonly epochs: number;
  readonly width: number;
  /** Those of the grid, or models of one's own. */
  readonly networks: number;
  readonly models: readonly string[];
  readonly refined: Refined[] = [];
  /** All networks that were trained to their end. */
  dots: readonly Place[];
  finished: number;
  momentumLimit: number;
  excessLimit: number;
  private readonly stored = new Map<string, Stored>();
  private readonly kept: readonly number[] | undefined;

  constructor(wire: WireCube) {
    this.epsilon = new Axis(wire.axes.epsilon, "linear");
    this.regularization = new Axis(wire.axes.regularization, "log");
    this.attack = new Axis(wire.axes.attack_epsilon, "linear");
    this.labels = wire.axes.label;
    this.group = wire.group;
    this.t = wire.axes.t;
    this.kept = wire.axes.epoch;
    this.epochs = wire.epochs;
    this.width = wire.width;
    this.finished = wire.finished;
    this.momentumLimit = wire.momentum_limit;
    this.excessLimit = wire.excess_limit;
    this.models = wire.axes.model;
    this.networks =
      this.models.length || wire.axes.epsilon.length * wire.axes.regularization.length;
    this.dots = this.listed();
    for (const [name, array] of Object.entries(wire.values)) {
      const size = array.shape.reduce((a, b) => a * b, 1);
      const block = size / (array.shape[0] as number);
      // Epochs that are still to come hold no number yet, and were not sent.
      const data = new Float32Array(Math.max(size, (wire.epochs + 1) * block)).fill(Number.NaN);
      decodeInto(data, array.dtype, array.data);
      this.stored.set(name, { data, dtype: array.dtype, block, tail: block / this.networks });
    }
  }

  /** An index along the epoch axis, or the newest: one chosen of another cube may lie beyond it. */
  finishedIndex(index: number): number {
    return Math.min(index, this.finished - 1);
  }

  /** Epochs of training behind an index along the epoch axis. */
  trainedEpochs(index: number): number {
    const there = this.finishedIndex(index);
    return this.kept?.[there] ?? there;
  }

  /** Take in one finished epoch that arrived after the cube did. */
  append(epoch: number, names: readonly string[], buffers: readonly DataView[]): void {
    names.forEach((name, i) => {
      const { data, dtype, block } = this.get(name);
      decodeInto(data.subarray(epoch * block, (epoch + 1) * block), dtype, buffers[i] as DataView);
    });
    this.finished = Math.max(this.finished, epoch + 1);
  }

  /** Replace all refined networks. */
  setRefined(all: readonly WireRefined[]): void {
    this.refined.length = 0;
    for (const { values, ...about } of all) {
      const decoded = Object.entries(values).map(([name, array]) => [name, decode(array)] as const);
      this.refined.push({ ...about, stored: new Map(decoded) });
    }
    this.dots = this.listed();
  }

  /** Take in one finished epoch of a refined network; its epoch 0 begins it, perhaps anew. */
  appendRefined(message: RefinedMessage, buffers: readonly DataView[]): void {
    const { index, epoch, names, epsilon, regularization, epochs, finished, complete } = message;
    const stored = epoch > 0 ? this.refined[index]?.stored : new Map<string, Float32Array>();
    // An epoch of one that a page opened later has not seen the beginning of: the trait has it all.
    if (!stored) return;
    this.refined[index] = { epsilon, regularization, epochs, finished, complete, stored };
    names.forEach((name, i) => {
      const { dtype, tail } = this.get(name);
      let values = stored.get(name);
      if (!values) {
        values = new Float32Array((epochs + 1) * tail).fill(Number.NaN);
        stored.set(name, values);
      }
      decodeInto(values.subarray(epoch * tail, (epoch + 1) * tail), dtype, buffers[i] as DataView);
    });
    this.dots = this.listed();
  }

  /** The epoch of a refined network that stands for one of the slider's: with the newest of the
   * grid the newest of its own, of which there may be more or fewer. */
  reached(refined: Refined, epoch: number): number {
    const last = refined.finished - 1;
    return epoch >= this.finished - 1 ? last : Math.min(this.trainedEpochs(epoch), last);
  }

  /** The epoch that the numbers of a place are of, at an index along the epoch axis. */
  epochOf({ refined }: Place, index: number): number {
    return refined ? this.reached(refined, index) : this.trainedEpochs(index);
  }

  /** How many indices the path of a place has, up to one along the epoch axis. */
  indicesUpTo({ refined }: Place, index: number): number {
    return (refined ? this.reached(refined, index) : this.finishedIndex(index)) + 1;
  }

  /** How many epochs are a place's own: not standing for the slider's. */
  epochsOf({ refined }: Place): number {
    return Math.min((refined ?? this).finished, this.finished);
  }

  /** The trained networks around a point, with bilinear weights in slider coordinates. */
  place({ epsilon, regularization, model }: Point): Place {
    if (this.models.length) return single(Math.max(this.models.indexOf(model), 0));
    const r = this.refined.findIndex(
      (one) => near(one.epsilon, epsilon) && near(one.regularization, regularization),
    );
    const refined = this.refined[r];
    if (refined) {
      return { networks: [this.networks + r], weights: [1], trained: refined.complete, refined };
    }
    const along = (axis: Axis, value: number): [number, number][] => {
      const position = axis.position(value);
      const i = Math.floor(position);
      const w = position - i;
      return w === 0
        ? [[i, 1]]
        : [
            [i, 1 - w],
            [i + 1, w],
          ];
    };
    const networks: number[] = [];
    const weights: number[] = [];
    for (const [i, wi] of along(this.epsilon, epsilon)) {
      for (const [j, wj] of along(this.regularization, regularization)) {
        networks.push(i * this.regularization.values.length + j);
        weights.push(wi * wj);
      }
    }
    return { networks, weights, trained: networks.length === 1 };
  }

  /** The trained network of the grid that the lens takes for a point; of two as near the lower. */
  nearest({ epsilon, regularization }: Point): Pick<Point, "epsilon" | "regularization"> {
    const snap = (axis: Axis, value: number) =>
      axis.value(Math.ceil(axis.position(value) - 0.5 - 1e-9));
    return {
      epsilon: snap(this.epsilon, epsilon),
      regularization: snap(this.regularization, regularization),
    };
  }

  /** Whether the sweep measures the neighbourhoods of the classes, at this epoch or at any. */
  measured(epoch?: number): boolean {
    const stored = this.stored.get("neighborhood_momentum_std");
    if (!stored || epoch === undefined) return stored !== undefined;
    const { data, block } = stored;
    const start = this.finishedIndex(epoch) * block;
    return data.subarray(start, start + block).some(Number.isFinite);
  }

  /** One number of one variable at a place, interpolated; `k` indexes the variable's own axis. */
  at(name: string, place: Place, epoch: number, k = 0): number {
    let sum = 0;
    place.networks.forEach((network, c) => {
      const [data, start] = this.find(name, network, epoch);
      sum += (place.weights[c] as number) * (data[start + k] as number);
    });
    return sum;
  }

  /** Robust accuracy at any attack radius: linear between the measured radii. */
  robust(place: Place, epoch: number, radius: number, name = "robust_accuracy"): number {
    const position = this.attack.position(radius);
    const k = Math.floor(position);
    const w = position - k;
    const a = this.at(name, place, epoch, k);
    return w === 0 ? a : a * (1 - w) + w * this.at(name, place, epoch, k + 1);
  }

  /** Unit-norm amplitude of the packet at a place, one number for each `t`. */
  packet(place: Place, epoch: number, label: number): Float32Array {
    const n = this.t.length;
    const psi = new Float32Array(n);
    place.networks.forEach((network, c) => {
      const [data, first] = this.find("packet", network, epoch);
      const start = first + label * n;
      const weight = place.weights[c] as number;
      for (let i = 0; i < n; i++)
        psi[i] = (psi[i] as number) + weight * (data[start + i] as number);
    });
    const step = ((this.t[n - 1] as number) - (this.t[0] as number)) / (n - 1);
    const norm = Math.sqrt(psi.reduce((sum, value) => sum + value * value, 0) * step);
    return psi.map((value) => value / norm);
  }

  private listed(): Place[] {
    const complete = this.refined.flatMap((refined, r) =>
      refined.complete ? [{ ...single(this.networks + r), refined }] : [],
    );
    return [...Array.from({ length: this.networks }, (_, i) => single(i)), ...complete];
  }

  /** Where the numbers of a network begin, in which array. */
  private find(name: string, network: number, epoch: number): [Float32Array, number] {
    const { data, block, tail } = this.get(name);
    const refined = this.refined[network - this.networks];
    if (!refined) return [data, this.finishedIndex(epoch) * block + network * tail];
    const own = refined.stored.get(name);
    if (!own) throw new Error(`the refined network has no variable ${name}`);
    return [own, this.reached(refined, epoch) * tail];
  }

  private get(name: string): Stored {
    const stored = this.stored.get(name);
    if (!stored) throw new Error(`the cube has no variable ${name}`);
    return stored;
  }
}
