import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assignment, cast, flip, tensor, zeros } from '../lib/index.ts';
import { noise } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';

/** The least total of every way to give `rows` rows columns of their own. */
function leastTotal(costs: ArrayLike<number>, rows: number, columns: number): number {
  const taken = new Array<boolean>(columns).fill(false);
  const from = (row: number): number => {
    if (row === rows) return 0;
    let least = Infinity;
    for (let j = 0; j < columns; j++) {
      if (taken[j]) continue;
      taken[j] = true;
      least = Math.min(least, costs[row * columns + j] + from(row + 1));
      taken[j] = false;
    }
    return least;
  };
  return from(0);
}

const totalOf = (costs: ArrayLike<number>, chosen: ArrayLike<number>, columns: number): number =>
  Array.from(chosen).reduce((total, j, i) => total + costs[i * columns + j], 0);

const choose = (costs: ArrayLike<number>, rows: number, columns: number): number[] => [
  ...numbers(assignment(tensor(Float64Array.from(costs), [rows, columns], { dtype: 'f64' }))),
];

describe('assignment', () => {
  it('has the least total of all, ties and negative costs included', () => {
    const anyCase = fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 0, max: 2 })).chain(([rows, more]) =>
      fc.record({
        rows: fc.constant(rows),
        columns: fc.constant(rows + more),
        costs: fc.array(fc.integer({ min: -4, max: 4 }), {
          minLength: rows * (rows + more),
          maxLength: rows * (rows + more),
        }),
      }),
    );
    fc.assert(
      fc.property(anyCase, ({ rows, columns, costs }) => {
        const chosen = choose(costs, rows, columns);
        expect(new Set(chosen).size).toBe(rows);
        expect(totalOf(costs, chosen, columns)).toBe(leastTotal(costs, rows, columns));
      }),
      { numRuns: 200 },
    );
  });

  it('large matrices: between the row minima and greedy choices, and rows in another order choose the same', () => {
    const [rows, columns] = [60, 90];
    const costs = noise(rows * columns, 3);
    const chosen = choose(costs, rows, columns);
    expect(new Set(chosen).size).toBe(rows);
    const lines = Array.from({ length: rows }, (_, i) => costs.slice(i * columns, (i + 1) * columns));
    const least = lines.reduce((total, line) => total + Math.min(...line), 0);
    const free = new Set(Array.from({ length: columns }, (_, j) => j));
    const greedy = lines.reduce((total, line) => {
      const best = [...free].reduce((a, b) => (line[b] < line[a] ? b : a));
      free.delete(best);
      return total + line[best];
    }, 0);
    const total = totalOf(costs, chosen, columns);
    expect(total).toBeGreaterThanOrEqual(least - 1e-9);
    expect(total).toBeLessThanOrEqual(greedy + 1e-9);
    const turned = flip(tensor(costs, [rows, columns], { dtype: 'f64' }), 0);
    expect([...numbers(assignment(turned))].toReversed()).toEqual(chosen);
  });

  it.each(LEVELS)('at level %s: batches, dtypes, nothing', (level) => {
    atLevel(level, () => {
      const costs = tensor(noise(2 * 3 * 4 * 6, 5), [2, 3, 4, 6], { dtype: 'f32' });
      const all = numbers(assignment(costs));
      for (let n = 0; n < 6; n++)
        expect([...all.slice(4 * n, 4 * n + 4)]).toEqual(choose(numbers(costs).slice(24 * n, 24 * n + 24), 4, 6));
      const narrow = cast(costs, 'bf16');
      expect(numbers(assignment(narrow))).toEqual(numbers(assignment(cast(narrow, 'f32'))));
      expect(assignment(zeros([2, 0, 3])).shape).toEqual([2, 0]);
      expect(assignment(zeros([0, 2, 3])).shape).toEqual([0, 2]);
    });
  });

  it('gives the same bits for any number of threads', () => {
    const costs = tensor(noise(5 * 9 * 12, 6), [5, 9, 12], { dtype: 'f32' });
    expectSameBitsForAnyThreads(() => assignment(costs));
  });

  it('refuses what it cannot assign', async () => {
    expect(() => assignment(zeros([3, 2]))).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }) as Error);
    expect(() => assignment(zeros([3]))).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }) as Error);
    expect(() => assignment(zeros([2, 2], { dtype: 'i32' }))).toThrow(expect.objectContaining({ code: 'ERR_DTYPE' }) as Error); // prettier-ignore
    const bad = assignment(tensor([1, NaN, 2, 3], [2, 2]));
    await expect(bad.data()).rejects.toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error);
  });
});
