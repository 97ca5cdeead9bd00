/** attention() over paged keys and values. */
import { describe, expect, test } from 'vitest';
import { attention, concat, grad, slice, sum, tensor, type Tensor } from '../lib/index.ts';
import { mask } from '../lib/mask/mask.ts';
import { expectUnnamedRowsIgnored } from './missing_rows.ts';
import { random, valuesOf } from './reference_matmul.ts';
import { expectClose } from './tolerance.ts';

const code = (expected: string): Error => expect.objectContaining({ code: expected }) as Error;

describe('paged keys and values', () => {
  const pages = [
    [3, -1, 0],
    [2, 4, 1],
  ];
  const pageTable = tensor(Int32Array.from(pages.flat()), [2, 3], { dtype: 'i32' });
  const kvLengths = [12, 7];
  const paged = (seed: number): Tensor => random([5, 1, 4, 8], 'f32', seed).t;
  /** Rows of the pages in the order of the sequences; page 0 where there is none. */
  const gathered = (t: Tensor): Tensor => {
    const row = (list: number[]): Tensor =>
      concat(
        list.map((page) => slice(t, 0, Math.max(page, 0), Math.max(page, 0) + 1)),
        2,
      );
    return concat(pages.map(row), 0);
  };
  const there = tensor(
    Uint8Array.from({ length: 24 }, (_, i) => Number(i < 4 || i >= 8)),
    [2, 1, 1, 12],
    { dtype: 'bool' },
  );

  test.each([1, 3, 40])('%i queries: equal the gathered rows, and missing pages are not seen', (queries) => {
    const q = random([2, 2, queries, 8], 'f32', 1).t;
    const options = { kvLengths, causal: 'bottom-right' } as const;
    const out = attention(q, paged(2), paged(3), { ...options, pageTable });
    const same = attention(q, gathered(paged(2)), gathered(paged(3)), { ...options, mask: there });
    expectClose(valuesOf(out), valuesOf(same));
  });

  test.each(['f32', 'bf16', 'f16'] as const)('rows that nobody names may hold anything, %s', (dtype) => {
    for (const queries of [1, 3, 40]) expectUnnamedRowsIgnored('cpu', dtype, queries);
  });

  test('with a mask function over the positions of the pages', () => {
    const q = random([2, 2, 3, 8], 'f32', 1).t;
    const odd = mask(({ q, kv }) => (q + kv) % 2 === 1);
    const out = attention(q, paged(2), paged(3), { pageTable, mask: odd });
    const same = attention(q, gathered(paged(2)), gathered(paged(3)), { mask: [odd, there] });
    expectClose(valuesOf(out), valuesOf(same));
  });

  test('refuse what does not fit, and gradients', () => {
    const q = random([2, 2, 3, 8], 'f32', 1).t;
    const call = (table: Tensor): Tensor => attention(q, paged(2), paged(3), { pageTable: table });
    expect(() => call([0, 1] as never)).toThrow(code('ERR_ARGUMENT'));
    expect(() => call(tensor([[0], [1]]))).toThrow(code('ERR_DTYPE'));
    expect(() => call(slice(pageTable, 0, 0, 1))).toThrow(code('ERR_SHAPE'));
    expect(() => call(tensor(Int32Array.of(0, 5), [2, 1], { dtype: 'i32' })).dataSync()).toThrow(code('ERR_INDEX'));
    q.requiresGrad = true;
    const out = call(pageTable);
    expect(() => grad([sum(out)], [q])).toThrow(code('ERR_UNSUPPORTED'));
  });
});
