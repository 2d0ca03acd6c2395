// What the panels show, as numbers: the same list is read by the pointer and written to a CSV file.

import type { MarkName, Panel } from "./contract";
import { type Cube, type Place, single } from "./cube";
import { percent, withError } from "./dom";
import type { Choice } from "./state";

export interface Quantity {
  /** As in the cube of Python. */
  name: string;
  /** As in the axis labels. */
  symbol: string;
  /** Empty for a number without unit; "%" for a fraction that is shown in percent. */
  unit: string;
  value: number;
  /** NaN where there is none. */
  error: number;
}

/** One network, or one point between networks, and what is known of it. */
export interface Reading {
  kind: string;
  /** Name of a model of one's own, which has the settings of no grid. */
  model?: string;
  epsilon: number;
  regularization: number;
  epoch: number;
  /** Name of the class, where the quantities are of one. */
  label?: string;
  /** What a label is, as in the cube. */
  group: string;
  attack?: number;
  /** The first two are the coordinates of the point. */
  quantities: Quantity[];
  /** One more line for people. */
  note?: string;
}

/** The readings that one curve, or the dots, of a mark are drawn from, in their order. */
export interface Series {
  mark: MarkName;
  curve: number;
  name: string;
  readings: Reading[];
}

/** What the numbers of a place are of, when the slider stands at `epoch`. */
export function kindOf(cube: Cube, { trained, refined }: Place, epoch: number): string {
  if (cube.models.length) return "your model";
  if (refined && epoch > 0) {
    const done = cube.reached(refined, epoch);
    return trained ? "refined network" : `being refined, ${done} of ${refined.epochs} epochs`;
  }
  if (refined) return "the network it was refined from";
  if (!trained) return "interpolated between trained networks";
  return epoch === 0 ? "untrained network" : "trained network";
}

/** Which network, or which point between networks, a place is. */
export function settingsOf(
  cube: Cube,
  { networks, refined }: Place,
  { epsilon, regularization }: Pick<Choice, "epsilon" | "regularization">,
): Pick<Reading, "group" | "model" | "epsilon" | "regularization"> {
  const { group } = cube;
  const [network = 0] = networks;
  const model = cube.models[network];
  if (model !== undefined) return { group, model, epsilon: Number.NaN, regularization: Number.NaN };
  if (refined) return { group, epsilon: refined.epsilon, regularization: refined.regularization };
  if (networks.length > 1) return { group, epsilon, regularization };
  const columns = cube.regularization.values.length;
  return {
    group,
    epsilon: cube.epsilon.values[Math.floor(network / columns)] as number,
    regularization: cube.regularization.values[network % columns] as number,
  };
}

export function inWords({ value, error, unit }: Quantity): string {
  if (unit !== "%") return withError(value, error) + (unit && ` (${unit})`);
  const spread = Number.isFinite(error) ? ` ± ${(100 * error).toFixed(1)}` : "";
  return Number.isFinite(value) ? percent(value) + spread : "–";
}

const LENGTH = "input units";
const INVERSE = "1 / input units";

/** Everything that a bqplot panel shows, the most important last. */
export function seriesOf(panel: Panel, cube: Cube, choice: Choice): Series[] {
  const { label, epoch, attack_epsilon: radius } = choice;
  const place = cube.place(choice);
  const at = (name: string, where: Place, e: number, k: number) => cube.at(name, where, e, k);
  const about = (where: Place, e: number) => ({
    kind: kindOf(cube, where, e),
    ...settingsOf(cube, where, choice),
    epoch: cube.epochOf(where, e),
  });
  const measured = (
    name: string,
    symbol: string,
    unit: string,
    where: Place,
    e: number,
    k = 0,
  ) => ({
    name,
    symbol,
    unit,
    value: at(name, where, e, k),
    error: at(`${name}_error`, where, e, k),
  });
  const packet = (where: Place, e: number): Reading => ({
    ...about(where, e),
    label: cube.labels[label] ?? "–",
    quantities: [
      measured("position_std", "σx", LENGTH, where, e, label),
      measured("momentum_std", "σp", INVERSE, where, e, label),
      measured("uncertainty_product", "σx σp", "", where, e, label),
    ],
    note: "bound 0.500",
  });
  const neighborhood = (where: Place, e: number): Reading => ({
    ...about(where, e),
    label: cube.labels[label] ?? "–",
    quantities: [
      measured("neighborhood_position_std", "Δx", LENGTH, where, e, label),
      measured("neighborhood_momentum_std", "Δp", INVERSE, where, e, label),
      measured("neighborhood_bound", "bound", "", where, e, label),
      measured("neighborhood_boundary", "B", "", where, e, label),
    ],
  });
  const clean = (where: Place, e: number) => measured("clean_accuracy", "clean", "%", where, e);
  const robust = (where: Place, e: number, r: number): Quantity => ({
    name: "robust_accuracy",
    symbol: "robust",
    unit: "%",
    value: cube.robust(where, e, r),
    error: cube.robust(where, e, r, "robust_accuracy_error"),
  });
  const accuracies = (where: Place, e: number): Reading => ({
    ...about(where, e),
    attack: radius,
    quantities: [clean(where, e), robust(where, e, radius)],
  });
  const under = (where: Place, r: number): Reading => ({
    ...about(where, epoch),
    attack: r,
    quantities: [robust(where, epoch, r)],
  });
  const reference = single(0);
  const path = Array.from({ length: cube.indicesUpTo(place, epoch) }, (_, e) => e);

  const plane = (kind: "plane" | "neighborhood", read: (where: Place, e: number) => Reading) => {
    const named = (mark: string, name: string, readings: Reading[]): Series => ({
      mark: `${kind}_${mark}` as MarkName,
      curve: 0,
      name,
      readings: readings.filter(({ quantities: [x, y] }) => known(x) && known(y)),
    });
    return [
      named(
        "networks",
        "networks",
        cube.dots.map((where) => read(where, epoch)),
      ),
      named(
        "trail",
        "path",
        path.map((e) => read(place, e)),
      ),
      named("reference", "reference", [read(reference, epoch)]),
      named("now", "now", [read(place, epoch)]),
    ];
  };
  switch (panel) {
    case "plane":
      return plane("plane", packet);
    case "neighborhood":
      return cube.measured() ? plane("neighborhood", neighborhood) : [];
    case "tradeoff": {
      const dots = (mark: MarkName, name: string, where: readonly Place[]): Series => ({
        mark,
        curve: 0,
        name,
        readings: where.map((one) => accuracies(one, epoch)),
      });
      return [
        dots("tradeoff_networks", "networks", cube.dots),
        dots("tradeoff_reference", "reference", [reference]),
        dots("tradeoff_now", "now", [place]),
      ];
    }
    case "curves":
      return (["curves_clean", "curves_robust"] as const).flatMap((mark) =>
        [reference, place].map((where, curve) => ({
          mark,
          curve,
          name: curve ? "now" : "reference",
          readings: Array.from({ length: cube.epochsOf(where) }, (_, e) => accuracies(where, e)),
        })),
      );
    case "robustness":
      return [reference, place].map((where, curve) => ({
        mark: "robustness_lines",
        curve,
        name: curve ? "now" : "reference",
        readings: cube.attack.values.map((r) => under(where, r)),
      }));
  }
}

const known = (quantity: Quantity | undefined) =>
  quantity !== undefined && Number.isFinite(quantity.value);

/** A table for a file: names of the columns, then rows of numbers and words. */
export interface Table {
  columns: string[];
  rows: (string | number | undefined)[][];
}

export function tableOf(series: readonly Series[]): Table {
  const all = series.flatMap(({ name, readings }) =>
    readings.map((reading) => ({ name, reading })),
  );
  const names = [...new Set(all.flatMap(({ reading }) => reading.quantities.map((q) => q.name)))];
  const models = all.some(({ reading }) => reading.model !== undefined);
  const seen = new Set<string>();
  const rows = [];
  for (const { name, reading } of all) {
    const find = (quantity: string) => reading.quantities.find((q) => q.name === quantity);
    const row = [
      name,
      reading.kind,
      ...(models ? [reading.model] : []),
      reading.epsilon,
      reading.regularization,
      reading.epoch,
      reading.label,
      reading.attack,
      ...names.flatMap((quantity) => [find(quantity)?.value, find(quantity)?.error]),
    ];
    // The clean and the robust curve are drawn from the same readings.
    const key = row.join();
    if (!seen.has(key)) rows.push(row);
    seen.add(key);
  }
  return {
    columns: [
      ...["series", "kind", ...(models ? ["model"] : [])],
      ...["epsilon", "regularization", "epoch", "label", "attack_epsilon"],
      ...names.flatMap((name) => [name, `${name}_error`]),
    ],
    rows,
  };
}

/** Comma-separated values as spreadsheets and pandas read them; no number is an empty cell. */
export function csv({ columns, rows }: Table): string {
  const cell = (value: string | number | undefined) => {
    if (typeof value === "number") {
      // The cube holds single precision: more digits would be noise.
      return Number.isFinite(value) ? String(Number(value.toPrecision(7))) : "";
    }
    const text = value ?? "";
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}
