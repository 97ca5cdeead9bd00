/**
 * The attention variants of "Deconstructing Attention": which of token mixing, softmax form, dependence on the input and current queries and
 * keys does a language model need? All are causal.
 *
 * - taylorAttention: exp replaced by its second-order Taylor polynomial, positive everywhere. 'score' is a score change of the engine
 *   (softmax of log(1 + x + x^2/2) is that), quadratic in length with no features; 'features' the linear form, 1 + dim + dim^2 features.
 * - positionlessAttention (the paper's non-approximate variant): a token's logit comes from its own query and key, so the map is one running
 *   weighting and the output a running weighted mean, linear in length.
 * - streamAttention (RndEmbQK, FixedSeqQK, StaticEmbQK): queries and keys come from another stream than the values.
 *
 * Source: Xue, Moosavi and Aletras, 2025, section 3, equations 5 to 13. The joint normalisation of equation 6 is used.
 */
import { FoveaError } from '../errors.ts';
import { score } from '../mask/mask.ts';
import { mul } from '../ops/binary.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { onesLike } from '../ops/creation.ts';
import { linear } from '../ops/linear.ts';
import { sum } from '../ops/reduce.ts';
import { silu } from '../ops/unary.ts';
import { expand, permute, reshape, select, slice, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectRank, expectSelfAttention } from './checks.ts';
import { causalPairs, fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { linearAttention, linearCost } from './linear.ts';
import { runningMean } from './running_mean.ts';

export interface TaylorOptions {
  /** 'score': by the engine; 'features': linear in length. Default: whichever costs less. */
  readonly method?: 'score' | 'features';
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const TAYLOR_OPTIONS: OptionNames<TaylorOptions> = { method: true, scale: true };

const taylor = score(({ s }) => Math.log(1 + s + 0.5 * s * s));

/**
 * Causal attention with weights 1 + x + x^2/2, x = scale q_i . k_j. q, k [batch, heads, length, dim], v [batch, heads, length, dimV] to v's
 * shape; f32, bf16 or f16; differentiable in q, k, v.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v don't fit together, ERR_ARGUMENT for an unknown method
 */
export function taylorAttention(q: Tensor, k: Tensor, v: Tensor, options: TaylorOptions = {}): Tensor {
  expectOptions('taylorAttention', options, TAYLOR_OPTIONS);
  expectSelfAttention('taylorAttention', q, k, v);
  const { scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const sizes = { length: q.shape[2], dim: q.shape[3], dimV: v.shape[3] };
  const { method = taylorMethod(sizes) } = options;
  if (method === 'score') return attention(q, k, v, { causal: true, scale, score: taylor });
  if (method !== 'features')
    throw new FoveaError('ERR_ARGUMENT', `taylorAttention: unknown method '${String(method)}'`);
  // x^2 / 2 is the product of (q q^T) / sqrt 2 and (k k^T) / sqrt 2, flattened.
  const features = (t: Tensor): Tensor => {
    const outer = reshape(mul(unsqueeze(t, 4), unsqueeze(t, 3)), [...t.shape.slice(0, 3), t.shape[3] ** 2]);
    return concat([onesLike(slice(t, 3, 0, 1)), t, mul(outer, Math.SQRT1_2)], 3);
  };
  return linearAttention(mul(q, scale), k, v, { feature: features, causal: true, eps: 0 });
}

function taylorMethod(sizes: CostSizes): 'score' | 'features' {
  return taylorCost(sizes, { method: 'features' }).flops < taylorCost(sizes, { method: 'score' }).flops
    ? 'features'
    : 'score';
}

/**
 * out_i = sum_{j <= i} e^{s_j} v_j / sum_{j <= i} e^{s_j} with s_j = scale silu(q_j) . k_j. q, k [batch, heads, length, dim], v [batch, heads,
 * length, dimV] to v's shape; f32, bf16 or f16; differentiable in q, k, v. Logits have no bound: sums are kept relative to their largest.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v don't fit together
 */
export function positionlessAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: { readonly scale?: number } = {},
): Tensor {
  expectOptions('positionlessAttention', options, { scale: true });
  expectSelfAttention('positionlessAttention', q, k, v);
  const { scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const logits = mul(sum(mul(silu(cast(q, 'f32')), cast(k, 'f32')), 3), scale);
  return select(runningMean(unsqueeze(logits, 2), v).out, 2, 0);
}

export interface StreamWeights {
  /** Projections [dim, dim] as those of linear(): rows are outputs. */
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

/**
 * Causal attention whose queries and keys are projected from `stream` [batch or 1, length, dim] and whose values from `hidden` [batch,
 * length, dim], in `heads` heads; the result has hidden's shape. A stream of batch 1 (random or fixed text) is projected once for all.
 * Differentiable in all.
 *
 * @throws FoveaError ERR_SHAPE where shapes don't fit or heads doesn't divide dim
 */
export function streamAttention(hidden: Tensor, stream: Tensor, weights: StreamWeights, heads = 1): Tensor {
  expectRank('streamAttention', '[batch, length, dim]', 3, { hidden, stream });
  expectTensors('streamAttention', { q: weights.q, k: weights.k, v: weights.v });
  const [batch, length, dim] = hidden.shape;
  if (stream.shape[1] !== length || ![1, batch].includes(stream.shape[0]) || dim % heads !== 0)
    throw new FoveaError(
      'ERR_SHAPE',
      `streamAttention: hidden ${shapeText(hidden.shape)}, stream ${shapeText(stream.shape)}, ${heads} heads; expected one length, the ` +
        'batch of hidden or 1, and heads that divide dim',
    );
  const headsOf = (t: Tensor): Tensor =>
    permute(reshape(t, [t.shape[0], length, heads, t.shape[2] / heads]), [0, 2, 1, 3]);
  const [q, k] = [weights.q, weights.k].map((w) => headsOf(linear(stream, w)));
  const wide = (t: Tensor): Tensor => (t.shape[0] === batch ? t : expand(t, [batch, ...t.shape.slice(1)]));
  const out = attention(wide(q), wide(k), headsOf(linear(hidden, weights.v)), { causal: true });
  return reshape(permute(out, [0, 2, 1, 3]), [batch, length, heads * out.shape[3]]);
}

/** Cost of taylorAttention. */
export function taylorCost(sizes: CostSizes, options: TaylorOptions = {}): Cost {
  expectOptions('taylorCost', options, TAYLOR_OPTIONS);
  const { method = taylorMethod(sizes) } = options;
  const { length, dim } = fullSizes(sizes);
  if (method === 'score') return pairsCost(sizes, causalPairs(length));
  return linearCost(sizes, { causal: true, features: 1 + dim + dim ** 2 });
}

/** Cost of positionlessAttention. */
export function positionlessCost(sizes: CostSizes): Cost {
  const { length, dim } = fullSizes(sizes);
  return pairsCost({ ...sizes, dim: 1 }, 18 * length, 2 * length * dim);
}
