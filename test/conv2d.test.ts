import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  cast,
  Conv2d,
  conv2d,
  grad,
  permute,
  sum,
  tensor,
  zeros,
  type Conv2dOptions,
  type Tensor,
} from '../lib/index.ts';
import { checkGradients, noise, sizeOf } from './gradient_check.ts';
import { laidOut, LAYOUTS, numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { plainConv2d } from './plain_images.ts';
import { expectClose } from './tolerance.ts';

type Case = readonly [x: readonly number[], weight: readonly number[], options: Conv2dOptions];

const cases: readonly Case[] = [
  [[1, 1, 1, 1], [1, 1, 1, 1], {}],
  [[2, 3, 4, 5], [4, 3, 3, 3], { padding: 1 }],
  [[1, 2, 7, 6], [3, 2, 3, 3], { stride: 2, padding: 1 }],
  [[1, 2, 6, 7], [2, 2, 2, 2], { stride: 2 }],
  [[1, 2, 5, 6], [3, 2, 1, 1], { stride: 2 }],
  [[2, 5, 3, 2], [3, 5, 1, 1], {}],
  [[1, 2, 9, 8], [2, 2, 3, 2], { stride: [3, 2], padding: [2, 1], dilation: [2, 3] }],
  [[1, 1, 8, 8], [2, 1, 2, 2], { stride: 4, padding: 1, dilation: 2 }],
  [[1, 4, 5, 5], [6, 2, 3, 3], { groups: 2, padding: 1, stride: 2 }],
  [[1, 3, 5, 4], [3, 1, 3, 3], { groups: 3, padding: 1 }],
  [[1, 2, 6, 5], [4, 1, 2, 3], { groups: 2, stride: 2, padding: [2, 0] }],
  [[1, 2, 7, 7], [2, 1, 3, 2], { groups: 2, dilation: 2, padding: 3, stride: [1, 3] }],
  [[1, 2, 4, 9], [2, 1, 1, 3], { groups: 2, dilation: [3, 2] }],
]; // prettier-ignore

const noisy = (shape: readonly number[], seed: number): Tensor =>
  tensor(noise(sizeOf(shape), seed), shape, { dtype: 'f32' });

describe('conv2d', () => {
  it.each(cases)('x %j, weight %j, %j: values and gradients, in both layouts', (shape, filter, options) => {
    checkGradients({
      shapes: [shape, filter, [filter[0]]],
      op: (x, w, b) => conv2d(x, w, b, options),
      reference: (x, w, b) => plainConv2d(x, shape, w, filter, b, options).values,
    });
    const [x, w] = [noisy(shape, 1), noisy(filter, 2)];
    const expected = plainConv2d(numbers(x), shape, numbers(w), filter, null, options);
    const last = conv2d(permute(x, [0, 2, 3, 1]), w, null, { ...options, layout: 'nhwc' });
    expect(permute(last, [0, 3, 1, 2]).shape).toEqual(expected.shape);
    expectClose(numbers(permute(last, [0, 3, 1, 2])), expected.values);
  });

  it('random shapes and options', () => {
    const small = (most: number): fc.Arbitrary<number> => fc.integer({ min: 1, max: most });
    const pair = (min: number, max: number): fc.Arbitrary<[number, number]> =>
      fc.tuple(fc.integer({ min, max }), fc.integer({ min, max }));
    const anyCase = fc.record({ batch: fc.integer({ min: 0, max: 2 }), groups: small(3), each: small(3), out: small(3), kernel: pair(1, 4), stride: pair(1, 4), padding: pair(0, 4), dilation: pair(1, 3), extra: pair(0, 7), layout: fc.constantFrom(...LAYOUTS) }); // prettier-ignore
    fc.assert(
      fc.property(anyCase, ({ batch, groups, each, out, kernel, stride, padding, dilation, extra, layout }) => {
        const options = { stride, padding, dilation, groups };
        const needed = [0, 1].map((i) => Math.max(1, (kernel[i] - 1) * dilation[i] + 1 - 2 * padding[i]) + extra[i]);
        const shape = [batch, groups * each, ...needed];
        const filter = [groups * out, each, ...kernel];
        const x = laidOut(layout, shape, noise(sizeOf(shape), 3), 'f32').detach();
        const w = laidOut(layout, filter, noise(sizeOf(filter), 4), 'f32').detach();
        x.requiresGrad = w.requiresGrad = true;
        const y = conv2d(x, w, null, options);
        const expected = plainConv2d(numbers(x), shape, numbers(w), filter, null, options);
        expect(y.shape).toEqual(expected.shape);
        expectClose(numbers(y), expected.values);
        // <y(x, w), g> is linear in each: so its derivatives along x and along w are the value itself.
        if (batch === 0) return;
        const g = noisy(y.shape, 5);
        const value = numbers(y).reduce((total, v, i) => total + v * numbers(g)[i], 0);
        const scale = numbers(y).reduce((total, v, i) => total + Math.abs(v * numbers(g)[i]), 1);
        const grads = grad(y, [x, w], { gradients: [g] }) as Tensor[];
        [x, w].forEach((t, i) => {
          const along = numbers(sum(t.detach().mul(grads[i])))[0];
          expect(Math.abs(along - value) / scale).toBeLessThan(1e-5);
        });
      }),
      { numRuns: 60 },
    );
  });

  it.each(LEVELS)('at level %s, every dtype', (level) => {
    atLevel(level, () => {
      const [shape, filter, options] = [[2, 19, 7, 9], [17, 19, 3, 3], { stride: 2, padding: 1 }]; // prettier-ignore
      const [x, w, b] = [noisy(shape, 1), noisy(filter, 2), noisy([17], 3)];
      const expected = plainConv2d(numbers(x), shape, numbers(w), filter, numbers(b), options).values;
      for (const dtype of ['f32', 'bf16', 'f16', 'f64'] as const) {
        const y = conv2d(cast(x, dtype), cast(w, dtype), cast(b, dtype), options);
        expect(y.dtype).toBe(dtype);
        const rounded = [x, w, b].map((t) => numbers(cast(t, dtype)));
        const own = plainConv2d(rounded[0], shape, rounded[1], filter, rounded[2], options).values;
        expectClose(numbers(y), dtype === 'f32' ? expected : own, dtype);
      }
    });
  });

  it('gradients of 16-bit images follow those of f32', () => {
    const grads = (dtype: 'f32' | 'bf16'): Tensor[] => {
      const leaves = [noisy([1, 8, 6, 6], 1), noisy([8, 8, 3, 3], 2), noisy([8], 3)].map((t) => cast(cast(t, 'bf16'), dtype).detach()); // prettier-ignore
      for (const t of leaves) t.requiresGrad = true;
      const y = conv2d(leaves[0], leaves[1], leaves[2], { padding: 1 });
      return grad(y, leaves, { gradients: [cast(noisy(y.shape, 4), dtype)] }) as Tensor[];
    };
    const expected = grads('f32');
    grads('bf16').forEach((g, i) => {
      expect(g.dtype).toBe('bf16');
      expectClose(numbers(g), numbers(expected[i]), 'bf16', 2);
    });
  });

  it('gives the same bits for any number of threads, and a row the same in any batch', () => {
    const [x, w] = [noisy([3, 16, 9, 9], 1), noisy([8, 16, 3, 3], 2)];
    expectSameBitsForAnyThreads(() => conv2d(x, w, null, { padding: 1, layout: 'nchw' }).contiguous());
    const whole = numbers(conv2d(x, w));
    const second = numbers(conv2d(x.slice(0, 1, 2), w));
    expect([...second]).toEqual([...whole.slice(whole.length / 3, (2 * whole.length) / 3)]);
  });

  it('refuses what does not fit', () => {
    const x = zeros([1, 4, 5, 5]);
    const refused = (code: string, fn: () => unknown): void =>
      expect(fn).toThrow(expect.objectContaining({ code }) as Error);
    refused('ERR_SHAPE', () => conv2d(zeros([4, 5, 5]), zeros([1, 4, 3, 3])));
    refused('ERR_SHAPE', () => conv2d(x, zeros([1, 3, 3, 3])));
    refused('ERR_SHAPE', () => conv2d(x, zeros([3, 2, 3, 3]), null, { groups: 2 }));
    refused('ERR_SHAPE', () => conv2d(x, zeros([1, 4, 6, 6])));
    refused('ERR_SHAPE', () => conv2d(x, zeros([2, 4, 3, 3]), zeros([3])));
    refused('ERR_ARGUMENT', () => conv2d(x, zeros([1, 4, 3, 3]), null, { stride: 0 }));
    refused('ERR_ARGUMENT', () => conv2d(x, zeros([1, 4, 3, 3]), null, { padding: [1, -1] }));
    refused('ERR_ARGUMENT', () => conv2d(x, zeros([1, 4, 3, 3]), null, { groups: 1.5 }));
    refused('ERR_ARGUMENT', () => conv2d(x, zeros([1, 4, 3, 3]), null, { layout: 'chwn' as 'nchw' }));
    refused('ERR_DTYPE', () => conv2d(x, cast(zeros([1, 4, 3, 3]), 'bf16')));
    refused('ERR_DTYPE', () => conv2d(x, zeros([2, 2, 3, 3]), cast(zeros([2]), 'bf16'), { groups: 2 }));
    refused('ERR_ARGUMENT', () => new Conv2d(4, 6, 3, { groups: 4 }));
  });

  it('Conv2d has the keys and shapes of PyTorch, and learns', () => {
    const layer = new Conv2d(4, 6, [3, 5], { groups: 2, padding: [1, 2], stride: 2 });
    expect(Object.entries(layer.stateDict()).map(([key, t]) => [key, t.shape])).toEqual([
      ['weight', [6, 2, 3, 5]],
      ['bias', [6]],
    ]);
    const x = noisy([2, 4, 6, 6], 1);
    const y = layer.forward(x);
    expect(y.shape).toEqual([2, 6, 3, 3]);
    sum(y).backward();
    expect(numbers(layer.bias?.grad as Tensor)).toEqual(new Float64Array(6).fill(18));
    expect(Object.keys(new Conv2d(2, 2, 1, { bias: false }).stateDict())).toEqual(['weight']);
  });
});
