// The button that gives the Explorer the whole screen.

import { h, svg } from "./dom";

export class FullScreen {
  readonly button = h(
    "button",
    { type: "button", class: "qw-full-screen" },
    svg(
      "svg",
      { viewBox: "0 0 12 12", "aria-hidden": "true" },
      svg("path", { d: "M1 4V1h3M8 1h3v3M11 8v3H8M4 11H1V8" }),
    ),
  );

  /** @param run Runs an action; shows what goes wrong in it. */
  constructor(
    private readonly element: HTMLElement,
    run: (action: () => Promise<void>) => void,
  ) {
    // Hosts that show widgets in a frame may not let it have the screen.
    this.button.hidden = !document.fullscreenEnabled;
    this.button.addEventListener("click", () =>
      run(() => (this.on ? document.exitFullscreen() : element.requestFullscreen())),
    );
    document.addEventListener("fullscreenchange", this.show);
    this.show();
  }

  dispose(): void {
    document.removeEventListener("fullscreenchange", this.show);
  }

  private get on(): boolean {
    return document.fullscreenElement === this.element;
  }

  private readonly show = () => {
    const name = this.on ? "Leave full screen" : "Full screen";
    this.button.setAttribute("aria-label", name);
    this.button.title = name;
  };
}
