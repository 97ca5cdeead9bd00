/** Channel attention: a map between channels, built with all positions in view. Channels of one signal find each other. */
import { channelAttention, channelCost, denseCost, eye, manualSeed, randn, reshape, stack } from '../lib/index.ts';
import { shade } from './draw.ts';

manualSeed(1);
const [positions, dim] = [200, 16];
const signals = Array.from({ length: 4 }, () => randn([positions]));
const channels = Array.from({ length: dim }, (_, c) => signals[c >> 2].mul(0.25).add(randn([positions], { std: 0.2 })));
const tokens = reshape(stack(channels, 1), [1, 1, positions, dim]);
// Applied to the identity, the result is the transposed map.
const q = reshape(eye(positions, dim), [1, 1, positions, dim]);
const out = channelAttention(q, tokens, tokens).slice(2, 0, dim);
console.log(`channels by channels, four for each of four signals, from ${positions} positions`);
console.log(`${shade(out.dataSync() as Float32Array, dim, dim, false)}\n`);
for (const length of [196, 3136, 50176])
  console.log(
    `${length} positions: ${(denseCost({ length, dim: 32 }).flops / channelCost({ length, dim: 32 }).flops).toFixed(0)} x fewer operations than token attention`,
  );
