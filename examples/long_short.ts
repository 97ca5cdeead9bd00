/** Long-short attention: blocks of 6 with 3 on each side, and 3 landmarks of the whole sequence. */
import { dynamicProjection, longShortAttention, manualSeed, randn } from '../lib/index.ts';
import { drawMap } from './draw.ts';

manualSeed(4);
const length = 30;
const scores = randn([1, length, 3]).mul(2);
drawMap('window 6', length, (q, k, v) => {
  const [landmarkK, landmarkV] = [dynamicProjection(k, scores), dynamicProjection(v, scores)];
  return longShortAttention(q, k, v, { landmarkK, landmarkV, window: 6 });
});
