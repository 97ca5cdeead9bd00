import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { argsort, permute, sort, tensor, topK, type DType } from '../lib/index.ts';
import { checkGradients, noise } from './gradient_check.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';

/** The order of a row by value, NaN largest, equals by rising index. */
function order(row: ArrayLike<number>, descending: boolean): number[] {
  const rank = (x: number): number => (Number.isNaN(x) ? Infinity : x);
  const compare = (a: number, b: number): number => {
    const [x, y] = [row[a], row[b]];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    return rank(x) === rank(y) ? 0 : rank(x) < rank(y) ? -1 : 1;
  };
  return Array.from({ length: row.length }, (_, i) => i).sort(
    (a, b) => (descending ? compare(b, a) : compare(a, b)) || a - b,
  );
}

const awkward = fc.oneof(
  fc.float({ noDefaultInfinity: false, noNaN: false }),
  fc.constantFrom(NaN, Infinity, -Infinity, 0, -0, 1, 1, -1),
);

describe.each(LEVELS)('on %s', (level) => {
  it('sorts any floats, ties and NaN in their documented order', () => {
    atLevel(level, () => {
      fc.assert(
        fc.property(fc.array(awkward, { minLength: 1, maxLength: 200 }), fc.boolean(), (row, descending) => {
          const t = tensor(Float32Array.from(row));
          const { values, indices } = sort(t, 0, { descending });
          const expected = order(row, descending);
          expect([...indices.dataSync()]).toEqual(expected);
          expect([...values.dataSync()]).toEqual(expected.map((i) => Math.fround(row[i])));
          expect([...argsort(t, 0, { descending }).dataSync()]).toEqual(expected);
        }),
        { numRuns: 60 },
      );
    });
  });

  it('topK is the head of the sort, for any k', () => {
    atLevel(level, () => {
      fc.assert(
        fc.property(
          fc.array(awkward, { minLength: 1, maxLength: 300 }),
          fc.nat(),
          fc.boolean(),
          (row, seed, largest) => {
            const k = seed % (row.length + 1);
            const { values, indices } = topK(tensor(Float32Array.from(row)), k, 0, { largest });
            expect([...indices.dataSync()]).toEqual(order(row, largest).slice(0, k));
            expect(values.shape).toEqual([k]);
          },
        ),
        { numRuns: 60 },
      );
    });
  });

  it.each<DType>(['bf16', 'f16', 'f64', 'i32', 'i64', 'u8', 'bool'])('sorts %s', (dtype) => {
    atLevel(level, () => {
      for (const n of [1, 20, 49, 1000]) {
        const t = tensor(
          noise(n).map((x) => x * 300),
          [n],
          { dtype },
        );
        const row = [...t.dataSync()].map(Number);
        for (const descending of [false, true]) {
          const { values, indices } = sort(t, 0, { descending });
          expect([...indices.dataSync()]).toEqual(order(row, descending));
          expect([...values.dataSync()].map(Number)).toEqual(order(row, descending).map((i) => row[i]));
        }
      }
    });
  });

  it('has the gradient of picking', () => {
    atLevel(level, () => {
      const rows = 3;
      for (const [n, k] of [
        [7, 7],
        [60, 60],
        [60, 5],
      ]) {
        checkGradients({
          shapes: [[rows, n]],
          op: (t) => (k === n ? sort(t, 1) : topK(t, k, 1, { largest: false })).values,
          reference: (x) =>
            Array.from({ length: rows }, (_, r) => x.slice(r * n, (r + 1) * n)).flatMap((row) =>
              order(row, false)
                .slice(0, k)
                .map((i) => row[i]),
            ),
        });
      }
    });
  });
});

describe('axes', () => {
  it('sorts along an inner axis, with gradients', () => {
    checkGradients({
      shapes: [[4, 3]],
      op: (t) => sort(t, 0, { descending: true }).values,
      reference: (x) => {
        const columns = [0, 1, 2].map((c) => [...x.filter((_, i) => i % 3 === c)].sort((a, b) => b - a));
        return Array.from({ length: 12 }, (_, i) => columns[i % 3][Math.floor(i / 3)]);
      },
    });
  });

  it('takes views, empty axes and no rows', () => {
    const t = permute(
      tensor([
        [3, 1],
        [2, 5],
      ]),
      [1, 0],
    );
    expect([...sort(t).values.dataSync()]).toEqual([2, 3, 1, 5]);
    expect(sort(tensor(new Float32Array(0), [3, 0])).values.shape).toEqual([3, 0]);
    expect(topK(tensor(new Float32Array(0), [0, 3]), 2).indices.shape).toEqual([0, 2]);
  });

  it('refuses a bad k or axis', () => {
    const code = (code: string): unknown => expect.objectContaining({ code });
    expect(() => topK(tensor([1, 2]), 3)).toThrow(code('ERR_ARGUMENT'));
    expect(() => topK(tensor([1, 2]), -1)).toThrow(code('ERR_ARGUMENT'));
    expect(() => sort(tensor(1))).toThrow(code('ERR_ARGUMENT'));
  });

  it('gives the same bits for any number of threads', () => {
    const t = tensor(noise(300 * 200), [300, 200], { dtype: 'f32' });
    expectSameBitsForAnyThreads(() => sort(t).indices);
    expectSameBitsForAnyThreads(() => topK(t, 9).values);
  });
});
