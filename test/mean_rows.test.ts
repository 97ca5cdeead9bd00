import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { tensor, type DType, type Tensor } from '../lib/index.ts';
import { meanRows } from '../lib/ops/mean_rows.ts';
import { checkGradients, noise } from './gradient_check.ts';
import { laidOut, LAYOUTS, numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { sizeOf } from './reference.ts';
import { relativeError, toleranceOf } from './tolerance.ts';

const EPSILON = 1e-5;

function idsOf(groups: number, count: number, size: number, seed: number): Int32Array {
  return Int32Array.from(noise(groups * count, seed), (x) => Math.min(size - 1, Math.floor(((x + 1) / 2) * size)));
}

function reference(
  src: ArrayLike<number>,
  ids: Int32Array,
  [groups, count, width]: readonly number[],
  size: number,
): Float64Array {
  const out = new Float64Array(groups * size * width);
  for (let g = 0; g < groups; g++)
    for (let r = 0; r < size; r++) {
      const from = Array.from({ length: count }, (_, i) => g * count + i).filter((i) => ids[i] === r);
      for (let d = 0; d < width; d++)
        out[(g * size + r) * width + d] =
          from.reduce((sum, i) => sum + src[i * width + d], 0) / (from.length + EPSILON);
    }
  return out;
}

const listed = (ids: Int32Array, groups: number): Tensor =>
  tensor(ids, [groups, ids.length / groups], { dtype: 'i32' });

describe.each(LEVELS)('meanRows on %s', (level) => {
  it('averages the rows of each id, for any sizes', () => {
    const sizes = fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 90 }), fc.integer({ min: 1, max: 80 }), fc.integer({ min: 1, max: 150 }), fc.nat()); // prettier-ignore
    atLevel(level, () => {
      fc.assert(
        fc.property(sizes, ([groups, count, width, size, seed]) => {
          const shape = [groups, count, width];
          const src = noise(sizeOf(shape), seed);
          const ids = idsOf(groups, count, size, seed + 1);
          const out = meanRows(tensor(src, shape, { dtype: 'f32' }), listed(ids, groups), size, EPSILON);
          expect(out.shape).toEqual([groups, size, width]);
          expect(relativeError(numbers(out), reference(src, ids, shape, size))).toBeLessThanOrEqual(toleranceOf('f32'));
        }),
        { numRuns: 40 },
      );
    });
  });

  it('reads any layout and dtype', () => {
    atLevel(level, () => {
      const shape = [2, 30, 33];
      const ids = idsOf(2, 30, 11, 5);
      for (const layout of LAYOUTS)
        for (const dtype of ['f32', 'bf16', 'f16'] as const) {
          const src = laidOut(layout, shape, noise(sizeOf(shape), 6), dtype as DType);
          const out = meanRows(src, listed(ids, 2), 11, EPSILON);
          expect(out.dtype).toBe(dtype);
          expect(relativeError(numbers(out), reference(numbers(src), ids, shape, 11))).toBeLessThanOrEqual(toleranceOf(dtype)); // prettier-ignore
        }
    });
  });

  it('has the gradient of an average', () => {
    atLevel(level, () => {
      const ids = idsOf(2, 9, 4, 7);
      checkGradients({
        shapes: [[2, 9, 5]],
        op: (src) => meanRows(src, listed(ids, 2), 4, EPSILON),
        reference: (src) => reference(src, ids, [2, 9, 5], 4),
      });
    });
  });
});

it('gives the same bits for any number of threads, and nothing for nothing', () => {
  const ids = listed(idsOf(3, 400, 170, 2), 3);
  const src = tensor(noise(3 * 400 * 40), [3, 400, 40], { dtype: 'f32' });
  expectSameBitsForAnyThreads(() => meanRows(src, ids, 170, EPSILON));
  const empty = meanRows(tensor([], [2, 0, 3]), tensor([], [2, 0], { dtype: 'i32' }), 4, EPSILON);
  expect([...numbers(empty)]).toEqual(Array<number>(24).fill(0));
});

it('refuses what does not fit, and rejects with the first bad id', async () => {
  const src = tensor(noise(12), [1, 4, 3], { dtype: 'f32' });
  const ids = tensor([0, 5, -1, 2], [1, 4], { dtype: 'i32' });
  expect(() => meanRows(src, tensor([0], [1, 1], { dtype: 'i32' }), 3, EPSILON)).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' })); // prettier-ignore
  expect(() => meanRows(src, ids, 6, 0)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  await expect(meanRows(src, ids, 6, EPSILON).data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
});
