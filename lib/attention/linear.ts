/**
 * Linear attention: the softmax's kernel replaced by a product of positive features, so that keys and values are summed once.
 *
 *     out_i = phi(q_i) S / (phi(q_i) . z + eps n)      S = sum_j phi(k_j) v_j^T,  z = sum_j phi(k_j)
 *
 * over the n visible keys: all, or those up to the query's own. The causal form works in chunks: inside a chunk the masked square of feature
 * products, before it the running S and z, so cost and memory are linear in length. Sums are in f32 whatever the dtype. elu(x) + 1 is made as
 * exp(min(x, 0)) + max(x, 0), which keeps its digits where it is near 0.
 *
 * Source: Katharopoulos et al., "Transformers are RNNs", 2020; Zhou et al., "CARE Transformer", CVPR 2025 (the eps in its mean form, values
 * without projection).
 */
import { FoveaError } from '../errors.ts';
import { add, div, minimum, mul } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { arange } from '../ops/creation.ts';
import { matmul } from '../ops/matmul.ts';
import { pad } from '../ops/pad.ts';
import { sum } from '../ops/reduce.ts';
import { cumsum } from '../ops/scan.ts';
import { tril } from '../ops/triangle.ts';
import { exp, relu } from '../ops/unary.ts';
import { reshape, slice, transpose, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { expectCount, expectCrossAttention, expectSelfAttention } from './checks.ts';
import { fullSizes, type Cost, type CostSizes } from './cost.ts';

export interface LinearAttentionOptions {
  /** Features of queries and keys: 'elu' is elu(x) + 1, 'none' takes them as they are, or a function from [..., dim] to [..., features]. */
  readonly feature?: 'elu' | 'relu' | 'none' | ((t: Tensor) => Tensor);
  /** Keys up to the query's own only. Default false. */
  readonly causal?: boolean;
  /** Added to the mean of the feature products. Default 1e-6. */
  readonly eps?: number;
  /** Queries of a chunk of the causal form. Default 64. */
  readonly chunk?: number;
}

const LINEAR_OPTIONS: OptionNames<LinearAttentionOptions> = { feature: true, causal: true, eps: true, chunk: true };

/**
 * q [batch, heads, lq, dim], k [batch, heads, lk, dim], v [batch, heads, lk, dimV] to [batch, heads, lq, dimV]. f32, bf16 or f16;
 * differentiable in q, k, v. Causal needs lq = lk.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v don't fit together; ERR_ARGUMENT for an unknown feature or a bad chunk
 */
export function linearAttention(q: Tensor, k: Tensor, v: Tensor, options: LinearAttentionOptions = {}): Tensor {
  expectOptions('linearAttention', options, LINEAR_OPTIONS);
  const { feature = 'elu', causal = false, eps = 1e-6, chunk = 64 } = options;
  (causal ? expectSelfAttention : expectCrossAttention)('linearAttention', q, k, v);
  expectCount('linearAttention', 'chunk', chunk);
  const map = featureMap(feature);
  const [fq, fk, wide] = [map(cast(q, 'f32')), map(cast(k, 'f32')), cast(v, 'f32')];
  const { numerator, denominator } = causal ? causalProducts(fq, fk, wide, chunk) : products(fq, fk, wide);
  const lk = k.shape[2];
  const floor = causal
    ? reshape(mul(arange(1, lk + 1, 1, { dtype: 'f32', device: q.device }), eps), [lk, 1])
    : lk * eps;
  return cast(div(numerator, add(denominator, floor)), v.dtype);
}

/** The function that a feature names. Throws ERR_ARGUMENT. */
export function featureMap(feature: NonNullable<LinearAttentionOptions['feature']>): (t: Tensor) => Tensor {
  if (typeof feature === 'function') return feature;
  if (feature === 'elu') return (t) => add(exp(minimum(t, 0)), relu(t));
  if (feature === 'relu') return relu;
  if (feature === 'none') return (t) => t;
  throw new FoveaError('ERR_ARGUMENT', `linearAttention: unknown feature '${String(feature)}'`);
}

/** Sums of feature products: numerator [batch, heads, lq, dimV], denominator [batch, heads, lq, 1]. */
export interface FeatureProducts {
  readonly numerator: Tensor;
  readonly denominator: Tensor;
}

/** phi(q) (phi(k)^T v) and phi(q) . sum phi(k). */
export function products(fq: Tensor, fk: Tensor, v: Tensor): FeatureProducts {
  return {
    numerator: matmul(fq, matmul(transpose(fk), v)),
    denominator: matmul(fq, unsqueeze(sum(fk, 2), 3)),
  };
}

/** The same over keys up to each query's own, chunk by chunk. */
export function causalProducts(fq: Tensor, fk: Tensor, v: Tensor, chunk: number): FeatureProducts {
  const [batch, heads, length] = fq.shape;
  const size = Math.min(chunk, Math.max(1, length));
  const chunks = Math.ceil(length / size);
  const [q, k, values] = [fq, fk, v].map(
    (t) =>
    reshape(pad(t, [[0, 0], [0, 0], [0, chunks * size - length], [0, 0]]), [batch, heads, chunks, size, t.shape[3]]), // prettier-ignore
  );
  const inside = tril(matmul(q, transpose(k)));
  // What all earlier chunks sum to: the running sum, shifted by one chunk.
  const earlier = (t: Tensor): Tensor => {
    const none = [0, 0] as const;
    return slice(pad(cumsum(t, 2), [none, none, [1, 0], none, none]), 2, 0, chunks);
  };
  const state = earlier(matmul(transpose(k), values));
  const weight = earlier(unsqueeze(sum(k, 3), 4));
  const whole = (t: Tensor): Tensor => slice(reshape(t, [batch, heads, chunks * size, t.shape[4]]), 2, 0, length);
  return {
    numerator: whole(add(matmul(inside, values), matmul(q, state))),
    denominator: whole(add(sum(inside, 4, true), matmul(q, weight))),
  };
}

/** One token of causal linear attention, for decoding. */
export interface LinearState {
  /** sum phi(k) v^T [batch, heads, features, dimV] and sum phi(k) [batch, heads, features, 1] of the tokens so far. */
  readonly s: Tensor;
  readonly z: Tensor;
  readonly count: number;
}

/** The output of one more token (q, k, v [batch, heads, 1, dim]) and the state after it. The first call has no state. */
export function linearAttentionStep(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  state: LinearState | null,
  options: LinearAttentionOptions = {},
): { readonly out: Tensor; readonly state: LinearState } {
  expectOptions('linearAttentionStep', options, LINEAR_OPTIONS);
  const { feature = 'elu', eps = 1e-6 } = options;
  expectSelfAttention('linearAttentionStep', q, k, v);
  const map = featureMap(feature);
  const [fq, fk, wide] = [map(cast(q, 'f32')), map(cast(k, 'f32')), cast(v, 'f32')];
  const keys = transpose(fk);
  const s = state ? add(state.s, matmul(keys, wide)) : matmul(keys, wide);
  const z = state ? add(state.z, keys) : keys;
  const count = (state?.count ?? 0) + 1;
  const out = cast(div(matmul(fq, s), add(matmul(fq, z), eps * count)), v.dtype);
  return { out, state: { s, z, count } };
}

/** Cost of linearAttention with `features` dimensions after the feature map (default dim). */
export function linearCost(
  sizes: CostSizes,
  options: { readonly causal?: boolean; readonly chunk?: number; readonly features?: number } = {},
): Cost {
  expectOptions('linearCost', options, { causal: true, chunk: true, features: true });
  const { causal = false, chunk = 64, features } = options;
  const { batch, heads, length, keys, dim, dimV, elementBytes } = fullSizes(sizes);
  const f = features ?? dim;
  const states = causal ? Math.ceil(length / chunk) : 1;
  const inside = causal ? length * chunk * (2 * f + 2 * dimV) : 0;
  return {
    flops: batch * heads * ((length + keys) * f * (2 * dimV + 2) + inside),
    bytes:
      batch *
      heads *
      elementBytes *
      (length * (f + dimV) + keys * (f + dimV) + states * f * dimV + (causal ? length * chunk : 0)),
  };
}
