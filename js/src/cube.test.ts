import { describe, expect, it } from "vitest";
import type { WireArray, WireCube } from "./contract";
import { Axis, Cube, fromHalf } from "./cube";

const EPSILON = [0, 0.1, 0.3];
const REGULARIZATION = [0, 0.01, 0.1, 1];
const ATTACK = [0, 0.1, 0.2];
const T = [-2, -1, 0, 1, 2];
const EPOCHS = 2;

/** Bytes at an odd offset of a larger buffer, as they may come from a socket. */
function wire(dtype: WireArray["dtype"], shape: number[], data: ArrayLike<number>): WireArray {
  const numbers = dtype === "float32" ? Float32Array.from(data) : Uint16Array.from(data);
  const bytes = new Uint8Array(numbers.byteLength + 3);
  bytes.set(new Uint8Array(numbers.buffer), 3);
  return { dtype, shape, data: new DataView(bytes.buffer, 3) };
}

/** A half that holds a small integer exactly. */
function toHalf(value: number): number {
  if (value === 0) return 0;
  const exponent = Math.floor(Math.log2(Math.abs(value)));
  const fraction = (Math.abs(value) / 2 ** exponent - 1) * 1024;
  return (value < 0 ? 0x8000 : 0) | ((exponent + 15) << 10) | fraction;
}

const amplitude = (network: number, label: number, i: number) => ((network + label + i) % 5) - 1;

function blocks(epoch: number) {
  const networks = EPSILON.length * REGULARIZATION.length;
  const accuracy: number[] = [];
  const robust: number[] = [];
  const position: number[] = [];
  const packet: number[] = [];
  for (let network = 0; network < networks; network++) {
    const i = Math.floor(network / REGULARIZATION.length);
    const j = network % REGULARIZATION.length;
    // Bilinear in slider coordinates.
    accuracy.push(0.5 + 0.25 * i - 0.125 * j + 0.0625 * i * j + epoch);
    for (let k = 0; k < ATTACK.length; k++) robust.push(i + 10 * j + 100 * k + 1000 * epoch);
    for (let label = 0; label < 2; label++) {
      position.push(network + 100 * label + 1000 * epoch);
      for (let p = 0; p < T.length; p++) packet.push(toHalf(amplitude(network, label, p)));
    }
  }
  return { accuracy, robust, position, packet };
}

/** The networks at a point of the grid or between. */
const at = (cube: Cube, epsilon: number, regularization: number) =>
  cube.place({ epsilon, regularization, model: "" });

function makeWire(finished = EPOCHS + 1): WireCube {
  const grid = [EPOCHS + 1, EPSILON.length, REGULARIZATION.length];
  const all = Array.from({ length: EPOCHS + 1 }, (_, epoch) => blocks(epoch));
  const hidden = (epoch: number, values: number[], missing: number) =>
    epoch < finished ? values : values.map(() => missing);
  const flat = (name: "accuracy" | "robust" | "position" | "packet", missing = Number.NaN) =>
    all.flatMap((block, epoch) => hidden(epoch, block[name], missing));
  return {
    axes: {
      model: [],
      epsilon: EPSILON,
      regularization: REGULARIZATION,
      attack_epsilon: ATTACK,
      label: ["zero", "one"],
      t: T,
    },
    serial: 1,
    epochs: EPOCHS,
    finished,
    group: "class",
    width: 0.4,
    momentum_limit: 3,
    excess_limit: 0.1,
    values: {
      clean_accuracy: wire("float32", grid, flat("accuracy")),
      robust_accuracy: wire("float32", [...grid, ATTACK.length], flat("robust")),
      position_std: wire("float32", [...grid, 2], flat("position")),
      packet: wire("float16", [...grid, 2, T.length], flat("packet", 0x7e00)),
    },
  };
}

describe("half precision", () => {
  it.each([
    [0x0000, 0],
    [0x0001, 2 ** -24],
    [0x03ff, 1023 * 2 ** -24],
    [0x0400, 2 ** -14],
    [0x3555, 0.333251953125],
    [0x3c00, 1],
    [0x3c01, 1 + 2 ** -10],
    [0xc000, -2],
    [0x7bff, 65504],
    [0xfbff, -65504],
    [0x8001, -(2 ** -24)],
    [0x7c00, Number.POSITIVE_INFINITY],
    [0xfc00, Number.NEGATIVE_INFINITY],
  ])("decodes 0x%s", (bits, value) => {
    expect(fromHalf(bits)).toBe(value);
  });

  it("keeps the sign of zero, and decodes every not-a-number", () => {
    expect(fromHalf(0x8000)).toBe(-0);
    for (const bits of [0x7c01, 0x7e00, 0x7fff, 0xfe00, 0xffff]) expect(fromHalf(bits)).toBeNaN();
  });

  it("grows with its bits", () => {
    for (let bits = 1; bits <= 0x7c00; bits++)
      expect(fromHalf(bits)).toBeGreaterThan(fromHalf(bits - 1));
  });
});

describe("axis", () => {
  const axes: [string, Axis][] = [
    ["linear", new Axis([0, 0.025, 0.05, 0.1, 0.3], "linear")],
    ["log from zero", new Axis([0, 0.003, 0.01, 0.03, 3], "log")],
    ["log", new Axis([0.1, 1, 100], "log")],
  ];

  it.each(axes)("%s: position is the inverse of value", (_, axis) => {
    for (let position = 0; position <= axis.last; position += 1 / 16) {
      expect(axis.position(axis.value(position))).toBeCloseTo(position, 9);
    }
  });

  it.each(axes)("%s: grid values have whole positions, also in single precision", (_, axis) => {
    axis.values.forEach((value, i) => {
      expect(axis.value(i)).toBe(value);
      expect(axis.position(value)).toBe(i);
      expect(axis.position(Math.fround(value))).toBe(i);
    });
  });

  it.each(axes)("%s: clamps", (_, axis) => {
    const first = axis.values[0] as number;
    const last = axis.values[axis.last] as number;
    expect(axis.value(-3)).toBe(first);
    expect(axis.value(axis.last + 3)).toBe(last);
    expect(axis.position(first - 1)).toBe(0);
    expect(axis.position(last + 1)).toBe(axis.last);
    expect(axis.position(Number.NaN)).toBe(0);
  });

  it("is geometric between positive values of a log axis and linear from zero", () => {
    const axis = new Axis([0, 0.01, 1], "log");
    expect(axis.value(1.5)).toBeCloseTo(0.1, 12);
    expect(axis.value(0.5)).toBeCloseTo(0.005, 12);
    expect(new Axis([0.01, 1], "linear").value(0.5)).toBeCloseTo(0.505, 12);
  });

  it("may hold one value", () => {
    const axis = new Axis([0.2], "linear");
    expect(axis.last).toBe(0);
    expect([axis.value(0), axis.position(0.2), axis.position(5)]).toEqual([0.2, 0, 0]);
  });
});

describe("cube", () => {
  const cube = new Cube(makeWire());
  const fractions = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.75, 2];

  it("reads the layout: epoch, epsilon, regularization, then the variable's own axis", () => {
    for (let i = 0; i < EPSILON.length; i++) {
      for (let j = 0; j < REGULARIZATION.length; j++) {
        const place = at(cube, EPSILON[i] as number, REGULARIZATION[j] as number);
        expect(cube.at("robust_accuracy", place, 2, 1)).toBe(i + 10 * j + 100 + 2000);
        expect(cube.at("position_std", place, 1, 1)).toBe(4 * i + j + 1100);
      }
    }
  });

  it("is trained at grid points, and only there", () => {
    EPSILON.forEach((epsilon, i) => {
      REGULARIZATION.forEach((regularization, j) => {
        expect(at(cube, epsilon, regularization)).toEqual({
          networks: [i * REGULARIZATION.length + j],
          weights: [1],
          trained: true,
        });
      });
    });
    expect(at(cube, 0.05, 0.1)).toMatchObject({ networks: [2, 6], trained: false });
    expect(at(cube, 0.05, 0.05).networks).toEqual([1, 2, 5, 6]);
  });

  it("weighs positively, with sum one", () => {
    for (const a of fractions) {
      for (const b of [...fractions, 2.6, 3]) {
        const { networks, weights } = at(cube, cube.epsilon.value(a), cube.regularization.value(b));
        expect(weights).toHaveLength(networks.length);
        expect(Math.min(...weights)).toBeGreaterThan(0);
        expect(weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 12);
      }
    }
  });

  it("interpolates bilinear numbers exactly", () => {
    for (const a of fractions) {
      for (const b of [...fractions, 2.6, 3]) {
        const place = at(cube, cube.epsilon.value(a), cube.regularization.value(b));
        const expected = 0.5 + 0.25 * a - 0.125 * b + 0.0625 * a * b;
        expect(cube.at("clean_accuracy", place, 0)).toBeCloseTo(expected, 9);
      }
    }
  });

  it("interpolates robust accuracy linearly in the attack radius", () => {
    const place = at(cube, 0.1, 0.01);
    expect(cube.robust(place, 0, 0.1)).toBe(111);
    expect(cube.robust(place, 0, 0.125)).toBeCloseTo(136, 9);
    expect(cube.robust(place, 0, 9)).toBe(211);
  });

  it("shows its newest epoch where a later one of another cube is still chosen", () => {
    const place = at(cube, 0.3, 1);
    expect([8, EPOCHS].map((epoch) => cube.trainedEpochs(epoch))).toEqual([EPOCHS, EPOCHS]);
    expect(cube.at("position_std", place, 8, 1)).toBe(cube.at("position_std", place, EPOCHS, 1));
    expect(cube.packet(place, 8, 1)).toEqual(cube.packet(place, EPOCHS, 1));
    expect(cube.epochOf(place, 8)).toBe(EPOCHS);
    expect(cube.indicesUpTo(place, 8)).toBe(EPOCHS + 1);
  });

  it("appends an epoch without touching the others", () => {
    const growing = new Cube(makeWire(1));
    const place = at(growing, 0.3, 1);
    expect(growing.finished).toBe(1);
    // What is still to come is read as the newest.
    expect(growing.at("clean_accuracy", place, 1)).toBe(growing.at("clean_accuracy", place, 0));
    const names = ["position_std", "packet", "clean_accuracy", "robust_accuracy"];
    for (const epoch of [1, 2]) {
      const { accuracy, robust, position, packet } = blocks(epoch);
      const arrays = [
        wire("float32", [position.length], position),
        wire("float16", [packet.length], packet),
        wire("float32", [accuracy.length], accuracy),
        wire("float32", [robust.length], robust),
      ];
      growing.append(
        epoch,
        names,
        arrays.map(({ data }) => data),
      );
      expect(growing.finished).toBe(epoch + 1);
    }
    for (const name of ["position_std", "clean_accuracy", "robust_accuracy"]) {
      for (let epoch = 0; epoch <= EPOCHS; epoch++) {
        expect(growing.at(name, place, epoch, 0)).toBe(cube.at(name, place, epoch, 0));
      }
    }
    expect(growing.packet(place, 2, 1)).toEqual(cube.packet(place, 2, 1));
    growing.append(1, [], []);
    expect(growing.finished).toBe(3);
  });

  it("renormalises packets, at networks and between them", () => {
    for (const [a, b] of [
      [0, 0],
      [1, 2],
      [0.5, 1.25],
      [1.75, 2.5],
    ] as const) {
      const place = at(cube, cube.epsilon.value(a), cube.regularization.value(b));
      const psi = cube.packet(place, 1, 1);
      expect(psi.reduce((sum, value) => sum + value * value, 0)).toBeCloseTo(1, 6);
      const raw = T.map((_, i) =>
        place.networks.reduce(
          (sum, network, c) => sum + (place.weights[c] as number) * amplitude(network, 1, i),
          0,
        ),
      );
      const norm = Math.hypot(...raw);
      raw.forEach((value, i) => {
        expect(psi[i]).toBeCloseTo(value / norm, 6);
      });
    }
  });

  it("refuses a variable it does not have", () => {
    expect(() => cube.at("velocity", at(cube, 0, 0), 0)).toThrow("velocity");
  });
});

describe("refined networks", () => {
  const numbers = (epoch: number) => ({
    clean_accuracy: [10 + epoch],
    robust_accuracy: [20 + epoch, 30 + epoch, 40 + epoch],
    position_std: [50 + epoch, 60 + epoch],
    packet: [1, 0, 1, 0, 1, 0, 1, 0, 1, 0].map((bit) => toHalf(bit)),
  });
  const names = ["clean_accuracy", "robust_accuracy", "position_std", "packet"] as const;
  const buffers = (epoch: number) =>
    names.map((name) => {
      const values = numbers(epoch)[name];
      return wire(name === "packet" ? "float16" : "float32", [values.length], values).data;
    });
  const point = { epsilon: 0.05, regularization: 0.02 };
  const message = (epoch: number, epochs: number, index = 0) => ({
    type: "refined" as const,
    index,
    epoch,
    names: [...names],
    ...point,
    epochs,
    finished: epoch + 1,
    complete: epoch === epochs,
  });

  it("take the place of the interpolation at their point, solid once complete", () => {
    const cube = new Cube(makeWire());
    expect(at(cube, 0.05, 0.02).trained).toBe(false);
    for (let epoch = 0; epoch <= 3; epoch++) {
      cube.appendRefined(message(epoch, 3), buffers(epoch));
      const place = at(cube, 0.05, 0.02);
      expect(place.networks).toEqual([12]);
      expect(place.trained).toBe(epoch === 3);
      expect(cube.dots).toHaveLength(epoch === 3 ? 13 : 12);
      // The newest epoch of the grid shows the newest of its own.
      expect(cube.at("clean_accuracy", place, EPOCHS)).toBe(10 + epoch);
      expect(cube.at("position_std", place, 0, 1)).toBe(60);
      expect(cube.robust(place, EPOCHS, 0.1)).toBe(30 + epoch);
    }
    // A value that went through text is still that point; another is not.
    expect(at(cube, 0.05 * (1 + 1e-12), 0.02).trained).toBe(true);
    expect(at(cube, 0.0501, 0.02).refined).toBeUndefined();
    expect(cube.packet(at(cube, 0.05, 0.02), 1, 1)).toHaveLength(T.length);
  });

  it("have epochs of their own, more or fewer than the grid", () => {
    const cube = new Cube(makeWire());
    for (let epoch = 0; epoch <= 1; epoch++) cube.appendRefined(message(epoch, 5), buffers(epoch));
    const { refined } = at(cube, 0.05, 0.02);
    expect(refined && [0, 1, 2].map((epoch) => cube.reached(refined, epoch))).toEqual([0, 1, 1]);
    for (let epoch = 2; epoch <= 5; epoch++) cube.appendRefined(message(epoch, 5), buffers(epoch));
    const { refined: whole } = at(cube, 0.05, 0.02);
    expect(whole && [0, 1, 2].map((epoch) => cube.reached(whole, epoch))).toEqual([0, 1, 5]);
  });

  it("begin anew with epoch 0, and wait for the whole where its beginning was missed", () => {
    const cube = new Cube(makeWire());
    cube.appendRefined(message(4, 5), buffers(4));
    expect(cube.refined).toHaveLength(0);
    for (const epoch of [0, 1]) cube.appendRefined(message(epoch, 5), buffers(epoch));
    cube.appendRefined(message(0, 2), buffers(0));
    expect(cube.refined).toHaveLength(1);
    expect(cube.refined[0]?.epochs).toBe(2);
    expect(cube.at("clean_accuracy", at(cube, 0.05, 0.02), EPOCHS)).toBe(10);
  });

  it("come whole with the state of a page that is opened later", () => {
    const growing = new Cube(makeWire());
    for (let epoch = 0; epoch <= 2; epoch++)
      growing.appendRefined(message(epoch, 2), buffers(epoch));
    const whole = new Cube(makeWire());
    const joined = (name: (typeof names)[number]) =>
      [0, 1, 2].flatMap((epoch) => numbers(epoch)[name]);
    whole.setRefined([
      {
        ...point,
        epochs: 2,
        finished: 3,
        complete: true,
        values: {
          clean_accuracy: wire("float32", [3], joined("clean_accuracy")),
          robust_accuracy: wire("float32", [3, 3], joined("robust_accuracy")),
          position_std: wire("float32", [3, 2], joined("position_std")),
          packet: wire("float16", [3, 2, 5], joined("packet")),
        },
      },
    ]);
    const place = at(whole, 0.05, 0.02);
    for (const epoch of [0, 1, 2]) {
      for (const k of [0, 1]) {
        expect(whole.at("position_std", place, epoch, k)).toBe(
          growing.at("position_std", at(growing, 0.05, 0.02), epoch, k),
        );
      }
    }
    whole.setRefined([]);
    expect(at(whole, 0.05, 0.02).trained).toBe(false);
    expect(whole.dots).toHaveLength(12);
  });

  it("are looked at from the nearest network of the grid until they are there", () => {
    const cube = new Cube(makeWire());
    const near = (epsilon: number, regularization: number) =>
      cube.nearest({ epsilon, regularization, model: "" });
    expect(near(0.04, 0)).toEqual({ epsilon: 0, regularization: 0 });
    // Of two as near the lower, as in Python.
    expect(near(0.05, 0.005)).toEqual({ epsilon: 0, regularization: 0 });
    expect(near(0.06, 0.04)).toEqual({ epsilon: 0.1, regularization: 0.1 });
    expect(near(0.3, 1)).toEqual({ epsilon: 0.3, regularization: 1 });
  });
});

describe("models of one's own", () => {
  it("take the place of the grid", () => {
    const whole = makeWire();
    const values = Object.fromEntries(
      Object.entries(whole.values).map(([name, array]) => [
        name,
        { ...array, shape: [array.shape[0] as number, 12, ...array.shape.slice(3)] },
      ]),
    );
    const models = Array.from({ length: 12 }, (_, i) => `model ${i}`);
    const axes = { ...whole.axes, model: models, epsilon: [0], regularization: [0] };
    const cube = new Cube({ ...whole, axes, values });
    const of = (model: string) => cube.place({ epsilon: 0, regularization: 0, model });
    expect(cube.networks).toBe(12);
    models.forEach((name, i) => {
      expect(of(name)).toEqual({ networks: [i], weights: [1], trained: true });
      expect(cube.at("position_std", of(name), 0, 1)).toBe(i + 100);
    });
    expect(of("another")).toEqual(of("model 0"));
  });
});
