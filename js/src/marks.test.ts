import { describe, expect, it } from "vitest";
import { defined, errorBars, paretoFront } from "./marks";

/** Deterministic numbers on a coarse lattice, so that there are ties. */
function points(seed: number, count: number): [number[], number[]] {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * 12) / 12;
  };
  const x = Array.from({ length: count }, next);
  return [x, Array.from({ length: count }, next)];
}

/** Points that none beats: not smaller in either coordinate, larger in one. */
function byForce(x: number[], y: number[]): Set<string> {
  const undominated = x.map((a, i) => {
    const b = y[i] as number;
    return !x.some((c, j) => {
      const d = y[j] as number;
      return c >= a && d >= b && (c > a || d > b);
    });
  });
  return new Set(x.map((a, i) => `${a},${y[i]}`).filter((_, i) => undominated[i]));
}

describe("Pareto front", () => {
  it.each(Array.from({ length: 40 }, (_, seed) => [seed, 1 + ((seed * 7) % 64)]))(
    "agrees with brute force (seed %s, %s points)",
    (seed, count) => {
      const [x, y] = points(seed, count);
      const front = paretoFront(x, y);
      const found = front.map((i) => `${x[i]},${y[i]}`);
      expect(new Set(found)).toEqual(byForce(x, y));
      expect(new Set(found).size).toBe(found.length);
      for (let n = 1; n < front.length; n++) {
        expect(x[front[n] as number] as number).toBeGreaterThan(
          x[front[n - 1] as number] as number,
        );
        expect(y[front[n] as number] as number).toBeLessThan(y[front[n - 1] as number] as number);
      }
    },
  );

  it("leaves out networks without numbers", () => {
    expect(paretoFront([0.9, Number.NaN, 0.5, 1], [0.1, 1, 0.6, Number.NaN])).toEqual([2, 0]);
    expect(paretoFront([Number.NaN], [1])).toEqual([]);
    expect(paretoFront([], [])).toEqual([]);
  });
});

describe("what is undefined", () => {
  const bars = (...numbers: [number, number, number, number]) => {
    const { x, y } = errorBars(...numbers);
    return [x, y].map((lines) => lines.map((line) => Array.from(line as Float32Array)));
  };

  it("has no error bar", () => {
    expect(bars(2, 8, 0.5, 0.25)).toEqual([
      [
        [1.5, 2.5],
        [2, 2],
      ],
      [
        [8, 8],
        [7.75, 8.25],
      ],
    ]);
    expect(bars(2, 8, Number.NaN, 0.25)).toEqual([[[2, 2]], [[7.75, 8.25]]]);
    expect(bars(2, 8, Number.NaN, Number.NaN)).toEqual([[], []]);
    expect(bars(Number.NaN, 8, 0.5, 0.25)).toEqual([[], []]);
  });

  it("is no end of an error bar: one that would reach zero or less has a positive one", () => {
    expect(bars(2, 0, 3, 0.25)).toEqual([
      [
        [Math.fround(2e-6), 5],
        [2, 2],
      ],
      [
        [0, 0],
        [0, 0.25],
      ],
    ]);
  });

  it("has no dot, in any of its coordinates", () => {
    const points = {
      x: new Float32Array([1, Number.NaN, 3, 4]),
      y: new Float32Array([5, 6, Number.POSITIVE_INFINITY, 8]),
    };
    expect(defined(points)).toEqual({ x: new Float32Array([1, 4]), y: new Float32Array([5, 8]) });
    expect(defined({ x: new Float32Array(0) })).toEqual({ x: new Float32Array(0) });
  });
});
