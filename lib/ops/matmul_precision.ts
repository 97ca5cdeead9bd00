import { FoveaError } from '../errors.ts';
import type { OptionNames } from '../options.ts';
import { expectFunction } from '../tensor/expect.ts';

/**
 * How products of f32 tensors are computed. 'highest': in f32. 'high': on CUDA by TF32 on the tensor cores, where both factors are rounded to
 * 10 bits of mantissa (to nearest, ties away from zero) and sums are in f32: an element may be off by 2^-10 times the sum of the magnitudes of
 * its products. The CPU computes in f32 for either.
 */
export const MATMUL_PRECISIONS = ['highest', 'high'] as const;
export type MatmulPrecision = (typeof MATMUL_PRECISIONS)[number];

export interface PrecisionOptions {
  /** Of products of f32, forward and backward; other dtypes don't see it. Default: that of setMatmulPrecision(), at first 'highest'. */
  precision?: MatmulPrecision;
}

export const PRECISION_OPTIONS: OptionNames<PrecisionOptions> = { precision: true };

let current: MatmulPrecision = 'highest';

function checked(precision: MatmulPrecision, what: string): MatmulPrecision {
  if (!MATMUL_PRECISIONS.includes(precision)) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `${what}: unknown precision '${String(precision)}'; expected one of ${MATMUL_PRECISIONS.join(', ')}`,
    );
  }
  return precision;
}

/** The precision of the products of f32 of this thread that don't say theirs. Throws ERR_ARGUMENT for an unknown one. */
export function setMatmulPrecision(precision: MatmulPrecision): void {
  current = checked(precision, 'setMatmulPrecision');
}

/** The precision of products that are not told otherwise, on this thread. */
export function getMatmulPrecision(): MatmulPrecision {
  return current;
}

/** Runs `fn` with this precision as the default; `fn` must be synchronous. Gradients of what it computes are computed in it as well. */
export function withMatmulPrecision<R>(precision: MatmulPrecision, fn: () => R): R {
  expectFunction('withMatmulPrecision', 'fn', fn);
  const before = current;
  current = checked(precision, 'withMatmulPrecision');
  try {
    return fn();
  } finally {
    current = before;
  }
}

/** Code across the seam of an option's precision, or of the default. */
export function precisionCode(precision: MatmulPrecision | undefined, op: string): number {
  return MATMUL_PRECISIONS.indexOf(precision === undefined ? current : checked(precision, op));
}
