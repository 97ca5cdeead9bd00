/** How far a result may be from the double-precision reference, relative to the largest reference value: stated once, per dtype. */
import { expect } from 'vitest';
import type { DType } from '../lib/index.ts';

export const TOLERANCE: Readonly<Record<'f32' | 'bf16' | 'f16' | 'f64', number>> = {
  f32: 2e-5,
  bf16: 1e-2,
  f16: 2e-3,
  f64: 1e-12,
};

export function toleranceOf(dtype: DType): number {
  return dtype in TOLERANCE ? TOLERANCE[dtype as keyof typeof TOLERANCE] : 0;
}

/** Largest difference, relative to max(|expected|), with a floor of 1e-30; NaN anywhere but where expected counts as infinite. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let worst = 0;
  let scale = 1e-30;
  for (let i = 0; i < expected.length; i++) {
    if (Number.isFinite(expected[i])) scale = Math.max(scale, Math.abs(expected[i]));
    if (Object.is(actual[i], expected[i]) || actual[i] === expected[i]) continue;
    const difference = Math.abs(actual[i] - expected[i]);
    worst = Math.max(worst, Number.isNaN(difference) ? Infinity : difference);
  }
  return worst / scale;
}

/** Fails unless both have one length and relativeError is within `factor` times the dtype's tolerance. */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  dtype: DType = 'f32',
  factor = 1,
): void {
  expect(actual.length).toBe(expected.length);
  expect(relativeError(actual, expected)).toBeLessThanOrEqual(factor * toleranceOf(dtype));
}
