import { describe, expect, it } from "vitest";
import { blend } from "./theme";

describe("colours between stops", () => {
  const colors = blend([
    [0, 0, 0],
    [100, 50, 0],
    [200, 0, 250],
  ]);

  it("meet the stops, and run straight between them", () => {
    expect(colors(0)).toEqual([0, 0, 0]);
    expect(colors(0.5)).toEqual([100, 50, 0]);
    expect(colors(1)).toEqual([200, 0, 250]);
    expect(colors(0.25)).toEqual([50, 25, 0]);
    expect(colors(0.75)).toEqual([150, 25, 125]);
  });

  it("end where the shares end", () => {
    expect(colors(-3)).toEqual(colors(0));
    expect(colors(7)).toEqual(colors(1));
  });
});
