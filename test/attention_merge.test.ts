/** mergeAttentions: parts of the keys merged equal the whole, values and gradients. */
import { describe, expect, test } from 'vitest';
import { attention, grad, manualSeed, mergeAttentions, mul, randn, slice, sum, type Tensor } from '../lib/index.ts';
import { expectSameBitsForAnyThreads } from './levels.ts';
import { expectClose } from './tolerance.ts';

const numbers = (t: Tensor): Float32Array => t.dataSync() as Float32Array;

function parts(q: Tensor, k: Tensor, v: Tensor, cuts: readonly number[]) {
  return cuts
    .slice(1)
    .map((to, i) => attention(q, slice(k, 2, cuts[i], to), slice(v, 2, cuts[i], to), { returnLse: true }));
}

describe('merged parts equal the whole', () => {
  test.each([[[0, 33]], [[0, 1, 33]], [[0, 10, 10, 25, 33]]])('%j', (cuts) => {
    manualSeed(3);
    const [q, k, v] = [21, 33, 33].map((length) => randn([2, 3, length, 12]));
    const whole = attention(q, k, v, { returnLse: true });
    const merged = mergeAttentions(parts(q, k, v, cuts));
    expectClose(numbers(merged.out), numbers(whole.out));
    expectClose(numbers(merged.lse), numbers(whole.lse));
  });
});

test('gradients through out and lse', () => {
  manualSeed(4);
  const [q, k, v] = [9, 14, 14].map((length) => randn([1, 2, length, 8], { requiresGrad: true }));
  const weight = randn([1, 2, 9, 8]);
  const weightLse = randn([1, 2, 9]);
  const loss = ({ out, lse }: { out: Tensor; lse: Tensor }): Tensor =>
    sum(mul(out, weight)).add(sum(mul(lse, weightLse)));
  const expected = grad([loss(attention(q, k, v, { returnLse: true }))], [q, k, v]);
  const actual = grad([loss(mergeAttentions(parts(q, k, v, [0, 5, 14])))], [q, k, v]);
  actual.forEach((g, i) => expectClose(numbers(g as Tensor), numbers(expected[i] as Tensor)));
});

test('a part that saw nothing adds nothing, whatever its out holds', () => {
  manualSeed(5);
  const q = randn([1, 1, 4, 8]);
  const [k, v] = [randn([1, 1, 6, 8]), randn([1, 1, 6, 8])];
  const some = attention(q, k, v, { returnLse: true });
  const nothing = attention(q, k, v, { kvLengths: [0], returnLse: true });
  expect([...numbers(nothing.lse)]).toEqual([-Infinity, -Infinity, -Infinity, -Infinity]);
  const merged = mergeAttentions([nothing, { out: randn([1, 1, 4, 8]), lse: nothing.lse }, some]);
  expectClose(numbers(merged.out), numbers(some.out));
  const empty = mergeAttentions([nothing, nothing]);
  expect(numbers(empty.out).every((x) => x === 0)).toBe(true);
  expect(numbers(empty.lse).every((x) => x === -Infinity)).toBe(true);
});

test('same bits for any number of threads', () => {
  manualSeed(6);
  const [q, k, v] = [200, 40, 40].map((length) => randn([2, 2, length, 16]));
  expectSameBitsForAnyThreads(() => mergeAttentions(parts(q, k, v, [0, 13, 40])).out);
});

test('parts must be tensors', () => {
  expect(() => mergeAttentions([{ out: 1 } as never])).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error,
  );
});

test('parts must fit together', () => {
  const part = attention(randn([1, 1, 4, 8]), randn([1, 1, 6, 8]), randn([1, 1, 6, 8]), { returnLse: true });
  const other = attention(randn([1, 1, 5, 8]), randn([1, 1, 6, 8]), randn([1, 1, 6, 8]), { returnLse: true });
  expect(() => mergeAttentions([])).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error);
  expect(() => mergeAttentions([part, other])).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }) as Error);
});
