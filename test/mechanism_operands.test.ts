/** What is no tensor is refused by name, at the call, by every mechanism. */
import { expect, test } from 'vitest';
import * as F from '../lib/index.ts';
import type { Tensor } from '../lib/index.ts';

const heads = F.zeros([1, 2, 6, 8]);
const image = F.zeros([1, 6, 6, 2, 8]);
const pixels = F.zeros([1, 6, 6, 16]);
const rows = F.zeros([1, 6, 8]);
const vector = F.zeros([8]);
const square = F.zeros([8, 8]);
const slots = F.zeros([8, 3]);
const centroids = F.zeros([2, 2, 8]);
const projection = F.zeros([2, 4, 8]);
const flags = F.ones([1, 1, 6, 6], { dtype: 'bool' });
const gates = F.ones([1, 6, 2]);
const pooled = F.zeros([1, 2, 4, 8]);

type Call = (...operands: Tensor[]) => unknown;
const three = [heads, heads, heads] as const;
const images = [image, image, image] as const;
const CALLS: Readonly<Record<string, readonly [readonly Tensor[], Call]>> = {
  attention: [three, (q, k, v) => F.attention(q, k, v)],
  abcAttention: [[...three, slots, slots], (q, k, v, compressK, compressV) => F.abcAttention(q, k, v, { compressK, compressV })],
  aggregatedAttention: [[...images, pooled, pooled], (q, k, v, pooledK, pooledV) => F.aggregatedAttention(q, k, v, { pooledK, pooledV })],
  biLevelRoutingAttention: [[pixels, pixels, pixels], (q, k, v) => F.biLevelRoutingAttention(q, k, v, { heads: 2, regions: 3, topK: 1 })],
  channelAttention: [three, (q, k, v) => F.channelAttention(q, k, v)],
  combinerAttention: [three, (q, k, v) => F.combinerAttention(q, k, v)],
  cosformerAttention: [three, (q, k, v) => F.cosformerAttention(q, k, v)],
  dualTriangleAttention: [three, (q, k, v) => F.dualTriangleAttention(q, k, v)],
  fluxAttention: [three, (q, k, v) => F.fluxAttention(q, k, v, { full: true })],
  haloAttention: [images, (q, k, v) => F.haloAttention(q, k, v, { blockSize: 3 })],
  inContextAttention: [[rows, rows, square, square, square, square], (zq, z, q, k, v, o) => F.inContextAttention(zq, z, { q, k, v, o })],
  laraAttention: [three, (q, k, v) => F.laraAttention(q, k, v)],
  linearAttention: [three, (q, k, v) => F.linearAttention(q, k, v)],
  longShortAttention: [[...three, heads, heads], (q, k, v, landmarkK, landmarkV) => F.longShortAttention(q, k, v, { landmarkK, landmarkV, window: 2 })],
  mixtureOfHeads: [[...three, gates], (q, k, v, g) => F.mixtureOfHeads(q, k, v, g)],
  neighborhoodAttention: [images, (q, k, v) => F.neighborhoodAttention(q, k, v, { kernelSize: 3 })],
  neighborhoodQK: [[image, image], (q, k) => F.neighborhoodQK(q, k, { kernelSize: 3 })],
  nystromAttention: [three, (q, k, v) => F.nystromAttention(q, k, v)],
  performerAttention: [[...three, projection], (q, k, v, p) => F.performerAttention(q, k, v, { projection: p })],
  pointerAttention: [[rows, rows, vector], (keys, queries, v) => F.pointerAttention(keys, queries, v)],
  positionlessAttention: [three, (q, k, v) => F.positionlessAttention(q, k, v)],
  probSparseAttention: [three, (q, k, v) => F.probSparseAttention(q, k, v)],
  promptMaskedAttention: [three, (q, k, v) => F.promptMaskedAttention(q, k, v, { allowed: flags })],
  promptPool: [[rows, square], (x, keys) => F.promptPool(x, keys, 2)],
  reversedAttention: [three, (q, k, v) => F.reversedAttention(q, k, v)],
  routingAttention: [[heads, heads, centroids], (q, v, c) => F.routingAttention(q, q, v, { centroids: c, window: 3 })],
  softPag: [three, (q, k, v) => F.softPag(q, k, v)],
  spanSearch: [[heads, heads], (q, k) => F.spanSearch(q, k, { swIndex: 1 })],
  streamAttention: [[rows, rows, square, square, square], (h, s, q, k, v) => F.streamAttention(h, s, { q, k, v })],
  superlinearAttention: [[heads, ...three], (s, q, k, v) => F.superlinearAttention(s, q, k, v, { swIndex: 1 })],
  tanhAttention: [three, (q, k, x) => F.tanhAttention(q, k, x)],
  taylorAttention: [three, (q, k, v) => F.taylorAttention(q, k, v)],
}; // prettier-ignore

const UNTYPED = [undefined, 5, [1, 2], {}] as const;

test.each(Object.entries(CALLS))('%s', (_, [operands, call]) => {
  call(...operands);
  operands.forEach((__, i) => {
    for (const other of UNTYPED)
      expect(() => call(...operands.with(i, other as never))).toThrow(
        expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/must be a tensor, got/) as unknown }) as Error, // prettier-ignore
      );
  });
});
