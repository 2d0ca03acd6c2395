// What went wrong, where the person is who can do something about it.

import { h } from "./dom";

/** A way on. */
export interface Remedy {
  label: string;
  action: () => void;
}

export class Problems {
  readonly element = h("div", { class: "qw-problems qw-screen-only" });
  private readonly shown = new Map<string, HTMLElement>();

  /** Show a problem of a kind; a newer one of the kind takes its place, no message takes it away. */
  show(kind: string, message: string, remedy?: Remedy, onDismiss?: () => void): void {
    this.shown.get(kind)?.remove();
    this.shown.delete(kind);
    if (!message) return;
    const away = () => {
      this.show(kind, "");
      onDismiss?.();
    };
    const button = (label: string, action: () => void) => {
      const element = h("button", { type: "button", "data-lm-suppress-shortcuts": "true" }, label);
      element.addEventListener("click", action);
      return element;
    };
    const buttons = [button("Dismiss", away)];
    if (remedy) {
      const { label, action } = remedy;
      buttons.unshift(
        button(label, () => {
          away();
          action();
        }),
      );
    }
    const element = h(
      "div",
      { class: "qw-problem", role: "alert" },
      h("p", {}, message),
      h("div", {}, ...buttons),
    );
    this.shown.set(kind, element);
    this.element.append(element);
  }
}

/** An error in one line, with its kind. */
export function inWords(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
