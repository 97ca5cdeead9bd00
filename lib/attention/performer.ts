/**
 * Performer: the softmax's kernel as an expectation over random projections w, positive features
 *
 *     phi(x) = m^-1/2 (exp(w x - |x|^2 / 2 - largest) + 1e-4),   x scaled by dim^-1/4
 *
 * so that attention is linear in length. `largest` is that of a query's own features, and of all features of a head for keys; it cancels in
 * the quotient but for the 1e-4 and the floor of the denominator.
 *
 * Source: Choromanski et al., "Rethinking Attention with Performers", ICLR 2021; constants as in CAB (Zhang et al., ICML 2023).
 */
import { FoveaError } from '../errors.ts';
import { add, div, maximum, mul, sub } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { matmul } from '../ops/matmul.ts';
import { randn } from '../ops/random.ts';
import { max, norm, sum } from '../ops/reduce.ts';
import { concat } from '../ops/concat.ts';
import { exp, square } from '../ops/unary.ts';
import { reshape, transpose } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { noGrad } from '../autograd/tape.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { expectCount, expectCrossAttention, expectSelfAttention, expectValid } from './checks.ts';
import type { Cost, CostSizes } from './cost.ts';
import { causalProducts, linearCost, products } from './linear.ts';

export interface PerformerOptions {
  /** [heads, features, dim], or [features, dim] for all heads: made by orthogonalProjection and kept, or drawn anew in training. */
  readonly projection: Tensor;
  /** Keys up to the query's own only; the largest of the keys' features is still that of all. Default false. */
  readonly causal?: boolean;
  /** bool [batch, keys], true for real keys. Others have no features; the largest is still that of all, as in CAB. */
  readonly valid?: Tensor;
  /** Least value of the denominator. Default 0.1. */
  readonly floor?: number;
}

const PERFORMER_OPTIONS: OptionNames<PerformerOptions> = { projection: true, causal: true, valid: true, floor: true };

/**
 * q [batch, heads, lq, dim], k [batch, heads, lk, dim], v [batch, heads, lk, dimV] to [batch, heads, lq, dimV]. f32, bf16 or f16 (features in
 * f32); differentiable in q, k, v.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v or the projection don't fit together
 */
export function performerAttention(q: Tensor, k: Tensor, v: Tensor, options: PerformerOptions): Tensor {
  expectOptions('performerAttention', options, PERFORMER_OPTIONS);
  const { projection, causal = false, floor = 0.1, valid } = options;
  (causal ? expectSelfAttention : expectCrossAttention)('performerAttention', q, k, v);
  expectTensors('performerAttention', { projection });
  if (projection.shape.at(-1) !== q.shape[3] || projection.rank < 2 || projection.rank > 3)
    throw new FoveaError(
      'ERR_SHAPE',
      `performerAttention: projection ${shapeText(projection.shape)} for q ${shapeText(q.shape)}; expected [heads, features, dim]`,
    );
  const [batch, , keys] = k.shape;
  expectValid('performerAttention', valid, batch, keys);
  const fq = features(q, projection, [3]);
  const all = features(k, projection, [2, 3]);
  const fk = valid ? where(reshape(valid, [batch, 1, keys, 1]), all, 0) : all;
  const wide = cast(v, 'f32');
  const { numerator, denominator } = causal ? causalProducts(fq, fk, wide, 64) : products(fq, fk, wide);
  return cast(div(numerator, maximum(denominator, floor)), v.dtype);
}

function features(t: Tensor, projection: Tensor, axes: readonly number[]): Tensor {
  const x = mul(cast(t, 'f32'), t.shape[3] ** -0.25);
  const dash = matmul(x, transpose(cast(projection, 'f32')));
  if (dash.size === 0) return dash;
  const shifted = sub(sub(dash, mul(sum(square(x), 3, true), 0.5)), max(dash, axes, true));
  return mul(add(exp(shifted), 1e-4), dash.shape[3] ** -0.5);
}

/**
 * Random directions [heads, features, dim]: orthogonal within blocks of `dim`, their lengths those of Gaussian vectors. Gram-Schmidt over
 * draws of randn(); no gradient. Throws ERR_ARGUMENT for sizes below 1.
 */
export function orthogonalProjection(heads: number, count: number, dim: number): Tensor {
  for (const [name, value] of Object.entries({ heads, count, dim })) expectCount('orthogonalProjection', name, value);
  return noGrad(() => {
    const blocks: Tensor[] = [];
    for (let made = 0; made < count; made += dim) {
      const rows: Tensor[] = [];
      for (let i = 0; i < Math.min(dim, count - made); i++) {
        let row = randn([heads, 1, dim]);
        for (const other of [...rows, ...rows]) row = sub(row, mul(other, sum(mul(row, other), 2, true)));
        rows.push(div(row, norm(row, 2, true)));
      }
      blocks.push(concat(rows, 1));
    }
    return mul(concat(blocks, 1), norm(randn([heads, count, dim]), 2, true));
  });
}

/** Cost of performerAttention. */
export function performerCost(
  sizes: CostSizes,
  options: { readonly features?: number; readonly causal?: boolean } = {},
): Cost {
  expectOptions('performerCost', options, { features: true, causal: true });
  const { features = 16, causal = false } = options;
  const core = linearCost(sizes, { causal, features });
  const { batch = 1, heads = 1, length, keys = length, dim } = sizes;
  return { flops: core.flops + batch * heads * (length + keys) * features * (2 * dim + 8), bytes: core.bytes };
}
