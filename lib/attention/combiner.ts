/**
 * Combiner: full attention at sub-quadratic cost.
 *
 * The keys a query may see are split into direct ones and spans. A span r stands in the query's softmax as one key kbar_r with one value
 * vbar_r = sum_j softmax_j(qbar_r . k_j) v_j over its members, made once for all queries:
 *
 *     out_i = (sum_direct e^{q.k_j} v_j + sum_r e^{q.kbar_r} vbar_r) / (sum_direct e^{q.k_j} + sum_r e^{q.kbar_r})
 *
 * so that every visible key gets weight. kbar and qbar are elementwise maxima over the span. Each term is a call of the engine over a view
 * (segments or grid rows as further heads, grid columns transposed), and mergeAttentions joins them by their log-sum-exp: nothing of size
 * length x length exists.
 *
 * Source: Ren et al., "Combiner: Full Attention Transformer with Sparse Computation Cost", NeurIPS 2021, sections 3 and 4. The bidirectional
 * form counts the query's own segment both directly and as a span, as the released code does.
 */
import { FoveaError } from '../errors.ts';
import { mask, type Mask } from '../mask/mask.ts';
import { concat } from '../ops/concat.ts';
import { cummax } from '../ops/cummax.ts';
import { full } from '../ops/creation.ts';
import { pad } from '../ops/pad.ts';
import { flip } from '../ops/rearrange.ts';
import { max, mean, sum } from '../ops/reduce.ts';
import { mul } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { expand, permute, reshape, select, slice, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectFunction } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention, type AttentionResult } from './attention.ts';
import { expectCount, expectSelfAttention } from './checks.ts';
import { addCosts, causalPairs, fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { mergeAttentions } from './merge.ts';

export interface CombinerOptions {
  /**
   * 'fixed': segments of `span`; 'log': spans of 1, 2, 4, ... before the query; 'axialRow': rows of a grid of `span` columns, each
   * summarised for every column by attention within the row; 'axialVertical', 'axialHorizontal', 'axialMixture': row and column of the
   * query directly, the rest by summaries of columns, of row pieces, or of both. Default 'fixed'.
   */
  readonly pattern?: 'fixed' | 'log' | 'axialRow' | 'axialVertical' | 'axialHorizontal' | 'axialMixture';
  /** Length of a segment or of a grid row; it divides the length. Default: the divisor nearest to its square root. Not for 'log'. */
  readonly span?: number;
  /** false only with 'fixed': all keys are visible. Default true. */
  readonly causal?: boolean;
  /** How keys and queries of a span are pooled ('fixed' and 'log'). Default 'max'. */
  readonly pool?: 'max' | 'mean';
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
  /** 'axialRow': keys of the row summaries from the attention within rows, both [batch, heads, length, dim]. Default: that attention itself. */
  readonly summaryKeys?: (rows: Tensor) => Tensor;
}

const COMBINER_OPTIONS: OptionNames<CombinerOptions> = {
  pattern: true,
  span: true,
  causal: true,
  pool: true,
  scale: true,
  summaryKeys: true,
};

interface Plan {
  readonly span: number;
  readonly scale: number;
  readonly pool: (t: Tensor, axis: number) => Tensor;
}

/**
 * Combiner attention of q, k [batch, heads, length, dim] and v [batch, heads, length, dimV]; the result has v's shape. f32, bf16 or f16.
 * Differentiable in q, k, v. Cost: combinerCost.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v don't fit together; ERR_ARGUMENT for a span that doesn't divide the length, or an unknown
 * option
 */
export function combinerAttention(q: Tensor, k: Tensor, v: Tensor, options: CombinerOptions = {}): Tensor {
  expectOptions('combinerAttention', options, COMBINER_OPTIONS);
  expectSelfAttention('combinerAttention', q, k, v);
  const { pattern = 'fixed', causal = true, pool = 'max', scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const length = q.shape[2];
  const { span = defaultSpan(length) } = options;
  if (!causal && pattern !== 'fixed') throw bad(`causal: false exists for the pattern 'fixed' only, got '${pattern}'`);
  if (options.summaryKeys !== undefined) expectFunction('combinerAttention', 'summaryKeys', options.summaryKeys);
  if (pool !== 'max' && pool !== 'mean') throw bad(`pool is '${String(pool)}', expected 'max' or 'mean'`);
  expectCount('combinerAttention', 'span', span);
  if (pattern !== 'log' && length % span !== 0)
    throw bad(`span ${span} does not divide the length of q ${shapeText(q.shape)}`);
  if (length === 0) return mul(v, 1);
  const plan = { span, scale, pool: (t: Tensor, axis: number) => (pool === 'max' ? max(t, axis) : mean(t, axis)) };
  switch (pattern) {
    case 'fixed':
      return fixed(q, k, v, causal, plan);
    case 'log':
      return logSparse(q, k, v, plan);
    case 'axialRow':
      return axialRow(q, k, v, plan, options.summaryKeys ?? ((rows) => rows));
    case 'axialVertical':
    case 'axialHorizontal':
    case 'axialMixture':
      return axial(q, k, v, plan, pattern !== 'axialHorizontal', pattern !== 'axialVertical');
    default:
      throw bad(`unknown pattern '${String(pattern)}'`);
  }
}

const bad = (what: string): FoveaError => new FoveaError('ERR_ARGUMENT', `combinerAttention: ${what}`);

/** The divisor of `length` nearest to its square root. */
function defaultSpan(length: number): number {
  let span = Math.max(1, Math.floor(Math.sqrt(length)));
  while (length % span !== 0) span--;
  return span;
}

const earlierSegments = new Map<number, Mask>();

/** Segments of `span` keys that end before the one the query lies in. */
function before(span: number): Mask {
  let made = earlierSegments.get(span);
  if (!made) {
    made = mask(({ q, kv }, { span }) => Math.floor(q / span) > kv, { span });
    if (earlierSegments.size >= 64) earlierSegments.clear();
    earlierSegments.set(span, made);
  }
  return made;
}

const strictlyBefore = mask(({ q, kv }) => kv < q);
const others = mask(({ q, kv }) => kv !== q);

/** [B, H, n s, D] as [B, H n, s, D]. */
function segments(t: Tensor, s: number): Tensor {
  const [b, h, length, d] = t.shape;
  return reshape(t, [b, (h * length) / s, s, d]);
}

/** [B, H, n s, D] as [B, H s, n, D]: the columns of the grid. */
function columns(t: Tensor, s: number): Tensor {
  const [b, h, length, d] = t.shape;
  return reshape(permute(reshape(t, [b, h, length / s, s, d]), [0, 1, 3, 2, 4]), [b, h * s, length / s, d]);
}

/** The inverse of columns(), for out and lse. */
function fromColumns({ out, lse }: AttentionResult, [b, h, length]: readonly number[], s: number): AttentionResult {
  const n = length / s;
  const d = out.shape[3];
  return {
    out: reshape(permute(reshape(out, [b, h, s, n, d]), [0, 1, 3, 2, 4]), [b, h, length, d]),
    lse: reshape(permute(reshape(lse, [b, h, s, n]), [0, 1, 3, 2]), [b, h, length]),
  };
}

/** A result over views as heads, as one over [B, H, L]. */
function whole({ out, lse }: AttentionResult, [b, h, length]: readonly number[]): AttentionResult {
  return { out: reshape(out, [b, h, length, out.shape[3]]), lse: reshape(lse, [b, h, length]) };
}

/** vbar of each segment of k, v [B, H, L, D], and the pooled key: [B, H, n, D]. */
function summaries(q: Tensor, k: Tensor, v: Tensor, { span, scale, pool }: Plan): { key: Tensor; value: Tensor } {
  const [b, h, length] = k.shape;
  const [qs, ks, vs] = [q, k, v].map((t) => segments(t, span));
  const value = attention(unsqueeze(pool(qs, 2), 2), ks, vs, { scale });
  const n = length / span;
  return { key: reshape(pool(ks, 2), [b, h, n, k.shape[3]]), value: reshape(value, [b, h, n, v.shape[3]]) };
}

function fixed(q: Tensor, k: Tensor, v: Tensor, causal: boolean, plan: Plan): Tensor {
  const { span, scale } = plan;
  const [qs, ks, vs] = [q, k, v].map((t) => segments(t, span));
  const direct = whole(attention(qs, ks, vs, { causal, scale, returnLse: true }), q.shape);
  if (causal && q.shape[2] === span) return direct.out;
  const { key, value } = summaries(q, k, v, plan);
  const far = attention(q, key, value, { scale, returnLse: true, ...(causal && { mask: before(span) }) });
  return mergeAttentions([direct, far]).out;
}

/** q . key elementwise over the last axis, in f32: a softmax term of its own. */
function logits(q: Tensor, key: Tensor, scale: number): Tensor {
  return mul(sum(mul(cast(q, 'f32'), cast(key, 'f32')), -1), scale);
}

/**
 * At level l blocks of 2^l pair up; members of the right block of a pair see the left one as a summary. Padded to a power of two: the
 * padding lies behind every real token, so no real token sees it.
 */
function logSparse(q: Tensor, k: Tensor, v: Tensor, plan: Plan): Tensor {
  const [b, h, length] = q.shape;
  const bits = length > 1 ? 32 - Math.clz32(length - 1) : 0;
  const padded = 2 ** bits;
  const more = padded - length;
  const [qp, kp, vp] = [q, k, v].map((t) => pad(t, [[0, 0], [0, 0], [0, more], [0, 0]])); // prettier-ignore
  const parts: AttentionResult[] = [{ out: vp, lse: logits(qp, kp, plan.scale) }];
  for (let level = 0; level < bits; level++) {
    const span = 2 ** level;
    const pairs = padded / (2 * span);
    const { key, value } = summaries(qp, kp, vp, { ...plan, span });
    const left = (t: Tensor): Tensor => unsqueeze(select(reshape(t, [b, h, pairs, 2, t.shape[3]]), 3, 0), 3);
    const right = select(reshape(qp, [b, h, pairs, 2, span, q.shape[3]]), 3, 1);
    const seen = logits(right, left(key), plan.scale);
    const none = full(seen.shape, -Infinity, { device: seen.device });
    const wide = expand(unsqueeze(left(value), 3), [b, h, pairs, 2, span, v.shape[3]]);
    parts.push({
      out: reshape(wide, [b, h, padded, v.shape[3]]),
      lse: reshape(concat([unsqueeze(none, 3), unsqueeze(seen, 3)], 3), [b, h, padded]),
    });
  }
  return slice(mergeAttentions(parts).out, 2, 0, length);
}

function axialRow(q: Tensor, k: Tensor, v: Tensor, { span, scale }: Plan, keysOf: (rows: Tensor) => Tensor): Tensor {
  const rows = [q, k, v].map((t) => segments(t, span)) as [Tensor, Tensor, Tensor];
  const direct = whole(attention(...rows, { causal: true, scale, returnLse: true }), q.shape);
  if (q.shape[2] === span) return direct.out;
  const value = reshape(attention(...rows, { scale }), v.shape);
  return mergeAttentions([direct, columnwise(q, keysOf(value), value, span, scale)]).out;
}

/** Queries over the keys of earlier rows in their own column. */
function columnwise(q: Tensor, k: Tensor, v: Tensor, span: number, scale: number): AttentionResult {
  const [qc, kc, vc] = [q, k, v].map((t) => columns(t, span));
  return fromColumns(attention(qc, kc, vc, { mask: strictlyBefore, scale, returnLse: true }), q.shape, span);
}

function axial(q: Tensor, k: Tensor, v: Tensor, plan: Plan, vertical: boolean, horizontal: boolean): Tensor {
  const { span, scale } = plan;
  const [qs, ks, vs] = [q, k, v].map((t) => segments(t, span));
  const parts = [
    whole(attention(qs, ks, vs, { causal: true, scale, returnLse: true }), q.shape),
    columnwise(q, k, v, span, scale),
  ];
  const [rows, wide] = [q.shape[2] > span, span > 1];
  if (vertical && rows && wide) parts.push(previousRows(q, k, v, plan));
  if (horizontal && rows && wide) parts.push(rowPieces(q, k, v, plan, false), rowPieces(q, k, v, plan, true));
  return mergeAttentions(parts).out;
}

/** The summary of each other column over the rows above the query's: of rows 0..r-1 for row r, so those of row r-1, shifted down by one. */
function previousRows(q: Tensor, k: Tensor, v: Tensor, { span, scale }: Plan): AttentionResult {
  const [b, h, length] = q.shape;
  const [qc, kc, vc] = [q, k, v].map((t) => columns(t, span));
  const key = cummax(kc, 2);
  const value = attention(cummax(qc, 2), kc, vc, { causal: true, scale });
  const n = length / span;
  const rowsOf = (t: Tensor): Tensor =>
    reshape(permute(reshape(t, [b, h, span, n, t.shape[3]]), [0, 1, 3, 2, 4]), [b, h, n, span, t.shape[3]]);
  const above = [key, value].map((t) => reshape(slice(rowsOf(t), 2, 0, n - 1), [b, h * (n - 1), span, t.shape[3]]));
  const queries = reshape(slice(reshape(q, [b, h, n, span, q.shape[3]]), 2, 1), [b, h * (n - 1), span, q.shape[3]]);
  const { out, lse } = attention(queries, above[0], above[1], { mask: others, scale, returnLse: true });
  const first = [0, 0] as const;
  return {
    out: reshape(pad(reshape(out, [b, h, n - 1, span, v.shape[3]]), [first, first, [1, 0], first, first]), v.shape),
    lse: reshape(pad(reshape(lse, [b, h, n - 1, span]), [first, first, [1, 0], first], { value: -Infinity }), [
      b,
      h,
      length,
    ]),
  };
}

/** In each earlier row the summary of the columns left of the query's (or right of it, with `mirrored`). */
function rowPieces(q: Tensor, k: Tensor, v: Tensor, { span, scale }: Plan, mirrored: boolean): AttentionResult {
  const turn = (t: Tensor): Tensor => (mirrored ? flip(t, 2) : t);
  const [qs, ks, vs] = [q, k, v].map((t) => turn(segments(t, span)));
  const key = cummax(ks, 2);
  const value = attention(cummax(qs, 2), ks, vs, { causal: true, scale });
  // Column c sees the piece that ends at c - 1; the first column sees none and is left out.
  const pieces = [key, value].map((t) => slice(t, 2, 0, span - 1));
  const [b, h, length] = q.shape;
  const short = span - 1;
  const n = length / span;
  const flat = (t: Tensor): Tensor => reshape(t, [b, h, n * short, t.shape[3]]);
  const seen = columnwise(flat(slice(qs, 2, 1)), flat(pieces[0]), flat(pieces[1]), short, scale);
  const first = [0, 0] as const;
  const out = pad(reshape(seen.out, [b, h * n, short, v.shape[3]]), [first, first, [1, 0], first]);
  const lse = pad(reshape(seen.lse, [b, h * n, short]), [first, first, [1, 0]], { value: -Infinity });
  return whole({ out: turn(out), lse: mirrored ? flip(lse, 2) : lse }, q.shape);
}

/** Cost of combinerAttention. */
export function combinerCost(sizes: CostSizes, options: CombinerOptions = {}): Cost {
  expectOptions('combinerCost', options, COMBINER_OPTIONS);
  const { length, dim, dimV } = fullSizes(sizes);
  const { pattern = 'fixed', causal = true, span = defaultSpan(length) } = options;
  const n = length / span;
  const inRows = n * causalPairs(span);
  const inColumns = span * causalPairs(n) - length;
  switch (pattern) {
    case 'fixed': {
      const far = causal ? span * (causalPairs(n) - n) : length * n;
      return pairsCost(sizes, (causal ? inRows : length * span) + length + far, n * (dim + dimV));
    }
    case 'log': {
      const levels = Math.ceil(Math.log2(Math.max(1, length)));
      return pairsCost(sizes, length + levels * 1.5 * length, levels * length * dimV);
    }
    case 'axialRow':
      return pairsCost(sizes, inRows + length * span + inColumns, length * (dim + dimV));
    default: {
      const above = pattern === 'axialHorizontal' ? 0 : span * causalPairs(n) + (n - 1) * span * (span - 1);
      const pieces = pattern === 'axialVertical' ? 0 : 2 * (inRows + inColumns);
      return addCosts(
        pairsCost(sizes, inRows + inColumns),
        pairsCost(sizes, above + pieces, 3 * length * (dim + dimV)),
      );
    }
  }
}
