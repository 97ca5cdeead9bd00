/** Mask functions of the library on CUDA: output and gradients are those of attention on the CPU with the golden pairs as a mask tensor. */
import { describe, expect, test } from 'vitest';
import { attention, grad, tensor, type Tensor } from '../../lib/index.ts';
import { goldenMasks, type GoldenMask } from '../golden_masks.ts';
import { random } from '../reference_matmul.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda({}, 1 << 17);

function results({ mask, length, shown }: GoldenMask, device: 'cpu' | 'cuda'): ArrayLike<number>[] {
  const of = (seed: number): Tensor => random([1, 2, length, 16], 'f32', seed).t.to(device).detach();
  const leaves = [of(1), of(2), of(3)] as const;
  for (const t of leaves) t.requiresGrad = true;
  const pairs = tensor(Uint8Array.from(shown), [length, length], { dtype: 'bool' });
  const out = attention(...leaves, { mask: device === 'cpu' ? pairs : mask });
  const gradients = grad([out], [...leaves], { gradients: [of(4)] }) as Tensor[];
  return [out, ...gradients].map((t) => t.to('cpu').dataSync() as Float32Array);
}

describe.skipIf(cuda.skip)('masks on CUDA', () => {
  test.each(goldenMasks())('$name', (golden) => {
    const here = results(golden, 'cpu');
    const there = results(golden, 'cuda');
    expect(there.length).toBe(here.length);
    for (const [i, actual] of there.entries()) expectClose(actual, here[i], 'f32', 2);
  });
});
