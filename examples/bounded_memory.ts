/** ABC with 4 slots: every query reads the same few weightings of the past. */
import { abcAttention, manualSeed, randn } from '../lib/index.ts';
import { drawMap } from './draw.ts';

manualSeed(3);
const length = 28;
const [compressK, compressV] = [randn([16, 4]), randn([length, 4]).mul(2)];
for (const causal of [false, true])
  drawMap(causal ? 'causal' : 'all keys', length, (q, k, v) => abcAttention(q, k, v, { compressK, compressV, causal }));
