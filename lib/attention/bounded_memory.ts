/**
 * ABC: attention with bounded-memory control. All keys and values are compressed into n slots by learned weightings, and queries attend to the
 * slots.
 *
 *     K'_r = sum_j softmax_j(k_j . a_r) k_j     V'_r = sum_j softmax_j(v_j . b_r) v_j     out_i = softmax_r(scale q_i . K'_r) V'_r
 *
 * Without causality the three softmaxes are three calls of the engine. With it each position has slots of its own, the weighted means of what
 * lies before (runningMean), n times the size of k and v. The released causal code forgets the running sum and keeps only the newest write,
 * e^{a_t - lse_t} k_t: memory 'newest'.
 *
 * Source: Peng et al., "ABC: Attention with Bounded-memory Control", ACL 2022; CAB (Zhang et al., ICML 2023).
 */
import { FoveaError } from '../errors.ts';
import { maximum, mul, sub } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { matmul } from '../ops/matmul.ts';
import { sum } from '../ops/reduce.ts';
import { softmax } from '../ops/softmax.ts';
import { exp } from '../ops/unary.ts';
import { expand, transpose, unsqueeze } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AttentionMask } from './arguments.ts';
import { attention } from './attention.ts';
import { expectCrossAttention, expectSelfAttention } from './checks.ts';
import { fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { runningMean } from './running_mean.ts';

/** In place of the log-sum-exp of nothing, so that differences stay numbers. */
const NO_LSE = -1e30;

export interface AbcOptions {
  /** Weightings of keys and values, [dim, slots] and [dimV, slots], shared by heads. */
  readonly compressK: Tensor;
  readonly compressV: Tensor;
  /** Slots hold what lies before each position. Default false. */
  readonly causal?: boolean;
  /** With causal: all writes so far, or the newest alone. Default 'all'. */
  readonly memory?: 'all' | 'newest';
  /** Keys that are written, bool and broadcastable to [batch, heads, 1, keys]; with causal a tensor. */
  readonly mask?: AttentionMask;
  /** Factor of q.K'; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const ABC_OPTIONS: OptionNames<AbcOptions> = {
  compressK: true,
  compressV: true,
  causal: true,
  memory: true,
  mask: true,
  scale: true,
};

/**
 * q [batch, heads, lq, dim], k [batch, heads, lk, dim], v [batch, heads, lk, dimV] to [batch, heads, lq, dimV]; f32, bf16 or f16;
 * differentiable in q, k, v and both weightings. Causal needs lq = lk.
 *
 * @throws FoveaError ERR_SHAPE where shapes don't fit together, ERR_UNSUPPORTED for a mask function with causal
 */
export function abcAttention(q: Tensor, k: Tensor, v: Tensor, options: AbcOptions): Tensor {
  expectOptions('abcAttention', options, ABC_OPTIONS);
  const { compressK, compressV, causal = false, memory = 'all', mask } = options;
  (causal ? expectSelfAttention : expectCrossAttention)('abcAttention', q, k, v);
  expectTensors('abcAttention', { compressK, compressV });
  const { scale = 1 / Math.sqrt(q.shape[3]) } = options;
  if (
    compressK.rank !== 2 ||
    compressV.rank !== 2 ||
    compressK.shape[0] !== k.shape[3] ||
    compressV.shape[0] !== v.shape[3] ||
    compressK.shape[1] !== compressV.shape[1]
  )
    // prettier-ignore
    throw new FoveaError(
      'ERR_SHAPE',
      `abcAttention: compressK ${shapeText(compressK.shape)}, compressV ${shapeText(compressV.shape)}; expected [dim, slots] both`,
    );
  if (!causal) {
    const slots = (t: Tensor, weights: Tensor): Tensor =>
      attention(expand(unsqueeze(unsqueeze(transpose(weights), 0), 0), [...t.shape.slice(0, 2), weights.shape[1], t.shape[3]]), t, t, { scale: 1, ...(mask && { mask }) }); // prettier-ignore
    return attention(q, slots(k, compressK), slots(v, compressV), { scale });
  }
  if (mask && !(mask instanceof Tensor))
    throw new FoveaError('ERR_UNSUPPORTED', 'abcAttention: with causal the mask must be a bool tensor');
  const slots = (t: Tensor, weights: Tensor): Tensor => {
    const all = transpose(matmul(t, weights, { dtype: 'f32' }));
    const logits = mask ? where(mask, all, -Infinity) : all;
    const mean = runningMean(logits, t);
    if (memory === 'all') return cast(mean.out, 'f32');
    return mul(unsqueeze(exp(sub(logits, maximum(mean.lse, NO_LSE))), 4), unsqueeze(cast(t, 'f32'), 2));
  };
  const dots = mul(sum(mul(slots(k, compressK), unsqueeze(cast(q, 'f32'), 2)), 4), scale);
  const weights = unsqueeze(softmax(dots, 2), 4);
  return cast(sum(mul(weights, slots(v, compressV)), 2), v.dtype);
}

/** Cost of abcAttention with `slots` slots. */
export function abcCost(sizes: CostSizes, options: { readonly slots?: number; readonly causal?: boolean } = {}): Cost {
  expectOptions('abcCost', options, { slots: true, causal: true });
  const { slots = 16, causal = false } = options;
  const { length, keys, dim, dimV } = fullSizes(sizes);
  const pairs = (causal ? 34 : 2) * keys * slots + length * slots;
  return pairsCost(sizes, pairs, slots * (dim + dimV) * (causal ? length : 1));
}
