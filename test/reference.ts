/** Plain double-precision arrays: nested loops over shapes, nothing clever. What the library's results are compared with. */
import type { Tensor } from '../lib/index.ts';

export interface Plain {
  shape: readonly number[];
  /** Row-major. */
  data: Float64Array;
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((n, extent) => n * extent, 1);
}

export function plainOf(t: Tensor): Plain {
  return { shape: t.shape, data: Float64Array.from(t.dataSync() as Float32Array, Number) };
}

/** Every index of `shape` in row-major order. */
export function* indices(shape: readonly number[]): Generator<number[]> {
  const count = sizeOf(shape);
  for (let i = 0; i < count; i++) {
    let rest = i;
    yield shape
      .toReversed()
      .map((extent) => {
        const at = rest % extent;
        rest = Math.floor(rest / extent);
        return at;
      })
      .toReversed();
  }
}

/** The element of `p` at an index of a shape that p broadcasts to. */
export function at(p: Plain, index: readonly number[]): number {
  const lead = index.length - p.shape.length;
  return p.data[p.shape.reduce((sum, extent, i) => sum * extent + (extent === 1 ? 0 : index[i + lead]), 0)];
}

export function broadcastShape(shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((s) => s[i - rank + s.length] ?? 1);
    return sizes.find((n) => n !== 1) ?? 1;
  });
}

/** f over broadcast operands. */
export function map(f: (...x: number[]) => number, ...operands: Plain[]): Plain {
  const shape = broadcastShape(operands.map((p) => p.shape));
  return {
    shape,
    data: Float64Array.from([...indices(shape)], (index) => f(...operands.map((p) => at(p, index)))),
  };
}

/** f over the elements along `axes`, in row-major order. */
export function fold(p: Plain, axes: readonly number[], keepDims: boolean, f: (values: number[]) => number): Plain {
  const kept = p.shape.map((extent, i) => (axes.includes(i) ? 1 : extent));
  const groups = new Map<string, number[]>([...indices(kept)].map((index) => [String(index), []]));
  for (const index of indices(p.shape)) {
    groups.get(String(index.map((n, i) => (axes.includes(i) ? 0 : n))))?.push(at(p, index));
  }
  return {
    shape: keepDims ? kept : kept.filter((_, i) => !axes.includes(i)),
    data: Float64Array.from([...groups.values()], f),
  };
}

/** f from each row along `axis` to a row of the same length. */
export function mapRows(p: Plain, axis: number, f: (row: number[]) => number[]): Plain {
  const data = new Float64Array(p.data.length);
  const inner = sizeOf(p.shape.slice(axis + 1));
  const length = p.shape[axis];
  for (let outer = 0; outer < sizeOf(p.shape.slice(0, axis)); outer++) {
    for (let column = 0; column < inner; column++) {
      const position = (i: number): number => (outer * length + i) * inner + column;
      const row = Array.from({ length }, (_, i) => p.data[position(i)]);
      f(row).forEach((value, i) => (data[position(i)] = value));
    }
  }
  return { shape: p.shape, data };
}

/** `p` summed back to a shape that broadcasts to p's. */
export function sumBack(p: Plain, shape: readonly number[]): Plain {
  const lead = p.shape.length - shape.length;
  const axes = p.shape.flatMap((_, i) => (i < lead || shape[i - lead] === 1 ? [i] : []));
  return { shape, data: fold(p, axes, true, (values) => values.reduce((a, b) => a + b, 0)).data };
}

/** The error function to 1e-15: its Taylor series below 3, a continued fraction above (Abramowitz and Stegun 7.1.5, 7.1.14). */
export function erf(x: number): number {
  if (!Number.isFinite(x)) return Math.sign(x);
  if (Math.abs(x) < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 100; n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  return Math.sign(x) * (1 - erfcTail(Math.abs(x)));
}

function erfcTail(x: number): number {
  let fraction = x;
  for (let n = 60; n > 0; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * fraction);
}

/** The normal distribution's cumulative probability, accurate in the lower tail too. */
export function normalCdf(x: number): number {
  return x < -4 ? 0.5 * erfcTail(-x * Math.SQRT1_2) : 0.5 * (1 + erf(x * Math.SQRT1_2));
}

export function logSumExp(values: readonly number[]): number {
  const top = Math.max(-Infinity, ...values);
  if (!Number.isFinite(top)) return top;
  return top + Math.log(values.reduce((sum, x) => sum + Math.exp(x - top), 0));
}
