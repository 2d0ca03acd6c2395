// What the person chose, held in the browser. Moves are drawn from here at once; the kernel is told
// afterwards, when the controls rest, so that dragging never floods it.

import type { AnyModel } from "@anywidget/types";
import type { Traits } from "./contract";

export const CHOICES = [
  "epsilon",
  "regularization",
  "label",
  "epoch",
  "attack_epsilon",
  "plane",
  "model",
  "image",
] as const;
export type Choice = Pick<Traits, (typeof CHOICES)[number]>;
const REST_MS = 120;

export class Choices {
  readonly now: Choice;
  private readonly listeners = new Set<(changed: ReadonlySet<keyof Choice>) => void>();
  private readonly unsaved = new Set<keyof Choice>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly model: AnyModel<Traits>) {
    this.now = Object.fromEntries(CHOICES.map((key) => [key, model.get(key)])) as unknown as Choice;
    for (const key of CHOICES) {
      model.on(`change:${key}`, () => {
        // A change from the kernel; one that the person has just overruled is dropped.
        if (!this.unsaved.has(key)) this.update({ [key]: model.get(key) });
      });
    }
  }

  /** A move of the person's: draw now, tell the kernel later. */
  choose(move: Partial<Choice>): void {
    const changed = this.update(move);
    for (const key of changed) this.unsaved.add(key);
    if (changed.size) this.saveAtRest();
  }

  onChange(listener: (changed: ReadonlySet<keyof Choice>) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.listeners.clear();
  }

  private update(move: Partial<Choice>): ReadonlySet<keyof Choice> {
    const changed = new Set<keyof Choice>();
    for (const key of CHOICES) {
      const value = move[key];
      if (value !== undefined && value !== this.now[key]) {
        Object.assign(this.now, { [key]: value });
        changed.add(key);
      }
    }
    if (changed.size) for (const listener of this.listeners) listener(changed);
    return changed;
  }

  private saveAtRest(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      for (const key of this.unsaved) this.model.set(key, this.now[key]);
      this.unsaved.clear();
      this.model.save_changes();
    }, REST_MS);
  }
}
