import { describe, expect, it } from "vitest";
import { percent, setting, significant, ticks, withError } from "./dom";

describe("numbers for people", () => {
  it.each([
    [0.28612, "0.286"],
    [1.7634, "1.76"],
    [12.345, "12.3"],
    [123.4, "123"],
    [12345, "12345"],
    [-0.0512, "-0.0512"],
    [0, "0"],
    [0.00004, "4.00e-5"],
    [250000, "2.50e+5"],
    [Number.NaN, "–"],
    [Number.POSITIVE_INFINITY, "–"],
  ])("significant(%s) is %s", (value, text) => {
    expect(significant(value)).toBe(text);
  });

  it.each([0.9999, 9.999, 99.97, 0.09996])("keeps three digits where rounding carries: %s", (x) => {
    expect(significant(x)).toBe(x.toPrecision(3));
  });

  it.each([
    [0, "0.00"],
    [0.1, "0.10"],
    [0.025, "0.025"],
    [0.0375, "0.0375"],
    [0.3, "0.30"],
    [1, "1.00"],
    [3, "3.00"],
    [0.003, "0.003"],
    [0.1732, "0.173"],
    [100, "100.00"],
    [0.00001, "1.00e-5"],
  ])("setting(%s) is %s", (value, text) => {
    expect(setting(value)).toBe(text);
  });

  it.each([
    [0.9712, "97.1%"],
    [1, "100.0%"],
    [0, "0.0%"],
    [Number.NaN, "–"],
  ])("percent(%s) is %s", (value, text) => {
    expect(percent(value)).toBe(text);
  });

  it.each([
    [0.28612, 0.0123, "0.286 ± 0.01"],
    [1.7634, 0.2, "1.76 ± 0.2"],
    [1.7634, 0, "1.76 ± 0"],
    [1.7634, Number.NaN, "1.76"],
    [Number.NaN, 0.1, "–"],
  ])("withError(%s, %s) is %s", (value, error, text) => {
    expect(withError(value, error)).toBe(text);
  });
});

describe("ticks", () => {
  it.each([
    [-2, 2, 5],
    [0, 1, 5],
    [-7.3, 7.3, 5],
    [-0.013, 0.013, 5],
    [-40, 40, 4],
    [3, 1234, 6],
  ])("between %s and %s", (low, high, count) => {
    const found = ticks(low, high, count);
    expect(found.length).toBeGreaterThanOrEqual(2);
    expect(found.length).toBeLessThanOrEqual(count + 1);
    const step = (found[1] as number) - (found[0] as number);
    found.forEach((tick, i) => {
      expect(tick).toBeCloseTo((found[0] as number) + i * step, 9);
      expect(Number(tick.toPrecision(3))).toBeCloseTo(tick, 9);
    });
    expect(found[0]).toBeGreaterThanOrEqual(low - 1e-9);
    expect((found[0] as number) - step).toBeLessThan(low);
    expect(found.at(-1)).toBeLessThanOrEqual(high + 1e-9);
    expect((found.at(-1) as number) + step).toBeGreaterThan(high);
  });

  it("are the expected ones", () => {
    expect(ticks(-2, 2, 5)).toEqual([-2, -1, 0, 1, 2]);
    expect(ticks(-0.3, 0.3, 5)).toEqual([-0.2, 0, 0.2]);
  });
});
