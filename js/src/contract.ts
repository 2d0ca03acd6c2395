// Everything that crosses between Python and the browser, in one place. `tests/test_contract.py`
// holds these names against the traits of qwidgets.widgets.explorer.Explorer.

/** One array on the wire: raw little-endian bytes in C order. */
export interface WireArray {
  dtype: "float32" | "float16";
  shape: number[];
  data: DataView;
}

/** The numbers of a sweep, epoch first, so that one epoch is one contiguous block. */
export interface WireCube {
  axes: {
    /** Models of one's own, which take the place of the grid; none for a grid. */
    model: string[];
    epsilon: number[];
    regularization: number[];
    attack_epsilon: number[];
    label: string[];
    t: number[];
    /** The epochs that the arrays hold, in a page that has not all of them. */
    epoch?: number[];
  };
  /** Another one whenever something else is shown, however alike its numbers. */
  serial: number;
  /** The last epoch that is planned; epoch 0 is the untrained network. */
  epochs: number;
  /** How many epochs, epoch 0 included, hold numbers. */
  finished: number;
  /** What a label of the axes is: "class", or "group" where the task is a regression. */
  group: string;
  /** Window width of the section along the attack, in input units. */
  width: number;
  /** Upper end of the momentum axis of the phase space, in 1 / input units. */
  momentum_limit: number;
  /** Upper end of the colour scale of the excess over the bound. */
  excess_limit: number;
  /** Of the finished epochs alone. */
  values: Record<string, WireArray>;
}

/** A network that was trained between those of the grid, from the nearest of them on. */
export interface WireRefined {
  epsilon: number;
  regularization: number;
  /** The last epoch that is planned; epoch 0 is the network that it started from. */
  epochs: number;
  finished: number;
  complete: boolean;
  /** As those of the cube, without the grid. */
  values: Record<string, WireArray>;
}

/** What the attack lens shows; all but state and message are there once the state is "ready". */
export interface WireLens {
  /** "missing": it cannot look, and the message says why. */
  state: "empty" | "ready" | "missing";
  message: string;
  /** False in a page, which has no kernel to look with. */
  live?: boolean;
  /** The network it is of. */
  epsilon?: number;
  regularization?: number;
  model?: string;
  kind?: "trained" | "refined" | "own";
  epoch?: number;
  /** The image, by class and position among the test images of that class, and how many those are. */
  label?: number;
  image?: number;
  images?: number;
  attack_epsilon?: number;
  /** Of the ball in which the spreads are measured. */
  radius?: number;
  range?: [number, number];
  shape?: number[];
  /** Of the targets of a regression; empty where there are classes. */
  unit?: string;
  values?: Record<string, WireArray>;
}

/** The input plane of two-dimensional data; all but state and message are there once "ready". */
export interface WireRegions {
  state: "empty" | "ready" | "missing";
  message: string;
  /** After which the networks were asked. */
  epoch?: number;
  /** Both axes. */
  range?: [number, number];
  size?: number;
  /** For each class the point around which its packet is seen. */
  references?: number[][];
  /** Networks in the order of the grid, then the refined ones. */
  values?: Record<string, WireArray>;
}

export type Phase =
  | "empty"
  | "preparing"
  | "training"
  | "refining"
  | "measuring"
  | "paused"
  | "done"
  | "cancelled"
  | "failed";

export interface Run {
  /** "gone" is the browser's own: the kernel, and with it the training, is no more. */
  phase: Phase | "gone";
  /** Fraction of the whole run that is done, 0 to 1. */
  fraction: number;
  /** One sentence for people. */
  message: string;
}

export const PANELS = ["plane", "neighborhood", "tradeoff", "curves", "robustness"] as const;
export type Panel = (typeof PANELS)[number];

/** What a person may have on the page or not; each is one panel. */
export type PanelName =
  | "plane"
  | "phase_space"
  | "tradeoff"
  | "curves"
  | "robustness"
  | "input_plane"
  | "lens";

export const MARKS = [
  "plane_networks",
  "plane_trail",
  "plane_reference",
  "plane_error",
  "plane_now",
  "neighborhood_bound",
  "neighborhood_networks",
  "neighborhood_trail",
  "neighborhood_reference",
  "neighborhood_error",
  "neighborhood_now",
  "tradeoff_networks",
  "tradeoff_front",
  "tradeoff_reference",
  "tradeoff_error",
  "tradeoff_now",
  "curves_clean",
  "curves_robust",
  "curves_epoch",
  "robustness_band",
  "robustness_lines",
  "robustness_radius",
] as const;
export type MarkName = (typeof MARKS)[number];

export interface Traits {
  [key: string]: unknown;
  epsilon: number;
  regularization: number;
  label: number;
  epoch: number;
  attack_epsilon: number;
  /** What the uncertainty plane shows. */
  plane: "attack" | "neighborhood";
  /** What is on the page. */
  panels: PanelName[];
  /** Which of several models of one's own; empty for a grid. */
  model: string;
  /** Which of the test images of the class the lens shows. */
  image: number;
  /** Empty before the first epoch. */
  cube: WireCube | Record<string, never>;
  run: Run;
  lens: WireLens;
  regions: WireRegions;
  refined: WireRefined[];
  /** What was trained in this session and kept, and which of it is shown. */
  runs: { names: string[]; shown: number };
  /** What went wrong in the kernel beside the training; empty if nothing did. */
  problem: string;
  heading: { title: string; subtitle: string; regularizer: string };
  figures: Record<Panel, string>;
  marks: Record<MarkName, string>;
}

/** Browser to kernel. */
export type Command = {
  type: "train" | "refine" | "show" | "look" | "pause" | "resume" | "cancel" | "dismiss";
};
/** A command with what it needs: keyword arguments of the method of that name. */
export type Request = Command & Record<string, unknown>;

/** Kernel to browser: one finished epoch; the buffers follow the order of `names`. */
export interface EpochMessage {
  type: "epoch";
  epoch: number;
  names: string[];
  momentum_limit: number;
  excess_limit: number;
}

/** Kernel to browser: one finished epoch of a refined network, as for the grid. */
export interface RefinedMessage extends Omit<WireRefined, "values"> {
  type: "refined";
  /** Position in the trait `refined`. */
  index: number;
  epoch: number;
  names: string[];
}
