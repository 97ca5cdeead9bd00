/** promptMaskedAttention, promptPool and promptMask against the golden, a double-precision reference, and their counts. */
import { describe, expect, test } from 'vitest';
import { attention, cast, indexSelect, manualSeed, masks, promptMask, promptMaskedAttention, promptPool, randn, select, tensor, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, range, rowsOf, softmaxOf, weighted } from './plain_attention.ts';
import { expectClose, relativeError } from './tolerance.ts';

test('tcpa_pool', () =>
  checkGolden('tcpa_pool', (g) => {
    const { topk } = g.config as unknown as { topk: number };
    const { index, distance } = promptPool(g.input('x'), select(g.weight('keys'), 0, 1), topk);
    return { index, dist: distance };
  }));

describe('double-precision reference, values and finite differences', () => {
  test('some keys forbidden, one query with none', () => {
    const [lq, lk, d] = [5, 7, 3];
    const allowed = range(0, lq).map((i) => range(0, lk).map((j) => i !== 2 && (i * 3 + j * 5) % 4 !== 0));
    checkGradients({
      shapes: [[1, 1, lq, d], [1, 1, lk, d], [1, 1, lk, d]],
      op: (q, k, v) => promptMaskedAttention(q, k, v, { allowed: tensor([[allowed]]) }),
      reference: (q, k, v) =>
        rowsOf(q, d).flatMap((query, i) => {
          const map = softmaxOf(rowsOf(k, d).map((key) => dot(query, key) / Math.sqrt(d)));
          return weighted(map.map((w, j) => (allowed[i][j] ? w : 0)), rowsOf(v, d)); // prettier-ignore
        }),
    }); // prettier-ignore
  });
});

const inputs = (): [Tensor, Tensor, Tensor] => {
  manualSeed(1);
  return [1, 2, 3].map(() => randn([2, 2, 40, 8])) as [Tensor, Tensor, Tensor];
};

test('differs from a mask before the softmax, equals attention where all is allowed', () => {
  const [q, k, v] = inputs();
  const after = numbers(promptMaskedAttention(q, k, v, { allowed: masks.causal() }));
  expect(relativeError(after, numbers(attention(q, k, v, { causal: true })))).toBeGreaterThan(0.05);
  const all = promptMaskedAttention(q, k, v, { allowed: masks.slidingWindow(40, 40) });
  expectClose(numbers(all), numbers(attention(q, k, v)));
});

test('entries of a pool in another order are the same entries', () => {
  manualSeed(2);
  const [x, keys] = [randn([1, 6, 8]), randn([5, 8])];
  const order = [3, 0, 4, 1, 2];
  const { index, distance } = promptPool(x, keys, 2);
  const other = promptPool(x, indexSelect(keys, 0, tensor(order, null, { dtype: 'i32' })), 2);
  expect([...numbers(other.index)].map((i) => order[i])).toEqual([...numbers(index)]);
  expectClose(numbers(other.distance), numbers(distance));
  expect(distance.itemSync()).toBeGreaterThanOrEqual(0);
  expect(distance.itemSync()).toBeLessThanOrEqual(2);
});

test('the mask of the roles', () => {
  const cls = { index: tensor([[1, 3]], null, { dtype: 'i32' }), entries: 4, tokens: 2 };
  const index = tensor([[[0], [2], [2]]], null, { dtype: 'i32' });
  const mask = promptMask({ cls, image: { index, entries: 3, tokens: 1 } });
  expect(mask.shape).toEqual([1, 1, 4, 1 + 8 + 3 + 3]);
  const rows = rowsOf(numbers(mask), 15).map((row) => row.join(''));
  expect(rows).toEqual([
    '1' + '00110011' + '000' + '111',
    '1' + '00000000' + '100' + '111',
    '1' + '00000000' + '001' + '111',
    '1' + '00000000' + '001' + '111',
  ]);
});

test('bf16 and errors', () => {
  const [q, k, v] = inputs();
  const [a, b, c] = [q, k, v].map((t) => cast(t, 'bf16'));
  const options = { allowed: masks.causal() };
  expect(relativeError(numbers(promptMaskedAttention(a, b, c, options)), numbers(promptMaskedAttention(q, k, v, options)))).toBeLessThan(3e-2); // prettier-ignore
  const code = (name: string) => expect.objectContaining({ code: name }) as Error;
  expect(() => promptPool(randn([3, 4]), randn([5, 6]), 2)).toThrow(code('ERR_SHAPE'));
  expect(() => promptPool(randn([3, 4]), randn([5, 4]), 0)).toThrow(code('ERR_ARGUMENT'));
});
