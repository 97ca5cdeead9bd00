/** haloAttention() on CUDA: the CPU's results in every dtype (golden vectors: test/halo.test.ts). */
import { describe, expect, test } from 'vitest';
import { grad, haloAttention, tensor, type DeviceName, type DType, type Tensor } from '../../lib/index.ts';
import { numbers, uniform } from '../inputs.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();

/** Output and gradients of queries at every `stride`-th pixel, with relative positions. */
function results(device: DeviceName, dtype: DType, stride: number): Float64Array[] {
  const make = (shape: readonly number[], seed: number): Tensor =>
    tensor(uniform(shape.reduce((n, x) => n * x, 1), seed), shape, { dtype, device, requiresGrad: true }); // prettier-ignore
  const [q, k, v] = [make([2, 8 / stride, 12 / stride, 2, 8], 1), make([2, 8, 12, 2, 8], 2), make([2, 8, 12, 2, 5], 3)];
  const relative = { height: make([11, 8], 4), width: make([11, 8], 5) };
  const out = haloAttention(q, k, v, { blockSize: 4, haloSize: 1, relative });
  expect(out.device).toBe(q.device);
  const grads = grad(out, [q, k, v, relative.height, relative.width], { gradients: [out.detach()] }) as Tensor[];
  return [out, ...grads].map(numbers);
}

describe.skipIf(cuda.skip)('haloAttention on CUDA', () => {
  test.each([
    ['f32', 1],
    ['bf16', 1],
    ['f16', 2],
  ] as const)('%s, stride %i: as on the CPU', (dtype, stride) => {
    // prettier-ignore
    const here = results('cpu', dtype, stride);
    results('cuda', dtype, stride).forEach((got, i) => expectClose(got, here[i], dtype, 2));
  });
});
