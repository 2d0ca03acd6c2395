// Phase-space pictures of a real one-dimensional packet, hbar = 1.

/** Row-major Wigner function, rows from k[0] upwards, columns along the packet's own t grid. */
export function wigner(psi: Float32Array, step: number, k: readonly number[]): Float32Array {
  const n = psi.length;
  const out = new Float32Array(n * k.length);
  const half = (n - 1) >> 1;
  // W(t, k) = (1/pi) sum_m psi(t + m h) psi(t - m h) cos(2 k m h) h: even in m for a real packet.
  const cosines = k.map((value) =>
    Float32Array.from({ length: half + 1 }, (_, m) => Math.cos(2 * value * m * step)),
  );
  const product = new Float32Array(half + 1);
  for (let i = 0; i < n; i++) {
    const reach = Math.min(i, n - 1 - i);
    for (let m = 0; m <= reach; m++) {
      product[m] = (m ? 2 : 1) * (psi[i + m] as number) * (psi[i - m] as number);
    }
    for (let r = 0; r < k.length; r++) {
      const row = cosines[r] as Float32Array;
      let sum = 0;
      for (let m = 0; m <= reach; m++) sum += (product[m] as number) * (row[m] as number);
      out[r * n + i] = (sum * step) / Math.PI;
    }
  }
  return out;
}

/** |Fourier transform of psi|^2 / (2 pi) at each k: integrates to 1 over all k. */
export function momentumDensity(
  psi: Float32Array,
  t: readonly number[],
  k: readonly number[],
): Float32Array {
  const step = ((t[t.length - 1] as number) - (t[0] as number)) / (t.length - 1);
  return Float32Array.from(k, (value) => {
    let re = 0;
    let im = 0;
    for (let i = 0; i < psi.length; i++) {
      re += (psi[i] as number) * Math.cos(value * (t[i] as number));
      im += (psi[i] as number) * Math.sin(value * (t[i] as number));
    }
    return ((re * re + im * im) * step * step) / (2 * Math.PI);
  });
}
