import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import {
  expand,
  getMatmulPrecision,
  grad,
  matmul,
  permute,
  reshape,
  scope,
  setNumThreads,
  slice,
  sum,
  tensor,
  transpose,
  withMatmulPrecision,
} from '../lib/index.ts';
import type { DType, Tensor } from '../lib/index.ts';
import { native } from '../lib/native.ts';
import { LEVELS } from './levels.ts';
import { random, referenceMatmul, referenceTranspose, valuesOf } from './reference_matmul.ts';
import { expectClose } from './tolerance.ts';

const DTYPES: readonly DType[] = ['f32', 'bf16', 'f16', 'f64'];

afterEach(() => {
  native().setIsa(native().bestIsa());
  setNumThreads(2);
});

function bits(t: Tensor): Uint8Array {
  return new Uint8Array(native().readSync(t.handle));
}

describe.each(LEVELS)('on %s', (level) => {
  it.each(DTYPES)('agrees with the reference in %s for sizes around every tile edge', (dtype) => {
    native().setIsa(level);
    const sizes = [1, 2, 7, 8, 9, 15, 16, 17, 33, 47, 48, 49, 64, 97, 130];
    for (let i = 0; i < 40; i++) {
      const [m, k, n] = [sizes[(i * 7) % 15], sizes[(i * 11 + 3) % 15], sizes[(i * 13 + 5) % 15]];
      scope(() => {
        const a = random([m, k], dtype, i);
        const b = random([k, n], dtype, i + 100);
        expectClose(valuesOf(matmul(a.t, b.t)), referenceMatmul(a.values, b.values, 1, m, k, n), dtype);
      });
    }
  });

  it('continues the accumulators over pieces of a long inner axis', () => {
    native().setIsa(level);
    for (const dtype of DTYPES) {
      for (const [m, k, n] of [
        [3, 5001, 50],
        [261, 1300, 17],
        [9, 9003, 17],
        [140, 2050, 100],
        [45, 2048, 49],
      ]) {
        scope(() => {
          const a = random([m, k], dtype, 1);
          const b = random([k, n], dtype, 2);
          expectClose(valuesOf(matmul(a.t, b.t)), referenceMatmul(a.values, b.values, 1, m, k, n), dtype);
        });
      }
    }
  });

  it('takes strided and transposed views of both operands', () => {
    native().setIsa(level);
    for (const dtype of DTYPES) {
      scope(() => {
        const a = random([37, 50], dtype, 3);
        const b = random([40, 50], dtype, 4);
        const expected = referenceMatmul(a.values, referenceTranspose(b.values, 40, 50), 1, 37, 50, 40);
        expectClose(valuesOf(matmul(a.t, transpose(b.t))), expected, dtype);
        const gram = referenceMatmul(referenceTranspose(a.values, 37, 50), a.values, 1, 50, 37, 50);
        expectClose(valuesOf(matmul(transpose(a.t), a.t)), gram, dtype);
        const every2 = slice(slice(a.t, 1, 1, 50, 2), 0, 3);
        const picked = Float64Array.from(
          { length: 34 * 25 },
          (_, i) => a.values[(3 + Math.floor(i / 25)) * 50 + 1 + 2 * (i % 25)],
        );
        const right = random([25, 19], dtype, 5);
        expectClose(valuesOf(matmul(every2, right.t)), referenceMatmul(picked, right.values, 1, 34, 25, 19), dtype);
      });
    }
  });
});

it('broadcasts leading axes, and heads beside rows need no copy', () => {
  const a = random([2, 3, 5, 7], 'f32', 6);
  const b = random([3, 7, 4], 'f32', 7);
  const twice = Float64Array.from([...b.values, ...b.values]);
  expectClose(valuesOf(matmul(a.t, b.t)), referenceMatmul(a.values, twice, 6, 5, 7, 4), 'f32');
  const heads = permute(reshape(random([2, 6, 12], 'f32', 8).t, [2, 6, 3, 4]), [0, 2, 1, 3]);
  const dense = valuesOf(heads);
  const keys = Float64Array.from({ length: dense.length }, (_, i) => {
    const [matrix, rest] = [Math.floor(i / 24), i % 24];
    return dense[matrix * 24 + (rest % 6) * 4 + Math.floor(rest / 6)];
  });
  expectClose(valuesOf(matmul(heads, transpose(heads))), referenceMatmul(dense, keys, 6, 6, 4, 6), 'f32');
  const one = random([1, 4], 'f32', 9);
  const rows = expand(one.t, [5, 4]);
  const result = matmul(rows, random([4, 3], 'f32', 10).t);
  expect(result.shape).toEqual([5, 3]);
  expect([...valuesOf(result)].slice(0, 3)).toEqual([...valuesOf(result)].slice(12));
});

it('treats vectors as rows and columns', async () => {
  const a = tensor([1, 2, 3]);
  const m = tensor([
    [1, 0],
    [0, 1],
    [1, 1],
  ]);
  expect(await matmul(a, m).toArray()).toEqual([4, 5]);
  expect(await matmul(transpose(m), a).toArray()).toEqual([4, 5]);
  expect(await matmul(a, a).toArray()).toBe(14);
});

it('has gradients of batches and of matrices they share when an axis is empty', async () => {
  const zeros = (shape: readonly number[]): Tensor =>
    tensor(new Float64Array(shape.reduce((x, y) => x * y, 1)), shape, { dtype: 'f32', requiresGrad: true });
  for (const [m, k, n] of [[2, 0, 3], [0, 2, 3], [2, 3, 0], [1, 0, 1]])
    for (const [batchA, batchB] of [[[2], []], [[2], [1]], [[1], [2]], [[0], [1]], [[2, 1], [3]]]) {
      const [a, b] = [zeros([...batchA, m, k]), zeros([...batchB, k, n])];
      const [da, db] = grad([sum(matmul(a, b))], [a, b]) as [Tensor, Tensor];
      expect([da.shape, db.shape]).toEqual([a.shape, b.shape]);
      expect(await db.data()).toEqual(new Float32Array(b.size));
    }
}); // prettier-ignore

it('gives zeros for an empty inner axis and nothing for empty outer ones', async () => {
  for (const dtype of DTYPES) {
    const empty = matmul(
      tensor(new Float64Array(0), [2, 0], { dtype }),
      tensor(new Float64Array(0), [0, 3], { dtype }),
    );
    expect(await empty.toArray()).toEqual([
      [0, 0, 0],
      [0, 0, 0],
    ]);
    expect(
      matmul(tensor(new Float64Array(0), [0, 3], { dtype }), tensor(new Float64Array(6), [3, 2], { dtype })).shape,
    ).toEqual([0, 2]);
  }
});

it('widens 16-bit operands to an f32 result on request', () => {
  const a = random([20, 70], 'bf16', 11);
  const b = random([70, 30], 'bf16', 12);
  const wide = matmul(a.t, b.t, { dtype: 'f32' });
  expect(wide.dtype).toBe('f32');
  expectClose(valuesOf(wide), referenceMatmul(a.values, b.values, 1, 20, 70, 30), 'f32');
});

it('computes f32 in f32 whatever the precision', () => {
  const [a, b] = [random([9, 70], 'f32', 13).t, random([70, 11], 'f32', 14).t];
  const expected = bits(matmul(a, b));
  expect(bits(matmul(a, b, { precision: 'high' }))).toEqual(expected);
  expect(bits(withMatmulPrecision('high', () => matmul(a, b)))).toEqual(expected);
  expect(() => withMatmulPrecision('high', () => matmul(a, a))).toThrow();
  expect(getMatmulPrecision()).toBe('highest');
});

describe('gives a row the same bits in any batch, with any neighbours and any number of threads', () => {
  function check({ m, k, n, dtype, turned }: { m: number; k: number; n: number; dtype: DType; turned: boolean }): void {
    scope(() => {
      const a = random([m, k], dtype, m).t;
      const b = turned ? transpose(random([n, k], dtype, n).t) : random([k, n], dtype, n).t;
      setNumThreads(2);
      const all = bits(matmul(a, b));
      setNumThreads(1);
      expect(Buffer.compare(bits(matmul(a, b)), all)).toBe(0);
      const row = m >> 1;
      const bytes = all.length / m;
      const alone = bits(matmul(slice(a, 0, row, row + 1), b));
      expect(Buffer.compare(alone, all.subarray(row * bytes, (row + 1) * bytes))).toBe(0);
      const batched = bits(matmul(expand(a, [3, m, k]), b));
      expect(Buffer.compare(batched.subarray(2 * all.length), all)).toBe(0);
    });
  }

  it('of small matrices', () => {
    const sizes = fc.integer({ min: 1, max: 70 });
    const cases = fc.record({
      m: sizes,
      k: fc.integer({ min: 1, max: 700 }),
      n: sizes,
      dtype: fc.constantFrom(...DTYPES),
      turned: fc.boolean(),
    });
    fc.assert(fc.property(cases, check), { numRuns: 60, seed: 17 });
  });

  it.each([
    [33, 300, 200],
    [64, 40, 256],
    [65, 70, 100],
  ])('of few rows by short rows, %i x %i x %i', (m, k, n) => {
    for (const turned of [false, true]) check({ m, k, n, dtype: 'f32', turned });
  });

  it.each(DTYPES)('of several tiles, panels and pieces in %s', (dtype) => {
    for (const turned of [false, true]) check({ m: 270, k: 2053, n: 110, dtype, turned });
  });

  it('of rows that fall into one cache set', () => {
    for (const turned of [false, true]) check({ m: 70, k: 2048, n: 60, dtype: 'bf16', turned });
  });
});

describe('gradients', () => {
  function loss(a: Tensor, b: Tensor, weights: Float64Array): number {
    return valuesOf(matmul(a, b)).reduce((sum, x, i) => sum + x * weights[i], 0);
  }

  it.each([
    [
      [4, 5],
      [5, 3],
    ],
    [
      [2, 4, 5],
      [5, 3],
    ],
    [
      [2, 1, 4, 5],
      [3, 5, 2],
    ],
    [
      [4, 5],
      [2, 5, 3],
    ],
    [[5], [5, 3]],
    [[2, 4, 5], [5]],
  ])('of %j @ %j match finite differences', (left, right) => {
    const a = random(left, 'f64', 20);
    const b = random(right, 'f64', 21);
    a.t.requiresGrad = b.t.requiresGrad = true;
    const out = matmul(a.t, b.t);
    const weights = random(out.shape, 'f64', 22);
    const [da, db] = grad(out, [a.t, b.t], { gradients: [weights.t] });
    for (const [x, dx, at] of [
      [a, da, 0],
      [b, db, 1],
    ] as const) {
      const numeric = x.values.map((value, i) => {
        const moved = (by: number): number => {
          const changed = tensor(x.values.with(i, value + by), x.t.shape);
          return at === 0 ? loss(changed, b.t, weights.values) : loss(a.t, changed, weights.values);
        };
        return (moved(1e-4) - moved(-1e-4)) / 2e-4;
      });
      expect(dx?.shape).toEqual(x.t.shape);
      expectClose(valuesOf(dx as Tensor), numeric, 'f64', 1e4);
    }
  });

  it('have the dtype of their operand', () => {
    const a = random([3, 4], 'bf16', 23).t;
    const b = random([4, 2], 'bf16', 24).t;
    a.requiresGrad = b.requiresGrad = true;
    const out = matmul(a, b, { dtype: 'f32' });
    const [da, db] = grad(out, [a, b], { gradients: [random([3, 2], 'f32', 25).t] });
    expect([da?.dtype, db?.dtype]).toEqual(['bf16', 'bf16']);
  });
});

it.each([
  ['ERR_SHAPE', 'inner sizes of [2, 3] and [4, 5] differ', [2, 3], [4, 5], 'f32', 'f32'],
  ['ERR_SHAPE', 'do not broadcast', [2, 2, 3], [3, 3, 5], 'f32', 'f32'],
  ['ERR_SHAPE', 'at least one axis', [], [4, 5], 'f32', 'f32'],
  ['ERR_DTYPE', 'i32', [2, 3], [3, 5], 'i32', 'i32'],
  ['ERR_DTYPE', 'one dtype', [2, 3], [3, 5], 'f32', 'bf16'],
] as const)('refuses with %s: %s', (code, text, left, right, leftType, rightType) => {
  const zeros = (shape: readonly number[], dtype: DType): Tensor =>
    tensor(new Float64Array(shape.reduce((n, extent) => n * extent, 1)), shape, { dtype });
  expect(() => matmul(zeros(left, leftType), zeros(right, rightType))).toThrowError(
    expect.objectContaining({ code, message: expect.stringContaining(text) }),
  );
});
