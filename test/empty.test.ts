/** Mechanisms of no batch entries and of no tokens: empty results, gradients of zeros, and a process that goes on. */
import { describe, expect, test } from 'vitest';
import * as F from '../lib/index.ts';
import type { Tensor } from '../lib/index.ts';

type Case = (batch: number, length: number) => { op: () => Tensor; leaves: readonly Tensor[] };

const leaf = (...shape: number[]): Tensor => F.randn(shape, { seed: 1, requiresGrad: true });

/** q, k, v [batch, 2, length, 8]. */
const heads =
  (op: (q: Tensor, k: Tensor, v: Tensor) => Tensor): Case =>
  (batch, length) => {
    const leaves = [leaf(batch, 2, length, 8), leaf(batch, 2, length, 8), leaf(batch, 2, length, 8)] as const;
    return { op: () => op(...leaves), leaves };
  };

/** Images [batch, 8, 8, 2, 8] or [batch, 8, 8, 16]; they have pixels always. */
const images =
  (channels: readonly number[], op: (q: Tensor, k: Tensor, v: Tensor) => Tensor): Case =>
  (batch) => {
    const leaves = [0, 1, 2].map(() => leaf(batch, 8, 8, ...channels)) as [Tensor, Tensor, Tensor];
    return { op: () => op(...leaves), leaves };
  };

const centroids = F.randn([2, 4, 8], { seed: 2 });
const projection = F.randn([2, 6, 8], { seed: 3 });
const slots = F.randn([8, 4], { seed: 4 });

const cases: Readonly<Record<string, Case>> = {
  attention: heads((q, k, v) => F.attention(q, k, v, { causal: true })),
  'attention with a mask function': heads((q, k, v) => F.attention(q, k, v, { mask: F.masks.causal() })),
  'bi-level routing': images([16], (q, k, v) => F.biLevelRoutingAttention(q, k, v, { heads: 2, regions: 4, topK: 2 })),
  halo: images([2, 8], (q, k, v) => F.haloAttention(q, k, v, { blockSize: 4, haloSize: 1 })),
  neighborhood: images([2, 8], (q, k, v) => F.neighborhoodAttention(q, k, v, { kernelSize: 3 })),
  'k-means routing': heads((q, k, v) => F.routingAttention(q, k, v, { centroids, window: 4 })),
  'k-means routing, causal, queries are the keys': heads((q, _, v) =>
    F.routingAttention(q, null, v, { centroids, window: 4, causal: true }),
  ),
  superlinear: heads((q, k, v) => F.superlinearAttention(q, q, k, v, { swIndex: 1 })),
  'span search': heads((q, k) => F.spanSearch(q, k, { swIndex: 1 }).scores),
  Combiner: heads((q, k, v) => F.combinerAttention(q, k, v)),
  'Combiner, mixture': heads((q, k, v) => F.combinerAttention(q, k, v, { pattern: 'axialMixture' })),
  'Combiner, log': heads((q, k, v) => F.combinerAttention(q, k, v, { pattern: 'log' })),
  'dual triangle': heads((q, k, v) => F.dualTriangleAttention(q, k, v)),
  Flux: heads((q, k, v) => F.fluxAttention(q, k, v, { full: false, sink: 4, local: 8, block: 4 })),
  linear: heads((q, k, v) => F.linearAttention(q, k, v, { causal: true })),
  Performer: heads((q, k, v) => F.performerAttention(q, k, v, { projection })),
  cosFormer: heads((q, k, v) => F.cosformerAttention(q, k, v)),
  Nystrom: heads((q, k, v) => F.nystromAttention(q, k, v, { landmarks: 2 })),
  LARA: heads((q, k, v) => F.laraAttention(q, k, v, { landmarks: 2 })),
  ABC: heads((q, k, v) => F.abcAttention(q, k, v, { compressK: slots, compressV: slots })),
  'ABC, causal': heads((q, k, v) => F.abcAttention(q, k, v, { compressK: slots, compressV: slots, causal: true })),
  ProbSparse: heads((q, k, v) => F.probSparseAttention(q, k, v)),
  channel: heads((q, k, v) => F.channelAttention(q, k, v)),
  Taylor: heads((q, k, v) => F.taylorAttention(q, k, v)),
  positionless: heads((q, k, v) => F.positionlessAttention(q, k, v)),
  reversed: heads((q, k, v) => F.reversedAttention(q, k, v)),
  SoftPAG: heads((q, k, v) => F.softPag(q, k, v, { strength: 0.3, target: 'max' })),
  tanh: heads((q, k, v) => F.tanhAttention(q, k, v)),
};

describe.each(Object.entries(cases))('%s', (_, make) => {
  test.each([
    [0, 6],
    [2, 0],
  ])('%i batch entries, %i tokens', (batch, length) => {
    const { op, leaves } = make(batch, length);
    const out = op();
    expect(out.shape.slice(0, 1)).toEqual([batch]);
    const grads = F.grad(F.sum(out), leaves);
    for (const [i, g] of grads.entries()) {
      if (!g) continue;
      expect(g.shape).toEqual(leaves[i].shape);
      expect((g.dataSync() as Float32Array).every(Number.isFinite)).toBe(true);
    }
  });
});

test('gradients where a list names no key are zeros', () => {
  const [q, k, v] = [leaf(1, 2, 5, 8), leaf(1, 2, 0, 8), leaf(1, 2, 0, 8)];
  const out = F.attention(q, k, v);
  expect((out.dataSync() as Float32Array).every((x) => x === 0)).toBe(true);
  const [dq] = F.grad(F.sum(out), [q]);
  expect((dq?.dataSync() as Float32Array).every((x) => x === 0)).toBe(true);
});
