/**
 * Long-short attention: one softmax over a few landmarks of the whole sequence and the tokens of a window.
 *
 * Landmarks are weighted means of keys and values over time (dynamicProjection). Windows are those of blocks: a query sees its own block of
 * `window` tokens and `window / 2` on each side. Two calls of the engine, merged by their log-sum-exp.
 *
 * Source: Zhu et al., "Long-Short Transformer", NeurIPS 2021, section 3; CAB (Zhang et al., ICML 2023) for the module around it.
 */
import { FoveaError } from '../errors.ts';
import { mask, type Mask } from '../mask/mask.ts';
import { cast } from '../ops/copy.ts';
import { matmul } from '../ops/matmul.ts';
import { softmax } from '../ops/softmax.ts';
import { permute, reshape } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectCount, expectCrossAttention, expectRank, expectSelfAttention, expectValid } from './checks.ts';
import { fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { mergeAttentions } from './merge.ts';

export interface LongShortOptions {
  /** Landmarks, [batch, heads, landmarks, dim] and [batch, heads, landmarks, dimV]. */
  readonly landmarkK: Tensor;
  readonly landmarkV: Tensor;
  /** Tokens of a block. */
  readonly window: number;
  /** bool [batch, length], true for real tokens: others are not seen in windows and give 0. */
  readonly valid?: Tensor;
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const LONG_SHORT_OPTIONS: OptionNames<LongShortOptions> = {
  landmarkK: true,
  landmarkV: true,
  window: true,
  valid: true,
  scale: true,
};

const windows = new Map<number, Mask>();

function windowMask(window: number): Mask {
  let made = windows.get(window);
  if (!made) {
    const side = Math.max(1, Math.floor(window / 2));
    made = mask(
      ({ q, kv }, { window, side }) =>
        kv >= Math.floor(q / window) * window - side && kv < Math.floor(q / window) * window + window + side,
      { window, side },
    );
    if (windows.size >= 32) windows.clear();
    windows.set(window, made);
  }
  return made;
}

/**
 * q, k [batch, heads, length, dim], v [batch, heads, length, dimV] to v's shape; f32, bf16 or f16; differentiable in q, k, v and the landmarks.
 *
 * @throws FoveaError ERR_SHAPE where shapes don't fit together, ERR_ARGUMENT for a window below 1
 */
export function longShortAttention(q: Tensor, k: Tensor, v: Tensor, options: LongShortOptions): Tensor {
  expectOptions('longShortAttention', options, LONG_SHORT_OPTIONS);
  const { landmarkK, landmarkV, window, valid } = options;
  expectSelfAttention('longShortAttention', q, k, v);
  expectCrossAttention('longShortAttention', q, landmarkK, landmarkV);
  expectCount('longShortAttention', 'window', window);
  const { scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const [batch, , length] = q.shape;
  expectValid('longShortAttention', valid, batch, length);
  const near = windowMask(window);
  const keys = valid ? [near, reshape(valid, [batch, 1, 1, length])] : near;
  const { out } = mergeAttentions([
    attention(q, landmarkK, landmarkV, { scale, returnLse: true }),
    attention(q, k, v, { scale, mask: keys, returnLse: true }),
  ]);
  return valid ? where(reshape(valid, [batch, 1, length, 1]), out, 0) : out;
}

/**
 * Landmarks from tokens t [batch, heads, length, dim]: means weighted by the softmax over time of `scores` [batch, length, heads landmarks],
 * [batch, heads, landmarks, dim]. Tokens that are not `valid` (bool [batch, length]) have no weight.
 *
 * @throws FoveaError ERR_SHAPE where they don't fit together
 */
export function dynamicProjection(t: Tensor, scores: Tensor, valid?: Tensor): Tensor {
  expectRank('dynamicProjection', '[batch, heads, length, dim]', 4, { t });
  expectTensors('dynamicProjection', { scores });
  const [batch, heads, length] = t.shape;
  const landmarks = scores.shape[2] / heads;
  if (scores.rank !== 3 || !sameShape(scores.shape.slice(0, 2), [batch, length]) || !Number.isInteger(landmarks))
    throw new FoveaError(
      'ERR_SHAPE',
      `dynamicProjection: scores ${shapeText(scores.shape)}, expected [${batch}, ${length}, ${heads} x landmarks]`,
    );
  const real = valid ? where(reshape(valid, [batch, length, 1]), scores, -Infinity) : scores;
  const weights = softmax(permute(reshape(real, [batch, length, heads, landmarks]), [0, 2, 3, 1]));
  return matmul(cast(weights, t.dtype), t);
}

/** Cost of longShortAttention. */
export function longShortCost(
  sizes: CostSizes,
  options: { readonly landmarks?: number; readonly window?: number } = {},
): Cost {
  expectOptions('longShortCost', options, { landmarks: true, window: true });
  const { landmarks = 16, window = 15 } = options;
  const { length, dim, dimV } = fullSizes(sizes);
  const seen = window + 2 * Math.max(1, Math.floor(window / 2));
  return pairsCost(sizes, length * (2 * landmarks + Math.min(length, seen)), landmarks * (dim + dimV));
}
