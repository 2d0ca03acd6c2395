// Small helpers for building elements and writing numbers.

type Attributes = Record<string, string | number | boolean | undefined>;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    // An attribute of ARIA says "true"; one of HTML is there or not.
    const bare = value === true && !name.startsWith("aria-");
    element.setAttribute(name, bare ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/** Say something unless it is said already: to say it again would have the page laid out anew.
 * Words in the place of words are no new node, for which styles with `:has` would be asked again. */
export function say(element: Element, text: string): void {
  if (element.textContent === text) return;
  const [only, ...others] = element.childNodes;
  if (text && only instanceof Text && others.length === 0) only.data = text;
  else element.textContent = text;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

/** Three significant digits without exponent noise: 0.286, 1.76, 12.3; a dash where undefined. */
export function significant(value: number, digits = 3): string {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  // Rounded first: 9.996 has its first digit where 10.0 has it.
  const magnitude = Math.abs(Number(value.toPrecision(digits)));
  if (magnitude < 1e-4 || magnitude >= 1e5) return value.toExponential(digits - 1);
  return value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(magnitude))));
}

/** Value to three digits and its standard error to one. */
export function withError(value: number, error: number): string {
  if (!Number.isFinite(value)) return "–";
  return Number.isFinite(error)
    ? `${significant(value)} ± ${significant(error, 1)}`
    : significant(value);
}

/** Slider values: at least two decimals, no trailing zeros beyond them. */
export function setting(value: number): string {
  const text = significant(value, 3);
  const trimmed = text.includes(".") && !text.includes("e") ? text.replace(/0+$/, "") : text;
  const decimals = trimmed.split(".")[1]?.length ?? 0;
  return decimals < 2 && !text.includes("e") ? value.toFixed(2) : trimmed;
}

export function percent(value: number, digits = 1): string {
  return Number.isFinite(value) ? `${(100 * value).toFixed(digits)}%` : "–";
}

/** Evenly spaced round numbers that cover [low, high], about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 5, 10].find((m) => m * power >= raw) ?? 10) * power;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

/** A number with true minus signs. */
export const minus = (number: string | number): string => String(number).replaceAll("-", "−");
