/**
 * Neighborhood attention: fused forward and backward, the unfused pair with a softmax between, and plain C++ loops, all in one run.
 *
 * Fractions of peak count the products over pairs that are seen, nothing else. Backward counts five products for the forward's two.
 */
import {
  explainNeighborhood,
  getNumThreads,
  grad,
  manualSeed,
  neighborhoodAttention,
  neighborhoodAV,
  neighborhoodQK,
  neighborhoodWork,
  noGrad,
  randn,
  softmax,
  Tensor,
  type NeighborhoodWindow,
} from '../lib/index.ts';
import { native } from '../lib/native.ts';
import { measure, round, save, type Row } from './report.ts';

interface Case {
  readonly name: string;
  readonly space: readonly number[];
  readonly heads: number;
  readonly dim: number;
  readonly window: NeighborhoodWindow & { readonly kernelSize: number; readonly dilation?: number };
  /** Also the unfused pair and plain loops. */
  readonly compare?: boolean;
}

const cases: readonly Case[] = [
  { name: '2-D 56x56 k7 H4 D32', space: [56, 56], heads: 4, dim: 32, window: { kernelSize: 7 }, compare: true },
  { name: '2-D 56x56 k7 dilation 2', space: [56, 56], heads: 4, dim: 32, window: { kernelSize: 7, dilation: 2 } },
  { name: '2-D 56x56 k7 dilation 4', space: [56, 56], heads: 4, dim: 32, window: { kernelSize: 7, dilation: 4 } },
  { name: '1-D 16384 k127 H1 D64', space: [16384], heads: 1, dim: 64, window: { kernelSize: 127 }, compare: true },
  { name: '1-D 16384 k127 dilation 4', space: [16384], heads: 1, dim: 64, window: { kernelSize: 127, dilation: 4 } },
  { name: '3-D 16^3 k7 H1 D32', space: [16, 16, 16], heads: 1, dim: 32, window: { kernelSize: 7 } },
];

const rows: Row[] = [];
manualSeed(1);
for (const threads of [...new Set([1, getNumThreads()])])
  for (const { name, space, heads, dim, window, compare } of cases) {
    const make = (): Tensor => randn([1, ...space, heads, dim]);
    const [q, k, v] = [make(), make(), make()];
    const { flops } = neighborhoodWork(q, k, v, window);
    const { kernel } = explainNeighborhood(q, k, v, window);
    const fused = await measure(name, () => noGrad(() => neighborhoodAttention(q, k, v, window)), { threads, flops, extra: { kernel } }); // prettier-ignore
    rows.push(fused);
    for (const t of [q, k, v]) t.requiresGrad = true;
    const out = neighborhoodAttention(q, k, v, window);
    const up = randn(out.shape);
    const both = await measure(
      `${name}, backward`,
      () => grad(out, [q, k, v], { gradients: [up], retainGraph: true }).filter((t) => t !== null),
      { threads, flops: 2.5 * flops },
    );
    rows.push({ ...both, timeOverForward: round(both.ms / fused.ms) });
    if (!compare) continue;
    const pair = await measure(
      `${name}, unfused`,
      () => {
        const logits = noGrad(() => neighborhoodQK(q, k, window));
        const weights = softmax(logits, -1);
        return [logits, weights, noGrad(() => neighborhoodAV(weights, v, window))];
      },
      { threads, flops },
    );
    rows.push({ ...pair, fusedIsFaster: round(pair.ms / fused.ms) });
    const axes = space.flatMap(() => [window.kernelSize, 1, window.dilation ?? 1, 0]);
    const loops = await measure(
      `${name}, plain loops`,
      () => new Tensor(native().neighborhoodLoops(q.handle, k.handle, v.handle, axes, dim ** -0.5)),
      { threads, flops },
    );
    rows.push({ ...loops, fusedIsFaster: round(loops.ms / fused.ms) });
  }

save('neighborhood', rows);
