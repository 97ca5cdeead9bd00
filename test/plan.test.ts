/** Results in the order of a list of query rows, which may name a row several times. */
import { describe, expect, it } from 'vitest';
import { planAttention } from '../lib/attention/plan.ts';
import { cast, embedding, grad, reshape, sum, tensor, type DType, type Tensor } from '../lib/index.ts';
import { noise, sizeOf } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';

const list = (rows: readonly number[]): Tensor => tensor(Int32Array.from(rows), [1, 1, rows.length], { dtype: 'i32' });
const draw = (shape: readonly number[], seed: number, dtype: DType = 'f32'): Tensor =>
  cast(tensor(noise(sizeOf(shape), seed), shape, { dtype: 'f32' }), dtype);

/** More queries than rows there are, for tiles that are not full. */
const ROWS = Array.from({ length: 150 }, (_, i) => (i * i + 3 * i) % 37);
const CU = { q: [0, 70, 150], kv: [0, 30, 90] };
const KEYS = list(Array.from({ length: 90 }, (_, i) => (i * 7) % 40));

describe.each(LEVELS)('outInOrder on %s', (level) => {
  it.each(['f32', 'bf16', 'f16'] as DType[])('gives what gathered queries give, %s', (dtype) => {
    atLevel(level, () => {
      const [q, k, v] = [draw([1, 2, 37, 24], 1, dtype), draw([1, 2, 40, 24], 2, dtype), draw([1, 2, 40, 24], 3, dtype)]; // prettier-ignore
      const flat = [0, 1].flatMap((head) => ROWS.map((row) => head * 37 + row));
      const ids = tensor(Int32Array.from(flat), [flat.length], { dtype: 'i32' });
      const gathered = reshape(embedding(reshape(q, [74, 24]), ids), [1, 2, 150, 24]);
      const inOrder = planAttention(q, k, v, { qRows: list(ROWS), outInOrder: true, kvRows: KEYS }, { cuSeqlens: CU });
      const expected = planAttention(gathered, k, v, { kvRows: KEYS }, { cuSeqlens: CU });
      expect(inOrder.out.shape).toEqual([1, 2, 150, 24]);
      expect(numbers(inOrder.out)).toEqual(numbers(expected.out));
      expect(numbers(inOrder.lse)).toEqual(numbers(expected.lse));
    });
  });

  it('queries without a row give 0', () => {
    atLevel(level, () => {
      const [q, k, v] = [1, 2, 3].map((seed) => draw([1, 1, 9, 16], seed));
      const rows = [3, -1, 3, 8, ...Array.from({ length: 60 }, () => -1)];
      const { out, lse } = planAttention(q, k, v, { qRows: list(rows), outInOrder: true });
      const seen = numbers(lse).map((x) => (x > -Infinity ? 1 : 0));
      expect([...seen]).toEqual(rows.map((row) => (row < 0 ? 0 : 1)));
      numbers(out).forEach((x, i) => expect(x === 0).toBe(rows[Math.floor(i / 16)] < 0));
    });
  });
});

it('gives the same bits for any number of threads', () => {
  const [q, k, v] = [1, 2, 3].map((seed) => draw([1, 2, 40, 24], seed));
  expectSameBitsForAnyThreads(() => planAttention(q, k, v, { qRows: list(ROWS), outInOrder: true }).out);
});

it('has no gradient', () => {
  const [q, k, v] = [1, 2, 3].map((seed) => draw([1, 1, 40, 8], seed));
  q.requiresGrad = true;
  const { out } = planAttention(q, k, v, { qRows: list(ROWS), outInOrder: true });
  expect(() => grad([sum(out)], [q])).toThrow(expect.objectContaining({ code: 'ERR_UNSUPPORTED' }) as Error);
});
