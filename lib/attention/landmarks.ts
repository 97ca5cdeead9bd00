/** Landmarks: a few tokens that stand for many. */
import { concat } from '../ops/concat.ts';
import { mean } from '../ops/reduce.ts';
import { reshape, slice } from '../ops/view.ts';
import type { Tensor } from '../tensor/tensor.ts';

/**
 * Means of `count` consecutive segments of t [batch, heads, length, dim], [batch, heads, count, dim]; shorter segments come first where the
 * length doesn't divide. t itself where it is no longer than `count`.
 */
export function segmentMeans(t: Tensor, count: number): Tensor {
  const [batch, heads, length, dim] = t.shape;
  if (length <= count) return t;
  const short = Math.floor(length / count);
  const shortOnes = (short + 1) * count - length;
  const means = (part: Tensor, segments: number, size: number): Tensor =>
    mean(reshape(part, [batch, heads, segments, size, dim]), 3);
  const first = means(slice(t, 2, 0, shortOnes * short), shortOnes, short);
  if (shortOnes === count) return first;
  return concat([first, means(slice(t, 2, shortOnes * short), count - shortOnes, short + 1)], 2);
}
