// A part of the page as one SVG file: plots, canvases, images and words as they are seen. Text stays
// text, and every colour and font is written out, so that the file needs no style sheet.

import { svg } from "./dom";

/** Presentation of SVG elements that a style sheet may have set. */
const SHAPE = [
  ...["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray"],
  ...["opacity", "stop-color"],
];
const TEXT = ["fill", "font-family", "font-size", "font-weight", "text-anchor"];
/** What SVG takes where nothing is said: left out of the file. */
const INITIAL: Record<string, string> = {
  "fill-opacity": "1",
  "stroke-opacity": "1",
  "stroke-dasharray": "none",
  stroke: "none",
  opacity: "1",
  "stop-color": "rgb(0, 0, 0)",
  "text-anchor": "start",
};
const CONTAINERS = ["g", "defs", "clipPath", "linearGradient", "svg"];
/** What is only for those at the screen: each is taken out with all that it holds. */
const SCREEN_ONLY = ".qw-screen-only, .bqplot.figure > :not(svg)";

/**
 * Draw an element and all that is visible in it.
 *
 * @param background A colour, or null for a transparent picture.
 * @param description Words that the file carries for those who do not see it.
 */
export function pictureOf(
  element: HTMLElement,
  background: string | null,
  description: string,
): SVGSVGElement {
  const box = element.getBoundingClientRect();
  const [width, height] = [Math.ceil(box.width), Math.ceil(box.height)];
  const picture = svg(
    "svg",
    { xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}` },
    svg("desc", {}, description),
  );
  if (background) picture.append(svg("rect", { width, height, fill: background }));
  new Painter(picture, box, background === null).paint(element, box.right);
  return picture;
}

export function sourceOf(picture: SVGSVGElement): string {
  return new XMLSerializer().serializeToString(picture);
}

/** The picture in pixels, `scale` to each of the page's. */
export async function pixelsOf(picture: SVGSVGElement, scale: number): Promise<Blob> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(sourceOf(picture))}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = scale * image.width;
  canvas.height = scale * image.height;
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser gives no canvas to draw the PNG on");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => {
      if (blob) resolve(blob);
      else reject(new Error("this browser could not write the PNG; the SVG has the same picture"));
    });
  });
}

class Painter {
  private gradients = 0;
  private readonly measure = document.createElement("canvas").getContext("2d");

  constructor(
    private readonly out: SVGElement,
    private readonly frame: DOMRect,
    private readonly transparent: boolean,
  ) {}

  /** @param end Where words end that would run on, as far to the right as the page lets them. */
  paint(element: Element, end: number): void {
    if (element.matches(SCREEN_ONLY)) return;
    const style = getComputedStyle(element);
    if (style.display === "none" || style.visibility === "hidden") return;
    if (element instanceof SVGSVGElement) {
      const copy = copyOf(element);
      if (copy) this.place(copy, element);
    } else if (element instanceof HTMLCanvasElement || element instanceof HTMLImageElement) {
      const href = element instanceof HTMLCanvasElement ? element.toDataURL() : element.src;
      const rendering = style.imageRendering;
      const attributes = { href, preserveAspectRatio: "none", "image-rendering": rendering };
      this.place(svg("image", attributes), element);
    } else if (element instanceof HTMLInputElement) this.slider(element, style);
    else {
      this.surface(element, style);
      if (element instanceof HTMLSelectElement) {
        const text = element.selectedOptions[0]?.text ?? "";
        const box = element.getBoundingClientRect();
        const left = box.left + Number.parseFloat(style.paddingLeft) + 4;
        this.text(text, left, box, style, endOf(element, style));
        return;
      }
      const room = style.textOverflow === "ellipsis" ? Math.min(end, endOf(element, style)) : end;
      for (const child of element.childNodes) {
        if (child instanceof Element) this.paint(child, room);
        else if (child instanceof Text) this.words(child, style, room);
      }
    }
  }

  private place(part: SVGElement, original: Element): void {
    const { left, top, width, height } = original.getBoundingClientRect();
    const place = { x: left - this.frame.left, y: top - this.frame.top, width, height };
    for (const [name, value] of Object.entries(place)) part.setAttribute(name, short(value));
    this.out.append(part);
  }

  private rectangle(box: DOMRect, attributes: Record<string, string | number>): void {
    this.out.append(
      svg("rect", {
        x: short(box.left - this.frame.left),
        y: short(box.top - this.frame.top),
        width: short(box.width),
        height: short(box.height),
        ...attributes,
      }),
    );
  }

  /** Background and border of an element. */
  private surface(element: Element, style: CSSStyleDeclaration): void {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height) return;
    const radius = style.borderTopLeftRadius.endsWith("%")
      ? Math.min(box.width, box.height) / 2
      : Math.min(Number.parseFloat(style.borderTopLeftRadius) || 0, box.height / 2);
    const gradient = this.gradient(style.backgroundImage);
    const large = box.width * box.height > 2000;
    // The surface of a panel is what a transparent picture does without; a legend keeps its own.
    const hidden = isClear(style.backgroundColor) || (this.transparent && large);
    const fill = gradient ?? (hidden ? "none" : style.backgroundColor);
    const sides = (["Top", "Right", "Bottom", "Left"] as const).map((side) => ({
      width: Number.parseFloat(style[`border${side}Width`]),
      color: style[`border${side}Color`],
    }));
    const drawn = sides.filter(({ width, color }) => width > 0 && !isClear(color));
    const [first] = drawn;
    if (drawn.length === 4 && first) {
      const inset = first.width / 2;
      const inner = new DOMRect(
        box.left + inset,
        box.top + inset,
        box.width - first.width,
        box.height - first.width,
      );
      const stroke = { stroke: first.color, "stroke-width": first.width };
      this.rectangle(inner, { rx: short(Math.max(0, radius - inset)), fill, ...stroke });
      return;
    }
    if (fill !== "none") this.rectangle(box, { rx: short(radius), fill });
    const top = sides[0];
    if (top && drawn.includes(top)) {
      this.rectangle(new DOMRect(box.left, box.top, box.width, top.width), { fill: top.color });
    }
  }

  /** A level gradient, as the colour bars have; null for anything else. */
  private gradient(image: string): string | null {
    const stops = image.startsWith("linear-gradient(90deg")
      ? [...image.matchAll(/(rgba?\([^)]*\))(?:\s+([\d.]+%))?/g)]
      : [];
    if (!stops.length) return null;
    const id = `gradient-${++this.gradients}`;
    this.out.append(
      svg(
        "linearGradient",
        { id },
        ...stops.map(([, color, offset], i) =>
          svg("stop", {
            offset: offset ?? `${(100 * i) / (stops.length - 1)}%`,
            "stop-color": color,
          }),
        ),
      ),
    );
    return `url(#${id})`;
  }

  /** A text as its lines, which the page has broken. */
  private words(node: Text, style: CSSStyleDeclaration, end: number): void {
    let line = "";
    let place: DOMRect | null = null;
    let right = 0;
    const flush = () => {
      const room = right > end + 1 ? end : Number.POSITIVE_INFINITY;
      if (place && line.trim()) this.text(line.trim(), place.left, place, style, room);
      line = "";
    };
    for (const { part, box } of partsOf(node)) {
      if (!place || Math.abs(box.top - place.top) > box.height / 2) {
        flush();
        place = box;
      }
      line += part;
      right = box.right;
    }
    flush();
  }

  /** One line of text, cut short where it would go beyond its end. */
  private text(
    content: string,
    left: number,
    box: DOMRect,
    style: CSSStyleDeclaration,
    end: number,
  ): void {
    if (left >= end) return;
    const { measure } = this;
    let ascent = 0.8 * box.height;
    let fitting = content;
    if (measure) {
      measure.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
      const font = measure.measureText(content);
      const full = font.fontBoundingBoxAscent + font.fontBoundingBoxDescent;
      ascent = (box.height - full) / 2 + font.fontBoundingBoxAscent;
      fitting = shortened(content, (text) => measure.measureText(text).width <= end - left);
    }
    const attributes = {
      x: short(left - this.frame.left),
      y: short(box.top - this.frame.top + ascent),
      fill: style.color,
      "font-family": style.fontFamily,
      "font-size": style.fontSize,
      "font-weight": style.fontWeight,
    };
    this.out.append(svg("text", attributes, fitting));
  }

  private slider(input: HTMLInputElement, style: CSSStyleDeclaration): void {
    if (input.type !== "range") return;
    const box = input.getBoundingClientRect();
    const color = (name: string) => style.getPropertyValue(name).trim();
    const radius = 9;
    const [min, max] = [Number(input.min), Number(input.max)];
    const at = radius + (box.width - 2 * radius) * ((input.valueAsNumber - min) / (max - min || 1));
    const bar = (width: number) => new DOMRect(box.left, box.top + radius - 2, width, 4);
    this.rectangle(bar(box.width), { rx: 2, fill: color("--qw-line") });
    this.rectangle(bar(at), { rx: 2, fill: color("--qw-now") });
    this.rectangle(new DOMRect(box.left + at - 8, box.top + radius - 8, 16, 16), {
      ...{ rx: 8, fill: color("--qw-panel"), stroke: color("--qw-now"), "stroke-width": 2 },
    });
  }
}

/** The words of a text and where they are; one that the page has broken is given by its letters. */
function* partsOf(node: Text): Generator<{ part: string; box: DOMRect }> {
  const range = document.createRange();
  const boxes = (start: number, end: number) => {
    range.setStart(node, start);
    range.setEnd(node, end);
    return [...range.getClientRects()].filter(({ width }) => width > 0);
  };
  for (const { 0: part, index } of node.data.matchAll(/\S+\s*/g)) {
    const [box, ...others] = boxes(index, index + part.trimEnd().length);
    if (!box) continue;
    if (!others.length) yield { part, box };
    else {
      for (const { 0: letter, index: at } of part.matchAll(/./gsu)) {
        const [place] = boxes(index + at, index + at + letter.length);
        if (place) yield { part: letter, box: place };
      }
    }
  }
}

/** A text, or as much of its beginning as fits with an ellipsis behind it. */
function shortened(text: string, fits: (text: string) => boolean): string {
  if (fits(text)) return text;
  const letters = [...text];
  let [enough, beyond] = [0, letters.length];
  while (beyond - enough > 1) {
    const middle = (enough + beyond) >> 1;
    if (fits(`${letters.slice(0, middle).join("")}…`)) enough = middle;
    else beyond = middle;
  }
  return `${letters.slice(0, enough).join("").trimEnd()}…`;
}

/** Where the words in an element must end. */
const endOf = (element: Element, { borderRightWidth, paddingRight }: CSSStyleDeclaration) =>
  element.getBoundingClientRect().right -
  Number.parseFloat(borderRightWidth) -
  Number.parseFloat(paddingRight);

/** A drawing with its presentation written out; null for what is not seen. */
function copyOf(element: SVGElement): SVGElement | null {
  const style = getComputedStyle(element);
  const name = element.localName;
  const defines = name === "defs" || element.closest("defs") !== null || name === "stop";
  if (style.display === "none" && !defines) return null;
  if (style.visibility === "hidden" || style.opacity === "0") return null;
  const copy = element.cloneNode(false) as SVGElement;
  for (const attribute of ["class", "style", "display"]) copy.removeAttribute(attribute);
  if (!["clipPath", "linearGradient"].includes(name)) copy.removeAttribute("id");
  const properties = name === "text" ? TEXT : CONTAINERS.includes(name) ? ["opacity"] : SHAPE;
  for (const property of properties) {
    const value = style.getPropertyValue(property);
    if (value === INITIAL[property]) copy.removeAttribute(property);
    // A reference to something in the page is written relative to the file.
    else if (value)
      copy.setAttribute(property, value.replace(/url\("[^"#]*(#[^"]*)"\)/, "url($1)"));
  }
  for (const child of element.childNodes) {
    if (child instanceof SVGElement) {
      const part = copyOf(child);
      if (part) copy.append(part);
    } else if (child instanceof Text) copy.append(child.data);
  }
  const empty = CONTAINERS.includes(name) || name === "text" ? !copy.childNodes.length : false;
  return empty && name !== "svg" ? null : copy;
}

const isClear = (color: string) => color === "transparent" || /, 0\)$/.test(color);
const short = (value: number) => String(Math.round(100 * value) / 100);
