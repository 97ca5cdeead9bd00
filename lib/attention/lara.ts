/**
 * LARA: linear randomised attention by self-normalised importance sampling. Each of a few proposals c, centred at mu_c (mean query plus mean
 * key of a segment), summarises all keys and values once; a query weighs the summaries.
 *
 *     kv_c = sum_j softmax_j(s w_c . k_j - s |k_j|^2 / 2) v_j
 *     out_i = sum_c softmax_c(s (mu_c + w_c) . q_i + lse_c - s w_c . mu_c + s |mu_c|^2 / 2) kv_c,   s = dim^-1/2
 *
 * w_c = mu_c in evaluation, mu_c plus noise in training. Both softmaxes are calls of the engine whose constant terms are biases of the keys.
 *
 * Source: Zheng, Wang and Kong, "Linear Complexity Randomized Self-attention Mechanism", ICML 2022, section 4.
 */
import { FoveaError } from '../errors.ts';
import { add, mul, sub } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { sum } from '../ops/reduce.ts';
import { square } from '../ops/unary.ts';
import { reshape, slice } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectOptionalTensors } from '../tensor/expect.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectCount, expectSelfAttention, expectValid } from './checks.ts';
import { fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { segmentMeans } from './landmarks.ts';

export interface LaraOptions {
  /** Number of proposals. Default 16. */
  readonly landmarks?: number;
  /** Added to mu for the samples, [batch, heads, landmarks, dim]: randn() in training. Default none. */
  readonly noise?: Tensor;
  /** bool [batch, length], true for real tokens. The keys of others have no part in the summaries. */
  readonly valid?: Tensor;
  /** Whether keys that are not valid still count in the lse_c that weighs a proposal: 'counted', as in CAB, or 'hidden'. Default 'counted'. */
  readonly padding?: 'counted' | 'hidden';
}

const LARA_OPTIONS: OptionNames<LaraOptions> = { landmarks: true, noise: true, valid: true, padding: true };

/**
 * q, k [batch, heads, length, dim], v [batch, heads, length, dimV] to v's shape. f32, bf16 or f16; differentiable in q, k, v. CAB's module
 * passes q already scaled by dim^-1/2.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v or noise don't fit together, ERR_ARGUMENT for landmarks below 1
 */
export function laraAttention(q: Tensor, k: Tensor, v: Tensor, options: LaraOptions = {}): Tensor {
  expectOptions('laraAttention', options, LARA_OPTIONS);
  expectSelfAttention('laraAttention', q, k, v);
  const { landmarks = 16, noise, valid, padding = 'counted' } = options;
  expectOptionalTensors('laraAttention', { noise });
  const [batch, , length] = q.shape;
  expectValid('laraAttention', valid, batch, length);
  if (padding !== 'counted' && padding !== 'hidden')
    throw new FoveaError(
      'ERR_ARGUMENT',
      `laraAttention: padding is '${String(padding)}', expected 'counted' or 'hidden'`,
    );
  expectCount('laraAttention', 'landmarks', landmarks);
  const mu = add(segmentMeans(q, landmarks), segmentMeans(k, landmarks));
  if (noise && !sameShape(noise.shape, mu.shape))
    throw new FoveaError(
      'ERR_SHAPE',
      `laraAttention: noise ${shapeText(noise.shape)}, expected ${shapeText(mu.shape)}`,
    );
  const scale = 1 / Math.sqrt(q.shape[3]);
  const sample = noise ? cast(add(mu, noise), mu.dtype) : mu;
  const asBias = (t: Tensor): Tensor => reshape(t, [t.shape[0], t.shape[1], 1, t.shape[2]]);
  const halfSquare = (t: Tensor): Tensor => mul(sum(square(cast(t, 'f32')), 3), scale / 2);
  const proposals = { scale, bias: asBias(mul(halfSquare(k), -1)), returnLse: true } as const;
  const mask = valid && reshape(valid, [batch, 1, 1, length]);
  const summary = attention(sample, k, v, { ...proposals, ...(mask && { mask }) });
  const lse = mask && padding === 'counted' ? attention(sample, k, slice(v, 3, 0, 1), proposals).lse : summary.lse;
  const atCentre = sub(mul(sum(mul(cast(sample, 'f32'), cast(mu, 'f32')), 3), scale), halfSquare(mu));
  return attention(q, add(mu, sample), summary.out, { scale, bias: asBias(sub(lse, atCentre)) });
}

/** Cost of laraAttention. */
export function laraCost(sizes: CostSizes, options: LaraOptions = {}): Cost {
  expectOptions('laraCost', options, LARA_OPTIONS);
  const { landmarks = 16 } = options;
  const { length, dim, dimV } = fullSizes(sizes);
  return pairsCost(sizes, 2 * length * landmarks, landmarks * (3 * dim + dimV));
}
