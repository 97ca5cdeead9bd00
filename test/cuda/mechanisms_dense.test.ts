/** Mechanisms over visible pairs on CUDA: combiner, triangles, streaming, prompts, pointers, maps that are changed or returned. */
import { describe, test } from 'vitest';
import * as F from '../../lib/index.ts';
import type { PagTarget, Tensor } from '../../lib/index.ts';
import { sizeOf } from '../reference.ts';
import { useCuda } from './device.ts';
import { checkMechanism, type MechanismCase } from './mechanism_case.ts';

const cuda = useCuda();

const tokens = [2, 2, 48, 16] as const;
const values = [2, 2, 48, 12] as const;
const three = [tokens, tokens, values] as const;

const flags = (shape: readonly number[], at: (i: number) => boolean, like: Tensor): Tensor =>
  F.tensor(Uint8Array.from({ length: sizeOf(shape) }, (_, i) => Number(at(i))), shape, { dtype: 'bool', device: like.device }); // prettier-ignore
const integers = (list: readonly number[], shape: readonly number[], like: Tensor): Tensor =>
  F.tensor(Int32Array.from(list), shape, { device: like.device });

const combiner = (options: F.CombinerOptions): MechanismCase => ({
  shapes: three,
  op: (q, k, v) => F.combinerAttention(q, k, v, options),
});
const perturbed = (target: PagTarget): MechanismCase => ({
  shapes: three,
  op: (q, k, v) =>
    F.softPag(q, k, v, { target, strength: [0.25, 1], temperature: 2, imageTokens: { start: 10, count: 30 }, seed: 4 }),
});
const triangles = (routing: 'half' | 'flat' | 'single'): MechanismCase => ({
  shapes: [tokens, tokens, tokens],
  op: (q, k, v) =>
    F.dualTriangleAttention(q, k, v, { routing, valid: flags([2, 48], (i) => i < 40 || i > 50, q) }),
}); // prettier-ignore

const cases: Readonly<Record<string, MechanismCase>> = {
  'Combiner, fixed': combiner({ span: 8 }),
  'Combiner, fixed, both ways, means': combiner({ span: 6, causal: false, pool: 'mean' }),
  'Combiner, log': combiner({ pattern: 'log' }),
  'Combiner, rows': combiner({ pattern: 'axialRow', span: 8, summaryKeys: (rows) => F.pad(rows, [[0, 0], [0, 0], [0, 0], [0, 4]]) }),
  'Combiner, vertical': combiner({ pattern: 'axialVertical', span: 8 }),
  'Combiner, horizontal': combiner({ pattern: 'axialHorizontal', span: 8 }),
  'Combiner, mixture': combiner({ pattern: 'axialMixture', span: 8 }),
  'dual triangle, halves': triangles('half'),
  'dual triangle, flat': triangles('flat'),
  'dual triangle, one softmax': triangles('single'),
  'streaming masks': {
    shapes: [[1, 2, 150, 16], [1, 1, 150, 16], [1, 1, 150, 16]],
    op: (q, k, v) =>
      [F.masks.streaming(4, 20), F.masks.blockStreaming(1, 2, 16), F.masks.triangle(4, 20, 30, 150)].map((mask) => F.attention(q, k, v, { mask })), // prettier-ignore
  },
  'Flux, mixed by the router': {
    shapes: [[2, 50, 2, 8], ...[1, 2, 3].map(() => [2, 2, 50, 8]), [2, 8]],
    op: (x, q, k, v, weight) => {
      F.manualSeed(8);
      const router = new F.FluxRouter(8, { poolSize: 5 }).eval();
      router.to(x.device).to(x.dtype);
      const last = router.cls_router_head_agnostic[4] as F.Linear;
      last.weight = weight;
      const { z, probability } = router.forward(x);
      const out = F.fluxAttention(q, k, v, { full: z, sink: 4, local: 12, block: 4, last: 3 });
      return [out, probability, new F.FluxSparsityLoss().forward(F.cast(probability, 'f32'), 0.3)];
    },
  },
  'Flux, sparse': {
    shapes: three,
    op: (q, k, v) => F.fluxAttention(q, k, v, { full: false, sink: 4, local: 8, block: 1 }),
  },
  'mixed mask, prefix': {
    shapes: three,
    op: (q, k, v) => {
      const labels = integers(Array.from({ length: 96 }, (_, i) => (i % 48 < (i < 48 ? 10 : 33) ? -100 : 1)), [2, 48], q);
      return F.attention(q, k, v, { mask: F.mixedAttentionMask({ labels }) });
    },
  },
  'mixed mask, visual only': {
    shapes: three,
    op: (q, k, v) => {
      const imageTokens = integers(Array.from({ length: 96 }, (_, i) => Number(i % 48 > 5 && i % 48 < 20)), [2, 48], q);
      return F.attention(q, k, v, { mask: F.mixedAttentionMask({ mode: 'visualOnly', imageTokens }) });
    },
  },
  'prompt-masked, with its pool': {
    shapes: [[2, 1, 9, 8], [2, 1, 25, 8], [2, 1, 25, 8], [6, 8]],
    op: (q, k, v, pool) => {
      const { index, distance } = F.promptPool(F.select(F.slice(q, 2, 1), 1, 0), pool, 2);
      const cls = { index: integers([0, 1, 2, 0], [2, 2], q), entries: 4, tokens: 1 };
      const allowed = F.promptMask({ cls, image: { index, entries: 6, tokens: 2 } });
      return [F.promptMaskedAttention(q, k, v, { allowed }), distance, index];
    },
  },
  pointer: {
    shapes: [[2, 30, 16], [2, 7, 16], [16]],
    op: (keys, queries, v) => F.exp(F.pointerAttention(keys, queries, v, { allowed: flags([2, 7, 30], (i) => i % 3 !== 1, v) })), // prettier-ignore
  },
  tanh: {
    shapes: [tokens, tokens, [2, 1, 48, 12], [1, 2, 48, 48], [1, 2, 1, 1]],
    op: (q, k, x, bias, alpha) => F.tanhAttention(q, k, x, { bias, alpha }),
  },
  'PAG, identity': perturbed('identity'),
  'PAG, identity of the image': perturbed('maskedIdentity'),
  'PAG, uniform': perturbed('uniform'),
  'PAG, the mean query': perturbed('meanQuery'),
  'PAG, the largest weight': perturbed('max'),
  'PAG, a temperature': perturbed('temperature'),
  'PAG, weights dropped': perturbed('drop'),
  'PAG, logits hidden': perturbed('hide'),
  'PAG, a blurred map': perturbed('blur'),
  'PAG, a map with noise': perturbed('noise'),
  reversed: {
    shapes: [...three, [2, 2, 48], [2, 1, 48]],
    op: (q, k, v, p, m) => F.reversedAttention(q, k, v, { p, m }),
  },
  'reversed, the dependency mask': {
    shapes: [tokens, tokens, [2, 2, 48]],
    op: (q, k, p) => F.dependencyMask(q, k, { p }),
  },
  'in context': {
    shapes: [[2, 3, 8], [2, 20, 8], [16, 8], [16, 8], [16, 8], [5, 16]],
    op: (zq, z, q, k, v, o) => F.inContextAttention(zq, z, { q, k, v, o }),
  },
  'in context, predictors': {
    shapes: [[5, 30], [30], [5], [1], [1]],
    op: (x, y, xq, omega, mu) => {
      const problem = { x, y, xq, omega, mu };
      return [F.gradientStep(problem), F.twoHeadPrediction(problem), F.populationLoss(mu, omega, { dim: 5, examples: 30, noise: 0.1 })]; // prettier-ignore
    },
    dtypes: ['f32'],
  },
  aggregated: {
    shapes: [...[1, 2, 3].map(() => [1, 5, 6, 2, 8]), [1, 2, 4, 8], [1, 2, 4, 8], [2, 9], [2, 30, 4]],
    op: (q, k, v, pooledK, pooledV, localBias, pooledBias) =>
      F.aggregatedAttention(q, k, v, { pooledK, pooledV, localBias, pooledBias }),
  },
}; // prettier-ignore

describe.skipIf(cuda.skip)('mechanisms over visible pairs on CUDA', () => {
  test.each(Object.entries(cases))('%s', (_, c) => checkMechanism(c));
});
