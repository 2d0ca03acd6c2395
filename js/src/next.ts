// Drawing in the page's next frame, however many changes come before it.

import type { Changed } from "./marks";

export class NextFrame {
  private waiting: Changed = new Set();
  private frame = 0;

  constructor(private readonly draw: (changed: Changed) => void) {}

  ask(changed: Changed): void {
    const { waiting } = this;
    this.waiting =
      changed === "all" || waiting === "all" ? "all" : new Set([...waiting, ...changed]);
    this.frame ||= requestAnimationFrame(() => {
      const all = this.waiting;
      this.waiting = new Set();
      this.frame = 0;
      this.draw(all);
    });
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
  }
}
