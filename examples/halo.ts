/**
 * Halo attention: blocks of queries share a window with a halo. npx tsx examples/halo.ts
 *
 * Draws the keys that two queries of one block see, and how their relative position logits differ although the window is the same.
 */
import { grad, haloAttention, manualSeed, randn, select, sum } from '../lib/index.ts';
import type { Tensor } from '../lib/index.ts';

const [SIDE, BLOCK, HALO, DIM] = [12, 4, 2, 8];
const WINDOW = BLOCK + 2 * HALO;
manualSeed(3);
const make = (): Tensor => randn([1, SIDE, SIDE, 1, DIM]);
const [q, k, v] = [make(), make(), make()];
v.requiresGrad = true;
const relative = { height: randn([2 * WINDOW - 1, DIM]), width: randn([2 * WINDOW - 1, DIM]) };
const out = haloAttention(q, k, v, { blockSize: BLOCK, haloSize: HALO, relative });

const SHADES = ' .:-=+*#%@';
for (const [y, x] of [
  [4, 4],
  [7, 6],
  [0, 0],
]) {
  const one = select(select(out, 1, y), 1, x);
  const weights = (grad(sum(one), [v], { retainGraph: true })[0] as Tensor).dataSync() as Float32Array;
  const at = (i: number): number => weights[i * DIM];
  const most = Math.max(...Array.from({ length: SIDE * SIDE }, (_, i) => at(i)));
  const shade = (w: number): string => (w === 0 ? ' ' : SHADES[1 + Math.min(8, Math.floor((9 * w) / most))]);
  process.stdout.write(`\nweights of query (${y}, ${x}); blocks of ${BLOCK}, halo ${HALO}\n`);
  for (let row = 0; row < SIDE; row++) {
    const cells = Array.from({ length: SIDE }, (_, column) =>
      row === y && column === x ? 'Q' : shade(at(row * SIDE + column)),
    );
    process.stdout.write(`  |${cells.join(' ')}|\n`);
  }
}
