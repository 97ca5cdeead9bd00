/** clusterTop on CUDA: the CPU's lists, exactly. Similarities have the same bits where the CPU fuses multiply-adds. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { clusterTop } from '../../lib/attention/kmeans.ts';
import { tensor, type DType, type Tensor } from '../../lib/index.ts';
import { laidOut, LAYOUTS, numbers, uniform } from '../inputs.ts';
import { sizeOf } from '../reference.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const lists = (x: Tensor, centroids: Tensor, count: number): number[] => [...numbers(clusterTop(x, centroids, count).to('cpu'))]; // prettier-ignore

function expectSame(x: Tensor, centroids: Tensor, count: number): void {
  expect(lists(x.to('cuda'), centroids.to('cuda'), count)).toEqual(lists(x, centroids, count));
}

describe.skipIf(cuda.skip)('clusterTop on CUDA', () => {
  test('any sizes', () => {
    const sizes = fc.tuple(fc.integer({ min: 1, max: 2 }), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 150 }), fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 40 }), fc.nat()); // prettier-ignore
    fc.assert(
      fc.property(sizes, ([batch, heads, length, clusters, dim, seed]) => {
        const [shape, table] = [[batch, heads, length, dim], [heads, clusters, dim]]; // prettier-ignore
        const x = tensor(uniform(sizeOf(shape), seed), shape, { dtype: 'f32' });
        expectSame(x, tensor(uniform(sizeOf(table), seed + 1), table, { dtype: 'f32' }), 1 + (seed % length));
      }),
      { numRuns: 15 },
    );
  });

  test('any layout and dtype', () => {
    const shape = [2, 2, 37, 24];
    const centroids = tensor(uniform(2 * 5 * 24, 4), [2, 5, 24], { dtype: 'f32' });
    for (const layout of LAYOUTS)
      for (const dtype of ['f32', 'bf16', 'f16'] as DType[])
        expectSame(laidOut(layout, shape, uniform(sizeOf(shape), 3), dtype), centroids, 9);
  });

  test('of equals the first; a token without direction is similar to nothing; NaN is nearest', () => {
    const token = [3, -1, 2, 0.5];
    const rows = Array.from({ length: 60 }, (_, t) => (t % 3 === 0 ? [0, 0, 0, 0] : t === 40 ? [NaN, 0, 0, 0] : token));
    const x = tensor(rows.flat(), [1, 1, 60, 4], { device: 'cuda' });
    const list = (sign: number): number[] => lists(x, tensor(token.map((v) => sign * v), [1, 1, 4], { device: 'cuda' }), 5); // prettier-ignore
    expect(list(1)).toEqual([1, 2, 4, 5, 40]);
    expect(list(-1)).toEqual([0, 3, 6, 9, 40]);
  });

  test.each([1, 55, 1700, 3000])('the best %d of long rows', (count) => {
    const x = tensor(uniform(3000 * 16, 8), [1, 1, 3000, 16], { dtype: 'f32' });
    expectSame(x, tensor(uniform(9 * 16, 9), [1, 9, 16], { dtype: 'f32' }), count);
  });

  test('more similarities than are held at a time: lists and clusters in parts', () => {
    const x = tensor(uniform(2 * 65_540, 10), [2, 1, 65_540, 1], { dtype: 'f32' });
    const centroids = tensor(uniform(65, 11), [1, 65, 1], { dtype: 'f32' });
    expectSame(x, centroids, 3);
  });

  test('nothing to take', () => {
    const centroids = tensor([1, 2], [1, 1, 2], { dtype: 'f32', device: 'cuda' });
    expect(lists(tensor([1, 2, 3, 4], [1, 1, 2, 2], { dtype: 'f32', device: 'cuda' }), centroids, 0)).toEqual([]);
    expect(lists(tensor([], [0, 1, 2, 2], { dtype: 'f32', device: 'cuda' }), centroids, 1)).toEqual([]);
  });
});
