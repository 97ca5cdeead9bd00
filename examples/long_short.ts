/** Long-short attention: blocks of 6 with 3 on each side, and 3 landmarks of the whole sequence; causal: 4 tokens and a landmark a chunk. */
import {
  causalLongShortAttention,
  chunkProjection,
  dynamicProjection,
  longShortAttention,
  manualSeed,
  randn,
} from '../lib/index.ts';
import { drawMap } from './draw.ts';

manualSeed(4);
const length = 30;
const scores = randn([1, length, 3]).mul(2);
drawMap('window 6', length, (q, k, v) => {
  const [landmarkK, landmarkV] = [dynamicProjection(k, scores), dynamicProjection(v, scores)];
  return longShortAttention(q, k, v, { landmarkK, landmarkV, window: 6 });
});
drawMap('causal, window 4, chunks of 4', length, (q, k, v) => {
  const chunk = 4;
  const [landmarkK, landmarkV] = [k, v].map((t) => chunkProjection(t, randn([1, length, 1]), chunk));
  return causalLongShortAttention(q, k, v, { landmarkK, landmarkV, chunk, window: 4 });
});
