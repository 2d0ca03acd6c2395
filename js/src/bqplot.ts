// The models and views of bqplot, which the page's widget manager keeps.

import type { AnyModel } from "@anywidget/types";
import { MARKS, type MarkName, PANELS, type Panel, type Traits } from "./contract";
import type { Mark, Marks } from "./marks";

/** What a bqplot figure view needs in order to be shown inside our own element. */
interface FigureView {
  el: HTMLElement;
  luminoWidget: { processMessage(message: unknown): void };
  update_marks(views: MarkView[]): void;
  update_legend(): void;
  /** Whether it is in sight, as bqplot sees it. */
  visible: boolean;
  relayout(): void;
  remove(): void;
}

/** What bqplot's views of marks, and the selections of d3 in them, are asked for here. */
interface MarkView {
  model: { mark_data: Datum[]; get(name: string): unknown };
  d3el: Selection;
  scales: Record<"x" | "y", { scale(value: number): number; offset: number }>;
  draw(animate?: boolean): void;
  get_mark_color(datum: Datum, index: number): string;
  /** The paths of a mark of lines. */
  line?(values: Datum["values"]): string | null;
  area?(values: Datum["values"]): string | null;
}

interface Datum {
  x: number;
  y: number;
  values: unknown[];
}

type Of<T> = T | ((datum: Datum, index: number) => T);
interface Selection {
  selectAll(css: string): Selection;
  select(css: string): Selection;
  data(data: Datum[]): Selection & { enter(): Selection; exit(): Selection };
  empty(): boolean;
  attr(name: string, value: Of<string | null>): Selection;
  style(name: string, value: Of<string>): Selection;
  interrupt(transition: string): Selection;
}

interface FigureModel {
  get(name: "marks"): Mark[];
}

/** What a model knows of the kernel behind it. */
interface Connected {
  comm_live: boolean;
  on(name: "comm_live_update", callback: () => void): void;
}

interface Manager {
  get_model(id: string): Promise<Mark & FigureModel & Connected>;
  create_view(model: unknown): Promise<FigureView>;
}

const idOf = (reference: string) => reference.slice("IPY_MODEL_".length);
const managerOf = (model: AnyModel<Traits>) => model.widget_manager as unknown as Manager;

export interface Linked {
  marks: Marks;
  /** Place of each mark among those of its figure. */
  order: ReadonlyMap<MarkName, number>;
}

/** @param connected Is told now, and when it changes, whether there is a kernel. */
export async function link(
  model: AnyModel<Traits>,
  connected: (live: boolean) => void,
): Promise<Linked> {
  const manager = managerOf(model);
  const references = model.get("marks");
  const models = await Promise.all(MARKS.map((name) => manager.get_model(idOf(references[name]))));
  const marks = Object.fromEntries(MARKS.map((name, i) => [name, models[i] as Mark])) as Marks;
  const [one] = models;
  one?.on("comm_live_update", () => connected(one.comm_live));
  if (one) connected(one.comm_live);
  const figures = model.get("figures");
  const order = new Map<MarkName, number>();
  for (const panel of PANELS) {
    const inside = (await manager.get_model(idOf(figures[panel]))).get("marks");
    for (const name of MARKS) {
      const index = inside.indexOf(marks[name]);
      if (index >= 0) order.set(name, index);
    }
  }
  return { marks, order };
}

interface Place {
  /** Ends the waiting for a size. */
  stop: () => void;
  /** It follows when bqplot has made it. */
  view?: FigureView;
}

/** Views of the figures in the page, by their elements. */
const viewOf = new WeakMap<Element, FigureView>();

/** Give a function that has these figures in their slots, and no others: what is not on the page is
 * not drawn. */
export function placeFigures(
  model: AnyModel<Traits>,
  slots: Record<Panel, HTMLElement>,
  failed: (error: unknown) => void,
): (wanted: ReadonlySet<string>) => void {
  const manager = managerOf(model);
  const references = model.get("figures");
  const placed = new Map<Panel, Place>();
  const place = async (name: Panel, slot: Place) => {
    const view = await manager.create_view(await manager.get_model(idOf(references[name])));
    if (placed.get(name) !== slot) return view.remove();
    // No mark is in a legend, but bqplot takes the empty one out of the page and puts it back at
    // every move of every mark, and the browser lays out and layers the figure anew.
    view.update_legend = () => {};
    const { update_marks } = view;
    view.update_marks = (views) => {
      update_marks.call(view, views);
      views.forEach(moveInPlace);
    };
    slot.view = view;
    viewOf.set(view.el, view);
    slots[name].append(view.el);
    // bqplot draws once it is told that it is in the page; a Lumino parent would send the same.
    for (const type of ["before-attach", "after-attach"]) {
      view.luminoWidget.processMessage({ type, isConflatable: false, conflate: () => false });
    }
  };
  return (wanted) => {
    for (const name of PANELS) {
      const old = placed.get(name);
      if (wanted.has(name) && !old) {
        const slot: Place = {
          stop: onceSized(slots[name], () => place(name, slot).catch(failed)),
        };
        placed.set(name, slot);
      }
      if (wanted.has(name) || !old) continue;
      placed.delete(name);
      old.stop();
      old.view?.remove();
    }
  };
}

/** Call back once an element has a size: in a panel or a tab that is hidden, bqplot would draw a
 * figure of negative width. Returns a function that ends the waiting. */
function onceSized(element: HTMLElement, callback: () => void): () => void {
  const observer = new ResizeObserver(() => {
    if (!element.clientWidth) return;
    observer.disconnect();
    callback();
  });
  observer.observe(element);
  return () => observer.disconnect();
}

/** Have the figures in an element fill their places now: those out of sight bqplot lets wait after
 * a resize, and those in sight a while. */
export async function fitFigures(element: HTMLElement): Promise<void> {
  for (const figure of element.querySelectorAll(".bqplot.figure")) {
    const view = viewOf.get(figure);
    if (!view || !figure.clientWidth) continue;
    view.visible = true;
    view.relayout();
  }
  // The first frame lays out, and has d3 move the marks in the second.
  for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
}

/** Let a mark whose lines or dots stay as many only move them. bqplot has three transitions run for
 * each of them, begun in a timer and ended in the next frame, and sets every style and the unseen
 * names too: half of the time that a move takes. Those that still run from a drawing of its own are
 * ended, or they would put back the places and colours from before the move. */
function moveInPlace(view: MarkView): void {
  const draw = view.draw.bind(view);
  const lines = view.line !== undefined;
  view.draw = (animate) => {
    const { mark_data } = view.model;
    const parts = view.d3el.selectAll(lines ? ".curve" : ".object_grp").data(mark_data);
    if (!parts.enter().empty() || !parts.exit().empty()) draw(animate);
    else if (lines) moveLines(view, parts);
    else moveDots(view, parts);
  };
}

function moveLines(view: MarkView, curves: Selection): void {
  const running = "update_line_xy";
  const line = curves.select(".line").interrupt(running);
  line.attr("d", ({ values }) => view.line?.(values) ?? null);
  const area = curves.select(".area").interrupt(running);
  area.attr("d", ({ values }) => view.area?.(values) ?? null);
}

function moveDots(view: MarkView, dots: Selection): void {
  const { x, y } = view.scales;
  const at = (datum: Datum) =>
    `translate(${x.scale(datum.x) + x.offset},${y.scale(datum.y) + y.offset})`;
  const color = (datum: Datum, index: number) => view.get_mark_color(datum, index);
  const { model } = view;
  dots.interrupt("update_position").attr("transform", at);
  dots
    .select("path")
    .interrupt("color_scale_updated")
    .style("fill", model.get("fill") ? color : "none")
    .style("stroke", (model.get("stroke") as string | null) ?? color);
}
