/** Mixture of heads: which heads each token takes, with what weight, and what that saves. */
import {
  attention,
  headGates,
  manualSeed,
  mixtureCost,
  mixtureOfHeads,
  noGrad,
  randn,
  synchronizeSync,
} from '../lib/index.ts';
import { shade } from './draw.ts';

const [heads, shared, active, tokens, dim] = [16, 4, 4, 24, 64];
manualSeed(2);
const x = randn([1, tokens, heads * dim]);
const weights = {
  routed: randn([heads - shared, heads * dim]).mul(0.05),
  shared: randn([shared, heads * dim]).mul(0.02),
  balance: randn([2, heads * dim]).mul(0.02),
};
const { gates, balanceLoss } = headGates(x, weights, { heads, shared, active });
console.log(`weight of each head (columns; the first ${shared} are shared) for each token (rows)`);
console.log(`${shade(gates.dataSync() as Float32Array, tokens, heads, false)}\n`);
console.log(`balance loss ${(balanceLoss.dataSync() as Float32Array)[0].toFixed(3)}; even use would give ${active}`);

const best = (fn: () => Disposable): number => {
  let ms = Infinity;
  for (let i = 0; i < 10; i++) {
    const start = performance.now();
    const made = fn();
    synchronizeSync();
    ms = Math.min(ms, performance.now() - start);
    made[Symbol.dispose]();
  }
  return ms;
};
const length = 512;
const [q, k, v] = [0, 1, 2].map(() => randn([1, heads, length, dim]));
const longer = headGates(randn([1, length, heads * dim]), weights, { heads, shared, active });
const all = best(() => noGrad(() => attention(q, k, v)));
const some = best(() => noGrad(() => mixtureOfHeads(q, k, v, longer.gates)));
const share = mixtureCost({ heads, active: shared + active, length, dim }).flops / mixtureCost({ heads, active: heads, length, dim }).flops; // prettier-ignore
console.log(`${length} tokens, ${shared + active} of ${heads} heads: ${((100 * some) / all).toFixed(0)} % of the time of all heads, ${100 * share} % of the operations`); // prettier-ignore
