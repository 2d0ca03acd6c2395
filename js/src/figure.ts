// Reads a bqplot figure: where its dots and vertices are on the screen, and which number each is.

import { type Hit, nextOf, type Readable } from "./hover";
import type { Reading, Series } from "./readings";

/** Beyond this distance, in pixels, the pointer means no dot. */
const REACH = 18;
/** What is drawn later lies on top: it wins against a dot that is nearer by this. */
const ON_TOP = 1.5;

/** bqplot would tell the kernel of each of these, though nobody there listens. */
const MOUSE = ["mouseover", "mousemove", "mouseout", "mouseenter", "mouseleave", "click"];

interface Vertex extends Hit {
  order: number;
}

export class FigureReader implements Readable {
  /** `along`: the points are values over the x axis, found by their x anywhere in the figure.
   * `series` tells of each mark its place among the figure's. */
  constructor(
    readonly area: HTMLElement,
    private readonly series: () => { index: number; series: Series }[],
    private readonly along: boolean,
  ) {
    for (const type of MOUSE) area.addEventListener(type, (event) => event.stopPropagation(), true);
  }

  read(x: number, y: number): Hit | null {
    let best: Vertex | null = null;
    let least = Number.POSITIVE_INFINITY;
    for (const vertex of this.vertices()) {
      const [dx, dy] = [vertex.x - x, vertex.y - y];
      // Along an axis the nearest column counts first, then the nearest line in it.
      const distance = this.along
        ? 1e3 * Math.abs(dx) + Math.abs(dy)
        : Math.hypot(dx, dy) - ON_TOP * vertex.order;
      const near = this.along || Math.hypot(dx, dy) <= REACH;
      if (near && distance <= least) {
        best = vertex;
        least = distance;
      }
    }
    return best;
  }

  step(from: Hit | null, dx: number, dy: number): Hit | null {
    const all = [...this.vertices()].sort((a, b) => a.x - b.x || a.y - b.y);
    if (!from) return this.along ? (all.at(-1) ?? null) : this.topmost(all);
    return nextOf(all, from, [dx, dy], this.along) ?? from;
  }

  private topmost(all: Vertex[]): Hit | null {
    return all.reduce<Vertex | null>((a, b) => (!a || b.order > a.order ? b : a), null);
  }

  /** Places as they are drawn, so that they are right whatever the scales and margins. */
  private *vertices(): Generator<Vertex> {
    const plot = this.area.querySelector("rect.plotarea_events");
    if (!plot) return;
    const corner = this.area.getBoundingClientRect();
    const origin = plot.getBoundingClientRect();
    const [left, top] = [origin.left - corner.left, origin.top - corner.top];
    const groups = this.area.querySelectorAll("svg.svg-figure g[clip-path]");
    let order = 0;
    for (const { index, series } of this.series()) {
      const group = groups[index];
      const places = group ? placesIn(group, series.curve) : [];
      const readings = drawn(series.readings, places.length);
      for (let i = 0; i < readings.length; i++) {
        const [x, y] = places[i] as [number, number];
        if (inside(x, origin.width) && inside(y, origin.height)) {
          yield { x: left + x, y: top + y, reading: readings[i] as Reading, order };
        }
      }
      order++;
    }
  }
}

const inside = (value: number, size: number) => value >= -1 && value <= size + 1;

/** Lines leave out what is no number; while a mark is being redrawn nothing can be told. */
function drawn(readings: Reading[], count: number): Reading[] {
  if (readings.length === count) return readings;
  const finite = readings.filter(({ quantities }) =>
    quantities.every((q) => Number.isFinite(q.value)),
  );
  return finite.length === count ? finite : [];
}

function placesIn(group: Element, curve: number): [number, number][] {
  const dots = group.querySelectorAll("g.object_grp");
  if (dots.length) {
    return Array.from(dots, (dot) => pairs(dot.getAttribute("transform"))[0] ?? [Number.NaN, 0]);
  }
  return pairs(group.querySelectorAll("path.line")[curve]?.getAttribute("d") ?? null);
}

/** The numbers of "translate(x, y)" or "Mx,yLx,y", two and two. */
function pairs(text: string | null): [number, number][] {
  const numbers = (text?.match(/-?\d+(?:\.\d+)?(?:e[+-]?\d+)?/g) ?? []).map(Number);
  return Array.from({ length: numbers.length >> 1 }, (_, i) => [
    numbers[2 * i] as number,
    numbers[2 * i + 1] as number,
  ]);
}
