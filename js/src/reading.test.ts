// The numbers that the screen and `qwidgets/views.py` must both give: tests/test_views.py holds the
// Python side against the same file.

import { describe, expect, it } from "vitest";
import cases from "../../tests/reading.json";
import type { WireCube } from "./contract";
import { Axis, Cube, single } from "./cube";
import { setting, significant, withError } from "./dom";
import { paretoFront } from "./marks";

const axes = {
  model: [],
  epsilon: [0],
  regularization: [0],
  attack_epsilon: [0],
  label: ["0"],
  t: [0],
};
const wire: Omit<WireCube, "axes"> = {
  serial: 1,
  epochs: 0,
  finished: 1,
  group: "class",
  width: 0.4,
  momentum_limit: 1,
  excess_limit: 1,
  values: {},
};

describe("numbers that Python reads too", () => {
  it.each(cases.positions as [number[], "linear" | "log", number, number][])(
    "on %s, %s, %s stands at %s",
    (values, spacing, value, position) => {
      expect(new Axis(values, spacing).position(value)).toBeCloseTo(position, 9);
    },
  );

  it.each(cases.places.cases as [number, number, number[], number[]][])(
    "(%s, %s) is read from %s",
    (epsilon, regularization, networks, weights) => {
      const { epsilon: rows, regularization: columns } = cases.places;
      const grid = { ...axes, epsilon: rows, regularization: columns };
      const place = new Cube({ ...wire, axes: grid }).place({ epsilon, regularization, model: "" });
      expect(place.networks).toEqual(networks);
      expect(place.trained).toBe(networks.length === 1);
      weights.forEach((weight, i) => {
        expect(place.weights[i]).toBeCloseTo(weight, 9);
      });
    },
  );

  it.each(cases.radii.cases as [number, number][])("at radius %s robust is %s", (radius, value) => {
    const { attack_epsilon, values } = cases.radii;
    const data = new DataView(Float32Array.from(values).buffer);
    const robust_accuracy = { dtype: "float32" as const, shape: [1, 1, 1, 3], data };
    const cube = new Cube({
      ...wire,
      axes: { ...axes, attack_epsilon },
      values: { robust_accuracy },
    });
    expect(cube.robust(single(0), 0, radius)).toBeCloseTo(value, 6);
  });

  it.each(cases.significant as [number, string][])("%s is written %s", (value, text) => {
    expect(significant(value)).toBe(text);
  });

  it.each(cases.setting as [number, string][])("a slider at %s says %s", (value, text) => {
    expect(setting(value)).toBe(text);
  });

  it.each(cases.with_error as [number, number, string][])("%s, %s is %s", (value, error, text) => {
    expect(withError(value, error)).toBe(text);
  });

  it.each(cases.pareto_front as [number[], number[], number[]][])("%s, %s", (x, y, front) => {
    expect(paretoFront(x, y)).toEqual(front);
  });
});
