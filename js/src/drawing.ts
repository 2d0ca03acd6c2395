// When the page draws: a person's move at once, what the kernel sends once a frame.

import type { Changed } from "./marks";

export class Drawing {
  private waiting: Changed = new Set();
  private frame = 0;

  constructor(private readonly draw: (changed: Changed) => void) {}

  /** Draw what changed in the next frame, with all that changes before it. */
  ask(changed: Changed): void {
    this.add(changed);
    this.frame ||= requestAnimationFrame(() => this.run());
  }

  /** Draw what changed, and what waits, now. */
  now(changed: Changed): void {
    this.add(changed);
    this.run();
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
  }

  private add(changed: Changed): void {
    const { waiting } = this;
    this.waiting =
      changed === "all" || waiting === "all" ? "all" : new Set([...waiting, ...changed]);
  }

  private run(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const all = this.waiting;
    this.waiting = new Set();
    this.draw(all);
  }
}
