import { describe, expect, it } from "vitest";
import type { WireArray, WireCube, WireRegions } from "./contract";
import { Cube, single } from "./cube";
import { Field } from "./field";

function wire(shape: number[], values: number[]): WireArray {
  return { dtype: "float32", shape, data: new DataView(Float32Array.from(values).buffer) };
}

const SIZE = 5;
/** Two networks: the odds of class 1 are x, and 3 x; of class 2 always -1. */
function makeField(): Field {
  const odds: number[] = [];
  for (const slope of [1, 3]) {
    for (let row = 0; row < SIZE; row++) {
      for (let column = 0; column < SIZE; column++) odds.push(slope * (column - 2));
    }
    odds.push(...Array.from({ length: SIZE * SIZE }, () => -1));
  }
  const regions: WireRegions = {
    state: "ready",
    message: "",
    epoch: 4,
    range: [-2, 2],
    size: SIZE,
    references: [
      [1, 1],
      [0, 0],
      [0, 0],
    ],
    values: {
      odds: wire([2, 2, SIZE, SIZE], odds),
      // At radii 0 and 0.5: not at all, and by the network's number to the right.
      attacked: wire([2, 2, 1, 2], [0, 1, 1, 1, 0, 1, 2, 1]),
      points: wire([1, 2], [0, 1]),
      labels: wire([1], [0]),
    },
  };
  return new Field(regions);
}
const axes = { model: ["a", "b"], epsilon: [0], regularization: [0], attack_epsilon: [0, 0.5] };
const cube = new Cube({
  axes: { ...axes, label: ["0", "1", "2"], t: [0] },
  serial: 1,
  epochs: 0,
  finished: 1,
  width: 0.5,
  momentum_limit: 1,
  excess_limit: 1,
  values: {},
} as WireCube);
const between = { networks: [0, 1], weights: [0.5, 0.5], trained: false };

describe("the input plane", () => {
  const field = makeField();
  const cells = SIZE * SIZE;

  it.each([
    [single(0), 1],
    [single(1), 3],
    [between, 2],
  ])("has the softmax of the odds, interpolated between networks", (place, slope) => {
    const p = field.probabilities(place);
    for (let row = 0; row < SIZE; row++) {
      for (let column = 0; column < SIZE; column++) {
        const cell = row * SIZE + column;
        const weights = [1, Math.exp(slope * field.at(column)), Math.exp(-1)];
        const sum = weights.reduce((a, b) => a + b, 0);
        weights.forEach((weight, c) => {
          expect(p[c * cells + cell]).toBeCloseTo(weight / sum, 5);
        });
      }
    }
  });

  it("has a packet of the squared loss in its window", () => {
    const p = field.probabilities(single(0));
    const density = field.density(p, 0, 0.5);
    const expected = Array.from({ length: cells }, (_, cell) => {
      const [x, y] = [field.at(cell % SIZE), field.at(Math.floor(cell / SIZE))];
      const loss = Math.log(1 + Math.exp(x) + Math.exp(-1));
      return loss ** 2 * Math.exp(-((x - 1) ** 2 + (y - 1) ** 2) / (2 * 0.25));
    });
    const most = Math.max(...expected);
    density.forEach((value, cell) => {
      expect(value).toBeCloseTo((expected[cell] as number) / most, 5);
    });
    expect(Math.max(...density)).toBe(1);
  });

  it("moves points as the attack does, on the line between radii and networks", () => {
    expect(field.point(0)).toEqual([0, 1]);
    expect(field.moved(cube, single(0), 0, 0)).toEqual([0, 1]);
    expect(field.moved(cube, single(0), 0.5, 0)).toEqual([1, 1]);
    expect(field.moved(cube, single(1), 0.25, 0)).toEqual([1, 1]);
    expect(field.moved(cube, between, 0.5, 0)).toEqual([1.5, 1]);
  });

  it("says what is most probable at a point", () => {
    const p = field.probabilities(single(1));
    expect(field.says(p, [2, 0])).toBe(1);
    expect(field.says(p, [-2, 0])).toBe(0);
    expect(field.says(p, [9, 9])).toBe(1);
  });

  it("reads probabilities between grid points on the line between logits", () => {
    const p = field.probabilities(single(1));
    for (const [x, y] of [
      [0.3, 0.7],
      [-1.9, 2],
      [2, -2],
    ] as const) {
      const weights = [1, Math.exp(3 * x), Math.exp(-1)];
      const sum = weights.reduce((a, b) => a + b, 0);
      const said = field.said(p, [x, y]);
      said.forEach((value, c) => {
        expect(value).toBeCloseTo((weights[c] as number) / sum, 5);
      });
    }
    // Beyond the plane as at its edge.
    expect(field.said(p, [9, -9])).toEqual(field.said(p, [2, -2]));
  });

  it("knows which image of its class a point is", () => {
    const { of } = field;
    const labels = wire([5], [0, 2, 0, 0, 2]);
    const some = new Field({ ...of, values: { ...of.values, labels } });
    expect([0, 1, 2, 3, 4].map((i) => some.image(i))).toEqual([0, 0, 1, 2, 1]);
  });
});
