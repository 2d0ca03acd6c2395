// Phase-space pictures of real one-dimensional packets, hbar = 1.

/** Both pictures on one grid of positions and momenta; the tables of waves are made once. */
export class PhaseTransform {
  private readonly step: number;
  private readonly half: number;
  /** cos(2 k m h), row by row, m = 0 ... half. */
  private readonly double: Float32Array;
  /** cos(k t) and sin(k t), row by row. */
  private readonly cosine: Float32Array;
  private readonly sine: Float32Array;

  /** `t`: evenly spaced, an odd number of positions; `k`: the momenta of the rows. */
  constructor(
    private readonly t: readonly number[],
    private readonly k: readonly number[],
  ) {
    const n = t.length;
    this.step = ((t[n - 1] as number) - (t[0] as number)) / (n - 1);
    this.half = (n - 1) >> 1;
    const table = (columns: number, value: (k: number, i: number) => number) =>
      Float32Array.from({ length: k.length * columns }, (_, at) =>
        value(k[Math.floor(at / columns)] as number, at % columns),
      );
    this.double = table(this.half + 1, (k, m) => Math.cos(2 * k * m * this.step));
    this.cosine = table(n, (k, i) => Math.cos(k * (t[i] as number)));
    this.sine = table(n, (k, i) => Math.sin(k * (t[i] as number)));
  }

  /** Wigner function, row-major: a row for each momentum, columns along the positions. */
  wigner(psi: Float32Array): Float32Array {
    const { half, double } = this;
    const n = this.t.length;
    const rows = this.k.length;
    const out = new Float32Array(n * rows);
    // W(t, k) = (1/pi) sum_m psi(t + m h) psi(t - m h) cos(2 k m h) h: even in m for a real packet.
    const product = new Float32Array(half + 1);
    for (let i = 0; i < n; i++) {
      const reach = Math.min(i, n - 1 - i);
      for (let m = 0; m <= reach; m++) {
        product[m] = (m ? 2 : 1) * (psi[i + m] as number) * (psi[i - m] as number);
      }
      for (let r = 0; r < rows; r++) {
        const row = r * (half + 1);
        let sum = 0;
        for (let m = 0; m <= reach; m++) {
          sum += (product[m] as number) * (double[row + m] as number);
        }
        out[r * n + i] = (sum * this.step) / Math.PI;
      }
    }
    return out;
  }

  /** |Fourier transform of psi|^2 / (2 pi) at each momentum: integrates to 1 over all of them. */
  momentumDensity(psi: Float32Array): Float32Array {
    const n = this.t.length;
    return Float32Array.from(this.k, (_, r) => {
      let re = 0;
      let im = 0;
      for (let i = 0; i < n; i++) {
        re += (psi[i] as number) * (this.cosine[r * n + i] as number);
        im += (psi[i] as number) * (this.sine[r * n + i] as number);
      }
      return ((re * re + im * im) * this.step * this.step) / (2 * Math.PI);
    });
  }
}
