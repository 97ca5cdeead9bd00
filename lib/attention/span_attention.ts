/**
 * Attention of each query over spans of keys of its own: several a query, each a softmax by itself.
 *
 * (query, span) pairs of all heads that share keys are sorted by key block, so that the pairs of one tile look at nearly the same keys; the
 * engine then reads every key block a tile touches once, and pairs see their own part of it (`keyRanges`). No key or value is copied.
 */
import { native } from '../native.ts';
import { FoveaError } from '../errors.ts';
import { embedding } from '../ops/embedding.ts';
import { rowSums } from '../ops/row_sums.ts';
import { reshape, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { expectRank } from './checks.ts';
import { planAttention } from './plan.ts';
import type { AttentionResult } from './attention.ts';

export interface SpanAttentionOptions {
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
  /** bool [batch, keys]: false = nobody sees the key. */
  readonly keyMask?: Tensor;
  /** As in attention(). */
  readonly signal?: AbortSignal;
}

const SPAN_ATTENTION_OPTIONS: OptionNames<SpanAttentionOptions> = { scale: true, keyMask: true, signal: true };

const OP = 'spanAttention';

/** Results of pairs in the order they were computed. */
export interface SortedSpans {
  /** [pairs, dim of v] */
  readonly out: Tensor;
  /** [pairs] */
  readonly lse: Tensor;
  /** Place of each pair in [batch, heads, queries, spans]. */
  readonly pairs: Tensor;
  /** Row of each pair's query in [batch, heads, queries]. */
  readonly rows: Tensor;
}

export function attendSorted(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  ranges: Tensor,
  { scale, keyMask, signal }: SpanAttentionOptions,
): SortedSpans {
  const [batch, heads, queries, dim] = q.shape;
  const kvHeads = k.shape[1];
  const [pairs, rows, sorted] = native()
    .spanOrder(ranges.handle, kvHeads, k.shape[2])
    .map((handle) => new Tensor(handle));
  const count = pairs.size;
  const each = count / Math.max(1, batch * kvHeads);
  const picked = reshape(embedding(reshape(q, [batch * heads * queries, dim]), rows), [batch, kvHeads, each, dim]);
  const mask = keyMask ? unsqueeze(unsqueeze(keyMask, 1), 1) : undefined;
  const { out, lse } = planAttention(picked, k, v, { keyRanges: sorted }, { scale, mask, signal });
  return { out: reshape(out, [count, v.shape[3]]), lse: reshape(lse, [count]), pairs, rows };
}

/**
 * out[b, h, i, t] = attention of q[b, h, i] over keys ranges[b, h, i, t] = [begin, end). q [batch, heads, queries, dim], k, v [batch, kv
 * heads, keys, dim], ranges i32 [batch, heads, queries, spans, 2]. An empty span gives out 0 and lse -inf. Differentiable in q, k, v, and
 * through lse. A span outside the keys rejects with ERR_INDEX.
 *
 * @returns out [batch, heads, queries, spans, dim of v] and lse [batch, heads, queries, spans]
 * @throws FoveaError ERR_SHAPE, ERR_DTYPE
 */
export function spanAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  ranges: Tensor,
  options: SpanAttentionOptions = {},
): AttentionResult {
  expectOptions(OP, options, SPAN_ATTENTION_OPTIONS);
  expectRank(OP, '[batch, heads, length, dim]', 4, { q, k, v });
  expectTensors(OP, { ranges });
  if (ranges.rank !== 5 || String(ranges.shape.slice(0, 3)) !== String(q.shape.slice(0, 3)))
    throw new FoveaError(
      'ERR_SHAPE',
      `${OP}: ranges have shape ${shapeText(ranges.shape)} for q ${shapeText(q.shape)}; expected [batch, heads, queries, spans, 2]`,
    );
  const { out, lse, pairs } = attendSorted(q, k, v, ranges, options);
  const shape = ranges.shape.slice(0, 4);
  return {
    out: reshape(rowSums(out, pairs, pairs.size), [...shape, v.shape[3]]),
    lse: reshape(rowSums(reshape(lse, [pairs.size, 1]), pairs, pairs.size), shape),
  };
}
