/** Selection and row lists of routed attention on CUDA: the CPU's integers, exactly. */
import { describe, expect, test } from 'vitest';
import { tensor, type DType, type Tensor } from '../../lib/index.ts';
import { native } from '../../lib/native.ts';
import { Tensor as TensorClass } from '../../lib/tensor/tensor.ts';
import { selectTop } from '../../lib/ops/sort.ts';
import { uniform } from '../inputs.ts';
import { runScript, useCuda } from './device.ts';

const cuda = useCuda();
const ints = (t: Tensor): number[] => [...(t.to('cpu').dataSync() as Int32Array)];

describe.skipIf(cuda.skip)('selectTop on CUDA', () => {
  const select = (t: Tensor, k: number): number[] => ints(selectTop(t, k));

  test.each([
    [3, 1, 1],
    [2, 5, 5],
    [4, 33, 7],
    [2, 300, 200],
    [1, 5000, 71],
  ])('%d rows of %d, the best %d', (rows, n, k) => {
    for (const dtype of ['f32', 'bf16', 'f16'] as DType[]) {
      const x = tensor(uniform(rows * n, n, -3, 3), [rows, n], { dtype });
      expect(select(x.to('cuda'), k)).toEqual(select(x, k));
    }
  });

  test('equals, zeros of both signs, infinities, NaN', () => {
    const odd = [0, -0, NaN, Infinity, -Infinity, 1, 1, -1];
    const x = tensor(
      Float32Array.from({ length: 3 * 150 }, (_, i) => odd[((i * i) % 8) ^ (i % 3)]),
      [3, 150],
    );
    for (const k of [1, 20, 75, 149]) expect(select(x.to('cuda'), k)).toEqual(select(x, k));
  });
});

describe.skipIf(cuda.skip)('causalRanges on CUDA', () => {
  test('prefixes of rising lists', () => {
    const rising = (n: number, step: number): Int32Array => Int32Array.from({ length: 3 * n }, (_, i) => Math.floor((i % n) * step) + Math.floor(i / n)); // prettier-ignore
    const lists = [tensor(rising(41, 2.3), [1, 3, 41]), tensor(rising(20, 3.1), [1, 3, 20])];
    const ranges = ([q, k]: Tensor[]): number[] => ints(new TensorClass(native().causalRanges(q.handle, k.handle)));
    expect(ranges(lists.map((t) => t.to('cuda')))).toEqual(ranges(lists));
  });
});

test.skipIf(cuda.skip)('the last warp first: selection, span search and convolution as on the CPU', () => {
  const { value } = runScript(
    `const x = fovea.randn([2, 2, 60, 16], { seed: 1 }), centroids = fovea.randn([2, 4, 16], { seed: 6 });
     const image = fovea.randn([1, 6, 40, 33], { seed: 2 }), filter = fovea.randn([33, 1, 3, 3], { seed: 3 });
     const [q, k] = [4, 5].map((seed) => fovea.randn([1, 2, 40, 32], { seed }));
     const run = async (device) => {
       const leaf = filter.to(device).detach();
       leaf.requiresGrad = true;
       const out = fovea.depthwiseConv(image.to(device), leaf);
       const [g] = fovea.grad([fovea.sum(fovea.mul(out, out))], [leaf]);
       const spans = fovea.superlinearAttention(q.to(device), q.to(device), k.to(device), k.to(device), { swIndex: 1 });
       const routed = fovea.routingAttention(x.to(device), x.to(device), x.to(device), { centroids: centroids.to(device), window: 20 });
       return [...(await out.data()), ...(await g.data()), ...(await spans.data()), ...(await routed.data())];
     };
     const [cpu, gpu] = [await run('cpu'), await run('cuda')];
     give(Math.max(...cpu.map((v, i) => Math.abs(v - gpu[i]) / (1 + Math.abs(v)))));`,
    { SCHEDULE: 'last', ASYNC: 'early' },
  );
  expect(value).toBeLessThan(1e-4);
});
