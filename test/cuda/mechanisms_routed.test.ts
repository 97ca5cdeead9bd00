/** Routed mechanisms on CUDA: bi-level and k-means routing, superlinear attention, mixture of heads, ProbSparse. */
import { describe, expect, test } from 'vitest';
import * as F from '../../lib/index.ts';
import type { Tensor } from '../../lib/index.ts';
import { KvCache } from '../../lib/nn/kv_cache.ts';
import { uniform } from '../inputs.ts';
import { sizeOf } from '../reference.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';
import { checkMechanism, type MechanismCase } from './mechanism_case.ts';

const cuda = useCuda();

/** A constant on the leaf's device. */
const floats = (shape: readonly number[], seed: number, like: Tensor): Tensor =>
  F.tensor(uniform(sizeOf(shape), seed), shape, { dtype: like.dtype, device: like.device });
const flags = (shape: readonly number[], at: (i: number) => boolean, like: Tensor): Tensor =>
  F.tensor(Uint8Array.from({ length: sizeOf(shape) }, (_, i) => Number(at(i))), shape, { dtype: 'bool', device: like.device }); // prettier-ignore

const image = [2, 8, 8, 16] as const;
const ragged = [1, 7, 10, 8] as const;
const tokens = [2, 2, 40, 16] as const;
const centroids = (like: Tensor): Tensor => floats([2, 4, 16], 50, like);

const cases: Readonly<Record<string, MechanismCase>> = {
  'bi-level routing with a convolution': {
    shapes: [image, image, image, [16, 1, 3, 3], [16]],
    op: (q, k, v, weight, bias) =>
      F.biLevelRoutingAttention(q, k, v, { heads: 2, regions: 4, topK: 3, lepe: { weight, bias } }),
  },
  'bi-level routing of no images': {
    shapes: [[0, 8, 8, 16], [0, 8, 8, 16], [0, 8, 8, 16]],
    op: (q, k, v) => F.biLevelRoutingAttention(q, k, v, { heads: 2, regions: 4, topK: 3 }),
  },
  'bi-level routing over pooled keys': {
    shapes: [image, image, image],
    op: (q, k, v) => {
      const { out, routing } = F.biLevelRoutingAttention(q, k, v, { heads: 4, regions: 2, topK: 2, pooling: { mode: 'mean', ratio: 2 }, returnRouting: true }); // prettier-ignore
      return [out, routing.indices];
    },
  },
  'bi-level routing of a ragged image, filled': {
    shapes: [ragged, ragged, ragged],
    op: (q, k, v) => F.biLevelRoutingAttention(q, k, v, { heads: 1, regions: 3, topK: 2 }),
  },
  'bi-level routing of a ragged image, hidden': {
    shapes: [ragged, ragged, ragged],
    op: (q, k, v) => F.biLevelRoutingAttention(q, k, v, { heads: 2, regions: 3, topK: 4, ragged: 'hidden' }),
  },
  'bi-level routing, soft': {
    shapes: [image, image, image],
    op: (q, k, v) =>
      F.biLevelRoutingAttention(q, k, v, { heads: 2, regions: 4, topK: 2, soft: true, diffRouting: true }),
  },
  'bi-level routing, soft, with a projection': {
    shapes: [image, image, image, [16, 16], [16]],
    op: (q, k, v, weight, bias) =>
      F.biLevelRoutingAttention(q, k, v, { heads: 2, regions: 4, topK: 2, soft: true, routingProjection: { weight, bias } }),
  },
  'regional, a graph for each head': {
    shapes: [ragged, [1, 4, 6, 8], [1, 4, 6, 4]],
    op: (q, k, v) => {
      const graph = F.randint(0, 6, [1, 2, 12, 3], { seed: 5, device: q.device });
      return F.regionalAttention(q, k, v, graph, { heads: 2, regionSize: [2, 4], keyRegionSize: 2 });
    },
  },
  'k-means routing': {
    shapes: [tokens, [2, 2, 33, 16], [2, 2, 33, 16]],
    op: (q, k, v) => {
      const r = F.routingAttention(q, k, v, { centroids: centroids(q), window: 12, keyWindow: 9, returnRouting: true });
      return [r.out, r.commitment, r.queries, r.keys];
    },
  },
  'k-means routing, causal, separate keys with memory': {
    shapes: [tokens, tokens, tokens, [2, 4, 3, 16], [2, 4, 3, 16]],
    op: (q, k, v, key, value) =>
      F.routingAttention(q, k, v, { centroids: centroids(q), window: 12, causal: true, memory: { key, value } }),
  },
  'k-means routing, causal, queries are the keys': {
    shapes: [tokens, tokens],
    op: (q, v) => F.routingAttention(q, null, v, { centroids: centroids(q), window: 12, causal: true }),
  },
  'k-means routing, queries are the keys': {
    shapes: [tokens, tokens],
    op: (q, v) => F.routingAttention(q, null, v, { centroids: centroids(q), window: 12 }),
  },
  'k-means routing, queries are the keys, masked': {
    shapes: [tokens, tokens],
    op: (q, v) =>
      F.routingAttention(q, null, v, {
        centroids: centroids(q),
        window: 12,
        queryMask: flags([2, 40], (i) => i % 7 !== 3, q),
        keyMask: flags([2, 40], (i) => i % 5 !== 1, q),
      }),
  },
  'k-means routing, the unseen as the mean': {
    shapes: [tokens, tokens, tokens],
    op: (q, k, v) =>
      F.routingAttention(q, k, v, {
        centroids: centroids(q),
        window: 12,
        queryMask: flags([2, 40], (i) => i % 7 !== 3, q),
        unseen: 'mean',
      }),
  },
  'k-means routing with masks and local heads': {
    shapes: [[2, 3, 40, 16], [2, 3, 40, 16], [2, 3, 40, 16]],
    op: (q, k, v) =>
      F.routingAttention(q, k, v, {
        centroids: centroids(q),
        window: 10,
        queryMask: flags([2, 40], (i) => i % 7 !== 3, q),
        keyMask: flags([2, 40], (i) => i % 5 !== 1, q),
        local: { heads: 1, window: 6 },
      }),
  },
  'k-means, one step': {
    shapes: [tokens],
    op: (x) => [F.kmeansUpdate(x, centroids(x), { decay: 0.5 }), F.kmeansAssign(x, centroids(x))],
    gradient: false,
  },
  'span search': {
    shapes: [[1, 4, 30, 32], [1, 2, 60, 32]],
    op: (q, k) => {
      const { scores, anchors, ranges } = F.spanSearch(q, k, { swIndex: 1, numSpans: 2 });
      return [F.where(F.lt(anchors, 0), 0, scores), anchors, ranges];
    },
  },
  'span attention': {
    shapes: [[2, 4, 20, 32], [2, 2, 50, 32], [2, 2, 50, 32]],
    op: (q, k, v) => {
      const begins = F.randint(0, 40, [2, 4, 20, 2], { seed: 3, device: q.device });
      const lengths = F.randint(0, 10, [2, 4, 20, 2], { seed: 4, device: q.device });
      const ranges = F.cast(F.stack([begins, F.add(begins, lengths)], 4), 'i32');
      const { out, lse } = F.spanAttention(q, k, v, ranges);
      return [out, F.maximum(lse, -100)];
    },
  },
  superlinear: {
    shapes: [[1, 4, 50, 32], [1, 4, 50, 32], [1, 2, 50, 32], [1, 2, 50, 32]],
    op: (search, q, k, v) => F.superlinearAttention(search, q, k, v, { swIndex: 1, numSpans: 2 }),
  },
  'superlinear, without gradients': {
    shapes: [[1, 4, 50, 32], [1, 4, 50, 32], [1, 2, 50, 32], [1, 2, 50, 32]],
    op: (search, q, k, v) => F.superlinearAttention(search, q, k, v, { swIndex: 1, numSpans: 3 }),
    gradient: false,
  },
  'superlinear, three steps, a chunk in the middle, padding': {
    shapes: [[2, 2, 20, 16], [2, 2, 20, 16], [2, 2, 60, 16], [2, 2, 60, 16]],
    op: (search, q, k, v) =>
      F.superlinearAttention(search, q, k, v, {
        swIndex: 1,
        steps: 3,
        cachePosition: 25,
        keyMask: flags([2, 60], (i) => i > 4, q),
      }),
  },
  'mixture of heads': {
    shapes: [[2, 25, 16], [2, 6, 25, 8], [2, 6, 25, 8], [2, 6, 25, 8], [4, 16], [2, 16], [2, 16]],
    op: (x, q, k, v, routed, shared, balance) => {
      const { gates, indices, balanceLoss } = F.headGates(x, { routed, shared, balance }, { heads: 6, shared: 2, active: 2 }); // prettier-ignore
      return [F.mixtureOfHeads(q, k, v, gates), balanceLoss, indices];
    },
  },
  'mixture of heads, causal, gates by norm': {
    shapes: [[2, 4, 30, 16], [2, 2, 30, 16], [2, 2, 30, 16]],
    op: (q, k, v) => {
      const { gates, indices } = F.headGatesByNorm(q, { shared: 1, active: 2 });
      return [F.mixtureOfHeads(q, k, v, gates, { causal: true }), indices];
    },
  },
  'mixture of heads with a bias': {
    shapes: [[2, 4, 20, 16], [2, 4, 20, 16], [2, 4, 20, 16], [1, 4, 20, 20]],
    op: (q, k, v, bias) => F.mixtureOfHeads(q, k, v, F.headGatesByNorm(q, { shared: 1, active: 1 }).gates, { bias }),
  },
  ProbSparse: {
    shapes: [tokens, [2, 2, 50, 16], [2, 2, 50, 16]],
    op: (q, k, v) => F.probSparseAttention(q, k, v, { factor: 2, sample: F.randint(0, 50, [40, 8], { seed: 5, device: q.device }) }), // prettier-ignore
  },
  'ProbSparse, causal': {
    shapes: [tokens, tokens, tokens],
    op: (q, k, v) => F.probSparseAttention(q, k, v, { factor: 2, causal: true, sample: F.randint(0, 40, [40, 8], { seed: 6, device: q.device }) }), // prettier-ignore
  },
}; // prettier-ignore

describe.skipIf(cuda.skip)('routed mechanisms on CUDA', () => {
  test.each(Object.entries(cases))('%s', (_, c) => checkMechanism(c));

  test('superlinear attention decodes from a cache, token by token', () => {
    const shapes = [[1, 4, 40, 16], [1, 4, 40, 16], [1, 2, 40, 16], [1, 2, 40, 16]]; // prettier-ignore
    const leaves = shapes.map((shape, i) =>
      F.tensor(uniform(sizeOf(shape), i), shape, { dtype: 'f32', device: 'cuda' }),
    );
    const [search, q, k, v] = leaves;
    const options = { swIndex: 1, numSpans: 2 };
    const whole = F.superlinearAttention(search, q, k, v, options);
    const cache = new KvCache({ batch: 1, heads: 2, maxLength: 48, dim: 16, device: 'cuda' });
    const part = (t: Tensor, from: number, to: number): Tensor => F.slice(t, 2, from, to);
    cache.append(part(k, 0, 36), part(v, 0, 36));
    for (let at = 36; at < 40; at++) {
      cache.append(part(k, at, at + 1), part(v, at, at + 1));
      const out = F.superlinearAttention(part(search, at, at + 1), part(q, at, at + 1), cache.keys, cache.values, options); // prettier-ignore
      expectClose(out.dataSync() as Float32Array, part(whole, at, at + 1).dataSync() as Float32Array);
    }
    expect(cache.length).toBe(40);
  });
});
