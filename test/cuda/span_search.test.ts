/** Span search and the order of spans on CUDA. Scores of small integers are exact, so anchors are compared number by number. */
import { describe, expect, test } from 'vitest';
import {
  cast,
  grad,
  reshape,
  slice,
  spanSearch,
  tensor,
  type DType,
  type SpanSearchOptions,
  type Tensor,
} from '../../lib/index.ts';
import { native } from '../../lib/native.ts';
import { Tensor as TensorClass } from '../../lib/tensor/tensor.ts';
import { uniform } from '../inputs.ts';
import { sizeOf } from '../reference.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const numbers = (t: Tensor): number[] => Array.from(cast(t.to('cpu'), 'f32').dataSync() as Float32Array);

/** Integers from -2 to 2: their dot products are exact in any order, and full of ties. */
const integers = (shape: number[], seed: number, dtype: DType): Tensor =>
  tensor(uniform(sizeOf(shape), seed, -2.49, 2.49).map(Math.round), shape, { dtype });

interface Case {
  readonly name: string;
  /** [batch, query heads, key heads, queries, keys, dim] */
  readonly size: readonly [number, number, number, number, number, number];
  readonly options: SpanSearchOptions;
  readonly masked?: boolean;
}

const short = { swIndex: 1, searchPower: 0.5, spanPower: 0.5 };
const cases: readonly Case[] = [
  { name: 'dim 128', size: [1, 2, 1, 20, 90, 128], options: { ...short, numSpans: 3 } },
  { name: 'dim 64, many spans', size: [1, 1, 1, 9, 700, 64], options: { ...short, numSpans: 16 } },
  { name: 'odd sizes, batch, groups of heads', size: [2, 6, 2, 7, 61, 5], options: { ...short, swIndex: 0 } },
  { name: 'three steps', size: [1, 2, 2, 13, 130, 24], options: { swIndex: 1, steps: 3, numSpans: 4 } },
  { name: 'four steps with a mask', size: [2, 2, 1, 9, 200, 16], options: { swIndex: 0, steps: 4 }, masked: true },
  { name: 'a mask', size: [2, 2, 1, 20, 40, 32], options: { ...short, numSpans: 2 }, masked: true },
  { name: 'a chunk in the middle', size: [1, 1, 1, 10, 90, 16], options: { ...short, cachePosition: 33 } },
  { name: 'queries beyond the keys', size: [1, 1, 1, 10, 20, 16], options: { ...short, cachePosition: 40 } },
]; // prettier-ignore

describe.skipIf(cuda.skip)('spanSearch on CUDA', () => {
  test.each(cases)('$name', ({ size: [b, hq, hkv, lq, lk, d], options, masked = false }) => {
    // All of one sequence is hidden, the other begins late and has holes.
    const keyMask = masked ? tensor(Uint8Array.from({ length: b * lk }, (_, i) => Number(i < lk && i > 5 && i % 7 !== 0)), [b, lk], { dtype: 'bool' }) : null; // prettier-ignore
    for (const dtype of ['f32', 'bf16', 'f16'] as DType[]) {
      const [q, k] = [integers([b, hq, lq, d], 1, dtype), integers([b, hkv, lk, d], 2, dtype)];
      const found = (place: (t: Tensor) => Tensor): number[][] => {
        const { anchors, scores, ranges } = spanSearch(place(q), place(k), { ...options, ...(keyMask && { keyMask: place(keyMask) }) }); // prettier-ignore
        return [anchors, scores, ranges].map(numbers);
      };
      expect(found((t) => t.to('cuda'))).toEqual(found((t) => t));
    }
  });

  test('views whose rows are not aligned, and gradients', () => {
    const wide = [integers([1, 2, 11, 24], 3, 'f32'), integers([1, 1, 60, 24], 4, 'f32')];
    const run = (device: 'cpu' | 'cuda'): number[][] => {
      const leaves = wide.map((t) => t.to(device).detach());
      for (const t of leaves) t.requiresGrad = true;
      const { scores, anchors } = spanSearch(slice(leaves[0], 3, 1, 21), slice(leaves[1], 3, 3, 23), short);
      const ds = tensor(uniform(scores.size, 5), scores.shape, { dtype: 'f32', device });
      return [anchors, ...(grad([scores], leaves, { gradients: [ds] }) as Tensor[])].map(numbers);
    };
    const [here, there] = [run('cpu'), run('cuda')];
    expect(there[0]).toEqual(here[0]);
    for (const i of [1, 2]) expectClose(there[i], here[i], 'f32', 2);
  });
});

describe.skipIf(cuda.skip)('spanOrder on CUDA', () => {
  const order = (ranges: Tensor, kvHeads: number, keys: number): Tensor[] =>
    native().spanOrder(ranges.handle, kvHeads, keys).map((handle) => new TensorClass(handle)); // prettier-ignore

  test.each([
    [1, 2, 1, 300, 3, 4000],
    [2, 4, 2, 17, 2, 70],
    [1, 1, 1, 1, 1, 5],
  ])('batch %d, heads %d of %d, %d queries, %d spans, %d keys', (b, h, hkv, queries, spans, keys) => {
    const begins = uniform(b * h * queries * spans, 7, 0, keys);
    const list = Int32Array.from({ length: 2 * begins.length }, (_, i) => {
      const begin = Math.floor(begins[i >> 1]);
      return i % 2 ? Math.min(keys, begin + ((i >> 1) % 9)) : begin;
    });
    const ranges = tensor(list, [b, h, queries, spans, 2]);
    expect(order(ranges.to('cuda'), hkv, keys).map(numbers)).toEqual(order(ranges, hkv, keys).map(numbers));
  });

  test('ranges that begin anywhere in memory', () => {
    const flat = tensor(Int32Array.from([9, 0, 3, 64, 70, 2, 2]), [7]);
    const results = (t: Tensor): number[][] => order(reshape(slice(t, 0, 1), [1, 1, 1, 3, 2]), 1, 80).map(numbers);
    expect(results(flat.to('cuda'))).toEqual(results(flat));
  });

  test('a span outside the keys rejects and is named', async () => {
    const ranges = tensor(Int32Array.from([0, 3, 2, 11]), [1, 1, 1, 2, 2]).to('cuda');
    await expect(order(ranges, 1, 10)[0].data()).rejects.toMatchObject({
      code: 'ERR_INDEX',
      message: expect.stringContaining('span 1 is [2, 11) of 10 keys') as string,
    });
  });
});
