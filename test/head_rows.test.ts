import fc from 'fast-check';
import { expect, it } from 'vitest';
import { tensor, type Tensor } from '../lib/index.ts';
import { native } from '../lib/native.ts';
import { Tensor as TensorClass } from '../lib/tensor/tensor.ts';
import { noise } from './gradient_check.ts';
import { laidOut, LAYOUTS, numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { sizeOf } from './reference.ts';

const headRows = (active: Tensor): Tensor => new TensorClass(native().headRows(active.handle));
const someOf = (shape: readonly number[], seed: number): Float64Array => noise(sizeOf(shape), seed).map((x) => Number(x > 0.1)); // prettier-ignore

function reference(active: Tensor): number[] {
  const [batch, tokens, heads] = active.shape;
  const on = numbers(active);
  const lists: number[] = [];
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++) {
      const rows = Array.from({ length: tokens }, (_, t) => t).filter((t) => on[(b * tokens + t) * heads + h] !== 0);
      lists.push(...rows, ...Array<number>(tokens - rows.length).fill(-1));
    }
  return lists;
}

it.each(LEVELS)('lists the tokens of each head on %s', (level) => {
  const sizes = fc.tuple(fc.nat(3), fc.nat(40), fc.nat(40), fc.nat());
  atLevel(level, () => {
    fc.assert(
      fc.property(sizes, ([batch, tokens, heads, seed]) => {
        const shape = [batch, tokens, heads];
        const active = tensor(someOf(shape, seed), shape, { dtype: 'bool' });
        const rows = headRows(active);
        expect(rows.shape).toEqual([batch, heads, tokens]);
        expect([...numbers(rows)]).toEqual(reference(active));
      }),
      { numRuns: 40 },
    );
    for (const layout of LAYOUTS) {
      const active = laidOut(layout, [2, 9, 21], someOf([2, 9, 21], 3), 'bool');
      expect([...numbers(headRows(active))]).toEqual(reference(active));
    }
  });
});

it('gives the same lists for any number of threads, and refuses what is no mask of heads', () => {
  const active = tensor(someOf([3, 50, 40], 1), [3, 50, 40], { dtype: 'bool' });
  expectSameBitsForAnyThreads(() => headRows(active));
  expect(() => headRows(tensor([1], [1, 1, 1]))).toThrow(expect.objectContaining({ code: 'ERR_DTYPE' }));
  expect(() => headRows(tensor([1], [1, 1], { dtype: 'bool' }))).toThrow(
    expect.objectContaining({ code: 'ERR_SHAPE' }),
  );
});
