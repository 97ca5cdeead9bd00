import fc from 'fast-check';
import { expect, it } from 'vitest';
import { tensor, type Tensor } from '../lib/index.ts';
import { native } from '../lib/native.ts';
import { Tensor as TensorClass } from '../lib/tensor/tensor.ts';
import { numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';

const causalRanges = (q: Tensor, k: Tensor): Tensor => new TensorClass(native().causalRanges(q.handle, k.handle));
const rows = (lists: readonly (readonly number[])[]): Tensor =>
  tensor(Int32Array.from(lists.flat()), [lists.length, lists[0].length], { dtype: 'i32' });
const rising = (length: number): fc.Arbitrary<number[]> =>
  fc.array(fc.nat(40), { minLength: length, maxLength: length }).map((list) => list.toSorted((a, b) => a - b));

it.each(LEVELS)('counts the keys up to each query on %s', (level) => {
  const lists = fc
    .tuple(fc.integer({ min: 1, max: 3 }), fc.nat(20), fc.nat(20))
    .chain(([n, queries, keys]) =>
      fc.tuple(...[queries, keys].map((length) => fc.array(rising(length), { minLength: n, maxLength: n }))),
    );
  atLevel(level, () => {
    fc.assert(
      fc.property(lists, ([queries, keys]) => {
        const expected = queries.flatMap((list, i) => list.flatMap((q) => [0, keys[i].filter((k) => k <= q).length]));
        expect([...numbers(causalRanges(rows(queries), rows(keys)))]).toEqual(expected);
      }),
      { numRuns: 100 },
    );
  });
});

it('gives the same ranges for any number of threads', () => {
  const lists = Array.from({ length: 9 }, (_, i) => Array.from({ length: 50 }, (_, j) => j * (i + 1)));
  expectSameBitsForAnyThreads(() => causalRanges(rows(lists), rows(lists.toReversed())));
});
