/**
 * cosFormer: linear attention whose features, relu(x), are weighted by a cosine of the distance,
 *
 *     q_i . k_j cos(pi (i - j) / 2m) = (q_i cos a_i) . (k_j cos a_j) + (q_i sin a_i) . (k_j sin a_j),   a_i = pi i / 2m
 *
 * with positions from 1 and m the longer of both lengths. No scale of q.k.
 *
 * Source: Qin et al., "cosFormer: Rethinking Softmax in Attention", ICLR 2022.
 */
import { div, maximum, mul } from '../ops/binary.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { arange } from '../ops/creation.ts';
import { cos, sin } from '../ops/unary.ts';
import { reshape } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { expectCrossAttention, expectSelfAttention } from './checks.ts';
import { fullSizes, type Cost, type CostSizes } from './cost.ts';
import { causalProducts, featureMap, linearCost, products, type LinearAttentionOptions } from './linear.ts';

export interface CosformerOptions {
  /** Features of queries and keys, as in linearAttention; they must not be negative. Default 'relu'. */
  readonly feature?: LinearAttentionOptions['feature'];
  /** Keys up to the query's own only. Default false. */
  readonly causal?: boolean;
  /** Least value of the denominator. Default 1e-6. */
  readonly floor?: number;
}

const COSFORMER_OPTIONS: OptionNames<CosformerOptions> = { feature: true, causal: true, floor: true };

/**
 * q [batch, heads, lq, dim], k [batch, heads, lk, dim], v [batch, heads, lk, dimV] to [batch, heads, lq, dimV]. f32, bf16 or f16 (features in
 * f32); differentiable in q, k, v.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v don't fit together; ERR_ARGUMENT for an unknown feature
 */
export function cosformerAttention(q: Tensor, k: Tensor, v: Tensor, options: CosformerOptions = {}): Tensor {
  expectOptions('cosformerAttention', options, COSFORMER_OPTIONS);
  const { feature = 'relu', causal = false, floor = 1e-6 } = options;
  const map = featureMap(feature);
  (causal ? expectSelfAttention : expectCrossAttention)('cosformerAttention', q, k, v);
  const longest = Math.max(q.shape[2], k.shape[2]);
  const features = (t: Tensor): Tensor => {
    const length = t.shape[2];
    const angles = reshape(mul(arange(1, length + 1, 1, { dtype: 'f32', device: t.device }), Math.PI / (2 * longest)), [
      length,
      1,
    ]);
    const x = map(cast(t, 'f32'));
    return concat([mul(x, sin(angles)), mul(x, cos(angles))], 3);
  };
  const [fq, fk, wide] = [features(q), features(k), cast(v, 'f32')];
  const { numerator, denominator } = causal ? causalProducts(fq, fk, wide, 64) : products(fq, fk, wide);
  return cast(div(numerator, maximum(denominator, floor)), v.dtype);
}

/** Cost of cosformerAttention. */
export function cosformerCost(sizes: CostSizes, options: CosformerOptions = {}): Cost {
  expectOptions('cosformerCost', options, COSFORMER_OPTIONS);
  const { causal = false } = options;
  return linearCost(sizes, { causal, features: 2 * fullSizes(sizes).dim });
}
