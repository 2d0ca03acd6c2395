import { describe, expect, it } from "vitest";
import { PhaseTransform } from "./wigner";

const STEP = 0.05;
const T = Array.from({ length: 241 }, (_, i) => (i - 120) * STEP);
const K = Array.from({ length: 161 }, (_, r) => (r - 80) * 0.1);
const DK = 0.1;
const transform = new PhaseTransform(T, K);

const gaussian = (t: number, s: number, center = 0) =>
  (2 * Math.PI * s * s) ** -0.25 * Math.exp(-((t - center) ** 2) / (4 * s * s));

function normalised(amplitude: (t: number) => number): Float32Array {
  const values = T.map(amplitude);
  const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) * STEP);
  return Float32Array.from(values, (value) => value / norm);
}

const packets: [string, Float32Array][] = [
  ["a Gaussian", normalised((t) => gaussian(t, 0.7))],
  ["a displaced Gaussian", normalised((t) => gaussian(t, 0.5, 0.8))],
  ["a lopsided packet", normalised((t) => gaussian(t, 0.8) * (1 + 0.8 * Math.tanh(2 * t)))],
  ["a superposition", normalised((t) => gaussian(t, 0.5, -1.5) - gaussian(t, 0.4, 1.5))],
];

const cell = (w: Float32Array, r: number, i: number) => w[r * T.length + i] as number;

describe.each(packets)("Wigner function of %s", (_, psi) => {
  const w = transform.wigner(psi);

  it("has the position density as marginal", () => {
    T.forEach((_t, i) => {
      const marginal = K.reduce((sum, _k, r) => sum + cell(w, r, i), 0) * DK;
      expect(marginal).toBeCloseTo((psi[i] as number) ** 2, 4);
    });
  });

  it("has the momentum density as marginal", () => {
    const density = transform.momentumDensity(psi);
    K.forEach((_k, r) => {
      const marginal = T.reduce((sum, _t, i) => sum + cell(w, r, i), 0) * STEP;
      expect(marginal).toBeCloseTo(density[r] as number, 5);
    });
  });

  it("integrates to one, and so does the momentum density", () => {
    expect(w.reduce((sum, value) => sum + value, 0) * STEP * DK).toBeCloseTo(1, 4);
    const density = transform.momentumDensity(psi);
    expect(density.reduce((sum, value) => sum + value, 0) * DK).toBeCloseTo(1, 4);
  });

  it("is symmetric in momentum and never beyond 1 / pi", () => {
    for (let r = 0; r < K.length; r++) {
      for (let i = 0; i < T.length; i += 7) {
        expect(cell(w, r, i)).toBeCloseTo(cell(w, K.length - 1 - r, i), 6);
        expect(Math.abs(cell(w, r, i))).toBeLessThanOrEqual(1 / Math.PI + 1e-6);
      }
    }
  });
});

describe("closed forms", () => {
  it.each([0.4, 0.7, 0.95])("Gaussian of position spread %s", (s) => {
    const w = transform.wigner(Float32Array.from(T, (t) => gaussian(t, s)));
    K.forEach((k, r) => {
      T.forEach((t, i) => {
        const expected = Math.exp((-t * t) / (2 * s * s) - 2 * s * s * k * k) / Math.PI;
        expect(Math.abs(cell(w, r, i) - expected)).toBeLessThan(1e-5);
      });
    });
  });

  it("momentum density of a Gaussian has spread 1 / (2 s), wherever the packet is", () => {
    const s = 0.6;
    const psi = Float32Array.from(T, (t) => gaussian(t, s, 0.5));
    const density = transform.momentumDensity(psi);
    K.forEach((k, r) => {
      const expected = Math.sqrt(2 / Math.PI) * s * Math.exp(-2 * s * s * k * k);
      expect(Math.abs((density[r] as number) - expected)).toBeLessThan(1e-5);
    });
  });

  it("two separated packets interfere: negative in between", () => {
    const w = transform.wigner(packets[3]?.[1] as Float32Array);
    expect(cell(w, 80, 120)).toBeLessThan(-0.2);
  });
});
