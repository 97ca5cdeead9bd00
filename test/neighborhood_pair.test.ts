/** neighborhoodQK and neighborhoodAV: with a softmax between they are neighborhoodAttention, values and gradients. */
import { describe, expect, test } from 'vitest';
import {
  cast,
  grad,
  neighborhoodAttention,
  neighborhoodAV,
  neighborhoodQK,
  softmax,
  tensor,
  type DType,
  type NeighborhoodWindow,
  type Tensor,
} from '../lib/index.ts';
import { native } from '../lib/native.ts';
import { numbers, uniform } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { expectClose } from './tolerance.ts';

interface Case {
  readonly space: readonly number[];
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly dim?: number;
  readonly dimV?: number;
  readonly window: NeighborhoodWindow;
}

const cases: readonly Case[] = [
  { space: [1], window: { kernelSize: 1 }, dim: 1, dimV: 1 },
  { space: [40], window: { kernelSize: 17 }, dim: 33, dimV: 70 },
  { space: [23], window: { kernelSize: 4, stride: 3, dilation: 3, causal: true } },
  { space: [9, 11], window: { kernelSize: 5 }, heads: 4, kvHeads: 2 },
  { space: [8, 12], window: { kernelSize: [3, 4], stride: [2, 1], dilation: [2, 3], causal: [false, true] } },
  { space: [4, 5, 6], window: { kernelSize: [2, 3, 4] }, dim: 16 },
];

function inputsOf({ space, heads = 2, kvHeads = heads, dim = 8, dimV = dim }: Case, dtype: DType = 'f32'): Tensor[] {
  const tokens = space.reduce((n, x) => n * x, 1);
  const shapes = [
    [heads, dim],
    [kvHeads, dim],
    [kvHeads, dimV],
  ];
  return shapes.map(([h, d], i) => {
    const t = cast(tensor(uniform(2 * tokens * h * d, i + 1), [2, ...space, h, d], { dtype: 'f32' }), dtype);
    t.requiresGrad = true;
    return t;
  });
}

describe.each(LEVELS)('%s', (level) => {
  test.each(cases)('fused and unfused agree: $space $window', (c) => {
    const [q, k, v] = inputsOf(c);
    atLevel(level, () => {
      const fused = neighborhoodAttention(q, k, v, c.window);
      const weights = softmax(neighborhoodQK(q, k, c.window), -1);
      const apart = neighborhoodAV(weights, v, c.window);
      expectClose(numbers(apart), numbers(fused));
      const up = tensor(uniform(fused.size, 9), fused.shape, { dtype: 'f32' });
      const wanted = grad(fused, [q, k, v], { gradients: [up] });
      const got = grad(apart, [q, k, v], { gradients: [up] });
      got.forEach((g, i) =>
        expectClose([...numbers(g as Tensor), 0.2], [...numbers(wanted[i] as Tensor), 0.2], 'f32', 3),
      );
    });
  });

  test('plain loops give the same', () => {
    const [q, k, v] = inputsOf({ space: [9, 10], window: { kernelSize: 3 } });
    atLevel(level, () => {
      const out = native().neighborhoodLoops(q.handle, k.handle, v.handle, [3, 1, 1, 0, 3, 1, 1, 0], 8 ** -0.5);
      const bytes = native().readSync(out);
      native().release(out);
      expectClose(new Float32Array(bytes), numbers(neighborhoodAttention(q, k, v, { kernelSize: 3 })));
    });
  });
});

test('logits are the products, -inf beyond a causal window', () => {
  const q = tensor([1, 2, 3], [1, 3, 1, 1], { dtype: 'f32' });
  const logits = numbers(neighborhoodQK(q, q, { kernelSize: 2, causal: true, scale: 1 }));
  expect([...logits]).toEqual([1, -Infinity, 2, 4, 6, 9]);
});

test('bf16 operands', () => {
  const c = cases[3];
  const [q, k, v] = inputsOf(c, 'bf16');
  const out = neighborhoodAV(softmax(neighborhoodQK(q, k, c.window), -1), v, c.window);
  expectClose(numbers(out), numbers(neighborhoodAttention(q, k, v, c.window)), 'bf16');
  expect((grad(out, [q], { gradients: [out.detach()] })[0] as Tensor).dtype).toBe('bf16');
});

test('the same bits for any number of threads', () => {
  const c = cases[3];
  const [q, k] = inputsOf(c);
  expectSameBitsForAnyThreads(() => neighborhoodQK(q, k, c.window));
  expectSameBitsForAnyThreads(() => {
    const logits = neighborhoodQK(q, k, c.window);
    return grad(logits, [k], { gradients: [logits.detach()] })[0] as Tensor;
  });
});

test('weights must have a slot per key of the window', () => {
  const [, , v] = inputsOf(cases[3]);
  const wrong = tensor(new Float32Array(2 * 9 * 11 * 4 * 24), [2, 9, 11, 4, 24], { dtype: 'f32' });
  expect(() => neighborhoodAV(wrong, v, { kernelSize: 5 })).toThrow(/slots|weights/);
  expect(() => neighborhoodQK(v, wrong, { kernelSize: 5 })).toThrow(/neighborhoodQK/);
});
