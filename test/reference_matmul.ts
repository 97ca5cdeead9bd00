/** Plain double-precision matrix product and activations, and what the tests of the GEMM family share. */
import { cast, tensor, type Activation, type DType, type Tensor } from '../lib/index.ts';

/** A repeatable stream of numbers in [-1, 1). */
export function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** A tensor of random numbers and the values it holds after rounding to its dtype. */
export function random(shape: readonly number[], dtype: DType, seed: number): { t: Tensor; values: Float64Array } {
  const next = numbers(seed);
  const size = shape.reduce((n, extent) => n * extent, 1);
  const t = tensor(Float64Array.from({ length: size }, next), shape, { dtype });
  return { t, values: valuesOf(t) };
}

export function valuesOf(t: Tensor): Float64Array {
  return cast(t, 'f64').dataSync() as Float64Array;
}

/** Row-major [batch, m, k] @ [batch, k, n]. */
export function referenceMatmul(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  batch: number,
  m: number,
  k: number,
  n: number,
): Float64Array {
  const out = new Float64Array(batch * m * n);
  for (let s = 0; s < batch; s++)
    for (let i = 0; i < m; i++)
      for (let l = 0; l < k; l++) {
        const x = a[(s * m + i) * k + l];
        for (let j = 0; j < n; j++) out[(s * m + i) * n + j] += x * b[(s * k + l) * n + j];
      }
  return out;
}

export function referenceTranspose(a: ArrayLike<number>, rows: number, columns: number): Float64Array {
  return Float64Array.from({ length: rows * columns }, (_, i) => a[(i % rows) * columns + Math.floor(i / rows)]);
}

/** Error function by its series, and beyond |x| = 3 by the continued fraction of erfc. */
export function erf(x: number): number {
  if (Math.abs(x) < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (Math.abs(x) + fraction);
  return Math.sign(x) * (1 - Math.exp(-x * x) / Math.sqrt(Math.PI) / (Math.abs(x) + fraction));
}

export function referenceActivation(kind: Activation, x: number): number {
  switch (kind) {
    case 'relu':
      return Math.max(x, 0);
    case 'gelu':
      return 0.5 * x * (1 + erf(x / Math.SQRT2));
    case 'geluTanh':
      return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
    case 'silu':
      return x / (1 + Math.exp(-x));
    default:
      return x;
  }
}
