/** One head between attention and the identity, and the other targets at full strength. */
import { PAG_TARGETS, softPag } from '../lib/index.ts';
import { drawMap } from './draw.ts';

const length = 24;
for (const strength of [0, 0.25, 1])
  drawMap(`identity, strength ${strength}`, length, (q, k, v) => softPag(q, k, v, { strength }));
const imageTokens = { start: 0, count: 16 };
drawMap('masked identity, 16 image tokens then text', length, (q, k, v) =>
  softPag(q, k, v, { target: 'maskedIdentity', imageTokens }),
);
for (const target of PAG_TARGETS)
  if (!target.includes('dentity'))
    drawMap(target, length, (q, k, v) => softPag(q, k, v, { target, temperature: 2, seed: 1 }));
