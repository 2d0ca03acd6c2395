import { describe, expect, it } from "vitest";
import type { WireArray, WireLens } from "./contract";
import { ends, extent, layout, rootMeanSquare, Seen, tableOf } from "./pixels";

function wire(shape: number[], values: number[]): WireArray {
  return { dtype: "float32", shape, data: new DataView(Float32Array.from(values).buffer) };
}

/** A lens whose numbers tell where they stand: channel * 100 + pixel, in hundredths. */
function lens(shape: number[], change: Partial<WireLens> = {}): WireLens {
  const size = shape.reduce((a, b) => a * b, 1);
  const numbers = Array.from({ length: size }, (_, i) => i / 100);
  return {
    state: "ready",
    message: "",
    range: [0, 1],
    shape,
    values: {
      image: wire(shape, numbers),
      attacked: wire(
        shape,
        numbers.map((value, i) => value + (i % 2 ? 0.05 : -0.1)),
      ),
      probability: wire([4], [0.1, 0.2, 0.7, 0]),
      attacked_probability: wire([4], [0.6, 0.05, 0.05, 0.3]),
      position_std: wire(shape, numbers),
      position_std_error: wire(
        shape,
        numbers.map((value) => value / 10),
      ),
      momentum_std: wire(
        shape,
        numbers.map((value) => 2 * value),
      ),
      momentum_std_error: wire(shape, numbers),
    },
    ...change,
  };
}

describe("the ends of a colour bar", () => {
  it("are those of all values, however many those are", () => {
    const many = Float32Array.from({ length: 512 * 512 }, (_, i) => i);
    expect(extent(many)).toEqual([0, 512 * 512 - 1]);
    expect(extent(Float32Array.of(3, -2), Float32Array.of(5))).toEqual([-2, 5]);
  });

  it("have as many digits as tell them apart, and a true minus sign", () => {
    expect(ends(0, 1)).toEqual({ low: "0", high: "1.0" });
    expect(ends(0.1132, 0.1138)).toEqual({ low: "0.113", high: "0.114" });
    expect(ends(-1.6, 2.6)).toEqual({ low: "−1.6", high: "2.6" });
    expect(ends(-0.00002, 0.1)).toEqual({ low: "−2.0e−5", high: "0.10" });
    expect(ends(0.5, 0.5)).toEqual({ low: "0.50", high: "0.50" });
  });
});

describe("a regression", () => {
  const shape = [3, 2, 2];
  const numbers = [1, 2, 3, 4];
  const answered = (outputs: number[]) => {
    const size = outputs.length * numbers.length;
    const repeated = (by: number) =>
      Array.from({ length: size }, (_, i) => (numbers[i % 4] as number) + by);
    const of = (by: number) => wire([1, 1, size / 2, 2].slice(1), repeated(by));
    const { probability, attacked_probability, ...rest } = lens(shape).values ?? {};
    return new Seen(
      lens(shape, { values: { ...rest, target: of(0), output: of(0.5), attacked_output: of(-2) } }),
    );
  };

  it("has outputs in the place of classes, drawn where they have the pixels of the input", () => {
    const seen = answered([1]);
    const { answer } = seen;
    expect(seen.leading(10)).toEqual([]);
    expect(answer?.pictured).toBe(true);
    expect(answered([1, 2]).answer?.pictured).toBe(false);
    expect(new Seen(lens(shape)).answer).toBeNull();
    if (!answer) throw new Error("no answer");
    expect(rootMeanSquare(answer.output, answer.target)).toBeCloseTo(0.5, 6);
    expect(rootMeanSquare(answer.attacked, answer.target)).toBeCloseTo(2, 6);
  });

  it("is told whole in the table", () => {
    const { columns, rows } = tableOf(answered([1]), ["all"]);
    const outputs = rows.filter(([series]) => series === "outputs");
    expect(outputs).toHaveLength(4);
    for (const row of outputs) expect(row).toHaveLength(columns.length);
    expect(outputs[2]?.slice(-4)).toEqual([3, 3, 3.5, 1]);
  });
});

describe("layout", () => {
  it.each([
    [[1, 8, 8], { channels: 1, height: 8, width: 8, image: true }],
    [[3, 5, 4], { channels: 3, height: 5, width: 4, image: true }],
    [[7, 3], { channels: 1, height: 7, width: 3, image: true }],
    [[2], { channels: 1, height: 1, width: 2, image: false }],
    [[2, 3, 4, 5], { channels: 1, height: 1, width: 120, image: false }],
  ])("of inputs of shape %s", (shape, expected) => {
    expect(layout(shape)).toEqual(expected);
  });
});

describe("what was seen", () => {
  it("reads a pixel channel by channel, with its errors", () => {
    const seen = new Seen(lens([3, 2, 2]));
    const reading = seen.at(3);
    const expected = [0.03, 0.07, 0.11];
    reading.image.forEach((value, c) => {
      expect(value).toBeCloseTo(expected[c] as number, 6);
    });
    for (const value of reading.perturbation) expect(value).toBeCloseTo(0.05, 6);
    reading.position?.forEach(([value, error], c) => {
      expect(value).toBeCloseTo(expected[c] as number, 6);
      expect(error).toBeCloseTo((expected[c] as number) / 10, 6);
    });
    expect(reading.momentum?.[2]?.[0]).toBeCloseTo(0.22, 6);
  });

  it("shows the root mean square over channels", () => {
    const spread = new Seen(lens([3, 2, 2])).spread("position_std");
    expect(spread).toHaveLength(4);
    expect(spread?.[1]).toBeCloseTo(Math.sqrt((0.01 ** 2 + 0.05 ** 2 + 0.09 ** 2) / 3), 6);
    expect(new Seen(lens([1, 2, 2])).spread("momentum_std")?.[3]).toBeCloseTo(0.06, 6);
  });

  it("amplifies the perturbation until its largest value fills half the range", () => {
    expect(new Seen(lens([1, 2, 2])).amplification).toBeCloseTo(5, 5);
    expect(new Seen(lens([1, 2, 2], { range: [-1, 3] })).amplification).toBeCloseTo(20, 4);
    const still = lens([1, 1, 1]);
    const values = { ...still.values, attacked: wire([1, 1, 1], [0]) };
    expect(new Seen({ ...still, values }).amplification).toBe(1);
  });

  it("names the classes that either picture makes probable, in their order", () => {
    const seen = new Seen(lens([1, 1, 1]));
    expect(seen.leading(2)).toEqual([0, 2]);
    expect(seen.leading(3)).toEqual([0, 2, 3]);
    expect(seen.leading(10)).toEqual([0, 1, 2, 3]);
  });

  it("has no spreads before they are known", () => {
    const early = lens([1, 2, 2]);
    const { image, attacked, probability, attacked_probability } = early.values as Record<
      string,
      WireArray
    >;
    const seen = new Seen({
      ...early,
      values: { image, attacked, probability, attacked_probability } as Record<string, WireArray>,
    });
    expect(seen.spread("position_std")).toBeUndefined();
    expect(seen.at(0).momentum).toBeUndefined();
  });

  it("refuses a lens that lacks its image", () => {
    expect(() => new Seen({ ...lens([1, 1, 1]), values: {} })).toThrow("image");
  });
});
