/** Mechanisms of linear cost on CUDA: kernels and landmarks, bounded memories, long-short, S4D, channels, the deconstructed variants. */
import { describe, test } from 'vitest';
import * as F from '../../lib/index.ts';
import type { Tensor } from '../../lib/index.ts';
import { useCuda } from './device.ts';
import { checkMechanism, type MechanismCase } from './mechanism_case.ts';

const cuda = useCuda();

const tokens = [2, 2, 70, 16] as const;
const values = [2, 2, 70, 12] as const;
const more = [2, 2, 45, 16] as const;

/** The first `real` of 70 tokens. */
const firstOf = (real: number, like: Tensor): Tensor =>
  F.tensor(Array.from({ length: 140 }, (_, i) => i % 70 < real), [2, 70], { dtype: 'bool', device: like.device }); // prettier-ignore

const cases: Readonly<Record<string, MechanismCase>> = {
  linear: { shapes: [tokens, more, more], op: (q, k, v) => F.linearAttention(q, k, v) },
  'linear, causal': {
    shapes: [tokens, tokens, values],
    op: (q, k, v) => F.linearAttention(q, k, v, { causal: true, feature: 'relu', chunk: 32, eps: 1e-2 }),
  },
  'linear, token by token': {
    shapes: [[2, 2, 3, 8], [2, 2, 3, 8], [2, 2, 3, 8]],
    op: (...leaves) => {
      let state: F.LinearState | null = null;
      const outs: Tensor[] = [];
      for (let i = 0; i < 3; i++) {
        const [q, k, v] = leaves.map((t) => F.slice(t, 2, i, i + 1));
        const step = F.linearAttentionStep(q, k, v, state);
        outs.push(step.out);
        state = step.state;
      }
      return F.concat(outs, 2);
    },
  },
  Performer: {
    shapes: [tokens, more, more, [2, 24, 16]],
    op: (q, k, v, projection) => F.performerAttention(q, k, v, { projection }),
  },
  'Performer, causal': {
    shapes: [tokens, tokens, values, [2, 24, 16]],
    op: (q, k, v, projection) => F.performerAttention(q, k, v, { projection, causal: true }),
  },
  'Performer, padded': {
    shapes: [tokens, tokens, values, [2, 24, 16]],
    op: (q, k, v, projection) => F.performerAttention(q, k, v, { projection, valid: firstOf(50, q) }),
  },
  cosFormer: { shapes: [tokens, more, more], op: (q, k, v) => F.cosformerAttention(q, k, v) },
  'cosFormer, causal': {
    shapes: [tokens, tokens, values],
    op: (q, k, v) => F.cosformerAttention(q, k, v, { causal: true, floor: 0.1 }),
  },
  'cosFormer, elu': { shapes: [tokens, more, more], op: (q, k, v) => F.cosformerAttention(q, k, v, { feature: 'elu' }) },
  Nystrom: {
    shapes: [tokens, tokens, values, [2, 5]],
    op: (q, k, v, conv) => F.nystromAttention(q, k, v, { landmarks: 8, conv }),
    factor: 4,
  },
  'Nystrom, a norm for each map': {
    shapes: [tokens, tokens, values],
    op: (q, k, v) => F.nystromAttention(q, k, v, { landmarks: 7, start: 'each' }),
    factor: 4,
  },
  'Nystrom, padded': {
    shapes: [tokens, tokens, values, [2, 5]],
    op: (q, k, v, conv) => F.nystromAttention(q, k, v, { landmarks: 8, conv, valid: firstOf(50, q) }),
    factor: 6,
  },
  'LARA, padded': {
    shapes: [tokens, tokens, values],
    op: (q, k, v) => F.laraAttention(q, k, v, { landmarks: 8, valid: firstOf(50, q) }),
  },
  LARA: {
    shapes: [tokens, tokens, values, [2, 2, 8, 16]],
    op: (q, k, v, noise) => F.laraAttention(q, k, v, { landmarks: 8, noise }),
  },
  ABC: {
    shapes: [tokens, more, more, [16, 6], [16, 6]],
    op: (q, k, v, compressK, compressV) => F.abcAttention(q, k, v, { compressK, compressV }),
  },
  'ABC, causal': {
    shapes: [tokens, tokens, values, [16, 6], [12, 6]],
    op: (q, k, v, compressK, compressV) => F.abcAttention(q, k, v, { compressK, compressV, causal: true }),
  },
  'ABC, the newest write alone': {
    shapes: [[1, 2, 20, 8], [1, 2, 20, 8], [1, 2, 20, 8], [8, 4], [8, 4]],
    op: (q, k, v, compressK, compressV) =>
      F.abcAttention(q, k, v, { compressK, compressV, causal: true, memory: 'newest' }),
  },
  'ABC, causal, padded': {
    shapes: [tokens, tokens, values, [16, 6], [12, 6]],
    op: (q, k, v, compressK, compressV) =>
      F.abcAttention(q, k, v, { compressK, compressV, causal: true, mask: F.reshape(firstOf(50, q), [2, 1, 1, 70]) }),
  },
  'long-short': {
    shapes: [tokens, tokens, values, [2, 70, 8]],
    op: (q, k, v, scores) => {
      const valid = F.tensor(Uint8Array.from({ length: 140 }, (_, i) => Number(i < 130)), [2, 70], { dtype: 'bool', device: q.device }); // prettier-ignore
      const [landmarkK, landmarkV] = [k, v].map((t) => F.dynamicProjection(t, scores, valid));
      return F.longShortAttention(q, k, v, { landmarkK, landmarkV, window: 16, valid });
    },
  },
  'long-short, causal': {
    shapes: [tokens, tokens, values, [2, 70, 4]],
    op: (q, k, v, scores) => {
      const [landmarkK, landmarkV] = [k, v].map((t) => F.chunkProjection(t, scores, 16));
      return F.causalLongShortAttention(q, k, v, { landmarkK, landmarkV, chunk: 16, window: 12 });
    },
  },
  'long-short, causal, with positions': {
    shapes: [tokens, tokens, values, [2, 70, 2], [1, 2, 70, 12], [1, 2, 70, 5]],
    op: (q, k, v, scores, windowPositions, landmarkPositions) => {
      const [landmarkK, landmarkV] = [k, v].map((t) => F.chunkProjection(t, scores, 16));
      return F.causalLongShortAttention(q, k, v, { landmarkK, landmarkV, chunk: 16, window: 12, windowPositions, landmarkPositions }); // prettier-ignore
    },
  },
  S4D: {
    shapes: [[2, 6, 150], [2, 6, 4, 2], [6], [6, 4], [6, 4], [1, 6]],
    op: (u, c, logDt, logWReal, wImag, d) =>
      F.s4d(u, { c, logDt: F.sub(logDt, 3), logWReal, wImag: F.mul(wImag, 4), d }, { bidirectional: true }),
    dtypes: ['f32'],
    factor: 4,
  },
  channel: { shapes: [tokens, tokens, tokens], op: (q, k, v) => F.channelAttention(q, k, v) },
  'channel, as in Florence': {
    shapes: [tokens, tokens, tokens],
    op: (q, k, v) => F.channelAttention(q, k, v, { form: 'florence' }),
  },
  'Taylor by score': {
    shapes: [tokens, tokens, values],
    op: (q, k, v) => F.taylorAttention(q, k, v, { method: 'score' }),
  },
  'Taylor by features': {
    shapes: [[1, 2, 40, 6], [1, 2, 40, 6], [1, 2, 40, 6]],
    op: (q, k, v) => F.taylorAttention(q, k, v, { method: 'features' }),
  },
  positionless: { shapes: [tokens, tokens, values], op: (q, k, v) => F.positionlessAttention(q, k, v) },
  'queries and keys of another stream': {
    shapes: [[2, 20, 16], [1, 20, 16], [16, 16], [16, 16], [16, 16]],
    op: (hidden, stream, q, k, v) => F.streamAttention(hidden, stream, { q, k, v }, 2),
  },
}; // prettier-ignore

describe.skipIf(cuda.skip)('mechanisms of linear cost on CUDA', () => {
  test.each(Object.entries(cases))('%s', (_, c) => checkMechanism(c));
});
