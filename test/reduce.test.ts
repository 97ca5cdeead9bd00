import { describe, expect, it } from 'vitest';
import * as F from '../lib/index.ts';
import { grad, tensor, type DType, type Tensor } from '../lib/index.ts';
import { laidOut, LAYOUTS, numbers, uniform } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { REDUCTION_ROWS, type ReductionRow } from './ops_table.ts';
import { fold, logSumExp, mapRows, plainOf, sizeOf, type Plain } from './reference.ts';
import { relativeError, toleranceOf } from './tolerance.ts';

type Shape = readonly number[];

/** [shape, axes]: rows, columns, middle axes, several axes, all, blocks with a rest, one element, chunks. */
const CASES: readonly (readonly [Shape, readonly number[]])[] = [
  [[5], [0]],
  [[1], [0]],
  [[4, 7], [1]],
  [[4, 7], [0]],
  [
    [4, 7],
    [0, 1],
  ],
  [[3, 4, 5], [1]],
  [
    [3, 4, 5],
    [0, 2],
  ],
  [
    [2, 3, 2, 3],
    [0, 2],
  ],
  [[3, 1100], [1]],
  [[530, 19], [0]],
  [[], []],
];

function exact(dtype: DType): boolean {
  return dtype === 'bool' || dtype === 'i64';
}

function expectMatches(row: ReductionRow, t: Tensor, axes: readonly number[], keepDims: boolean): void {
  if (row.single && axes.length !== 1 && axes.length !== t.rank) return;
  const all = axes.length === t.rank;
  const out = row.op(t, all ? null : row.single ? (axes[0] as F.Axes) : axes, keepDims);
  const expected = fold(plainOf(t), axes, keepDims, row.reference);
  expect(out.shape).toEqual(expected.shape);
  const tolerance = exact(out.dtype) ? 0 : toleranceOf(t.dtype);
  const error = relativeError(numbers(out), expected.data);
  expect(error, `${row.name} of [${t.shape}] over ${axes}`).toBeLessThanOrEqual(tolerance);
}

describe.each(LEVELS)('on %s', (level) => {
  it.each(REDUCTION_ROWS)('$name', (row) => {
    atLevel(level, () => {
      for (const [shape, axes] of CASES) {
        const values = uniform(sizeOf(shape), 4, ...(row.domain ?? []));
        for (const keepDims of [false, true]) {
          expectMatches(row, tensor(values, shape, { dtype: 'f32' }), axes, keepDims);
        }
      }
      for (const dtype of ['bf16', 'f16', 'f64'] as const) {
        expectMatches(row, tensor(uniform(6 * 35, 5, ...(row.domain ?? [])), [6, 35], { dtype }), [0], false);
        expectMatches(row, tensor(uniform(6 * 35, 5, ...(row.domain ?? [])), [6, 35], { dtype }), [1], false);
      }
      for (const layout of LAYOUTS) {
        // Along its expanded axis a tensor is constant: nothing to measure there.
        for (const axes of layout === 'expanded' ? [[1], [2], [0, 2]] : [[0], [1], [2], [0, 2]]) {
          expectMatches(row, laidOut(layout, [6, 9, 5], uniform(270, 6), 'f32'), axes, true);
        }
      }
    });
  });

  it('gradients agree with finite differences', () => {
    atLevel(level, () => {
      for (const row of REDUCTION_ROWS.filter((r) => r.gradient)) {
        for (const [shape, axes] of [CASES[0], CASES[2], CASES[5], CASES[6]]) expectGradient(row, shape, axes);
      }
    });
  });

  it('softmax, logSoftmax and cumsum', () => {
    atLevel(level, () => {
      for (const row of ROW_OPS) {
        for (const [shape, axis] of ROW_CASES) {
          for (const dtype of ['f32', 'bf16', 'f16', 'f64'] as const) expectRows(row, shape, axis, dtype);
        }
        for (const layout of LAYOUTS) {
          const t = laidOut(layout, [6, 9, 5], uniform(270, 6), 'f32');
          const expected = mapRows(plainOf(t), 1, row.reference);
          expect(relativeError(numbers(row.op(t, 1)), expected.data)).toBeLessThanOrEqual(toleranceOf('f32'));
        }
      }
    });
  });
});

function numericGradient(f: (p: Plain) => Float64Array, p: Plain, w: Float64Array): Float64Array {
  const h = 1e-5;
  const value = (data: Float64Array): number => f({ shape: p.shape, data }).reduce((sum, y, i) => sum + w[i] * y, 0);
  return p.data.map((x, i) => (value(p.data.with(i, x + h)) - value(p.data.with(i, x - h))) / (2 * h));
}

function expectGradient(row: ReductionRow, shape: Shape, axes: readonly number[]): void {
  for (const [dtype, tolerance] of [
    ['f32', 1e-4],
    ['f64', 1e-6],
  ] as const) {
    // prettier-ignore
    const t = tensor(uniform(sizeOf(shape), 7), shape, { dtype, requiresGrad: true });
    const out = row.op(t, axes, false);
    const w = tensor(uniform(out.size, 8), out.shape, { dtype });
    const [got] = grad(out, [t], { gradients: [w] }) as Tensor[];
    const expected = numericGradient((p) => fold(p, axes, false, row.reference).data, plainOf(t), numbers(w));
    expect(got.shape).toEqual(shape);
    expect(relativeError(numbers(got), expected), `${row.name} ${dtype}`).toBeLessThanOrEqual(tolerance);
  }
}

interface RowOp {
  name: string;
  op: (t: Tensor, axis: number) => Tensor;
  reference: (row: number[]) => number[];
}

const ROW_OPS: readonly RowOp[] = [
  { name: 'softmax', op: F.softmax, reference: (r) => r.map((x) => Math.exp(x - logSumExp(r))) },
  { name: 'logSoftmax', op: F.logSoftmax, reference: (r) => r.map((x) => x - logSumExp(r)) },
  { name: 'cumsum', op: F.cumsum, reference: (r) => r.map((_, i) => r.slice(0, i + 1).reduce((a, b) => a + b, 0)) },
];

const ROW_CASES: readonly (readonly [Shape, number])[] = [
  [[7], 0],
  [[1], 0],
  [[3, 33], -1],
  [[33, 3], 0],
  [[2, 5, 19], 1],
  [[2, 600], 1],
  [[0, 4], 1],
  [[4, 0], 1],
];

function expectRows(row: RowOp, shape: Shape, axis: number, dtype: DType): void {
  const t = tensor(uniform(sizeOf(shape), 3, -4, 4), shape, { dtype, requiresGrad: true });
  const at = axis < 0 ? axis + shape.length : axis;
  const out = row.op(t, axis);
  const p = plainOf(t);
  const expected = mapRows(p, at, row.reference);
  const label = `${row.name} [${shape}] ${dtype}`;
  expect(relativeError(numbers(out), expected.data), label).toBeLessThanOrEqual(toleranceOf(dtype));
  if (dtype !== 'f64' && dtype !== 'f32') return;
  if (p.data.length > 200) return;
  const w = tensor(uniform(out.size, 8), shape, { dtype });
  const [got] = grad(out, [t], { gradients: [w] }) as Tensor[];
  const numeric = numericGradient((q) => mapRows(q, at, row.reference).data, p, numbers(w));
  expect(relativeError(numbers(got), numeric), `${label} gradient`).toBeLessThanOrEqual(dtype === 'f32' ? 1e-4 : 1e-6);
}

describe('determinism', () => {
  const long = tensor(uniform(3 * 70_000, 2), [3, 70_000], { dtype: 'f32' });
  const square = tensor(uniform(90_000, 2), [300, 300], { dtype: 'f32' });

  it.each(REDUCTION_ROWS)('$name has the same bits for any number of threads', ({ op }) => {
    expectSameBitsForAnyThreads(() => op(long, [1], false));
    expectSameBitsForAnyThreads(() => op(square, [0], false));
  });

  it.each(ROW_OPS)('$name has the same bits for any number of threads', ({ op }) => {
    expectSameBitsForAnyThreads(() => op(square, 0));
    expectSameBitsForAnyThreads(() => op(square, 1));
  });

  it.each(REDUCTION_ROWS)('$name has the same bits for any strides and neighbours', ({ op }) => {
    const rows = numbers(op(square, [1], false));
    expect(numbers(op(F.contiguous(F.transpose(square)), [0], false))).toEqual(rows);
    expect(numbers(op(F.transpose(square), [0], false))).toEqual(rows);
    expect(numbers(op(F.slice(square, 0, 17, 18), [1], false))[0]).toBe(rows[17]);
  });

  it.each(ROW_OPS)('$name has the same bits for any strides and neighbours', ({ op }) => {
    const rows = numbers(op(square, 1));
    const turned = F.contiguous(F.transpose(op(F.contiguous(F.transpose(square)), 0)));
    expect(numbers(turned)).toEqual(rows);
    expect(numbers(op(F.slice(square, 0, 17, 18), 1))).toEqual(rows.slice(17 * 300, 18 * 300));
  });
});

describe('integers', () => {
  it('sum exactly as i64', () => {
    const t = tensor([2n ** 60n, 2n ** 60n, 7n, -3n], [2, 2], { dtype: 'i64' });
    expect(F.sum(t).dataSync()).toEqual(BigInt64Array.from([2n ** 61n + 4n]));
    expect(F.sum(tensor(new Uint8Array(1000).fill(255))).dataSync()).toEqual(BigInt64Array.from([255_000n]));
    expect(F.sum(tensor([true, false, true])).dtype).toBe('i64');
    expect(F.cumsum(tensor([1, 2, 3], [3], { dtype: 'i32' }), 0).dataSync()).toEqual(BigInt64Array.from([1n, 3n, 6n]));
    expect(F.prod(tensor([3, -4], [2], { dtype: 'i32' })).dataSync()).toEqual(BigInt64Array.from([-12n]));
  });

  it('keep their dtype in max and min', () => {
    for (const dtype of ['i32', 'i64', 'u8'] as const) {
      const t = tensor([3, 200, 5], [3], { dtype });
      expect(F.max(t).dtype).toBe(dtype);
      expect([F.max(t).itemSync(), F.min(t).itemSync()]).toEqual([200, 3]);
    }
  });

  it('are refused where they have no meaning', () => {
    const t = tensor([1, 2], [2], { dtype: 'i32' });
    for (const op of [F.mean, F.variance, F.norm, F.logSumExp, F.softmax]) {
      expect(() => op(t)).toThrow(expect.objectContaining({ code: 'ERR_DTYPE' }));
    }
  });
});

describe('edges', () => {
  it.each(REDUCTION_ROWS)('$name of nothing', ({ op, identity }) => {
    const empty = tensor([], [2, 0], { dtype: 'f32' });
    if (identity === null) {
      expect(() => op(empty, [1], false)).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
    } else {
      expect([...numbers(op(empty, [1], false))]).toEqual([identity, identity]);
    }
    const noRows = op(tensor([], [0, 3], { dtype: 'f32' }), [1], false);
    expect(noRows.shape).toEqual([0]);
  });

  it('NaN and infinity', () => {
    const t = tensor([[1, NaN, 3, NaN], [-Infinity, 0, Infinity, 2], [-Infinity, -Infinity, -Infinity, -Infinity]], null, { dtype: 'f32' }); // prettier-ignore
    expect([...numbers(F.max(t, 1))]).toEqual([NaN, Infinity, -Infinity]);
    expect([...numbers(F.min(t, 1))]).toEqual([NaN, -Infinity, -Infinity]);
    expect([...numbers(F.argMax(t, 1))]).toEqual([1, 2, 0]);
    expect([...numbers(F.argMin(t, 1))]).toEqual([1, 0, 0]);
    expect([...numbers(F.logSumExp(t, 1))]).toEqual([NaN, Infinity, -Infinity]);
    expect([...numbers(F.any(t, 1))]).toEqual([1, 1, 1]);
    expect(numbers(F.softmax(t)).slice(8).every(Number.isNaN)).toBe(true);
  });

  it('huge and tiny values neither overflow nor vanish', () => {
    expect(F.logSumExp(tensor([1000, 1000])).itemSync()).toBeCloseTo(1000 + Math.LN2, 3);
    expect(F.softmax(tensor([1e4, 0])).dataSync()).toEqual(Float32Array.from([1, 0]));
    expect(F.logSoftmax(tensor([1e4, 0])).dataSync()).toEqual(Float32Array.from([0, -1e4]));
    const shifted = tensor(
      uniform(5000, 3).map((x) => x + 1e4),
      null,
      { dtype: 'f32' },
    );
    const p = plainOf(shifted);
    const mean = p.data.reduce((a, b) => a + b, 0) / 5000;
    const expected = p.data.reduce((a, b) => a + (b - mean) ** 2, 0) / 4999;
    expect(Math.abs(F.variance(shifted).itemSync() / expected - 1)).toBeLessThan(1e-5);
  });

  it('a long sum in 16 bits is accumulated in more', () => {
    expect(F.mean(tensor(new Float32Array(100_000).fill(1), null, { dtype: 'bf16' })).itemSync()).toBe(1);
    expect(F.sum(tensor(new Float32Array(30_000).fill(1), null, { dtype: 'f16' })).itemSync()).toBe(30_000);
  });

  it('ties share the gradient of max, zeros have the right gradient of prod', () => {
    const t = tensor([2, 5, 5, 1], [4], { requiresGrad: true });
    expect([...numbers(grad(F.max(t), [t])[0] as Tensor)]).toEqual([0, 0.5, 0.5, 0]);
    const one = tensor([2, 0, 3], [3], { requiresGrad: true });
    expect([...numbers(grad(F.prod(one), [one])[0] as Tensor)]).toEqual([0, 6, 0]);
    const two = tensor([2, 0, 0], [3], { requiresGrad: true });
    expect([...numbers(grad(F.prod(two), [two])[0] as Tensor)]).toEqual([0, 0, 0]);
    const zero = tensor([0, 0], [2], { requiresGrad: true });
    expect([...numbers(grad(F.norm(zero), [zero])[0] as Tensor)]).toEqual([0, 0]);
    const equal = tensor([3, 3, 3, 3], [4], { dtype: 'f32', requiresGrad: true });
    expect([...numbers(grad(F.std(equal), [equal])[0] as Tensor)]).toEqual([0, 0, 0, 0]);
  });

  it('axes are checked', () => {
    const t = tensor([[1, 2]]);
    for (const axes of [2, -3, [0, 0], [0, -2], 0.5, []]) {
      expect(() => F.sum(t, axes)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    }
    expect(() => F.softmax(t, 2)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(F.sum(t, -1, true).shape).toEqual([1, 1]);
  });
});
