// Colours of the style sheet for what is drawn on a canvas, and word of their change.

/** Call back in the first frame in which another theme's style sheet holds; returns the end. */
export function onTheme(changed: () => void): () => void {
  const later = () => requestAnimationFrame(changed);
  const themes = new MutationObserver(later);
  themes.observe(document.body, {
    attributes: true,
    attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"],
  });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", later);
  return () => {
    themes.disconnect();
    scheme.removeEventListener("change", later);
  };
}

export type Ramp = (share: number) => [number, number, number];

const SEQUENTIAL = ["--qw-panel", "--qw-positive", "--qw-deep"];
const DIVERGING = ["--qw-negative", "--qw-panel", "--qw-positive"];
export const RAMPS = { sequential: SEQUENTIAL, diverging: DIVERGING };

/** Colours of shares 0 to 1 along some of the theme's: one hue, or two that the colour-blind tell
 * apart. */
export function ramp(element: Element, names: readonly string[]): Ramp {
  const style = getComputedStyle(element);
  const stops = names.map((name) => parseColor(style.getPropertyValue(name)));
  return blend(stops);
}

/** Piecewise linear colours between evenly spaced stops. */
export function blend(stops: readonly (readonly number[])[]): Ramp {
  return (share) => {
    const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
    const i = Math.min(Math.floor(place), stops.length - 2);
    const [low, high] = [stops[i] as number[], stops[i + 1] as number[]];
    return low.map((value, c) => value + (place - i) * ((high[c] as number) - value)) as [
      number,
      number,
      number,
    ];
  };
}

/** Red, green and blue of "#rrggbb". */
export function parseColor(text: string): number[] {
  const hex = text.trim().replace("#", "");
  return [0, 2, 4].map((i) => Number.parseInt(hex.slice(i, i + 2), 16));
}
