/** Convolution, pooling and batch normalisation on CUDA: results and gradients of the CPU, whose tests hold them to double precision. */
import { describe, expect, test } from 'vitest';
import { avgPool2d, batchNorm, batchStatistics, cast, conv2d, grad, maxPool2d, tensor, type DType, type Tensor } from '../../lib/index.ts'; // prettier-ignore
import { uniform } from '../inputs.ts';
import { sizeOf } from '../reference.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda({}, 0);

describe.skipIf(cuda.skip)('images on CUDA', () => {
  const results = (
    shapes: readonly (readonly number[])[],
    op: (...inputs: Tensor[]) => Tensor,
    dtype: DType,
    device: 'cpu' | 'cuda',
  ): ArrayLike<number>[] => {
    const leaves = shapes.map((s, i) => tensor(uniform(sizeOf(s), i + 1), s, { dtype, device, requiresGrad: true }));
    const out = op(...leaves);
    const dy = tensor(uniform(out.size, 9), out.shape, { dtype, device });
    const grads = grad([out], leaves, { gradients: [dy] }) as Tensor[];
    return [out, ...grads].map((t) => cast(t.to('cpu'), 'f32').contiguous().dataSync() as Float32Array);
  };

  const same = (shapes: readonly (readonly number[])[], op: (...inputs: Tensor[]) => Tensor): void => {
    for (const dtype of ['f32', 'bf16'] as const) {
      const expected = results(shapes, op, dtype, 'cpu');
      const got = results(shapes, op, dtype, 'cuda');
      got.forEach((t, i) => expectClose(t, expected[i], dtype, 2));
      expect(results(shapes, op, dtype, 'cuda')).toEqual(got);
    }
  };

  test.each([
    [[2, 3, 9, 11], [8, 3, 3, 3], { stride: 2, padding: 1 }],
    [[1, 5, 4, 6], [7, 5, 1, 1], {}],
    [[1, 4, 8, 7], [6, 2, 2, 3], { groups: 2, dilation: [2, 1], stride: [1, 3], padding: 2 }],
    [[2, 6, 7, 5], [6, 1, 3, 3], { groups: 6, stride: 2, padding: 1 }],
  ] as const)('conv2d: x %j, weight %j, %j', (shape, filter, options) =>
    same([shape, filter, [filter[0]]], (x, w, b) => conv2d(x, w, b, options)),
  );

  test('pooling', () => {
    same([[2, 3, 9, 7]], (x) => maxPool2d(x, 3, { stride: 2, padding: 1 }));
    same([[2, 3, 9, 7]], (x) => avgPool2d(x, [3, 2], { padding: 1, countPadding: false }));
  });

  test('batchNorm with statistics of the batch', () =>
    same([[3, 5, 4, 2], [5], [5]], (x, w, b) => batchNorm(x, batchStatistics(x), w, b)));
});
