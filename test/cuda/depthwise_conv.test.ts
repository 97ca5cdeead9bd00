/** Depth-wise convolution on CUDA: results and gradients of the CPU, which test/depthwise_conv.test.ts holds to double precision. */
import { describe, expect, test } from 'vitest';
import { cast, depthwiseConv, grad, permute, tensor, type DType, type Tensor } from '../../lib/index.ts';
import { uniform } from '../inputs.ts';
import { sizeOf } from '../reference.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const cases = [
  [[1, 1, 1, 1], [1, 1]],
  [[2, 9, 13, 5], [3, 3]],
  [[1, 5, 35, 40], [5, 5]],
  [[2, 3, 70, 33], [1, 9]],
  [[3, 40, 2, 8], [7, 3]],
  [[1, 3, 3, 2], [31, 15]],
] as const; // prettier-ignore

describe.skipIf(cuda.skip)('depthwiseConv on CUDA', () => {
  const results = (shape: readonly number[], filter: readonly number[], dtype: DType, device: 'cpu' | 'cuda'): ArrayLike<number>[] => {
    const c = shape[3];
    const leaf = (s: readonly number[], seed: number): Tensor =>
      tensor(uniform(sizeOf(s), seed), s, { dtype, device, requiresGrad: true });
    const leaves = [leaf(shape, 1), leaf([c, 1, ...filter], 2), leaf([c], 3)];
    const out = depthwiseConv(leaves[0], leaves[1], leaves[2]);
    const dy = leaf(shape, 4).detach();
    const grads = grad([out], leaves, { gradients: [dy] }) as Tensor[];
    return [out, ...grads].map((t) => cast(t.to('cpu'), 'f32').dataSync() as Float32Array);
  }; // prettier-ignore

  test.each(cases)('image %j, filter %j', (shape, filter) => {
    for (const dtype of ['f32', 'bf16', 'f16'] as DType[]) {
      const expected = results(shape, filter, dtype, 'cpu');
      results(shape, filter, dtype, 'cuda').forEach((t, i) => expectClose(t, expected[i], dtype, 2));
    }
  });

  test('strided images, and equal bits from equal calls', () => {
    const x = tensor(uniform(19 * 30, 5), [1, 19, 6, 5], { dtype: 'f32' });
    const w = tensor(uniform(19 * 9, 6), [19, 1, 3, 3], { dtype: 'f32' });
    const call = (device: 'cpu' | 'cuda'): ArrayLike<number> =>
      depthwiseConv(permute(x.to(device), [0, 2, 3, 1]), w.to(device))
        .to('cpu')
        .dataSync() as Float32Array;
    expectClose(call('cuda'), call('cpu'), 'f32');
    const first = results(cases[1][0], cases[1][1], 'f32', 'cuda');
    expect(results(cases[1][0], cases[1][1], 'f32', 'cuda')).toEqual(first);
  });
});
