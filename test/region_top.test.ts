import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { tensor, type DType, type Tensor } from '../lib/index.ts';
import { native } from '../lib/native.ts';
import { Tensor as TensorClass } from '../lib/tensor/tensor.ts';
import { noise } from './gradient_check.ts';
import { laidOut, LAYOUTS, numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { sizeOf } from './reference.ts';

type Integers = readonly [regionHeight: number, regionWidth: number, down: number, across: number, top: number];

function regionTop(q: Tensor, k: Tensor, integers: Integers, scale: number): [indices: Tensor, affinities: Tensor] {
  const [indices, affinities] = native().regionTop(q.handle, k.handle, integers, scale);
  return [new TensorClass(indices), new TensorClass(affinities)];
}

/** Means over the pixels that a region really has: [batch][region][channel]. */
function means(t: Tensor, [rh, rw, down, across]: Integers): number[][][] {
  const [batch, height, width, channels] = t.shape;
  const x = numbers(t);
  return Array.from({ length: batch }, (_, b) =>
    Array.from({ length: down * across }, (_, r) => {
      const [i0, j0] = [Math.floor(r / across) * rh, (r % across) * rw];
      const sum = Array<number>(channels).fill(0);
      let pixels = 0;
      for (let i = i0; i < Math.min(i0 + rh, height); i++)
        for (let j = j0; j < Math.min(j0 + rw, width); j++, pixels++)
          for (let c = 0; c < channels; c++) sum[c] += x[((b * height + i) * width + j) * channels + c];
      return sum.map((v) => v / pixels);
    }),
  );
}

/** Affinities must be those of the regions named, fall, and be no smaller than those left out. */
function expectBest(q: Tensor, k: Tensor, integers: Integers, scale: number, tolerance = 1e-5): void {
  const [, , down, across, top] = integers;
  const [indices, affinities] = regionTop(q, k, integers, scale);
  expect(indices.shape).toEqual([q.shape[0], down * across, top]);
  const [found, values] = [numbers(indices), numbers(affinities)];
  const [qm, km] = [means(q, integers), means(k, integers)];
  qm.forEach((regions, b) =>
    regions.forEach((mean, r) => {
      const all = km[b].map((other) => scale * mean.reduce((sum, v, c) => sum + v * other[c], 0));
      const at = (b * regions.length + r) * top;
      const taken = [...found.subarray(at, at + top)];
      expect(new Set(taken).size).toBe(top);
      taken.forEach((region, i) => {
        expect(Math.abs(values[at + i] - all[region])).toBeLessThanOrEqual(tolerance);
        if (i > 0) expect(values[at + i]).toBeLessThanOrEqual(values[at + i - 1]);
      });
      const others = all.filter((_, region) => !taken.includes(region));
      for (const a of others) expect(a).toBeLessThanOrEqual(values[at + top - 1] + tolerance);
    }),
  );
}

describe.each(LEVELS)('regionTop on %s', (level) => {
  it('finds the regions of nearest mean, ragged edges included', () => {
    const side = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 4 }), fc.nat());
    const sizes = fc.tuple(fc.integer({ min: 1, max: 2 }), side, side, fc.integer({ min: 1, max: 90 }), fc.nat());
    atLevel(level, () => {
      fc.assert(
        fc.property(sizes, ([batch, [rh, down, cutH], [rw, across, cutW], channels, seed]) => {
          const shape = [batch, rh * down - (cutH % rh), rw * across - (cutW % rw), channels];
          const image = (s: number): Tensor => tensor(noise(sizeOf(shape), s), shape, { dtype: 'f32' });
          expectBest(image(seed), image(seed + 1), [rh, rw, down, across, 1 + (seed % (down * across))], 0.3);
        }),
        { numRuns: 30 },
      );
    });
  });

  it('reads any layout and dtype', () => {
    atLevel(level, () => {
      const shape = [2, 6, 8, 20];
      for (const layout of LAYOUTS)
        for (const dtype of ['f32', 'bf16', 'f16'] as DType[]) {
          const image = (s: number): Tensor => laidOut(layout, shape, noise(sizeOf(shape), s), dtype);
          expectBest(image(1), image(2), [3, 2, 2, 4, 3], 1);
        }
    });
  });

  it('orders equals by region, NaN first', () => {
    atLevel(level, () => {
      const q = tensor(Array<number>(6).fill(1), [1, 1, 6, 1]);
      const k = tensor([2, NaN, 2, 5, NaN, 2], [1, 1, 6, 1]);
      const [indices] = regionTop(q, k, [1, 1, 1, 6, 5], 1);
      for (let r = 0; r < 6; r++) expect([...numbers(indices).subarray(5 * r, 5 * r + 5)]).toEqual([1, 4, 3, 0, 2]);
    });
  });
});

it('gives the same bits for any number of threads', () => {
  const image = (s: number): Tensor => tensor(noise(2 * 21 * 14 * 40, s), [2, 21, 14, 40], { dtype: 'f32' });
  const [q, k] = [image(1), image(2)];
  expectSameBitsForAnyThreads(() => regionTop(q, k, [3, 2, 7, 7, 6], 1)[1]);
});

it('refuses regions that do not cut the image', () => {
  const image = tensor(noise(24), [1, 4, 6, 1], { dtype: 'f32' });
  const fails = (k: Tensor, integers: Integers, code: string): void =>
    expect(() => regionTop(image, k, integers, 1)).toThrow(expect.objectContaining({ code }));
  fails(image, [2, 2, 2, 2, 1], 'ERR_ARGUMENT');
  fails(image, [2, 2, 3, 3, 1], 'ERR_ARGUMENT');
  fails(image, [2, 2, 2, 3, 7], 'ERR_ARGUMENT');
  fails(tensor(noise(12), [1, 4, 3, 1], { dtype: 'f32' }), [2, 2, 2, 3, 1], 'ERR_SHAPE');
});
