/**
 * What a forward call of a mechanism costs, from its sizes alone: floating-point operations (a multiplication with an addition counts 2)
 * and bytes of operands, results and intermediate tensors, each moved once. Every mechanism has one such function beside it; the table of
 * all is lib/attention/costs.ts.
 */

import { FoveaError } from '../errors.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectObject } from '../tensor/expect.ts';

/** Sizes of a call. */
export interface CostSizes {
  /** Default 1. */
  readonly batch?: number;
  /** Default 1. */
  readonly heads?: number;
  /** Queries. */
  readonly length: number;
  /** Keys; default `length`. */
  readonly keys?: number;
  /** Dimensions of a head. */
  readonly dim: number;
  /** Dimensions of a value; default `dim`. */
  readonly dimV?: number;
  /** Bytes of an element; default 4. */
  readonly elementBytes?: number;
}

export const COST_SIZES: OptionNames<CostSizes> = {
  batch: true,
  heads: true,
  length: true,
  keys: true,
  dim: true,
  dimV: true,
  elementBytes: true,
};

export interface Cost {
  readonly flops: number;
  readonly bytes: number;
}

type FullSizes = Required<CostSizes>;

/** Sizes with their defaults. Throws ERR_ARGUMENT for what is no whole number of at least 0, and for others than these. */
export function fullSizes(sizes: CostSizes): FullSizes {
  expectOptions('cost', sizes, COST_SIZES);
  const { batch = 1, heads = 1, length, dim, keys = length, dimV = dim, elementBytes = 4 } = sizes;
  const full = { batch, heads, length, keys, dim, dimV, elementBytes };
  for (const [name, size] of Object.entries(full))
    if (!Number.isSafeInteger(size) || size < 0)
      throw new FoveaError('ERR_ARGUMENT', `cost: ${name} is ${String(size)}, expected a whole number of at least 0`);
  return full;
}

/**
 * Cost of attention in which each head looks at `pairs` query-key pairs: q k^T, the softmax at 5 operations a pair, and the weighted sum.
 * `extraElements` are those of intermediate tensors of a head beyond q, k, v and out.
 */
export function pairsCost(sizes: CostSizes, pairs: number, extraElements = 0): Cost {
  const { batch, heads, length, keys, dim, dimV, elementBytes } = fullSizes(sizes);
  const elements = length * (dim + dimV) + keys * (dim + dimV) + extraElements;
  return {
    flops: batch * heads * pairs * (2 * dim + 2 * dimV + 5),
    bytes: batch * heads * (elements * elementBytes + 4 * length),
  };
}

/** Cost of dense attention over all pairs, or over those at or below the diagonal. */
export function denseCost(sizes: CostSizes, options: { readonly causal?: boolean } = {}): Cost {
  expectOptions('denseCost', options, { causal: true });
  const { length, keys } = fullSizes(sizes);
  return pairsCost(sizes, options.causal ? causalPairs(length) : length * keys);
}

/** Pairs at or below the diagonal. */
export function causalPairs(length: number): number {
  return (length * (length + 1)) / 2;
}

/** The sum of costs. */
export function addCosts(...costs: readonly Cost[]): Cost {
  for (const cost of costs) expectObject('addCosts', 'a cost', cost);
  return costs.reduce((a, b) => ({ flops: a.flops + b.flops, bytes: a.bytes + b.bytes }));
}
