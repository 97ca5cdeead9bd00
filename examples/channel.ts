/** Channel attention: a map between channels, built with all positions in view. */
import { channelAttention, channelCost, denseCost, eye, manualSeed, randn, reshape } from '../lib/index.ts';
import { shade } from './draw.ts';

manualSeed(1);
const dim = 16;
const base = randn([1, 1, 200, dim]);
const mixed = base.add(
  base
    .slice(3, 4)
    .mul(0.8)
    .reshape([1, 1, 200, dim - 4])
    .sum(3, true)
    .mul(0.1),
);
// Applied to the identity, the result is the transposed map.
const q = reshape(eye(200, dim), [1, 1, 200, dim]);
const out = channelAttention(q, mixed, base).slice(2, 0, dim);
console.log(`channels by channels, from 200 positions\n${shade(out.dataSync() as Float32Array, dim, dim, false)}\n`);
for (const length of [196, 3136, 50176])
  console.log(
    `${length} positions: ${(denseCost({ length, dim: 32 }).flops / channelCost({ length, dim: 32 }).flops).toFixed(0)} x fewer operations than token attention`,
  );
