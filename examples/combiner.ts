/** Combiner's maps: every earlier key has weight, though a query looks at about sqrt(n) or log(n) of them. */
import { combinerAttention, combinerCost, denseCost } from '../lib/index.ts';
import { drawMap } from './draw.ts';

for (const pattern of ['fixed', 'log', 'axialMixture'] as const)
  drawMap(`combiner '${pattern}'`, 36, (q, k, v) => combinerAttention(q, k, v, { pattern }));
for (const length of [1024, 16384, 262144]) {
  const dense = denseCost({ length, dim: 64 }, { causal: true }).flops;
  const { flops } = combinerCost({ length, dim: 64 });
  console.log(`length ${length}: ${(dense / flops).toFixed(1)} x fewer operations than dense causal attention`);
}
