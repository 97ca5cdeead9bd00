/**
 * Causal calls: the first n rows of a call are those of the call on the first n tokens (the test of CAB, Zhang et al., ICML 2023). And which
 * mechanisms take other keys than queries: with those a row must not depend on other queries either.
 *
 * Not here, since their published forms look at the whole sequence: causal Performer (its largest feature), cosFormer (its length), ProbSparse and
 * k-means routing (their choice).
 */
import { describe, expect, test } from 'vitest';
import * as F from '../lib/index.ts';
import type { Tensor } from '../lib/index.ts';
import { numbers } from './inputs.ts';
import { expectClose } from './tolerance.ts';

const [LENGTH, DIM] = [48, 16];
const operand = (seed: number, ...shape: number[]): Tensor => F.randn(shape, { seed });
const slots = [1, 2].map((seed) => operand(seed, DIM, 4));
const scores = operand(3, 1, LENGTH, 4);
const s4d = {
  c: operand(4, 1, 2 * DIM, 3, 2),
  logDt: F.full([2 * DIM], -2),
  logWReal: operand(5, 1, 3),
  wImag: operand(6, 1, 3),
  d: operand(7, 1, 2 * DIM),
};

type Call = (q: Tensor, k: Tensor, v: Tensor) => Tensor;
const withMask =
  (mask: F.Mask): Call =>
  (q, k, v) =>
    F.attention(q, k, v, { mask });
const combiner =
  (options: F.CombinerOptions): Call =>
  (q, k, v) =>
    F.combinerAttention(q, k, v, options);

const CAUSAL: Readonly<Record<string, Call>> = {
  attention: (q, k, v) => F.attention(q, k, v, { causal: true }),
  'sliding window': withMask(F.masks.slidingWindow(7)),
  streaming: withMask(F.masks.streaming(3, 6)),
  'block streaming': withMask(F.masks.blockStreaming(1, 2, 4)),
  'a score': (q, k, v) => F.attention(q, k, v, { causal: true, score: F.scores.alibi(2) }),
  Flux: (q, k, v) => F.fluxAttention(q, k, v, { full: false, sink: 4, local: 8, block: 4 }),
  'Combiner, fixed': combiner({ span: 8 }),
  'Combiner, log': combiner({ pattern: 'log' }),
  'Combiner, rows': combiner({ pattern: 'axialRow', span: 8 }),
  'Combiner, vertical': combiner({ pattern: 'axialVertical', span: 8 }),
  'Combiner, horizontal': combiner({ pattern: 'axialHorizontal', span: 8 }),
  'Combiner, mixture': combiner({ pattern: 'axialMixture', span: 8 }),
  linear: (q, k, v) => F.linearAttention(q, k, v, { causal: true, chunk: 8 }),
  Taylor: (q, k, v) => F.taylorAttention(q, k, v, { method: 'score' }),
  'Taylor by features': (q, k, v) => F.taylorAttention(q, k, v, { method: 'features' }),
  positionless: (q, k, v) => F.positionlessAttention(q, k, v),
  ABC: (q, k, v) => F.abcAttention(q, k, v, { compressK: slots[0], compressV: slots[1], causal: true }),
  superlinear: (q, k, v) => F.superlinearAttention(q, q, k, v, { swIndex: 1, numSpans: 2 }),
  'long-short': (q, k, v) => {
    const [landmarkK, landmarkV] = [k, v].map((t) => F.chunkProjection(t, F.slice(scores, 1, 0, t.shape[2]), 8));
    return F.causalLongShortAttention(q, k, v, { landmarkK, landmarkV, chunk: 8, window: 5 });
  },
  S4D: (q) => {
    const [, heads, length, dim] = q.shape;
    const y = F.s4d(F.reshape(F.transpose(q), [1, heads * dim, length]), s4d);
    return F.transpose(F.reshape(y, [1, heads, dim, length]));
  },
  'neighborhood, causal': (q, k, v) => {
    const turned = [q, k, v].map((t) => F.permute(t, [0, 2, 1, 3])) as [Tensor, Tensor, Tensor];
    return F.permute(F.neighborhoodAttention(...turned, { kernelSize: 5, causal: true }), [0, 2, 1, 3]);
  },
};

describe('a causal call on a prefix is the prefix of the call', () => {
  const [q, k, v] = [11, 12, 13].map((seed) => operand(seed, 1, 2, LENGTH, DIM));
  test.each(Object.entries(CAUSAL))('%s', (_, call) => {
    const whole = call(q, k, v);
    for (const n of [8, 24, 40]) {
      const [first, keys, values] = [q, k, v].map((t) => F.slice(t, 2, 0, n));
      expectClose(numbers(call(first, keys, values)), numbers(F.slice(whole, 2, 0, n)), 'f32', 5);
    }
  });
});

const CROSS: Readonly<Record<string, Call>> = {
  attention: (q, k, v) => F.attention(q, k, v),
  linear: (q, k, v) => F.linearAttention(q, k, v),
  Performer: (q, k, v) => F.performerAttention(q, k, v, { projection: operand(9, 2, 8, DIM) }),
  ABC: (q, k, v) => F.abcAttention(q, k, v, { compressK: slots[0], compressV: slots[1] }),
  'prompt-masked': (q, k, v) =>
    F.promptMaskedAttention(q, k, v, { allowed: F.gt(F.slice(scores, 1, 0, k.shape[2]).select(2, 0).reshape([1, 1, 1, k.shape[2]]), 0) }), // prettier-ignore
};

describe('cross attention: a row does not depend on other queries', () => {
  const [q, k, v] = [operand(21, 1, 2, 20, DIM), operand(22, 1, 2, 33, DIM), operand(23, 1, 2, 33, DIM)];
  test.each(Object.entries(CROSS))('%s', (_, call) => {
    const whole = call(q, k, v);
    expect(whole.shape).toEqual([1, 2, 20, DIM]);
    expectClose(numbers(call(F.slice(q, 2, 4, 9), k, v)), numbers(F.slice(whole, 2, 4, 9)), 'f32', 2);
  });
});

test('mechanisms of one sequence refuse other keys', () => {
  const [q, k] = [operand(1, 1, 2, 6, DIM), operand(2, 1, 2, 9, DIM)];
  for (const call of [
    CAUSAL['Combiner, fixed'],
    CAUSAL.Taylor,
    CAUSAL.positionless,
    (a: Tensor, b: Tensor) => F.nystromAttention(a, b, b),
    (a: Tensor, b: Tensor) => F.laraAttention(a, b, b),
    (a: Tensor, b: Tensor) => F.dualTriangleAttention(a, b, b),
    (a: Tensor, b: Tensor) => F.linearAttention(a, b, b, { causal: true }),
    (a: Tensor, b: Tensor) => F.softPag(a, b, b),
  ])
    expect(() => call(q, k, k)).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }) as Error);
});
