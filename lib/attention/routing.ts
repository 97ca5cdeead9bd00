/**
 * k-means routing attention (Routing Transformer, Roy, Saffar, Vaswani, Grangier, TACL 2021): every centroid takes the `window` queries and
 * the `window` keys most similar to it, and queries attend to the keys of their cluster. Cost length^1.5 with sqrt(length) clusters.
 *
 * A cluster is one packed sequence of the engine over lists of rows; lists are in time order, so that causality leaves each query a prefix
 * of its cluster's keys. Keys and values stay where they are, and so do queries on the CPU without gradient. A token may be in several
 * clusters, or in none: its results are averaged (with the published 1e-5 beside the count), or 0.
 */
import { gradEnabled, noGrad } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { score, type ScoreCoordinates } from '../mask/mask.ts';
import { native } from '../native.ts';
import { add, mul } from '../ops/binary.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { full } from '../ops/creation.ts';
import { embedding } from '../ops/embedding.ts';
import { meanRows } from '../ops/mean_rows.ts';
import { rowStarts } from '../ops/row_starts.ts';
import { expand, reshape, slice, unsqueeze } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AttentionOptions } from './arguments.ts';
import { attention, type AttentionResult } from './attention.ts';
import { expectCount, expectCrossAttention } from './checks.ts';
import { addCosts, COST_SIZES, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { clusterTop, commitmentLoss, expectCentroids, unitVectors } from './kmeans.ts';
import { mergeAttentions } from './merge.ts';
import { planAttention, type AttentionPlan } from './plan.ts';
import { equalSequences } from './region_rows.ts';

export interface RoutingOptions {
  /** Centroids of the routed heads [heads, clusters, dim]; no gradient. `kmeansUpdate` moves them. */
  readonly centroids: Tensor;
  /** Queries (and keys, unless `keyWindow` says otherwise) of a cluster; at most the length is taken. */
  readonly window: number;
  readonly keyWindow?: number;
  /** Keys at the query's position and before it; queries and keys count from the same start. Default false. */
  readonly causal?: boolean;
  /**
   * Keys and values [heads, clusters, slots, dim] that every query of a cluster also sees. A causal call with separate keys needs one: a
   * query may find no earlier key in its cluster.
   */
  readonly memory?: { readonly key: Tensor; readonly value: Tensor };
  /** bool [batch, queries]: false = the query sees nothing but memory, and itself where queries are the keys. It is routed all the same. */
  readonly queryMask?: Tensor;
  /** bool [batch, keys]: false = nobody else sees the key. It is routed all the same. */
  readonly keyMask?: Tensor;
  /**
   * What a cluster gives a query that sees nothing in it: 0, or the mean of the cluster's values, hidden ones too, as the released PyTorch
   * port does, whose masked logits are finite. Default 'zero'.
   */
  readonly unseen?: 'zero' | 'mean';
  /** The first `heads` heads attend locally, to the `window` keys up to the query (and, unless causal, after it), and are not routed. */
  readonly local?: { readonly heads: number; readonly window: number };
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
  /** As in attention(). */
  readonly signal?: AbortSignal;
}

const CALL_OPTIONS: OptionNames<RoutingOptions & { returnRouting?: boolean }> = {
  centroids: true,
  window: true,
  keyWindow: true,
  causal: true,
  memory: true,
  queryMask: true,
  keyMask: true,
  unseen: true,
  local: true,
  scale: true,
  signal: true,
  returnRouting: true,
};

export interface RoutingResult {
  readonly out: Tensor;
  /** mean((x / |x| - centroid)^2) over queries and keys; times 1e-4 it is added to the loss. */
  readonly commitment: Tensor;
  /** Tokens of each cluster in time order: i32 [batch, heads, clusters, window]. */
  readonly queries: Tensor;
  readonly keys: Tensor;
}

const OP = 'routingAttention';
const COUNT_EPSILON = 1e-5;
/**
 * The logit of a token with itself when queries are the keys: it attends to itself only where there is nothing else. The released code has
 * -5e4, with the same results for logits above that.
 */
const SELF_LOGIT = -1e20;
/** The logit of what counts only where there is nothing else at all. */
const NOTHING_ELSE = -1e30;

/**
 * k-means routing attention of q [batch, heads, queries, dim] over k, v [batch, heads, keys, dim]. With k = null queries are the keys:
 * one routing for both, keys are q / |q|, and a token sees itself only where it sees nothing else.
 *
 * Differentiable in q, k, v and memory; selection has no gradient. The selection looks at the whole sequence, causal or not: a causal
 * model trained so can't be decoded step by step to the same bits.
 *
 * @returns out [batch, heads, queries, dim]; with `returnRouting` also the commitment loss and the clusters
 * @throws FoveaError ERR_SHAPE, ERR_ARGUMENT for tensors and options that do not fit
 */
export function routingAttention(
  q: Tensor,
  k: Tensor | null,
  v: Tensor,
  options: RoutingOptions & { readonly returnRouting: true },
): RoutingResult;
export function routingAttention(q: Tensor, k: Tensor | null, v: Tensor, options: RoutingOptions): Tensor;
export function routingAttention(
  q: Tensor,
  k: Tensor | null,
  v: Tensor,
  options: RoutingOptions & { readonly returnRouting?: boolean },
): Tensor | RoutingResult {
  expectOptions(OP, options, CALL_OPTIONS);
  expectCrossAttention(OP, q, k ?? q, v);
  expectCount(OP, 'window', options.window);
  if (options.unseen && !['zero', 'mean'].includes(options.unseen))
    throw new FoveaError('ERR_ARGUMENT', `${OP}: unseen is '${String(options.unseen)}', expected 'zero' or 'mean'`);
  if (options.local) expectOptions(`${OP}: local`, options.local, { heads: true, window: true });
  if (options.memory) expectOptions(`${OP}: memory`, options.memory, { key: true, value: true });
  const local = options.local?.heads ?? 0;
  if (local > 0) return withLocalHeads(q, k, v, options, local);
  expectCentroids(OP, options.centroids, q);
  checkMasks(q, v, options);
  const lists = route(q, k, options);
  const keys = k ?? unitVectors(q);
  const out =
    q.size === 0
      ? attention(q, keys, v, { scale: options.scale })
      : average(attendClusters(q, keys, v, k === null, lists, options), lists.queries, q.shape);
  if (!options.returnRouting) return out;
  const tokens = k ? concat([q, k], 2) : q;
  return { out, commitment: commitmentLoss(tokens, options.centroids), ...lists };
}

/** What a forward call costs: similarities, and attention of `clusters` times `window` queries over `window` keys each. */
export function routingCost(sizes: CostSizes & { readonly clusters: number; readonly window: number }): Cost {
  expectOptions('routingCost', sizes, { ...COST_SIZES, clusters: true, window: true });
  const { batch = 1, heads = 1, length, keys = length, dim, dimV, clusters, window, elementBytes = 4 } = sizes;
  const tokens = batch * heads * (length + keys);
  const routing = {
    flops: tokens * (3 * dim + 2 * clusters * dim),
    bytes: tokens * (2 * dim * elementBytes + 2 * clusters * elementBytes),
  };
  const routed = { batch, heads, length: clusters * window, keys, dim, dimV, elementBytes };
  const rows = batch * heads * clusters * window * dim;
  return addCosts(routing, pairsCost(routed, clusters * window * Math.min(window, keys)), {
    flops: rows,
    bytes: 2 * rows * elementBytes,
  });
}

interface Lists {
  readonly queries: Tensor;
  readonly keys: Tensor;
}

function checkMasks(q: Tensor, v: Tensor, { queryMask, keyMask, memory, centroids }: RoutingOptions): void {
  const expected: readonly (readonly [string, Tensor | undefined, number])[] = [
    ['queryMask', queryMask, q.shape[2]],
    ['keyMask', keyMask, v.shape[2]],
  ];
  for (const [name, mask, length] of expected)
    if (mask && (mask.dtype !== 'bool' || String(mask.shape) !== String([q.shape[0], length])))
      throw new FoveaError(
        'ERR_SHAPE',
        `${OP}: ${name} is ${mask.dtype} ${shapeText(mask.shape)}, expected bool [${q.shape[0]}, ${length}]`,
      );
  const [heads, clusters] = centroids.shape;
  for (const t of memory ? [memory.key, memory.value] : [])
    if (t.rank !== 4 || t.shape[0] !== heads || t.shape[1] !== clusters)
      throw new FoveaError(
        'ERR_SHAPE',
        `${OP}: memory has shape ${shapeText(t.shape)}, expected [${heads}, ${clusters}, slots, dim]`,
      );
}

function withLocalHeads(
  q: Tensor,
  k: Tensor | null,
  v: Tensor,
  options: RoutingOptions & { readonly returnRouting?: boolean },
  heads: number,
): Tensor | RoutingResult {
  const { local, causal = false, scale, signal, ...rest } = options;
  const window = local?.window ?? 0;
  expectCount(OP, 'local.window', window);
  if (q.shape[2] !== v.shape[2])
    throw new FoveaError(
      'ERR_SHAPE',
      `${OP}: local heads need as many keys as queries, got q ${shapeText(q.shape)} and v ${shapeText(v.shape)}`,
    );
  const [first, other] = [q, k ?? q, v].reduce<[Tensor[], Tensor[]]>(
    ([a, b], t) => [
      [...a, slice(t, 1, 0, heads)],
      [...b, slice(t, 1, heads)],
    ],
    [[], []],
  );
  const near = attention(first[0], k ? first[1] : unitVectors(first[0]), first[2], {
    causal,
    window: [window - 1, causal ? 0 : window - 1],
    scale,
    signal,
  });
  const routed = routingAttention(other[0], k ? other[1] : null, other[2], {
    ...rest,
    causal,
    scale,
    signal,
    returnRouting: true,
  });
  const out = concat([near, routed.out], 1);
  return options.returnRouting ? { ...routed, out } : out;
}

/** The tokens of each cluster, in time order. */
function route(q: Tensor, k: Tensor | null, { centroids, window, keyWindow = window }: RoutingOptions): Lists {
  const take = (x: Tensor, count: number): Tensor => clusterTop(x, centroids, Math.min(count, x.shape[2]));
  const queries = take(q, window);
  return { queries, keys: k ? take(k, keyWindow) : queries };
}

/** Row numbers within [batch * heads * length] of lists that count within each head. */
function flatRows(list: Tensor, length: number): Tensor {
  const [batch, heads] = list.shape;
  const first = reshape(rowStarts(batch * heads, length, list.device), [batch, heads, 1, 1]);
  return reshape(add(list, first), [list.size]);
}

/** Rows of x [batch, heads, length, dim] in the order of a list: [batch * heads * clusters * window, dim]. */
function pickRows(x: Tensor, list: Tensor): Tensor {
  const [batch, heads, length, dim] = x.shape;
  return embedding(reshape(x, [batch * heads * length, dim]), flatRows(list, length));
}

/** Results of all clusters: [batch * heads * clusters * window, dim of v]. */
function attendClusters(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  shared: boolean,
  lists: Lists,
  options: RoutingOptions,
): Tensor {
  const { causal = false, scale, signal, memory, unseen = 'zero' } = options;
  const [batch, heads, , dim] = q.shape;
  const [clusters, window] = lists.queries.shape.slice(2);
  const masked = options.queryMask ?? options.keyMask;
  const keysEach = lists.keys.shape[3];
  const all = batch * heads;
  const inHeads = (t: Tensor): Tensor => reshape(t, [1, all, t.shape[2], t.shape[3]]);
  const kvShape = [1, all, clusters * keysEach];
  const each = {
    signal,
    cuSeqlens: { q: equalSequences(clusters, window, q.device), kv: equalSequences(clusters, keysEach, q.device) },
  };
  // The engine reads queries where they are, too, where it can: on the CPU, without gradient.
  const inPlace = q.device === 'cpu' && !(gradEnabled() && [q, k, v].some((t) => t.requiresGrad));
  const qRows = reshape(lists.queries, [1, all, clusters * window]);
  const pick = (): Tensor => reshape(pickRows(q, lists.queries), [1, all, clusters * window, dim]);
  const picked = inPlace ? null : pick();
  const attend = (plan: AttentionPlan, more: AttentionOptions): AttentionResult =>
    picked
      ? planAttention(picked, inHeads(k), inHeads(v), plan, { ...each, ...more })
      : planAttention(inHeads(q), inHeads(k), inHeads(v), { ...plan, qRows, outInOrder: true }, { ...each, ...more });
  const plan = noGrad(() => ({
    kvRows: reshape(visibleKeys(lists.keys, options.keyMask), kvShape),
    ...rangesOf(lists, causal && !shared, options.queryMask),
  }));
  // Where queries are the keys, their lists are the same, so that causality is a matter of positions.
  const routed = attend(plan, { scale, ...(shared && { causal, score: masked ? selfHidden : selfLast }) });
  const parts: AttentionResult[] = [routed];
  if (shared && masked) parts.push(itself(v, lists.queries, routed));
  if (unseen === 'mean') {
    const { out } = attend({ kvRows: reshape(lists.keys, kvShape) }, { scale: 0 });
    parts.push({ out, lse: expand(full([1, 1, 1], NOTHING_ELSE, { device: v.device }), routed.lse.shape) });
  }
  if (memory && memory.key.shape[2] > 0)
    parts.push(attendMemory(picked ?? pick(), lists.queries, memory, routed, options));
  const { out } = parts.length === 1 ? routed : mergeAttentions(parts);
  return reshape(out, [all * clusters * window, v.shape[3]]);
}

/** Lists with hidden keys taken out. */
function visibleKeys(keys: Tensor, mask: Tensor | undefined): Tensor {
  if (!mask) return keys;
  const [batch, heads, clusters, window] = keys.shape;
  const seen = embedding(reshape(perHead(mask, heads), [-1, 1]), flatRows(keys, mask.shape[1]));
  return where(reshape(seen, [batch, heads, clusters, window]), keys, -1);
}

/** A mask [batch, length] for every head, dense. */
function perHead(mask: Tensor, heads: number): Tensor {
  const [batch, length] = mask.shape;
  return reshape(expand(unsqueeze(mask, 1), [batch, heads, length]), [batch * heads * length]);
}

/** What each query sees of its cluster's keys: a prefix when causal, nothing when it is masked. */
function rangesOf(lists: Lists, causal: boolean, queryMask: Tensor | undefined): { keyRanges?: Tensor } {
  if (!causal && !queryMask) return {};
  const [batch, heads, clusters, window] = lists.queries.shape;
  const shape = [batch, heads, clusters, window];
  const keysEach = lists.keys.shape[3];
  const like = { dtype: 'i32', device: lists.queries.device } as const;
  let end: Tensor;
  if (!causal) end = full(shape, keysEach, like);
  else {
    const ranges = new Tensor(native().causalRanges(lists.queries.handle, lists.keys.handle));
    if (!queryMask) return { keyRanges: reshape(ranges, [1, batch * heads, clusters * window, 2]) };
    end = reshape(slice(ranges, 4, 1, 2), shape);
  }
  if (queryMask) {
    const awake = embedding(reshape(perHead(queryMask, heads), [-1, 1]), flatRows(lists.queries, queryMask.shape[1]));
    end = mul(end, cast(reshape(awake, shape), 'i32'));
  }
  const column = unsqueeze(end, 4);
  const ranges = concat([mul(column, 0), column], 4);
  return { keyRanges: reshape(ranges, [1, batch * heads, clusters * window, 2]) };
}

const addOwn = ({ s, q, kv }: ScoreCoordinates, { own }: { own: number }): number => s + (q === kv ? own : 0);
/** A token's own logit lost in one that counts only where it is alone: terms of the distance alone are what the engine adds at least cost. */
const selfLast = score(addOwn, { own: SELF_LOGIT });
/** .. or by none, where `itself` counts it. */
const selfHidden = score(addOwn, { own: -Infinity });

/** Each token with itself as its only key. */
function itself(v: Tensor, queries: Tensor, like: AttentionResult): AttentionResult {
  const out = reshape(pickRows(v, queries), like.out.shape);
  return { out, lse: expand(full([1, 1, 1], SELF_LOGIT, { device: v.device }), like.lse.shape) };
}

/** Queries of each cluster over its memory slots. */
function attendMemory(
  rows: Tensor,
  queries: Tensor,
  memory: { readonly key: Tensor; readonly value: Tensor },
  like: AttentionResult,
  { scale, signal }: RoutingOptions,
): AttentionResult {
  const [batch, heads, clusters, window] = queries.shape;
  const slots = memory.key.shape[2];
  const forBatch = (t: Tensor): Tensor =>
    expand(reshape(t, [1, heads * clusters, slots, t.shape[3]]), [batch, heads * clusters, slots, t.shape[3]]);
  const q = reshape(rows, [batch, heads * clusters, window, rows.shape[3]]);
  const { out, lse } = attention(q, forBatch(memory.key), forBatch(memory.value), { scale, signal, returnLse: true });
  return { out: reshape(out, like.out.shape), lse: reshape(lse, like.lse.shape) };
}

/** Results of clusters averaged by token. */
function average(rows: Tensor, queries: Tensor, shape: readonly number[]): Tensor {
  const [batch, heads, length] = shape;
  const each = queries.shape[2] * queries.shape[3];
  const width = rows.shape[1];
  const ids = reshape(queries, [batch * heads, each]);
  const out = meanRows(reshape(rows, [batch * heads, each, width]), ids, length, COUNT_EPSILON);
  return reshape(out, [batch, heads, length, width]);
}
