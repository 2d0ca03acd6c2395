// Reading values: a card beside the point under the pointer, or the one that the arrow keys chose.

import { h, setting } from "./dom";
import { inWords, type Reading } from "./readings";

/** A point of a panel that can be read, in pixels from the corner of the panel's area. */
export interface Hit {
  x: number;
  y: number;
  reading: Reading;
  /** What a click or Enter there does, where it does anything. */
  choose?: () => void;
}

/** The next of these points in the direction of a key; what is nearly sideways comes last.
 * `inColumn`: of those above and below only such as have the same x. */
export function nextOf<T extends { x: number; y: number }>(
  all: readonly T[],
  from: { x: number; y: number },
  [dx, dy]: readonly [number, number],
  inColumn = false,
): T | null {
  let best: T | null = null;
  let least = Number.POSITIVE_INFINITY;
  for (const point of all) {
    const [x, y] = [point.x - from.x, point.y - from.y];
    const ahead = dx * x + dy * y;
    const aside = Math.abs(dx ? y : x);
    const distance = ahead + 2 * aside;
    if (ahead > 0.5 && !(inColumn && dy !== 0 && aside > 0.5) && distance < least) {
      best = point;
      least = distance;
    }
  }
  return best;
}

/** An area whose values can be read. */
export interface Readable {
  readonly area: HTMLElement;
  /** What the pointer at this place means; null where there is nothing near. */
  read(x: number, y: number): Hit | null;
  /** Where an arrow key goes from here; from nowhere to where reading begins. */
  step(from: Hit | null, dx: number, dy: number): Hit | null;
}

const ARROWS: Record<string, [number, number]> = {
  ArrowRight: [1, 0],
  ArrowLeft: [-1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
/** Distance of the card from its point, and of both from the edge. */
const GAP = 14;
const EDGE = 4;

export class Hover {
  private readonly ring = h("i", { class: "qw-ring" });
  // Spoken when the keys move it: `role` makes it a polite live region.
  private readonly card = h("div", { class: "qw-card", role: "status" });
  readonly element = h("div", { class: "qw-hover" }, this.ring, this.card);
  private shown: { panel: Readable; find: () => Hit | null; hit: Hit } | null = null;
  private frame = 0;

  /** `root` is what the card is placed in and must not leave. */
  constructor(
    private readonly root: HTMLElement,
    panels: readonly Readable[],
  ) {
    this.hide();
    root.append(this.element);
    for (const panel of panels) {
      const { area } = panel;
      const point = ({ clientX, clientY }: PointerEvent) => {
        const box = area.getBoundingClientRect();
        this.show(panel, () => panel.read(clientX - box.left, clientY - box.top));
      };
      area.addEventListener("pointermove", point);
      area.addEventListener("pointerdown", point);
      area.addEventListener("click", () => this.choose(panel));
      area.addEventListener("pointerleave", () => this.hide());
      area.addEventListener("blur", () => this.hide());
      area.addEventListener("keydown", (event) => this.onKey(panel, event));
    }
  }

  /** After something was drawn: the value under the pointer may be another. */
  refresh(): void {
    if (!this.shown || this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.shown) this.show(this.shown.panel, this.shown.find);
    });
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
    this.hide();
  }

  private onKey(panel: Readable, event: KeyboardEvent): void {
    if (event.key === "Escape" && this.shown) {
      event.stopPropagation();
      this.hide();
      return;
    }
    if ((event.key === "Enter" || event.key === " ") && this.choose(panel)) event.preventDefault();
    const arrow = ARROWS[event.key];
    if (!arrow || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const hit = panel.step(this.shown?.panel === panel ? this.shown.hit : null, ...arrow);
    // Exactly this one, also where another lies on it.
    if (hit) this.show(panel, () => panel.read(hit.x, hit.y), hit);
  }

  /** Do what the value that is read is good for; false where it is for reading alone. */
  private choose(panel: Readable): boolean {
    const choose = this.shown?.panel === panel ? this.shown.hit.choose : undefined;
    choose?.();
    return choose !== undefined;
  }

  private show(panel: Readable, find: () => Hit | null, hit = find()): void {
    if (!hit) {
      this.hide();
      return;
    }
    this.shown = { panel, find, hit };
    panel.area.classList.toggle("qw-to-choose", hit.choose !== undefined);
    this.card.replaceChildren(...words(hit.reading));
    this.element.hidden = false;
    const frame = this.root.getBoundingClientRect();
    const area = panel.area.getBoundingClientRect();
    const x = area.left - frame.left + hit.x;
    const y = area.top - frame.top + hit.y;
    const { offsetWidth: width, offsetHeight: height } = this.card;
    const right = x + GAP + width + EDGE <= frame.width;
    const left = right ? x + GAP : Math.max(EDGE, x - GAP - width);
    const top = Math.min(Math.max(EDGE, y - height - GAP), frame.height - height - EDGE);
    this.ring.style.transform = `translate(${x}px, ${y}px)`;
    this.card.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  private hide(): void {
    this.shown?.panel.area.classList.remove("qw-to-choose");
    this.shown = null;
    this.element.hidden = true;
  }
}

function words(reading: Reading): Node[] {
  const { kind, model, epsilon, regularization, group, label, attack, quantities, note } = reading;
  const where = model === undefined ? [`epoch ${reading.epoch}`] : [];
  if (label !== undefined) where.push(`${group} ${label}`);
  if (attack !== undefined) where.push(`attack radius ${setting(attack)}`);
  const rows = quantities.flatMap((quantity) => [
    h("dt", {}, quantity.symbol),
    h("dd", {}, inWords(quantity)),
  ]);
  return [
    h("strong", {}, model ?? `ε ${setting(epsilon)}, λ ${setting(regularization)}`),
    h("span", { class: "qw-card-kind" }, kind),
    h("span", {}, where.join(" · ")),
    h("dl", {}, ...rows),
    ...(note ? [h("span", {}, note)] : []),
  ];
}
