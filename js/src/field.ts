// The input plane of two-dimensional data as numbers: what a network, or one between networks, says
// at every point of a grid, and where the attack moves the test points.

import type { WireRegions } from "./contract";
import { type Cube, decode, type Place } from "./cube";
import type { Table } from "./readings";
import type { Choice } from "./state";

export class Field {
  /** Grid points along each axis. */
  readonly size: number;
  readonly low: number;
  readonly high: number;
  readonly classes: number;
  readonly networks: number;
  readonly labels: Float32Array;
  private readonly points: Float32Array;
  private readonly odds: Float32Array;
  private readonly attacked: Float32Array;
  private readonly radii: number;

  constructor(readonly of: WireRegions) {
    const values = of.values ?? {};
    const read = (name: string) => {
      const array = values[name];
      if (!array) throw new Error(`the input plane has no ${name}`);
      return { shape: array.shape, data: decode(array) };
    };
    const { shape, data } = read("odds");
    [this.networks, this.classes, this.size] = [
      shape[0] as number,
      (shape[1] as number) + 1,
      shape[2] as number,
    ];
    this.odds = data;
    const attacked = read("attacked");
    this.attacked = attacked.data;
    this.radii = attacked.shape[1] as number;
    this.points = read("points").data;
    this.labels = read("labels").data;
    [this.low, this.high] = of.range ?? [0, 1];
  }

  /** The coordinate of a grid point. */
  at(i: number): number {
    return this.low + ((this.high - this.low) * i) / (this.size - 1);
  }

  /** Probabilities of all classes at every grid point, class by class, rows along y. */
  probabilities(place: Place): Float32Array {
    const { classes, size } = this;
    const cells = size * size;
    const logits = new Float32Array(classes * cells);
    place.networks.forEach((network, n) => {
      const start = network * (classes - 1) * cells;
      const weight = place.weights[n] as number;
      for (let i = 0; i < (classes - 1) * cells; i++) {
        logits[cells + i] =
          (logits[cells + i] as number) + weight * (this.odds[start + i] as number);
      }
    });
    for (let cell = 0; cell < cells; cell++) {
      let top = Number.NEGATIVE_INFINITY;
      for (let c = 0; c < classes; c++) top = Math.max(top, logits[c * cells + cell] as number);
      let sum = 0;
      for (let c = 0; c < classes; c++) {
        const value = Math.exp((logits[c * cells + cell] as number) - top);
        logits[c * cells + cell] = value;
        sum += value;
      }
      for (let c = 0; c < classes; c++) {
        logits[c * cells + cell] = (logits[c * cells + cell] as number) / sum;
      }
    }
    return logits;
  }

  /** |psi|^2 of a class seen through the Gaussian window around its reference point, largest value
   * 1: the square of the loss times the density of the window. */
  density(probabilities: Float32Array, label: number, width: number): Float32Array {
    const { size } = this;
    const cells = size * size;
    const [x0, y0] = (this.of.references?.[label] ?? [0, 0]) as [number, number];
    const out = new Float32Array(cells);
    let largest = 0;
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const cell = row * size + column;
        // Below the smallest float32 the loss would be infinite.
        const loss = -Math.log(Math.max(probabilities[label * cells + cell] as number, 1e-38));
        const distance = (this.at(column) - x0) ** 2 + (this.at(row) - y0) ** 2;
        const value = loss * loss * Math.exp(-distance / (2 * width * width));
        out[cell] = value;
        largest = Math.max(largest, value);
      }
    }
    return largest > 0 ? out.map((value) => value / largest) : out;
  }

  /** Which test point of its class one is: classes keep their order in the data. */
  image(i: number): number {
    return this.labels.subarray(0, i).filter((label) => label === this.labels[i]).length;
  }

  point(i: number): [number, number] {
    return [this.points[2 * i] as number, this.points[2 * i + 1] as number];
  }

  /** Where the attack of a radius takes a point; between measured radii and networks on the line. */
  moved(cube: Cube, place: Place, radius: number, i: number): [number, number] {
    const count = this.labels.length;
    const position = cube.attack.position(radius);
    const below = Math.floor(position);
    const w = position - below;
    const out: [number, number] = [0, 0];
    place.networks.forEach((network, n) => {
      for (const [k, share] of [[below, 1 - w] as const, [below + 1, w] as const]) {
        if (share === 0) continue;
        const start = 2 * ((network * this.radii + k) * count + i);
        const weight = share * (place.weights[n] as number);
        out[0] += weight * (this.attacked[start] as number);
        out[1] += weight * (this.attacked[start + 1] as number);
      }
    });
    return out;
  }

  /** The test points and where the attack takes them, then what is said at every grid point. */
  table(cube: Cube, choice: Choice): Table {
    const place = cube.place(choice);
    const probabilities = this.probabilities(place);
    const density = this.density(probabilities, choice.label, cube.width);
    const name = (c: number) => cube.labels[c] ?? String(c);
    const classes = Array.from({ length: this.classes }, (_, c) => c);
    const cells = this.size * this.size;
    const rows: Table["rows"] = [];
    this.labels.forEach((label, i) => {
      const to = this.moved(cube, place, choice.attack_epsilon, i);
      const said = this.says(probabilities, to);
      rows.push(["points", ...this.point(i), name(label), ...to, name(said)]);
    });
    const none = ["class", "attacked_x", "attacked_y", "attacked_class"];
    for (let cell = 0; cell < cells; cell++) {
      const at = [this.at(cell % this.size), this.at(Math.floor(cell / this.size))];
      const said = classes.map((c) => probabilities[c * cells + cell]);
      rows.push(["grid", ...at, ...none.map(() => undefined), ...said, density[cell]]);
    }
    const said = classes.map((c) => `probability of ${name(c)}`);
    return { columns: ["series", "x", "y", ...none, ...said, "density"], rows };
  }

  /** The most probable class at a point. */
  says(probabilities: Float32Array, point: readonly [number, number]): number {
    const said = this.said(probabilities, point);
    return said.indexOf(Math.max(...said));
  }

  /** Probabilities of all classes at a point: logits are bilinear between those of the grid. */
  said(probabilities: Float32Array, [x, y]: readonly [number, number]): number[] {
    const { size } = this;
    const cells = size * size;
    const along = (value: number) => {
      const exact = ((value - this.low) / (this.high - this.low)) * (size - 1);
      const position = Math.min(Math.max(exact, 0), size - 1);
      const below = Math.min(Math.floor(position), size - 2);
      return [
        [below, 1 - position + below],
        [below + 1, position - below],
      ] as const;
    };
    const logits = Array.from({ length: this.classes }, (_, c) => {
      let sum = 0;
      for (const [row, v] of along(y)) {
        for (const [column, u] of along(x)) {
          const value = probabilities[c * cells + row * size + column] as number;
          // Below the smallest float32 the logit would be infinite.
          sum += u * v * Math.log(Math.max(value, 1e-38));
        }
      }
      return sum;
    });
    const top = Math.max(...logits);
    const weights = logits.map((value) => Math.exp(value - top));
    const sum = weights.reduce((a, b) => a + b, 0);
    return weights.map((value) => value / sum);
  }
}
