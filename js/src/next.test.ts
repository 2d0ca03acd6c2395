import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Changed } from "./marks";
import { NextFrame } from "./next";

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

describe("the next frame", () => {
  it("draws all changes before it together, once", () => {
    const drawn: Changed[] = [];
    const next = new NextFrame((changed) => drawn.push(changed));
    next.ask(new Set(["epsilon"]));
    next.ask(new Set(["epoch"]));
    expect(drawn).toEqual([]);
    expect(frames.size).toBe(1);
    runFrame();
    runFrame();
    expect(drawn).toEqual([new Set(["epsilon", "epoch"])]);
    next.ask(new Set(["label"]));
    next.ask("all");
    next.ask(new Set(["epoch"]));
    runFrame();
    expect(drawn.slice(1)).toEqual(["all"]);
  });

  it("draws what changes while it draws in the frame after it", () => {
    const drawn: Changed[] = [];
    const next: NextFrame = new NextFrame((changed) => {
      drawn.push(changed);
      if (drawn.length === 1) next.ask(new Set(["label"]));
    });
    next.ask(new Set(["epsilon"]));
    runFrame();
    expect(drawn).toEqual([new Set(["epsilon"])]);
    runFrame();
    expect(drawn.slice(1)).toEqual([new Set(["label"])]);
  });

  it("draws on after a drawing that failed", () => {
    const draw = vi.fn().mockImplementationOnce(() => {
      throw new Error("no");
    });
    const next = new NextFrame(draw);
    next.ask("all");
    expect(runFrame).toThrow("no");
    next.ask(new Set(["epoch"]));
    runFrame();
    expect(draw).toHaveBeenLastCalledWith(new Set(["epoch"]));
  });

  it("draws nothing after its end", () => {
    const draw = vi.fn();
    const next = new NextFrame(draw);
    next.ask("all");
    next.dispose();
    runFrame();
    expect(draw).not.toHaveBeenCalled();
  });
});
