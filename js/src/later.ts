// Work that waits until what was drawn before it is on the screen.

import type { Changed } from "./marks";

/** Draws what changed once the next frame has been painted; moves that come before are one. */
export class Later {
  private waiting: Changed = new Set();
  private frame = 0;
  private readonly painted = new MessageChannel();

  constructor(private readonly draw: (changed: Changed) => void) {
    this.painted.port1.onmessage = () => {
      const changed = this.waiting;
      this.waiting = new Set();
      this.frame = 0;
      this.draw(changed);
    };
  }

  ask(changed: Changed): void {
    const { waiting } = this;
    this.waiting =
      changed === "all" || waiting === "all" ? "all" : new Set([...waiting, ...changed]);
    // The message follows the painting of the frame that it is sent from.
    this.frame ||= requestAnimationFrame(() => this.painted.port2.postMessage(null));
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
    this.painted.port1.close();
  }
}
