/** Gradients of few keys seen by many queries on CUDA: tiles of keys shared by several blocks give the CPU's gradients, and one order of sums. */
import { describe, expect, test } from 'vitest';
import { attention, grad, tensor, type AttentionOptions, type DeviceName, type DType, type Tensor } from '../../lib/index.ts'; // prettier-ignore
import { numbers, uniform } from '../inputs.ts';
import { sizeOf } from '../reference.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();

interface Case {
  readonly name: string;
  /** [batch, query heads, key heads, queries, keys, dim, dim of v] */
  readonly size: readonly [number, number, number, number, number, number, number];
  readonly options?: AttentionOptions;
}

const cases: readonly Case[] = [
  { name: 'a tile of keys, a group of heads', size: [2, 4, 2, 301, 9, 16, 16] },
  { name: 'two tiles of keys, causal', size: [1, 2, 1, 530, 70, 24, 8], options: { causal: true } },
  { name: 'a window that ends within a part', size: [1, 1, 1, 700, 40, 32, 32], options: { window: [60, 300] } },
  { name: 'softcap, keys of a length', size: [2, 1, 1, 520, 33, 40, 40], options: { softcap: 5, kvLengths: [33, 7] } },
  { name: 'keys and values in kernels of their own', size: [1, 1, 1, 400, 5, 130, 200] },
];

function gradients(device: DeviceName, dtype: DType, { size, options }: Case): Tensor[] {
  const [b, h, hkv, lq, lkv, d, dv] = size;
  const shapes = [[b, h, lq, d], [b, hkv, lkv, d], [b, hkv, lkv, dv]]; // prettier-ignore
  const leaves = shapes.map((s, i) => tensor(uniform(sizeOf(s), i + 1), s, { dtype, device, requiresGrad: true }));
  const out = attention(leaves[0], leaves[1], leaves[2], options);
  const dout = tensor(uniform(sizeOf(out.shape), 4), out.shape, { dtype, device });
  return grad(out, leaves, { gradients: [dout] }) as Tensor[];
}

describe.skipIf(cuda.skip)('gradients of few keys on CUDA', () => {
  test.each(cases)('$name', (c) => {
    for (const dtype of ['f32', 'bf16'] as DType[]) {
      const here = gradients('cpu', dtype, c).map(numbers);
      gradients('cuda', dtype, c).forEach((t, i) => expectClose(numbers(t), here[i], dtype, 2));
    }
  });

  test('the same bits in any batch, and in equal calls', () => {
    const all = gradients('cuda', 'f32', cases[0]);
    const again = gradients('cuda', 'f32', cases[0]);
    all.forEach((t, i) => expect(numbers(again[i])).toEqual(numbers(t)));
    const alone = gradients('cuda', 'f32', { ...cases[0], size: [1, 4, 2, 301, 9, 16, 16] });
    alone.forEach((t, i) => expect(numbers(t)).toEqual(numbers(all[i]).subarray(0, t.size)));
  });
});
