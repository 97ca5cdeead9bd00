/**
 * Running softmax-weighted means: for every position the mean of all values so far, weighted by exp(logit).
 *
 *     out[t] = sum_{j <= t} e^{a_j} v_j / sum_{j <= t} e^{a_j}      lse[t] = log sum_{j <= t} e^{a_j}
 *
 * Chunks of 32 tokens are causal calls of the engine whose logits are a bias; the last row of each is the chunk's total, the same function
 * over the totals gives what lies before each chunk, and mergeAttentions joins the two. Every sum is relative to its own largest logit, so
 * nothing overflows and early positions don't vanish; the cost is linear in length.
 */
import { FoveaError } from '../errors.ts';
import { zeros } from '../ops/creation.ts';
import { pad } from '../ops/pad.ts';
import { expand, permute, reshape, select, slice, unsqueeze } from '../ops/view.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention, type AttentionResult } from './attention.ts';
import { expectRank } from './checks.ts';
import { mergeAttentions } from './merge.ts';

const CHUNK = 32;

/**
 * `logits` [batch, heads, n, length], f32: n weightings of the same values `v` [batch, heads, length, dim]. Gives out [batch, heads, n,
 * length, dim] and lse [batch, heads, n, length]. Differentiable in both.
 *
 * @throws FoveaError ERR_SHAPE where they don't fit together
 */
export function runningMean(logits: Tensor, v: Tensor): AttentionResult {
  expectRank('runningMean', '[batch, heads, n, length]', 4, { logits });
  expectRank('runningMean', '[batch, heads, length, dim]', 4, { v });
  const [batch, heads, n, length] = logits.shape;
  const dim = v.shape[3];
  if (!sameShape([batch, heads, length], v.shape.slice(0, 3)))
    throw new FoveaError(
      'ERR_SHAPE',
      `runningMean: logits ${shapeText(logits.shape)}, v ${shapeText(v.shape)}; expected one batch, heads and length`,
    );
  if (length <= CHUNK) return local(logits, v);
  const chunks = Math.ceil(length / CHUNK);
  const more = chunks * CHUNK - length;
  const none = [0, 0] as const;
  const padded = pad(logits, [none, none, none, [0, more]], { value: -Infinity });
  // [B, H, n, chunks, s] to [B, H chunks, n, s]: chunks become heads.
  const folded = reshape(permute(reshape(padded, [batch, heads, n, chunks, CHUNK]), [0, 1, 3, 2, 4]), [
    batch,
    heads * chunks,
    n,
    CHUNK,
  ]);
  const inside = local(folded, reshape(pad(v, [none, none, [0, more], none]), [batch, heads * chunks, CHUNK, dim]));
  const unfold = (t: Tensor, ...rest: number[]): Tensor => {
    const apart = reshape(t, [batch, heads, chunks, n, CHUNK, ...rest]);
    return permute(apart, [0, 1, 3, 2, 4, 5].slice(0, apart.rank));
  };
  const [out, lse] = [unfold(inside.out, dim), unfold(inside.lse)];
  const totals = {
    out: reshape(select(out, 4, CHUNK - 1), [batch, heads * n, chunks, dim]),
    lse: reshape(select(lse, 4, CHUNK - 1), [batch, heads * n, 1, chunks]),
  };
  const before = runningMean(totals.lse, totals.out);
  const shifted = {
    out: slice(
      pad(reshape(before.out, [batch, heads, n, chunks, dim]), [none, none, none, [1, 0], none]),
      3,
      0,
      chunks,
    ),
    lse: slice(pad(reshape(before.lse, [batch, heads, n, chunks]), [none, none, none, [1, 0]], { value: -Infinity }), 3, 0, chunks), // prettier-ignore
  };
  const merged = mergeAttentions([
    { out, lse },
    { out: expand(unsqueeze(shifted.out, 4), out.shape), lse: expand(unsqueeze(shifted.lse, 4), lse.shape) },
  ]);
  return {
    out: slice(reshape(merged.out, [batch, heads, n, chunks * CHUNK, dim]), 3, 0, length),
    lse: slice(reshape(merged.lse, [batch, heads, n, chunks * CHUNK]), 3, 0, length),
  };
}

/** One causal call: n query heads a value head, whose logits are the bias alone. */
function local(logits: Tensor, v: Tensor): AttentionResult {
  const [batch, heads, n, length] = logits.shape;
  const none = (h: number): Tensor =>
    expand(zeros([1, 1, 1, 1], { dtype: v.dtype, device: v.device }), [batch, h, length, 1]);
  const bias = reshape(logits, [batch, heads * n, 1, length]);
  const { out, lse } = attention(none(heads * n), none(heads), v, { bias, causal: true, returnLse: true });
  return { out: reshape(out, [batch, heads, n, length, v.shape[3]]), lse: reshape(lse, [batch, heads, n, length]) };
}
