/**
 * Reversed attention: a token sends its value to its parents instead of gathering from others.
 *
 *     F[j, i] = softmax over i of (scale q_j . k_i)     y_i = sum_j F[j, i] p_j m_j v_j
 *
 * Each sender j spreads unit mass over the receivers i; p_j is its share for this head, m_j its message strength. The softmax runs over the
 * receivers, the sum over the senders. Two calls of the engine do it without the length x length matrix: the first gives the senders'
 * log-denominators lse_j; in the second the roles of q and k are exchanged and -lse_j is a bias of the keys, so its own softmax divides by
 * Z_i = sum_j F[j, i], which is multiplied back from its log-sum-exp.
 *
 * Source: Ding et al., "Visual Dependency Transformers", CVPR 2023, section 3.2. No code was published; p and m follow the community version.
 */
import { mul } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { matmul } from '../ops/matmul.ts';
import { sum } from '../ops/reduce.ts';
import { softmax } from '../ops/softmax.ts';
import { exp, neg } from '../ops/unary.ts';
import { reshape, slice, transpose, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectSelfAttention } from './checks.ts';
import { addCosts, fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';

export interface ReversedOptions {
  /** Share of each sender for each head, broadcastable to [batch, heads, length]; default 1. */
  readonly p?: Tensor;
  /** Message strength of each sender, broadcastable to [batch, heads, length]; default 1. */
  readonly m?: Tensor;
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const REVERSED_OPTIONS: OptionNames<ReversedOptions> = { p: true, m: true, scale: true };

/** p m, or null where both are absent. */
function senderWeight({ p, m }: ReversedOptions): Tensor | null {
  return p && m ? mul(p, m) : (p ?? m ?? null);
}

/**
 * Reversed attention of q, k [batch, heads, length, dim] and v [batch, heads, length, dimV] to v's shape. f32, bf16 or f16; differentiable in
 * q, k, v, p, m. Rows are not normalised: a popular receiver gets more.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v don't fit together or p, m don't broadcast
 */
export function reversedAttention(q: Tensor, k: Tensor, v: Tensor, options: ReversedOptions = {}): Tensor {
  expectOptions('reversedAttention', options, REVERSED_OPTIONS);
  expectSelfAttention('reversedAttention', q, k, v);
  const [batch, heads, length, dim] = q.shape;
  const { scale = 1 / Math.sqrt(dim) } = options;
  const weight = senderWeight(options);
  const sent = weight ? cast(mul(v, unsqueeze(weight, -1)), v.dtype) : v;
  const { lse } = attention(q, k, slice(v, 3, 0, 1), { scale, returnLse: true });
  const bias = reshape(neg(lse), [batch, heads, 1, length]);
  const received = attention(k, q, sent, { scale, bias, returnLse: true });
  return cast(mul(received.out, unsqueeze(exp(received.lse), -1)), v.dtype);
}

/**
 * The soft dependency mask D[i, j] = sum over heads of F[j, i] p_j m_j, [batch, length, length]: how much of j's message goes to i. It is of
 * that size, so for pictures and trees; column j sums to m_j where p sums to 1 over heads.
 *
 * @throws FoveaError as reversedAttention
 */
export function dependencyMask(q: Tensor, k: Tensor, options: ReversedOptions = {}): Tensor {
  expectOptions('dependencyMask', options, REVERSED_OPTIONS);
  expectSelfAttention('dependencyMask', q, k, k);
  const { scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const sends = softmax(mul(cast(matmul(q, transpose(k)), 'f32'), scale));
  const weight = senderWeight(options);
  return transpose(sum(weight ? mul(sends, unsqueeze(weight, -1)) : sends, 1));
}

/** Cost of reversedAttention: the logits twice, the values once. */
export function reversedCost(sizes: CostSizes): Cost {
  const { length } = fullSizes(sizes);
  return addCosts(pairsCost({ ...sizes, dimV: 1 }, length ** 2), pairsCost(sizes, length ** 2));
}
