/**
 * Neighborhood attention sees what is near: npx tsx examples/neighborhood.ts
 *
 * Draws which keys a query sees for a few windows, found by asking the op itself: the gradient of one query's output with respect to the
 * values is the row of attention weights. Then counts what a window saves.
 */
import { grad, manualSeed, neighborhoodAttention, neighborhoodWork, randn, select, sum } from '../lib/index.ts';
import type { NeighborhoodWindow, Tensor } from '../lib/index.ts';

const SIDE = 15;
manualSeed(7);
const make = (): Tensor => randn([1, SIDE, SIDE, 1, 8]);
const [q, k, v] = [make(), make(), make()];
v.requiresGrad = true;

function draw(title: string, window: NeighborhoodWindow, [y, x]: readonly [number, number]): void {
  const out = neighborhoodAttention(q, k, v, window);
  const query = select(select(out, 1, y), 1, x);
  const weights = (grad(sum(query), [v])[0] as Tensor).dataSync() as Float32Array;
  const lines = Array.from({ length: SIDE }, (_, row) =>
    Array.from({ length: SIDE }, (_, column) => {
      const seen = weights[(row * SIDE + column) * 8] !== 0;
      return row === y && column === x ? 'Q' : seen ? '#' : '.';
    }).join(' '),
  );
  process.stdout.write(`\n${title}\n  ${lines.join('\n  ')}\n`);
}

draw('kernel 7, in the middle', { kernelSize: 7 }, [7, 7]);
draw('kernel 7, in a corner: the window moves inwards and keeps its 49 keys', { kernelSize: 7 }, [0, 13]);
draw('kernel 5, dilation 3: the same number of keys, three times as far', { kernelSize: 5, dilation: 3 }, [7, 7]);
draw('kernel 5, causal along rows and columns', { kernelSize: 5, causal: true }, [9, 9]);
draw('kernel 5, stride 5: attention in blocks', { kernelSize: 5, stride: 5 }, [6, 13]);

const work = neighborhoodWork(q, k, v, { kernelSize: 7 });
process.stdout.write(
  `\nkernel 7 on ${SIDE} x ${SIDE}: ${(work.flops / 1e6).toFixed(2)} of ${(work.denseFlops / 1e6).toFixed(2)} MFLOP\n`,
);
