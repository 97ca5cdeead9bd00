import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  avgPool2d,
  cast,
  grad,
  maxPool2d,
  permute,
  tensor,
  zeros,
  type PoolOptions,
  type Tensor,
} from '../lib/index.ts';
import { checkGradients, noise, sizeOf } from './gradient_check.ts';
import { laidOut, LAYOUTS, numbers } from './inputs.ts';
import { plainPool } from './plain_images.ts';
import { expectClose } from './tolerance.ts';

type Case = readonly [shape: readonly number[], kernel: number | readonly [number, number], options: PoolOptions];

const cases: readonly Case[] = [
  [[1, 1, 1, 1], 1, {}],
  [[2, 3, 4, 6], 2, {}],
  [[1, 2, 7, 6], 3, { stride: 2, padding: 1 }],
  [[1, 2, 8, 5], [2, 3], { stride: [3, 1], padding: [1, 0] }],
]; // prettier-ignore

const largest = (seen: readonly number[]): number => Math.max(...seen);
const total = (seen: readonly number[]): number => seen.reduce((sum, x) => sum + x, 0);
const meanOfAll = (seen: readonly number[], taps: number): number => total(seen) / taps;
const meanOfSeen = (seen: readonly number[]): number => total(seen) / seen.length;

describe('pooling', () => {
  it.each(cases)('image %j, windows %j, %j: values and gradients', (shape, kernel, options) => {
    const plain = { stride: kernel, ...options };
    const against = (op: (x: Tensor) => Tensor, pool: (seen: readonly number[], taps: number) => number): void =>
      checkGradients({ shapes: [shape], op, reference: (x) => plainPool(x, shape, kernel, plain, pool) });
    against((x) => maxPool2d(x, kernel, options), largest);
    against((x) => avgPool2d(x, kernel, options), meanOfAll);
    against((x) => avgPool2d(x, kernel, { ...options, countPadding: false }), meanOfSeen);
  });

  it('random shapes, options, layouts and dtypes', () => {
    const pair = (min: number, max: number): fc.Arbitrary<[number, number]> =>
      fc.tuple(fc.integer({ min, max }), fc.integer({ min, max }));
    const anyCase = fc.record({ batch: fc.integer({ min: 0, max: 2 }), channels: fc.integer({ min: 1, max: 5 }), kernel: pair(1, 4), stride: pair(1, 4), dilation: pair(1, 3), room: pair(0, 6), half: pair(0, 3), layout: fc.constantFrom(...LAYOUTS) }); // prettier-ignore
    fc.assert(
      fc.property(anyCase, ({ batch, channels, kernel, stride, dilation, room, half, layout }) => {
        const spread = kernel.map((n, i) => (n - 1) * dilation[i] + 1);
        const padding: [number, number] = [0, 1].map((i) => Math.min(half[i], Math.floor(spread[i] / 2))) as [number, number]; // prettier-ignore
        // Every tap of a dilated window in the border would leave none: images at least as wide as the dilation have one.
        const shape = [batch, channels, ...spread.map((n, i) => Math.max(n, dilation[i]) + room[i])];
        const x = laidOut(layout, shape, noise(sizeOf(shape), 7), 'f32');
        const options = { stride, padding, dilation };
        const expected = plainPool(numbers(x), shape, kernel, options, largest);
        const y = maxPool2d(x, kernel, options);
        expect([...numbers(y)]).toEqual([...expected]);
        const last = maxPool2d(permute(x, [0, 2, 3, 1]), kernel, { ...options, layout: 'nhwc' });
        expect([...numbers(permute(last, [0, 3, 1, 2]))]).toEqual([...expected]);
      }),
      { numRuns: 60 },
    );
  });

  it('16-bit images; equal pixels share a gradient', () => {
    const x = tensor(noise(2 * 36, 1), [1, 2, 6, 6], { dtype: 'f32' });
    const expected = plainPool(numbers(x), [1, 2, 6, 6], 3, { stride: 2 }, meanOfAll);
    for (const dtype of ['bf16', 'f16'] as const) expectClose(numbers(avgPool2d(cast(x, dtype), 3, { stride: 2 })), expected, dtype); // prettier-ignore
    const flat = zeros([1, 1, 2, 2], { requiresGrad: true });
    const [g] = grad(maxPool2d(flat, 2), [flat]) as Tensor[];
    expect([...numbers(g)]).toEqual([0.25, 0.25, 0.25, 0.25]);
  });

  it('a window that sees no pixel at all has the mean 0', () => {
    const y = avgPool2d(zeros([1, 1, 0, 4]), 2, { padding: 1, countPadding: false });
    expect(y.shape).toEqual([1, 1, 1, 3]);
    expect([...numbers(y)]).toEqual([0, 0, 0]);
  });

  it('refuses what does not fit', () => {
    const x = zeros([1, 1, 4, 4]);
    const refused = (code: string, fn: () => unknown): void =>
      expect(fn).toThrow(expect.objectContaining({ code }) as Error);
    refused('ERR_SHAPE', () => maxPool2d(x, 5));
    refused('ERR_SHAPE', () => avgPool2d(zeros([4, 4]), 2));
    refused('ERR_ARGUMENT', () => maxPool2d(x, 2, { padding: 2 }));
    refused('ERR_ARGUMENT', () => avgPool2d(x, 0));
    refused('ERR_DTYPE', () => maxPool2d(zeros([1, 1, 4, 4], { dtype: 'i32' }), 2));
    refused('ERR_DTYPE', () => avgPool2d(zeros([1, 1, 4, 4], { dtype: 'i32' }), 2));
  });
});
