/**
 * Superlinear multi-step attention (Y. Huang, arXiv 2601.18401): each query searches a few spans of keys, attends to each of them together
 * with a sliding window, and mixes the results by a softmax over the search scores. Cost length^1.5 with two steps, and no key is out of
 * reach by construction. The authors mention patent filings for the mechanism; this is an independent implementation.
 *
 * Window and spans never overlap, so they are attended to separately and merged by log-sum-exp. With r = weight of the span beside the
 * window and g = the gate, out = sum g r span + (1 - sum g r) window: spans stay in the order in which they were computed.
 */
import { gradEnabled, noGrad } from '../autograd/tape.ts';
import { native } from '../native.ts';
import { add, maximum, mul, sub } from '../ops/binary.ts';
import { lt } from '../ops/compare.ts';
import { cast } from '../ops/copy.ts';
import { arange } from '../ops/creation.ts';
import { embedding } from '../ops/embedding.ts';
import { rowSums } from '../ops/row_sums.ts';
import { softmax } from '../ops/softmax.ts';
import { sigmoid } from '../ops/unary.ts';
import { reshape, unsqueeze } from '../ops/view.ts';
import { stack } from '../ops/concat.ts';
import { where } from '../ops/where.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { Tensor } from '../tensor/tensor.ts';
import { attention, type AttentionResult } from './attention.ts';
import { expectRank } from './checks.ts';
import { addCosts, COST_SIZES, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { planAttention } from './plan.ts';
import { attendSorted, type SortedSpans } from './span_attention.ts';
import {
  positionOf,
  reach,
  searchDistances,
  searchSettings,
  searchSpans,
  SPAN_SEARCH_OPTIONS,
  windowLength,
  type SearchSettings,
  type SpanSearchOptions,
  type SpanSearchResult,
} from './span_search.ts';

export interface SuperlinearOptions extends SpanSearchOptions {
  /** Factor of q.k in the attention (never in the search); default 1 / sqrt(dim). */
  readonly scale?: number;
}

const CALL_OPTIONS: OptionNames<SuperlinearOptions & { returnSearch?: boolean }> = {
  ...SPAN_SEARCH_OPTIONS,
  scale: true,
  returnSearch: true,
};

export interface SuperlinearResult extends SpanSearchResult {
  readonly out: Tensor;
  /** Softmax of the scores: f32 [batch, heads, queries, spans]. */
  readonly gate: Tensor;
}

const OP = 'superlinearAttention';
const NO_SCORE = -1e9;
/** In place of the log-sum-exp of nothing, so that differences stay numbers. */
const NO_LSE = -1e30;

/**
 * Superlinear attention with search queries `search` and attention queries `q`, both [batch, heads, queries, dim], over k, v [batch, kv
 * heads, keys, dim]. Queries are the last positions of the keys, or stand at `cachePosition` on: a prompt, a chunk of one, or one token
 * against a KV cache give the same rows. f32, bf16 or f16. Differentiable in all four; `search` learns through the gate alone.
 *
 * @returns out [batch, heads, queries, dim of v]; with `returnSearch` also the spans and their gate
 * @throws FoveaError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function superlinearAttention(
  search: Tensor,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: SuperlinearOptions & { readonly returnSearch: true },
): SuperlinearResult;
export function superlinearAttention(
  search: Tensor,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: SuperlinearOptions,
): Tensor;
export function superlinearAttention(
  search: Tensor,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: SuperlinearOptions & { readonly returnSearch?: boolean } = {},
): Tensor | SuperlinearResult {
  expectOptions(OP, options, CALL_OPTIONS);
  expectRank(OP, '[batch, heads, length, dim]', 4, { search, q, k, v });
  const found = searchSpans(search, k, options);
  const none = lt(found.anchors, 0);
  const gate = softmax(where(none, NO_SCORE, found.scores), -1);
  const spans = attendSorted(q, k, v, found.ranges, options);
  const near = attendWindow(q, k, v, options);
  const out = reshape(mix(spans, gate, near), [...q.shape.slice(0, 3), v.shape[3]]);
  return options.returnSearch ? { ...found, out, gate } : out;
}

/** Spans times their weights and the window times what is left: [rows, dim of v], rows = batch heads queries. */
function mix(spans: SortedSpans, gate: Tensor, near: AttentionResult | null): Tensor {
  const { out, lse, pairs, rows } = spans;
  const [count, each] = [gate.size / gate.shape[3], gate.shape[3]];
  const besides = near && {
    out: reshape(near.out, [count, out.shape[1]]),
    lse: reshape(near.lse, [count]),
  };
  const recorded = gradEnabled() && [out, gate, near?.out].some((t) => t?.requiresGrad);
  if (!recorded) {
    const gates = reshape(gate, [count, each]);
    const window = [besides?.out.handle ?? null, besides?.lse.handle ?? null] as const;
    return new Tensor(native().mixSpans(out.handle, lse.handle, pairs.handle, gates.handle, ...window));
  }
  let weight = embedding(reshape(gate, [gate.size, 1]), pairs);
  if (besides) {
    const other = maximum(embedding(reshape(besides.lse, [count, 1]), rows), NO_LSE);
    weight = mul(weight, sigmoid(sub(maximum(reshape(lse, [lse.size, 1]), NO_LSE), other)));
  }
  const mixed = rowSums(mul(out, cast(weight, out.dtype)), rows, count);
  if (!besides) return mixed;
  return add(mixed, mul(besides.out, cast(sub(1, rowSums(weight, rows, count)), out.dtype)));
}

/** Attention over the sliding window; null where it has no keys. */
function attendWindow(q: Tensor, k: Tensor, v: Tensor, options: SuperlinearOptions): AttentionResult | null {
  const window = windowLength(searchSettings(options));
  if (window <= 0) return null;
  const { scale, signal, keyMask } = options;
  const mask = keyMask ? unsqueeze(unsqueeze(keyMask, 1), 1) : undefined;
  const position = positionOf(q, k, options);
  const queries = q.shape[2];
  if (position === k.shape[2] - queries)
    return attention(q, k, v, {
      causal: 'bottom-right',
      window: [window - 1, 0],
      scale,
      mask,
      signal,
      returnLse: true,
    });
  const keyRanges = noGrad(() => {
    const at = arange(position, position + queries, 1, { dtype: 'i32', device: q.device });
    const begin = maximum(add(at, 1 - window), 0);
    return reshape(stack([begin, add(at, 1)], 1), [1, 1, queries, 2]);
  });
  return planAttention(q, k, v, { keyRanges }, { scale, mask, signal });
}

/** What a forward call of a whole sequence costs: search, spans and window, all at the length of each query. */
export function superlinearCost(sizes: CostSizes & SpanSearchOptions): Cost {
  expectOptions('superlinearCost', sizes, { ...COST_SIZES, ...SPAN_SEARCH_OPTIONS });
  const settings: SearchSettings = searchSettings(sizes);
  const { batch = 1, heads = 1, length, keys, dim, dimV, elementBytes = 4 } = sizes;
  const { numSpans, backwardFactor, forwardFactor, spanPower, steps } = settings;
  const distances = searchDistances(settings, length);
  const window = windowLength(settings);
  let scored = 0;
  let pairs = 0;
  for (let n = 1, stripes = 0; n <= length; n++) {
    while (stripes < distances.length && distances[stripes] < n) stripes++;
    scored += stripes;
    for (let step = 2; step < steps; step++) {
      const [wide, narrow] = [(steps - step + 1) / steps, (steps - step) / steps];
      const around = reach(backwardFactor, n, wide) + reach(forwardFactor, n, wide);
      scored += (numSpans * Math.min(n, around)) / Math.max(1, reach(1, n, narrow));
    }
    const span = reach(backwardFactor, n, spanPower) + reach(forwardFactor, n, spanPower) + 1;
    pairs += Math.min(n, window) + numSpans * Math.min(Math.max(0, n - window), span);
  }
  const search = { flops: 2 * batch * heads * scored * dim, bytes: batch * heads * scored * dim * elementBytes };
  const attended = { batch, heads, length, keys, dim, dimV, elementBytes };
  return addCosts(search, pairsCost(attended, pairs, 2 * numSpans * length * dim));
}
