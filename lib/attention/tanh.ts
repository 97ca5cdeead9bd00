/**
 * Tanh attention (the token mixing of ISTA-Net's TSA block): no softmax, and weights of both signs.
 *
 *     A[p, q] = alpha tanh(scale q_p . k_q) + M[p, q]      out_q = sum_p A[p, q] x_p
 *
 * The sum runs over the first (query) index, there is no value projection, and M is a learned map shared by all inputs. Made for a few hundred
 * tokens: the map of each head is held, as M itself is.
 *
 * Source: Wen et al., "Interactive Spatiotemporal Token Attention Network", IROS 2023, section III-C.
 */
import { FoveaError } from '../errors.ts';
import { add, mul } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { matmul } from '../ops/matmul.ts';
import { tanh } from '../ops/unary.ts';
import { transpose } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { expectRank } from './checks.ts';
import { fullSizes, type Cost, type CostSizes } from './cost.ts';

export interface TanhOptions {
  /** Factor of the tanh, broadcastable to [batch, heads, length, length]. Default 1. */
  readonly alpha?: Tensor | number;
  /** M, broadcastable to [batch, heads, length, length]. Default 0. */
  readonly bias?: Tensor;
  /** Factor of q.k; default 1 / dim. */
  readonly scale?: number;
}

const TANH_OPTIONS: OptionNames<TanhOptions> = { alpha: true, bias: true, scale: true };

/**
 * q, k [batch, heads, length, dim] and x [batch, heads or 1, length, dimV] to [batch, heads, length, dimV]. f32, bf16, f16; differentiable in
 * q, k, x, alpha, bias.
 *
 * @throws FoveaError ERR_SHAPE where shapes don't fit together
 */
export function tanhAttention(q: Tensor, k: Tensor, x: Tensor, options: TanhOptions = {}): Tensor {
  expectOptions('tanhAttention', options, TANH_OPTIONS);
  expectRank('tanhAttention', '[batch, heads, length, dim]', 4, { q, k, x });
  const { alpha = 1, bias, scale = 1 / q.shape[3] } = options;
  if (
    !sameShape(q.shape, k.shape) ||
    q.shape[0] !== x.shape[0] ||
    q.shape[2] !== x.shape[2] ||
    ![1, q.shape[1]].includes(x.shape[1])
  )
    throw new FoveaError(
      'ERR_SHAPE',
      `tanhAttention: q ${shapeText(q.shape)}, k ${shapeText(k.shape)}, x ${shapeText(x.shape)}; expected q and k of one shape, x of ` +
        'its batch and length with all heads or one',
    );
  const bounded = mul(tanh(mul(matmul(q, transpose(k), { dtype: 'f32' }), scale)), alpha);
  const map = bias ? add(bounded, bias) : bounded;
  return matmul(transpose(cast(map, x.dtype)), x);
}

/** Cost of tanhAttention; a tanh counts 10 operations. */
export function tanhCost(sizes: CostSizes): Cost {
  const { batch, heads, length, dim, dimV, elementBytes } = fullSizes(sizes);
  return {
    flops: batch * heads * length ** 2 * (2 * dim + 2 * dimV + 12),
    bytes: batch * heads * elementBytes * (2 * length * (dim + dimV) + 2 * length ** 2),
  };
}
