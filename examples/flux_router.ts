/** The layer router: starts with full attention, and learns to send prompts without a needle to the sparse branch. */
import { AdamW, FluxRouter, manualSeed, randn, scope, tensor } from '../lib/index.ts';

manualSeed(1);
const router = new FluxRouter(16, { poolSize: 8 });
const optimizer = new AdamW(router.parameters(), { lr: 3e-3 });
const needle = randn([1, 1, 1, 16]);
const batch = 16;
for (let step = 0; step <= 120; step++)
  scope(() => {
    const wanted = tensor(Array.from({ length: batch }, (_, b) => [b % 2])); // 1: needs full attention
    const q = randn([batch, 64, 2, 16]).add(needle.mul(wanted.reshape([batch, 1, 1, 1])));
    const { z, probability } = router.forward(q);
    if (step % 40 === 0) {
      const bars = Array.from(
        probability.dataSync() as Float32Array,
        (p) => '▁▂▃▄▅▆▇█'[Math.min(7, Math.floor(p * 8))],
      );
      console.log(
        `step ${String(step).padStart(3)}: probability of full attention ${bars.join(' ')} (odd prompts need it)`,
      );
    }
    z.sub(wanted).square().mean().backward();
    optimizer.step();
    optimizer.zeroGrad();
  });
