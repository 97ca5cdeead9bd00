/**
 * Span search of superlinear attention (Y. Huang, arXiv 2601.18401, sections 2 and 3): each query scores keys at distances that grow like
 * i^(1/p), keeps the best few as anchors, and gets one span of keys around each.
 *
 * With more than two steps every further step scores, at a finer stride, the keys around the anchors found so far: with N steps each costs
 * length^(1/N) a query. Powers are taken in f32, as published: in double precision some spans would differ by one key.
 */
import { gradEnabled, record, type Gradients } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { add, maximum, mul } from '../ops/binary.ts';
import { lt } from '../ops/compare.ts';
import { cast, contiguous } from '../ops/copy.ts';
import { sum } from '../ops/reduce.ts';
import { rowStarts } from '../ops/row_starts.ts';
import { expand, reshape, unsqueeze } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { abortable } from '../runtime.ts';
import type { DeviceName } from '../tensor/device.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { expectCount, expectRank } from './checks.ts';
import { constant } from './constant.ts';

export interface SpanSearchOptions {
  /** Spans kept for each query, at most 16. Default 3. */
  readonly numSpans?: number;
  /** The search begins at stripe swIndex + 1; nearer keys belong to the sliding window. Default 65. */
  readonly swIndex?: number;
  /** p: stripe i lies floor(i^(1/p)) - 1 keys back. Default 0.55; 1 / steps with more than two steps. */
  readonly searchPower?: number;
  /** Spans reach ceil(backwardFactor * n^spanPower) keys before their anchor, n = keys up to the query. Default 3. */
  readonly backwardFactor?: number;
  /** .. and ceil(forwardFactor * n^spanPower) behind it, up to the sliding window. Default 1. */
  readonly forwardFactor?: number;
  /** Default 0.55; 1 / steps with more than two steps. */
  readonly spanPower?: number;
  /** Steps in all, attention being the last: 2 (default) or more. */
  readonly steps?: number;
  /** Position of the first query among the keys. Default keys - queries: the queries are the last positions. */
  readonly cachePosition?: number;
  /** bool [batch, keys]: false = not a key. Positions count from the first that is one. */
  readonly keyMask?: Tensor;
  /** As in attention(). */
  readonly signal?: AbortSignal;
}

export const SPAN_SEARCH_OPTIONS: OptionNames<SpanSearchOptions> = {
  numSpans: true,
  swIndex: true,
  searchPower: true,
  backwardFactor: true,
  forwardFactor: true,
  spanPower: true,
  steps: true,
  cachePosition: true,
  keyMask: true,
  signal: true,
};

export interface SpanSearchResult {
  /**
   * Key each span was found by, -1 where there is none: i32 [batch, heads, queries, spans], best first. Of equal scores the key that was
   * scored first is ahead: the nearest, in later steps the one around the better anchor.
   */
  readonly anchors: Tensor;
  /** q . k of the anchor, without scale; -inf where there is none: f32 [batch, heads, queries, spans]. Differentiable in q and k. */
  readonly scores: Tensor;
  /** Keys [begin, end) of each span, empty where there is none: i32 [batch, heads, queries, spans, 2]. */
  readonly ranges: Tensor;
}

const OP = 'spanSearch';

export type SearchSettings = Required<Omit<SpanSearchOptions, 'keyMask' | 'signal' | 'cachePosition'>>;

/** Options with their defaults. Throws ERR_ARGUMENT. */
export function searchSettings(options: SpanSearchOptions): SearchSettings {
  const { steps = 2, numSpans = 3, swIndex = 65, backwardFactor = 3, forwardFactor = 1 } = options;
  expectCount(OP, 'steps', steps, 2);
  const power = steps === 2 ? 0.55 : 1 / steps;
  const { searchPower = power, spanPower = power } = options;
  expectCount(OP, 'numSpans', numSpans);
  expectCount(OP, 'swIndex', swIndex, 0);
  for (const [name, value] of Object.entries({ searchPower, spanPower }))
    if (!(value > 0 && value < 1))
      throw new FoveaError('ERR_ARGUMENT', `${OP}: ${name} is ${value}, expected a number between 0 and 1`);
  for (const [name, value] of Object.entries({ backwardFactor, forwardFactor }))
    if (!(value >= 0 && value < Infinity))
      throw new FoveaError('ERR_ARGUMENT', `${OP}: ${name} is ${value}, expected a number of at least 0`);
  return { steps, numSpans, swIndex, searchPower, spanPower, backwardFactor, forwardFactor };
}

/** floor(i^(1/p)): in integers where 1/p is one up to 6, else by a power in f32. */
function stripeOffset(i: number, power: number): number {
  const inverse = 1 / power;
  const whole = Math.round(inverse);
  if (Math.abs(inverse - whole) < 1e-9 && whole >= 2 && whole <= 6) return i ** whole;
  return Math.floor(Math.fround(i ** Math.fround(inverse)));
}

/** Keys of the sliding window, the query's own included. */
export function windowLength({ swIndex, searchPower }: SearchSettings): number {
  return stripeOffset(swIndex + 1, searchPower) - 1;
}

/** Distances from a query to the keys that the first step scores, below `limit`. */
export function searchDistances({ swIndex, searchPower }: SearchSettings, limit: number): Int32Array {
  const distances: number[] = [];
  for (let i = swIndex + 1; stripeOffset(i, searchPower) - 1 < limit; i++)
    distances.push(stripeOffset(i, searchPower) - 1);
  return Int32Array.from(distances);
}

/** ceil(factor * n^power) in f32. */
export function reach(factor: number, n: number, power: number): number {
  return Math.ceil(Math.fround(Math.fround(factor) * Math.fround(n ** Math.fround(power))));
}

interface Tables {
  readonly distances: Tensor;
  readonly steps: Tensor;
  readonly spans: Tensor;
}

const KEPT = 16;
const tables = new Map<string, Tables>();

/** The numbers a search looks up, for positions below `length` (a power of two, so that a growing cache asks for few sizes). */
function tablesFor(settings: SearchSettings, length: number, device: DeviceName): Tables {
  const key = `${Object.values(settings).join()}:${length}:${device}`;
  let made = tables.get(key);
  if (made && !made.spans.disposed) return made;
  if (tables.size >= KEPT) tables.delete(tables.keys().next().value as string);
  const { steps, spanPower, backwardFactor, forwardFactor } = settings;
  const entries = length + 1;
  const table = (at: (n: number) => number): Int32Array => Int32Array.from({ length: entries }, (_, n) => at(n));
  const both = (power: number): Int32Array[] => [
    table((n) => reach(backwardFactor, n, power)),
    table((n) => reach(forwardFactor, n, power)),
  ];
  const refinements = Array.from({ length: steps - 2 }, (_, i) => [
    ...both((steps - 1 - i) / steps),
    table((n) => Math.max(1, reach(1, n, (steps - 2 - i) / steps))),
  ]);
  const make = (arrays: readonly Int32Array[], shape: readonly number[]): Tensor => {
    const all = new Int32Array(arrays.reduce((n, a) => n + a.length, 0));
    arrays.reduce((at, a) => (all.set(a, at), at + a.length), 0);
    return constant(all, 'i32', device, shape);
  };
  const distances = searchDistances(settings, length);
  made = {
    distances: make([distances], [distances.length]),
    steps: make(refinements.flat(), [steps - 2, 3, entries]),
    spans: make(both(spanPower), [2, entries]),
  };
  tables.set(key, made);
  return made;
}

/**
 * Searches spans for queries q [batch, heads, queries, dim] among keys k [batch, kv heads, keys, dim]; f32, bf16 or f16. Query head h looks
 * at key head floor(h / (heads / kv heads)). A query sees keys up to its own position.
 *
 * @throws FoveaError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function spanSearch(q: Tensor, k: Tensor, options: SpanSearchOptions = {}): SpanSearchResult {
  expectOptions(OP, options, SPAN_SEARCH_OPTIONS);
  return searchSpans(q, k, options);
}

/** spanSearch() with options that have been checked. */
export function searchSpans(q: Tensor, k: Tensor, options: SpanSearchOptions): SpanSearchResult {
  expectRank(OP, '[batch, heads, length, dim]', 4, { q, k });
  const settings = searchSettings(options);
  const { keyMask, signal } = options;
  const cachePosition = positionOf(q, k, options);
  const length = 2 ** Math.ceil(Math.log2(Math.max(2, cachePosition + q.shape[2])));
  const { distances, steps, spans } = tablesFor(settings, length, q.device);
  const integers = [cachePosition, windowLength(settings), settings.numSpans, settings.steps - 2];
  const [anchorsHandle, scoresHandle, rangesHandle] = abortable(signal, () =>
    native().spanSearch(
      q.handle,
      k.handle,
      keyMask?.handle ?? null,
      distances.handle,
      steps.handle,
      spans.handle,
      integers,
    ),
  );
  const [anchors, scores, ranges] = [new Tensor(anchorsHandle), new Tensor(scoresHandle), new Tensor(rangesHandle)];
  if (gradEnabled() && (q.requiresGrad || k.requiresGrad))
    record(OP, [scores], [q, k], ([g]) => backward(g as Tensor, q, k, anchors), [q, k, anchors]);
  return { anchors, scores, ranges };
}

/** Position of the first query. Throws ERR_ARGUMENT. */
export function positionOf(q: Tensor, k: Tensor, { cachePosition }: SpanSearchOptions): number {
  const position = cachePosition ?? k.shape[2] - q.shape[2];
  if (!Number.isSafeInteger(position) || position < 0)
    throw new FoveaError(
      'ERR_ARGUMENT',
      `${OP}: cachePosition is ${position} for q ${shapeText(q.shape)} and k ${shapeText(k.shape)}; expected a position from 0 on`,
    );
  return position;
}

/** dq = sum of ds times the anchors' keys, dk = ds times the query, at the anchors. */
function backward(ds: Tensor, q: Tensor, k: Tensor, anchors: Tensor): Gradients {
  const [batch, heads, queries, spans] = anchors.shape;
  const [, kvHeads, keys, dim] = k.shape;
  const group = heads / kvHeads;
  const first = reshape(rowStarts(batch * kvHeads, keys, k.device), [batch, kvHeads, 1, 1]);
  const perKvHead = reshape(anchors, [batch, kvHeads, group * queries, spans]);
  const ids = reshape(add(maximum(perKvHead, 0), first), [anchors.size]);
  const none = lt(anchors, 0);
  const weight = unsqueeze(cast(where(none, 0, ds), q.dtype), 4);
  const h = native();
  const wide = [batch, heads, queries, spans, dim];
  let dq: Tensor | null = null;
  if (q.requiresGrad) {
    const rows = contiguous(reshape(k, [batch * kvHeads * keys, dim]));
    const found = new Tensor(h.takeRows(OP, rows.handle, 0, ids.handle));
    dq = sum(mul(reshape(found, wide), weight), 3);
  }
  let dk: Tensor | null = null;
  if (k.requiresGrad) {
    const parts = reshape(mul(expand(unsqueeze(q, 3), wide), weight), [anchors.size, dim]);
    dk = reshape(new Tensor(h.addRows(OP, parts.handle, [batch * kvHeads * keys, dim], 0, ids.handle)), k.shape);
  }
  return [dq, dk];
}
