/** neighborhoodQK and neighborhoodAV on CUDA: values and gradients as on the CPU, where tests hold them to neighborhoodAttention. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  grad,
  neighborhoodAV,
  neighborhoodQK,
  softmax,
  tensor,
  type DeviceName,
  type Tensor,
} from '../../lib/index.ts';
import { numbers, uniform } from '../inputs.ts';
import { randomAxes, type Case } from '../neighborhood_cases.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();

/** Logits, their product with the values, and the gradients of both. */
function results({ batch, space, heads, kvHeads, dim, dimV, options, dtype = 'f32' }: Case, device: DeviceName) {
  const tokens = space.reduce((n, x) => n * x, 1);
  const make = (h: number, d: number, seed: number): Tensor => {
    const values = uniform(batch * tokens * h * d, seed);
    return tensor(values, [batch, ...space, h, d], { dtype, device, requiresGrad: true });
  };
  const leaves = [make(heads, dim, 1), make(kvHeads, dim, 2), make(kvHeads, dimV, 3)] as const;
  const logits = neighborhoodQK(leaves[0], leaves[1], options);
  const out = neighborhoodAV(softmax(logits, -1), leaves[2], options);
  const up = tensor(uniform(out.size, 4), out.shape, { dtype: 'f32', device });
  const grads = grad(out, [...leaves], { gradients: [up] }) as Tensor[];
  return [logits, out, ...grads].map((t) => {
    expect(t.device).toBe(device === 'cpu' ? 'cpu' : 'cuda:0');
    return numbers(t);
  });
}

function check(c: Case): void {
  const here = results(c, 'cpu');
  results(c, 'cuda').forEach((got, i) => expectClose([...got, 0.2], [...here[i], 0.2], c.dtype, 2));
}

describe.skipIf(cuda.skip)('unfused neighborhood products on CUDA', () => {
  const base = { batch: 2, heads: 2, kvHeads: 2, dim: 8, dimV: 8 };
  test.each<Case>([
    { ...base, space: [1], options: { kernelSize: 1 }, dim: 1, dimV: 1 },
    { ...base, space: [40], options: { kernelSize: 17 }, dim: 33, dimV: 70 },
    { ...base, space: [23], options: { kernelSize: 4, stride: 3, dilation: 3, causal: true } },
    { ...base, space: [9, 11], options: { kernelSize: 5 }, heads: 4, dtype: 'bf16' },
  ])('$space $options', check);

  test('random shapes and settings', () => {
    fc.assert(
      fc.property(
        randomAxes(150),
        fc.constantFrom([1, 1], [4, 2]),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 9 }),
        (axes, [heads, kvHeads], dim, dimV) => check({ batch: 1, ...axes, heads, kvHeads, dim, dimV }),
      ),
      { numRuns: 40 },
    );
  });
});
