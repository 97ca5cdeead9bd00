/**
 * Channel attention: tokens and channels change places, so that a dim x dim map mixes channels with all positions in view, at a cost linear
 * in length. The map is summed over positions and not normalised by their number; its softmax runs in f32 with the maximum taken off.
 *
 * Source: Ding et al., "DaViT: Dual Attention Vision Transformers", ECCV 2022, section 3.3. There the map is built from k and v and applied to
 * q: form 'davit'. The checkpoints of Florence-2 scale q by 1 / sqrt(length), build the map from q and k and apply it to v: 'florence'.
 */
import { FoveaError } from '../errors.ts';
import { mul } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { matmul } from '../ops/matmul.ts';
import { softmax } from '../ops/softmax.ts';
import { transpose } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { expectSelfAttention } from './checks.ts';
import { fullSizes, type Cost, type CostSizes } from './cost.ts';

export interface ChannelOptions {
  /** Which of q, k, v make the map and which it is applied to. Default 'davit'. */
  readonly form?: 'davit' | 'florence';
  /** Factor of the map's logits; default 1 / sqrt(dim) for 'davit', 1 / sqrt(length) for 'florence'. */
  readonly scale?: number;
}

const CHANNEL_OPTIONS: OptionNames<ChannelOptions> = { form: true, scale: true };

/**
 * q, k, v [batch, groups, length, dim] of one shape, a group of channels each, to the same shape:
 *
 *     davit:     A = softmax(scale k^T v), out[n, c] = sum_c' A[c, c'] q[n, c']
 *     florence:  A = softmax(scale q^T k), out[n, c] = sum_c' A[c, c'] v[n, c']
 *
 * f32, bf16, f16; differentiable in q, k, v.
 *
 * @throws FoveaError ERR_SHAPE where shapes differ, ERR_ARGUMENT for an unknown form
 */
export function channelAttention(q: Tensor, k: Tensor, v: Tensor, options: ChannelOptions = {}): Tensor {
  expectOptions('channelAttention', options, CHANNEL_OPTIONS);
  expectSelfAttention('channelAttention', q, k, v);
  if (v.shape[3] !== q.shape[3]) throw new FoveaError('ERR_SHAPE', 'channelAttention: v must have the dim of q and k');
  const { form = 'davit' } = options;
  if (form !== 'davit' && form !== 'florence')
    throw new FoveaError('ERR_ARGUMENT', `channelAttention: form is '${String(form)}', expected 'davit' or 'florence'`);
  const [left, right, applied] = form === 'davit' ? [k, v, q] : [q, k, v];
  const { scale = 1 / Math.sqrt(q.shape[form === 'davit' ? 3 : 2]) } = options;
  const map = softmax(mul(matmul(transpose(left), right, { dtype: 'f32' }), scale));
  return matmul(applied, transpose(cast(map, q.dtype)));
}

/** Cost of channelAttention. */
export function channelCost(sizes: CostSizes): Cost {
  const { batch, heads, length, dim, elementBytes } = fullSizes(sizes);
  return {
    flops: batch * heads * dim * dim * (4 * length + 5),
    bytes: batch * heads * elementBytes * (4 * length * dim + 2 * dim * dim),
  };
}
