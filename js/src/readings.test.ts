import { describe, expect, it } from "vitest";
import type { WireArray, WireCube } from "./contract";
import { Cube } from "./cube";
import { csv, inWords, seriesOf, tableOf } from "./readings";
import type { Choice } from "./state";

const EPOCHS = 2;
const wire = (tail: number, value: (i: number) => number): WireArray => {
  const data = Float32Array.from({ length: EPOCHS * 4 * tail }, (_, i) => value(i));
  return {
    dtype: "float32",
    shape: [EPOCHS, 2, 2, tail],
    data: new DataView(data.buffer),
  };
};

const grid = {
  model: [],
  epsilon: [0, 0.2],
  regularization: [0, 0.3],
  attack_epsilon: [0, 0.1, 0.2],
  label: ["cat", 'dog, "big"'],
  t: [-1, 0, 1],
};
const wireless = { serial: 1, group: "class", width: 0.2, momentum_limit: 5, excess_limit: 0.1 };

function cube(neighborhood = false): Cube {
  const of_label = (scale: number) => wire(2, (i) => scale * (i + 1));
  const values: WireCube["values"] = {
    clean_accuracy: wire(1, (i) => i / 10),
    clean_accuracy_error: wire(1, () => 0.01),
    robust_accuracy: wire(3, (i) => i / 100),
    robust_accuracy_error: wire(3, () => 0.02),
    position_std: of_label(0.1),
    position_std_error: of_label(0.01),
    momentum_std: of_label(1),
    momentum_std_error: of_label(0.1),
    uncertainty_product: of_label(0.5),
    uncertainty_product_error: of_label(0.05),
    packet: wire(2 * 3, () => 1),
  };
  if (neighborhood) {
    for (const name of ["position_std", "momentum_std", "bound", "boundary"]) {
      // Measured at the last epoch alone.
      values[`neighborhood_${name}`] = wire(2, (i) => (i < 8 ? Number.NaN : i));
      values[`neighborhood_${name}_error`] = wire(2, (i) => (i < 8 ? Number.NaN : 0.5));
    }
  }
  return new Cube({ ...wireless, axes: grid, epochs: EPOCHS - 1, finished: EPOCHS, values });
}

const choice: Choice = {
  epsilon: 0.1,
  regularization: 0,
  label: 1,
  epoch: 1,
  attack_epsilon: 0.15,
  plane: "attack",
  model: "",
  image: 0,
};

describe("what a panel shows", () => {
  it("has the same number of readings as each mark has points", () => {
    const lengths = (panel: Parameters<typeof seriesOf>[0]) =>
      seriesOf(panel, cube(), choice).map(({ mark, readings }) => [mark, readings.length]);
    expect(lengths("plane")).toEqual([
      ["plane_networks", 4],
      ["plane_trail", 2],
      ["plane_reference", 1],
      ["plane_now", 1],
    ]);
    expect(lengths("curves").map(([, count]) => count)).toEqual([2, 2, 2, 2]);
    expect(lengths("robustness").map(([, count]) => count)).toEqual([3, 3]);
  });

  it("says of each network where in the grid it is, and of the rest that it is interpolated", () => {
    const [networks, , , now] = seriesOf("plane", cube(), choice);
    expect(
      networks?.readings.map(({ epsilon, regularization, kind }) => [
        epsilon,
        regularization,
        kind,
      ]),
    ).toEqual([
      [0, 0, "trained network"],
      [0, 0.3, "trained network"],
      [0.2, 0, "trained network"],
      [0.2, 0.3, "trained network"],
    ]);
    const [reading] = now?.readings ?? [];
    expect(reading?.kind).toBe("interpolated between trained networks");
    expect([reading?.epsilon, reading?.regularization]).toEqual([0.1, 0]);
    // Networks 0 and 2 of the second epoch, second class, half and half.
    const position = ((8 + 1 + 1) * 0.1 + (8 + 5 + 1) * 0.1) / 2;
    expect(reading?.quantities[0]?.value).toBeCloseTo(position, 5);
    expect(reading?.quantities[0]?.error).toBeCloseTo(position / 10, 5);
    const untrained = seriesOf("plane", cube(), { ...choice, epsilon: 0, epoch: 0 });
    expect(untrained[3]?.readings[0]?.kind).toBe("untrained network");
  });

  it("leaves out of the neighbourhood what was not measured", () => {
    const count = (epoch: number) =>
      seriesOf("neighborhood", cube(true), { ...choice, epoch }).map((s) => s.readings.length);
    expect(count(1)).toEqual([4, 1, 1, 1]);
    expect(count(0)).toEqual([0, 0, 0, 0]);
    expect(seriesOf("neighborhood", cube(), choice)).toEqual([]);
  });
});

describe("what is no network of the grid", () => {
  const half = { clean_accuracy: 1, clean_accuracy_error: 1, robust_accuracy: 3 };
  const refined = (finished: number, complete: boolean) => {
    const whole = cube();
    const values: WireCube["values"] = {};
    for (const [name, tail] of Object.entries({
      ...{ ...half, robust_accuracy_error: 3, position_std: 2, position_std_error: 2 },
      ...{ momentum_std: 2, momentum_std_error: 2, uncertainty_product: 2 },
      uncertainty_product_error: 2,
    })) {
      const numbers = Float32Array.from({ length: 4 * tail }, (_, i) =>
        i < finished * tail ? 100 + i : Number.NaN,
      );
      const data = new DataView(numbers.buffer);
      values[name] = { dtype: "float32", shape: [4, tail], data };
    }
    const point = { epsilon: 0.1, regularization: 0 };
    whole.setRefined([{ ...point, epochs: 3, finished, complete, values }]);
    return whole;
  };

  it("is read as refined, with its own epoch", () => {
    const [networks, trail, , now] = seriesOf("plane", refined(4, true), choice);
    expect(networks?.readings.map(({ kind }) => kind)).toEqual([
      ...Array(4).fill("trained network"),
      "refined network",
    ]);
    const [reading] = now?.readings ?? [];
    expect([reading?.kind, reading?.epsilon, reading?.epoch]).toEqual(["refined network", 0.1, 3]);
    expect(reading?.quantities[0]?.value).toBe(100 + 3 * 2 + 1);
    expect(trail?.readings.map(({ kind }) => kind)).toEqual([
      "the network it was refined from",
      ...Array(3).fill("refined network"),
    ]);
  });

  it("is no dot until it is trained to its end", () => {
    const [networks, , , now] = seriesOf("plane", refined(2, false), choice);
    expect(networks?.readings.length).toBe(4);
    expect(now?.readings[0]?.kind).toBe("being refined, 1 of 3 epochs");
    // Its curve has the epochs that it has reached.
    const curves = seriesOf("curves", refined(1, false), choice);
    expect(curves.map(({ readings }) => readings.length)).toEqual([2, 1, 2, 1]);
  });

  it("is a model with its name", () => {
    const values = Object.fromEntries(
      ["clean_accuracy", "robust_accuracy"].flatMap((name) =>
        [name, `${name}_error`].map((each) => {
          const tail = name === "clean_accuracy" ? 1 : 3;
          const data = new DataView(Float32Array.from({ length: 2 * tail }, (_, i) => i).buffer);
          return [each, { dtype: "float32" as const, shape: [1, 2, tail], data }];
        }),
      ),
    );
    const axes = { ...grid, model: ["mine", "hers"], epsilon: [0], regularization: [0] };
    const models = new Cube({ ...wireless, axes, epochs: 0, finished: 1, values });
    const series = seriesOf("tradeoff", models, { ...choice, epoch: 0, model: "hers" });
    const { columns, rows } = tableOf(series);
    expect(columns.slice(0, 5)).toEqual(["series", "kind", "model", "epsilon", "regularization"]);
    expect(rows.at(-1)?.slice(0, 3)).toEqual(["now", "your model", "hers"]);
    expect(csv({ columns, rows }).trim().split("\r\n").at(-1)).toContain("now,your model,hers,,,0");
  });
});

describe("numbers in words", () => {
  const of = (value: number, error: number, unit: string) =>
    inWords({ name: "n", symbol: "s", unit, value, error });
  it("carry error and unit", () => {
    expect(of(0.3874, 0.0041, "input units")).toBe("0.387 ± 0.004 (input units)");
    expect(of(0.9132, 0.0141, "%")).toBe("91.3% ± 1.4");
    expect(of(0.5, Number.NaN, "")).toBe("0.500");
    expect(of(Number.NaN, Number.NaN, "%")).toBe("–");
  });
});

describe("the file", () => {
  it("has a row for each point, with the names of the cube", () => {
    const table = tableOf(seriesOf("tradeoff", cube(), choice));
    expect(table.columns).toEqual([
      ...["series", "kind", "epsilon", "regularization", "epoch", "label", "attack_epsilon"],
      ...["clean_accuracy", "clean_accuracy_error"],
      ...["robust_accuracy", "robust_accuracy_error"],
    ]);
    expect(table.rows.map(([name]) => name)).toEqual([
      ...["networks", "networks", "networks", "networks"],
      ...["reference", "now"],
    ]);
    expect(table.rows.every((row) => row.length === table.columns.length)).toBe(true);
  });

  it("does not repeat the points that two curves share", () => {
    expect(tableOf(seriesOf("curves", cube(), choice)).rows.length).toBe(4);
  });

  it("quotes words and leaves empty what is no number", () => {
    const columns = ["a", "b", "c"];
    const rows = [
      ['dog, "big"', 0.1 + 0.2, Number.NaN],
      ["line\nbreak", undefined, 1e-9],
    ];
    expect(csv({ columns, rows })).toBe('a,b,c\r\n"dog, ""big""",0.3,\r\n"line\nbreak",,1e-9\r\n');
  });
});
