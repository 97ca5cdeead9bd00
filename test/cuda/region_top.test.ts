/** regionTop on CUDA: the CPU's regions. Integers and sides of powers of two make means and products exact, so the order of ties is too. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { biLevelRoutingAttention, tensor, type DType, type Tensor } from '../../lib/index.ts';
import { native } from '../../lib/native.ts';
import { Tensor as TensorClass } from '../../lib/tensor/tensor.ts';
import { laidOut, LAYOUTS, numbers, uniform } from '../inputs.ts';
import { sizeOf } from '../reference.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();

type Integers = readonly [regionHeight: number, regionWidth: number, down: number, across: number, top: number];

function regionTop(q: Tensor, k: Tensor, integers: Integers, scale: number): [indices: number[], affinities: number[]] {
  const results = native().regionTop(q.handle, k.handle, integers, scale);
  return results.map((handle) => [...numbers(new TensorClass(handle).to('cpu'))]) as [number[], number[]];
}

const small = (n: number, seed: number): Float64Array => uniform(n, seed, -2.49, 2.49).map(Math.round);
const onCuda = (t: Tensor): Tensor => t.to('cuda');

describe.skipIf(cuda.skip)('regionTop on CUDA', () => {
  test('regions, their order and affinities for any sizes, full of ties', () => {
    const side = fc.tuple(fc.constantFrom(1, 2, 4), fc.integer({ min: 1, max: 5 }));
    const sizes = fc.tuple(fc.integer({ min: 1, max: 2 }), side, side, fc.integer({ min: 1, max: 70 }), fc.nat());
    fc.assert(
      fc.property(sizes, ([batch, [rh, down], [rw, across], channels, seed]) => {
        const shape = [batch, rh * down, rw * across, channels];
        const [q, k] = [seed, seed + 1].map((s) => tensor(small(sizeOf(shape), s), shape, { dtype: 'f32' }));
        const integers = [rh, rw, down, across, 1 + (seed % (down * across))] as const;
        expect(regionTop(onCuda(q), onCuda(k), integers, 0.5)).toEqual(regionTop(q, k, integers, 0.5));
      }),
      { numRuns: 15 },
    );
  });

  test('any layout and dtype', () => {
    const shape = [2, 6, 8, 20];
    for (const layout of LAYOUTS)
      for (const dtype of ['f32', 'bf16', 'f16'] as DType[]) {
        const [q, k] = [1, 2].map((s) => laidOut(layout, shape, small(sizeOf(shape), s), dtype));
        expect(regionTop(onCuda(q), onCuda(k), [2, 2, 3, 4, 5], 1)).toEqual(regionTop(q, k, [2, 2, 3, 4, 5], 1));
      }
  });

  test.each<[string, number[], Integers]>([
    ['ragged edges', [2, 11, 13, 9], [3, 4, 4, 4, 6]],
    ['more regions than threads', [1, 17, 18, 3], [1, 1, 17, 18, 290]],
    ['more channels than threads', [1, 4, 4, 1100], [2, 2, 2, 2, 3]],
    ['regions of many pixels', [1, 70, 66, 5], [35, 33, 2, 2, 4]],
  ])('%s', (_name, shape, integers) => {
    const [q, k] = [3, 4].map((s) => tensor(uniform(sizeOf(shape), s), shape, { dtype: 'f32' }));
    const [here, there] = [regionTop(q, k, integers, 1), regionTop(onCuda(q), onCuda(k), integers, 1)];
    expect(there[0]).toEqual(here[0]);
    expectClose(Float64Array.from(there[1]), Float64Array.from(here[1]));
  });

  test('equals by region, NaN first', () => {
    const q = tensor(Array<number>(6).fill(1), [1, 1, 6, 1]);
    const k = tensor([2, NaN, 2, 5, NaN, 2], [1, 1, 6, 1]);
    const [indices] = regionTop(onCuda(q), onCuda(k), [1, 1, 1, 6, 5], 1);
    for (let r = 0; r < 6; r++) expect(indices.slice(5 * r, 5 * r + 5)).toEqual([1, 4, 3, 0, 2]);
  });

  test('no images', () => {
    const none = tensor([], [0, 4, 4, 2], { dtype: 'f32', device: 'cuda' });
    expect(regionTop(none, none, [2, 2, 2, 2, 1], 1)).toEqual([[], []]);
  });

  test('biLevelRoutingAttention sends regions where the CPU does', () => {
    const shape = [2, 9, 8, 8];
    const [q, k, v] = [5, 6, 7].map((s) => tensor(uniform(sizeOf(shape), s), shape, { dtype: 'f32' }));
    const run = (place: (t: Tensor) => Tensor): Float64Array[] => {
      const { out, routing } = biLevelRoutingAttention(place(q), place(k), place(v), { heads: 2, regions: 4, topK: 3, returnRouting: true }); // prettier-ignore
      return [routing.indices, routing.weights, out].map((t) => numbers(t.to('cpu')));
    };
    const [here, there] = [run((t) => t), run(onCuda)];
    expect(there[0]).toEqual(here[0]);
    for (const i of [1, 2]) expectClose(there[i], here[i]);
  });
});
