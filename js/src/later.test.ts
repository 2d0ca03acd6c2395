import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Later } from "./later";
import type { Changed } from "./marks";

/** Callbacks of the next frame, which the tests run by hand. */
let frames: Map<number, () => void>;
const painted = () => new Promise((resolve) => setTimeout(resolve, 20));
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

describe("what comes later", () => {
  it("waits for the frame, and takes all moves before it together", async () => {
    const drawn: Changed[] = [];
    const later = new Later((changed) => drawn.push(changed));
    later.ask(new Set(["epsilon"]));
    later.ask(new Set(["epoch"]));
    await painted();
    expect(drawn).toEqual([]);
    expect(frames.size).toBe(1);
    runFrame();
    expect(drawn).toEqual([]);
    await painted();
    expect(drawn).toEqual([new Set(["epsilon", "epoch"])]);
    later.ask(new Set(["label"]));
    later.ask("all");
    later.ask(new Set(["epoch"]));
    runFrame();
    await painted();
    expect(drawn.slice(1)).toEqual(["all"]);
    later.dispose();
  });

  it("loses no move that comes between the frame and its painting", async () => {
    const drawn: Changed[] = [];
    const later = new Later((changed) => drawn.push(changed));
    later.ask(new Set(["epsilon"]));
    runFrame();
    later.ask(new Set(["label"]));
    await painted();
    expect(drawn).toEqual([new Set(["epsilon", "label"])]);
    later.dispose();
  });

  it("draws nothing after its end", async () => {
    const draw = vi.fn();
    const later = new Later(draw);
    later.ask("all");
    later.dispose();
    runFrame();
    await painted();
    expect(draw).not.toHaveBeenCalled();
  });
});
