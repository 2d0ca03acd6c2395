import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Drawing } from "./drawing";
import type { Changed } from "./marks";

/** Callbacks of the next frame, which the tests run by hand. */
let frames: Map<number, () => void>;
const runFrame = () => {
  const callbacks = [...frames.values()];
  frames.clear();
  for (const callback of callbacks) callback();
};

beforeEach(() => {
  frames = new Map();
  let serial = 0;
  vi.stubGlobal("requestAnimationFrame", (callback: () => void) => {
    frames.set(++serial, callback);
    return serial;
  });
  vi.stubGlobal("cancelAnimationFrame", (frame: number) => frames.delete(frame));
});
afterEach(() => vi.unstubAllGlobals());

describe("drawing", () => {
  it("takes all changes before a frame together, once", () => {
    const drawn: Changed[] = [];
    const drawing = new Drawing((changed) => drawn.push(changed));
    drawing.ask(new Set(["epsilon"]));
    drawing.ask(new Set(["epoch"]));
    expect(drawn).toEqual([]);
    expect(frames.size).toBe(1);
    runFrame();
    runFrame();
    expect(drawn).toEqual([new Set(["epsilon", "epoch"])]);
    drawing.ask(new Set(["label"]));
    drawing.ask("all");
    drawing.ask(new Set(["epoch"]));
    runFrame();
    expect(drawn.slice(1)).toEqual(["all"]);
  });

  it("draws what changes while it draws in the frame after it", () => {
    const drawn: Changed[] = [];
    const drawing: Drawing = new Drawing((changed) => {
      drawn.push(changed);
      if (drawn.length === 1) drawing.ask(new Set(["label"]));
    });
    drawing.ask(new Set(["epsilon"]));
    runFrame();
    expect(drawn).toEqual([new Set(["epsilon"])]);
    runFrame();
    expect(drawn.slice(1)).toEqual([new Set(["label"])]);
  });

  it("draws on after a drawing that failed", () => {
    const draw = vi.fn().mockImplementationOnce(() => {
      throw new Error("no");
    });
    const drawing = new Drawing(draw);
    drawing.ask("all");
    expect(runFrame).toThrow("no");
    drawing.ask(new Set(["epoch"]));
    runFrame();
    expect(draw).toHaveBeenLastCalledWith(new Set(["epoch"]));
  });

  it("draws a move at once, with what waits for the frame, and not again in it", () => {
    const drawn: Changed[] = [];
    const drawing = new Drawing((changed) => drawn.push(changed));
    drawing.now(new Set(["epsilon"]));
    expect(drawn).toEqual([new Set(["epsilon"])]);
    drawing.ask("all");
    drawing.now(new Set(["label"]));
    expect(drawn.slice(1)).toEqual(["all"]);
    runFrame();
    expect(drawn).toHaveLength(2);
  });

  it("draws nothing after its end", () => {
    const draw = vi.fn();
    const drawing = new Drawing(draw);
    drawing.ask("all");
    drawing.dispose();
    runFrame();
    expect(draw).not.toHaveBeenCalled();
  });
});
