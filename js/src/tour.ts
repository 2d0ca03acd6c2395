// Four hints for those who see an Explorer for the first time. Once dismissed they never come back
// by themselves; the button with the question mark shows them again.

import { h } from "./dom";

export interface Hint {
  target: HTMLElement;
  text: string;
}

/** The hints to what is on the page now. */
export type Hints = () => readonly Hint[];

const KEY = "qwidgets-hints";
const DONE = "dismissed";

/** Whether the hints are still to be shown; no where the answer could not be kept. */
function wanted(): boolean {
  try {
    if (localStorage.getItem(KEY) === DONE) return false;
    // Private windows may have a storage that takes nothing.
    localStorage.setItem(KEY, "shown");
    return localStorage.getItem(KEY) === "shown";
  } catch {
    return false;
  }
}

function dismissed(): void {
  try {
    localStorage.setItem(KEY, DONE);
  } catch {
    // Without storage they were asked for with the button, and nothing needs to be remembered.
  }
}

export class Tour {
  private readonly count = h("span", { class: "qw-tour-count" });
  private readonly text = h("p", { "aria-live": "polite" });
  private readonly next = h("button", { type: "button", class: "qw-tour-next" }, "Next");
  private readonly close = h(
    "button",
    { type: "button", class: "qw-tour-close", "aria-label": "Dismiss the hints" },
    "×",
  );
  readonly element = h(
    "aside",
    { class: "qw-tour qw-screen-only", "aria-label": "Hints", hidden: true },
    ...[this.count, this.text, this.next, this.close],
  );
  readonly button = h(
    "button",
    { type: "button", class: "qw-help", "aria-label": "Show the hints", title: "Show the hints" },
    "?",
  );
  private at = 0;
  private marked: HTMLElement | undefined;

  constructor(private readonly hints: Hints) {
    this.next.addEventListener("click", () => {
      if (this.at + 1 < hints().length) this.show(this.at + 1);
      else this.dismiss();
    });
    this.close.addEventListener("click", () => this.dismiss());
    this.button.addEventListener("click", () => {
      this.show(0);
      this.next.focus();
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.dismiss();
    });
  }

  /** Begin by itself, for a person who has not dismissed it yet, in one Explorer of the page. */
  offer(): void {
    const elsewhere = document.querySelector(".qw-tour:not([hidden])");
    if (!elsewhere && wanted()) this.show(0);
  }

  dispose(): void {
    this.mark(undefined);
  }

  /** Find anew what a hint is to: the panels may have changed since the one before. */
  private show(at: number): void {
    const hints = this.hints();
    this.at = at;
    this.count.textContent = `Hint ${at + 1} of ${hints.length}`;
    this.text.textContent = hints[at]?.text ?? "";
    this.next.textContent = at + 1 < hints.length ? "Next" : "Done";
    this.element.hidden = false;
    this.mark(hints[at]?.target);
  }

  private dismiss(): void {
    const focused = this.element.contains(document.activeElement);
    this.mark(undefined);
    this.element.hidden = true;
    dismissed();
    // What had the focus is gone: the keyboard goes on from the button that brings it back.
    if (focused) this.button.focus();
  }

  private mark(target: HTMLElement | undefined): void {
    this.marked?.classList.remove("qw-hinted");
    target?.classList.add("qw-hinted");
    this.marked = target;
  }
}
