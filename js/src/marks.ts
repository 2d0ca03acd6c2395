// Draws a choice on the bqplot marks. One `set` per mark and move; arrays are new each time,
// because in-place edits are invisible to the models.

import type { MarkName } from "./contract";
import { type Cube, type Place, single } from "./cube";
import type { Choice } from "./state";

/** The part of a bqplot mark model that is used here. */
export interface Mark {
  set(values: Record<string, unknown>): void;
}
export type Marks = Record<MarkName, Mark>;

const f32 = (length: number, value: (i: number) => number) =>
  Float32Array.from({ length }, (_, i) => value(i));
/** A number for each network that stands in the figures. */
const ofDots = ({ dots }: Cube, value: (at: Place) => number) =>
  f32(dots.length, (dot) => value(dots[dot] as Place));

/** Indices of the points that no other point beats in both coordinates, by growing x. */
export function paretoFront(x: ArrayLike<number>, y: ArrayLike<number>): number[] {
  const order = Array.from({ length: x.length }, (_, i) => i)
    .filter((i) => Number.isFinite(x[i]) && Number.isFinite(y[i]))
    .sort((a, b) => (x[b] as number) - (x[a] as number) || (y[b] as number) - (y[a] as number));
  const front: number[] = [];
  let best = Number.NEGATIVE_INFINITY;
  for (const i of order) {
    if ((y[i] as number) > best) {
      best = y[i] as number;
      front.push(i);
    }
  }
  return front.reverse();
}

/** Of a value, where an error bar that reaches zero or less ends: beyond any axis, but on one that is
 * logarithmic too. */
const LOWEST_SHARE = 1e-6;

/** A cross of two lines, one standard error to either side of a point; none where it is undefined.
 * No quantity that has one is ever negative. */
export function errorBars(x: number, y: number, dx: number, dy: number) {
  const pair = (a: number, b: number) => new Float32Array([a, b]);
  const around = (value: number, error: number) =>
    pair(Math.max(value - error, LOWEST_SHARE * value), value + error);
  const bars = [
    [around(x, dx), pair(y, y)],
    [pair(x, x), around(y, dy)],
  ].filter((bar) => bar.every((ends) => ends.every(Number.isFinite)));
  return { x: bars.map(([ends]) => ends), y: bars.map(([, ends]) => ends) };
}

/** Of points given by their coordinates, those that are defined: bqplot writes others as they are. */
export function defined<K extends string>(
  points: Record<K, Float32Array>,
): Record<K, Float32Array> {
  const columns = Object.values<Float32Array>(points);
  const keep = (_: number, i: number) => columns.every((column) => Number.isFinite(column[i]));
  const kept = Object.entries<Float32Array>(points).map(([key, column]) => [
    key,
    column.filter(keep),
  ]);
  return Object.fromEntries(kept) as Record<K, Float32Array>;
}

/** What of a choice is drawn: all of it, or what follows from the parts that changed. */
export type Changed = ReadonlySet<keyof Choice> | "all";

interface Move {
  marks: Marks;
  cube: Cube;
  choice: Choice;
  place: Place;
  /** Without regularization and at the smallest radius: the clean network wherever the grid has
   * one. */
  reference: Place;
  touched: (...keys: (keyof Choice)[]) => boolean;
}

export function drawMarks(marks: Marks, cube: Cube, choice: Choice, changed: Changed): void {
  const touched = (...keys: (keyof Choice)[]) =>
    changed === "all" || keys.some((key) => changed.has(key));
  const place = cube.place(choice);
  const move: Move = { marks, cube, choice, place, reference: single(0), touched };
  // Of the two views of the plane, one is seen.
  if (choice.plane === "neighborhood" && cube.measured()) drawNeighborhood(move);
  else drawPlane(move);
  drawCurves(move);
  drawTradeoff(move);
  drawRobustness(move);
}

function drawPlane({ marks, cube, choice, place, reference, touched }: Move): void {
  const { label, epoch } = choice;
  const point = (name: string, at: Place) => new Float32Array([cube.at(name, at, epoch, label)]);
  if (touched("epsilon", "regularization", "model", "label", "epoch", "plane")) {
    const here = (name: string) => cube.at(name, place, epoch, label);
    marks.plane_error.set(
      errorBars(
        here("position_std"),
        here("momentum_std"),
        here("position_std_error"),
        here("momentum_std_error"),
      ),
    );
    const now = defined({ x: point("position_std", place), y: point("momentum_std", place) });
    marks.plane_now.set({ ...now, fill: place.trained });
    const passed = cube.indicesUpTo(place, epoch);
    marks.plane_trail.set(
      defined({
        x: f32(passed, (e) => cube.at("position_std", place, e, label)),
        y: f32(passed, (e) => cube.at("momentum_std", place, e, label)),
      }),
    );
  }
  if (touched("label", "epoch", "plane")) {
    const networks = (value: (at: Place) => number) => ofDots(cube, value);
    marks.plane_networks.set(
      defined({
        x: networks((at) => cube.at("position_std", at, epoch, label)),
        y: networks((at) => cube.at("momentum_std", at, epoch, label)),
        color: networks((at) => 2 * cube.at("uncertainty_product", at, epoch, label) - 1),
      }),
    );
    marks.plane_reference.set(
      defined({ x: point("position_std", reference), y: point("momentum_std", reference) }),
    );
  }
}

function drawCurves({ marks, cube, choice, place, reference, touched }: Move): void {
  const { epoch, attack_epsilon: radius } = choice;
  if (touched("epsilon", "regularization", "model", "attack_epsilon")) {
    // Each of its own length: a line that ends in a number that is none would be placed nowhere.
    const lengths = [reference, place].map((at) => cube.epochsOf(at));
    const x = lengths.map((length) => f32(length, (e) => cube.trainedEpochs(e)));
    const curve = (value: (at: Place, e: number) => number) =>
      [reference, place].map((at, i) => f32(lengths[i] as number, (e) => value(at, e)));
    if (touched("epsilon", "regularization", "model")) {
      marks.curves_clean.set({ x, y: curve((at, e) => cube.at("clean_accuracy", at, e)) });
    }
    marks.curves_robust.set({ x, y: curve((at, e) => cube.robust(at, e, radius)) });
  }
  if (touched("epoch")) {
    const x = cube.trainedEpochs(epoch);
    marks.curves_epoch.set({ x: new Float32Array([x, x]), y: new Float32Array([0, 1]) });
  }
}

function drawTradeoff({ marks, cube, choice, place, reference, touched }: Move): void {
  const { epoch, attack_epsilon: radius } = choice;
  const robust = (at: Place) => new Float32Array([cube.robust(at, epoch, radius)]);
  const clean = (at: Place) => new Float32Array([cube.at("clean_accuracy", at, epoch)]);
  if (touched("epsilon", "regularization", "model", "epoch", "attack_epsilon")) {
    marks.tradeoff_error.set(
      errorBars(
        cube.at("clean_accuracy", place, epoch),
        cube.robust(place, epoch, radius),
        cube.at("clean_accuracy_error", place, epoch),
        cube.robust(place, epoch, radius, "robust_accuracy_error"),
      ),
    );
    const now = defined({ x: clean(place), y: robust(place) });
    marks.tradeoff_now.set({ ...now, fill: place.trained });
  }
  if (touched("epoch", "attack_epsilon")) {
    const x = ofDots(cube, (at) => cube.at("clean_accuracy", at, epoch));
    const y = ofDots(cube, (at) => cube.robust(at, epoch, radius));
    const front = paretoFront(x, y);
    marks.tradeoff_networks.set(defined({ x, y }));
    marks.tradeoff_front.set({
      x: f32(front.length, (i) => x[front[i] as number] as number),
      y: f32(front.length, (i) => y[front[i] as number] as number),
    });
    marks.tradeoff_reference.set(defined({ x: clean(reference), y: robust(reference) }));
  }
}

function drawRobustness({ marks, cube, choice, place, reference, touched }: Move): void {
  const { epoch, attack_epsilon: radius } = choice;
  if (touched("epsilon", "regularization", "model", "epoch")) {
    const x = Float32Array.from(cube.attack.values);
    const along = (value: (k: number) => number) => f32(x.length, value);
    const robustAt = (at: Place, k: number) => cube.at("robust_accuracy", at, epoch, k);
    const error = (k: number) => cube.at("robust_accuracy_error", place, epoch, k);
    marks.robustness_band.set({
      x,
      y: [-1, 1].map((side) => along((k) => robustAt(place, k) + side * error(k))),
    });
    marks.robustness_lines.set({
      x,
      y: [reference, place].map((at) => along((k) => robustAt(at, k))),
    });
  }
  if (touched("attack_epsilon")) {
    marks.robustness_radius.set({
      x: new Float32Array([radius, radius]),
      y: new Float32Array([0, 1]),
    });
  }
}

/** Effective radii of the neighbourhood of the class; nothing where they were not measured. */
function drawNeighborhood({ marks, cube, choice, place, reference, touched }: Move): void {
  if (!touched("epsilon", "regularization", "model", "label", "epoch", "plane")) return;
  const { label, epoch } = choice;
  const read = (quantity: string, at: Place, e: number) =>
    cube.at(`neighborhood_${quantity}`, at, e, label);
  const points = (places: readonly [Place, number][]) => {
    const measured = places.filter(([at, e]) => Number.isFinite(read("momentum_std", at, e)));
    const values = (quantity: string) =>
      f32(measured.length, (i) => read(quantity, ...(measured[i] as [Place, number])));
    return { x: values("position_std"), y: values("momentum_std") };
  };
  const networks = cube.dots.map((dot): [Place, number] => [dot, epoch]);
  const now = points([[place, epoch]]);
  marks.neighborhood_now.set({ ...now, fill: place.trained });
  marks.neighborhood_networks.set(points(networks));
  marks.neighborhood_reference.set(points([[reference, epoch]]));
  marks.neighborhood_trail.set(
    points(
      Array.from({ length: cube.indicesUpTo(place, epoch) }, (_, e): [Place, number] => [place, e]),
    ),
  );
  const [x, y] = [now.x[0], now.y[0]];
  const nothing = new Float32Array(0);
  if (x === undefined || y === undefined) {
    marks.neighborhood_error.set({ x: nothing, y: nothing });
    marks.neighborhood_bound.set({ x: nothing, y: nothing });
    return;
  }
  const error = (quantity: string) => read(`${quantity}_error`, place, epoch);
  marks.neighborhood_error.set(errorBars(x, y, error("position_std"), error("momentum_std")));
  // The bound of this very network, a straight line on log axes, far beyond both of their ends.
  const bound = read("bound", place, epoch);
  const ends = new Float32Array([x / 1e3, x * 1e3]);
  marks.neighborhood_bound.set({
    x: bound > 0 ? ends : nothing,
    y: bound > 0 ? ends.map((end) => bound / end) : nothing,
  });
}
