/** Inputs for op tests: repeatable values, and the views in which an op must accept them. */
import {
  expand,
  flatten,
  getDevice,
  permute,
  slice,
  tensor,
  type DeviceName,
  type DType,
  type Tensor,
} from '../lib/index.ts';
import { sizeOf } from './reference.ts';

/** Repeatable numbers uniform in [low, high], at least 0.02 away from every one of `avoid`. */
export function uniform(count: number, seed: number, low = -1, high = 1, avoid: readonly number[] = []): Float64Array {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    let x = low + (high - low) * (state / 2 ** 32);
    for (const kink of avoid) if (Math.abs(x - kink) < 0.02) x = kink + 0.05;
    return x;
  });
}

export type Layout = 'contiguous' | 'transposed' | 'sliced' | 'expanded';
export const LAYOUTS: readonly Layout[] = ['contiguous', 'transposed', 'sliced', 'expanded'];

/** A tensor of this shape whose memory lies as `layout` says (as far as the shape has the axes for it). */
export function laidOut(
  layout: Layout,
  shape: readonly number[],
  values: Float64Array,
  dtype: DType,
  device: DeviceName = getDevice(),
): Tensor {
  const rank = shape.length;
  if (layout === 'transposed' && rank >= 2) {
    const axes = shape.map((_, i) => rank - 1 - i);
    const t = tensor(
      values,
      axes.map((i) => shape[i]),
      { dtype, device },
    );
    return permute(t, axes);
  }
  if (layout === 'sliced' && rank >= 1) {
    const padded = shape.with(-1, shape[rank - 1] * 2 + 3);
    const repeated = Float64Array.from(
      { length: sizeOf(padded) },
      (_, i) => values[i % Math.max(values.length, 1)] ?? 0,
    );
    return slice(tensor(repeated, padded, { dtype, device }), -1, 1, 1 + 2 * shape[rank - 1], 2);
  }
  if (layout === 'expanded' && rank >= 1) {
    const thin = shape.with(0, Math.min(shape[0], 1));
    return expand(tensor(values.slice(0, sizeOf(thin)), thin, { dtype, device }), shape);
  }
  return tensor(values, shape, { dtype, device });
}

/** The elements of `t` as numbers. */
export function numbers(t: Tensor): Float64Array {
  return Float64Array.from(flatten(t).dataSync() as Float32Array, Number);
}
