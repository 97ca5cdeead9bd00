import { describe, expect, it } from 'vitest';
import * as F from '../lib/index.ts';
import { grad, tensor, type DType, type Tensor } from '../lib/index.ts';
import { laidOut, LAYOUTS, numbers, uniform } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { BINARY_ROWS, UNARY_ROWS, type ElementwiseRow } from './ops_table.ts';
import { map, plainOf, sizeOf, sumBack, type Plain } from './reference.ts';
import { relativeError, toleranceOf } from './tolerance.ts';

type Shape = readonly number[];

/** Tiny, empty, odd, long rows, many short rows, more than one block. */
const UNARY_SHAPES: readonly Shape[] = [[], [0], [1], [3, 5], [2, 0, 3], [33], [7, 130], [1100]];
const BINARY_SHAPES: readonly (readonly [Shape, Shape])[] = [
  [[], []],
  [[0], [1]],
  [[1], [7]],
  [[3, 5], [5]],
  [
    [2, 1, 4],
    [3, 1],
  ],
  [
    [2, 300],
    [2, 1],
  ],
  [[5, 300], [300]],
  [[400, 3], [3]],
  [[], [40]],
  [[1100], [1100]],
];

function inputsFor(row: ElementwiseRow, shapes: readonly Shape[], dtype: DType, layout = LAYOUTS[0]): Tensor[] {
  return shapes.map((shape, i) =>
    laidOut(layout, shape, uniform(sizeOf(shape), i + 1, row.domain[0], row.domain[1], row.kinks), dtype),
  );
}

/** A bool result is compared exactly; values of 16-bit floats are those the tensor holds. */
function expectMatches(row: ElementwiseRow, inputs: readonly Tensor[], dtype: DType): void {
  const out = row.op(...inputs);
  const expected = map(row.reference, ...inputs.map(plainOf));
  expect(out.shape).toEqual(expected.shape);
  const tolerance = out.dtype === 'bool' ? 0 : toleranceOf(dtype);
  const error = relativeError(numbers(out), expected.data);
  expect(error, `${row.name} of ${inputs.map((t) => `[${t.shape}]`)} ${dtype}`).toBeLessThanOrEqual(tolerance);
}

/** The gradient of sum(w f(inputs)) with respect to operand k, by central differences of the reference. */
function numericGradient(row: ElementwiseRow, inputs: readonly Plain[], k: number, w: Plain): Plain {
  const h = 1e-5;
  const slope = (...x: number[]): number =>
    (row.reference(...x.with(k, x[k] + h)) - row.reference(...x.with(k, x[k] - h))) / (2 * h);
  const full = map((weight, ...x) => weight * slope(...x), w, ...inputs);
  return sumBack(full, inputs[k].shape);
}

function expectGradients(row: ElementwiseRow, shapes: readonly Shape[], dtype: DType, tolerance: number): void {
  const inputs = inputsFor(row, shapes, dtype).map((t) => {
    t.requiresGrad = true;
    return t;
  });
  const out = row.op(...inputs);
  const weights = tensor(uniform(out.size, 9), out.shape, { dtype: out.dtype });
  const grads = grad(out, inputs, { gradients: [weights] });
  inputs.forEach((t, k) => {
    const expected = numericGradient(row, inputs.map(plainOf), k, plainOf(weights));
    const got = grads[k] as Tensor;
    expect(got.shape).toEqual(t.shape);
    expect(got.dtype).toBe(t.dtype);
    expect(relativeError(numbers(got), expected.data), `${row.name} d/d${k} ${dtype}`).toBeLessThanOrEqual(tolerance);
  });
}

describe.each(LEVELS)('on %s', (level) => {
  it.each(UNARY_ROWS)('$name', (row) => {
    atLevel(level, () => {
      for (const shape of UNARY_SHAPES) expectMatches(row, inputsFor(row, [shape], 'f32'), 'f32');
      for (const dtype of ['bf16', 'f16', 'f64'] as const) {
        for (const shape of [[33], [3, 700]]) expectMatches(row, inputsFor(row, [shape], dtype), dtype);
      }
      for (const layout of LAYOUTS) expectMatches(row, inputsFor(row, [[6, 9, 5]], 'f32', layout), 'f32');
    });
  });

  it.each(BINARY_ROWS)('$name', (row) => {
    atLevel(level, () => {
      for (const shapes of BINARY_SHAPES) expectMatches(row, inputsFor(row, shapes, 'f32'), 'f32');
      for (const dtype of ['bf16', 'f16', 'f64'] as const) {
        for (const shapes of [BINARY_SHAPES[3], BINARY_SHAPES[5]]) {
          expectMatches(row, inputsFor(row, shapes, dtype), dtype);
        }
      }
      for (const layout of LAYOUTS) {
        const [a] = inputsFor(row, [[6, 9, 5]], 'f32', layout);
        const [, b] = inputsFor(row, [[1], [9, 5]], 'f32', layout);
        expectMatches(row, [a, b], 'f32');
        expectMatches(row, [b, a], 'f32');
      }
    });
  });

  it('gradients agree with finite differences', () => {
    atLevel(level, () => {
      for (const row of UNARY_ROWS) {
        expectGradients(row, [[3, 37]], 'f32', 1e-4);
        expectGradients(row, [[11]], 'f64', 1e-7);
      }
      for (const row of BINARY_ROWS.filter((r) => r.gradient)) {
        expectGradients(row, [[4, 1, 5], [3, 1]], 'f32', 1e-4); // prettier-ignore
        expectGradients(row, [[7], []], 'f64', 1e-7);
      }
    });
  });
});

it('has the same bits for any number of threads', () => {
  const a = tensor(uniform(90_000, 1), [300, 300], { dtype: 'f32' });
  expectSameBitsForAnyThreads(() => F.gelu(a));
  expectSameBitsForAnyThreads(() => F.add(a, F.transpose(a)));
  expectSameBitsForAnyThreads(() => F.pow(F.abs(a), F.slice(a, 0, 0, 1)));
});

it('an element does not depend on its place', () => {
  const values = uniform(1100, 3, -6, 6);
  const whole = numbers(F.gelu(tensor(values, null, { dtype: 'f32' })));
  for (const start of [1, 5, 511, 1099]) {
    const part = numbers(F.gelu(tensor(values.slice(start, start + 40), null, { dtype: 'f32' })));
    expect([...part]).toEqual([...whole.slice(start, start + 40)]);
  }
});

describe('dtypes', () => {
  const of = (dtype: DType): Tensor => tensor([1, 0], [2], { dtype });

  it.each<[DType, DType, DType]>([
    ['bool', 'u8', 'u8'],
    ['u8', 'i32', 'i32'],
    ['i32', 'i64', 'i64'],
    ['i64', 'f16', 'f16'],
    ['bool', 'bf16', 'bf16'],
    ['f16', 'bf16', 'f32'],
    ['bf16', 'f32', 'f32'],
    ['f32', 'f64', 'f64'],
    ['i64', 'f64', 'f64'],
    ['bool', 'bool', 'i64'],
  ])('%s + %s is %s', (a, b, expected) => {
    const sum = F.add(of(a), of(b));
    expect(sum.dtype).toBe(expected);
    expect([...numbers(sum)]).toEqual([2, 0]);
    expect(F.add(of(b), of(a)).dtype).toBe(expected);
  });

  it('a number does not widen a tensor', () => {
    for (const dtype of ['f32', 'bf16', 'f16', 'f64'] as const) expect(F.mul(of(dtype), 0.5).dtype).toBe(dtype);
    for (const dtype of ['u8', 'i32', 'i64'] as const) {
      expect(F.add(of(dtype), 2).dtype).toBe(dtype);
      expect(F.add(2.5, of(dtype)).dtype).toBe('f32');
      expect([...numbers(F.sub(5, of(dtype)))]).toEqual([4, 5]);
      expect([...numbers(F.lt(of(dtype), 0.5))]).toEqual([0, 1]);
    }
    expect(F.add(of('bool'), 1).dtype).toBe('i64');
  });

  it('integers divide and take functions as f32', () => {
    const t = tensor([7, -4], [2], { dtype: 'i32' });
    expect(F.div(t, 2).dtype).toBe('f32');
    expect([...numbers(F.div(t, 2))]).toEqual([3.5, -2]);
    expect(F.exp(t).dtype).toBe('f32');
    expect([...numbers(F.neg(t))]).toEqual([-7, 4]);
    expect(F.abs(t).dtype).toBe('i32');
    expect([...numbers(F.clamp(t, -1.5, 2.5))]).toEqual([2, -1]);
    expect([...numbers(F.remainder(t, 3))]).toEqual([1, 2]);
    expect([...numbers(F.remainder(t, -3))]).toEqual([-2, -1]);
    expect([...numbers(F.remainder(t, 0))]).toEqual([0, 0]);
    expect([...numbers(F.pow(t, 3))]).toEqual([343, -64]);
    expect([...numbers(F.pow(t, -1))]).toEqual([0, 0]);
  });

  it('integers wrap around', () => {
    const i32 = tensor([2147483647, -2147483648], [2], { dtype: 'i32' });
    expect([...numbers(F.add(i32, 1))]).toEqual([-2147483648, -2147483647]);
    expect([...numbers(F.neg(i32))]).toEqual([-2147483647, -2147483648]);
    expect([...numbers(F.remainder(i32, -1))]).toEqual([0, 0]);
    const u8 = tensor([250, 3], [2], { dtype: 'u8' });
    expect([...numbers(F.add(u8, 10))]).toEqual([4, 13]);
    expect([...numbers(F.sub(u8, 4))]).toEqual([246, 255]);
    const big = tensor([2n ** 62n, -5n], [2], { dtype: 'i64' });
    expect(F.mul(big, 3).dataSync()).toEqual(BigInt64Array.from([BigInt.asIntN(64, 3n * 2n ** 62n), -15n]));
  });

  it('bool stays bool where that makes sense', () => {
    const [a, b] = [tensor([true, true, false]), tensor([true, false, false])];
    expect(F.maximum(a, b).dtype).toBe('bool');
    expect([...numbers(F.maximum(a, b))]).toEqual([1, 1, 0]);
    expect(F.where(a, a, b).dtype).toBe('bool');
    expect([...numbers(F.where(a, b, a))]).toEqual([1, 0, 0]);
  });
});

describe('special values', () => {
  const t = tensor([NaN, Infinity, -Infinity, 0, -0], [5], { dtype: 'f32' });

  it('NaN wins in maximum, minimum and clamp, and equals nothing', () => {
    expect(numbers(F.maximum(t, 1))[0]).toBeNaN();
    expect(numbers(F.maximum(1, t))[0]).toBeNaN();
    expect(numbers(F.minimum(t, 1))[0]).toBeNaN();
    expect(numbers(F.clamp(t, -1, 1))[0]).toBeNaN();
    expect([...numbers(F.eq(t, t))]).toEqual([0, 1, 1, 1, 1]);
    expect([...numbers(F.ne(t, t))]).toEqual([1, 0, 0, 0, 0]);
  });

  it.each(LEVELS)('functions have the values of Math on %s', (level) => {
    atLevel(level, () => {
      const cases: [string, (t: Tensor) => Tensor, (x: number) => number][] = [
        ['exp', F.exp, Math.exp],
        ['expm1', F.expm1, Math.expm1],
        ['log', F.log, Math.log],
        ['log1p', F.log1p, Math.log1p],
        ['sqrt', F.sqrt, Math.sqrt],
        ['tanh', F.tanh, Math.tanh],
        ['sin', F.sin, Math.sin],
        ['cos', F.cos, Math.cos],
        ['floor', F.floor, Math.floor],
        ['ceil', F.ceil, Math.ceil],
        ['sigmoid', F.sigmoid, (x) => 1 / (1 + Math.exp(-x))],
        ['reciprocal', F.reciprocal, (x) => 1 / x],
        ['pow 0', (t) => F.pow(t, 0), () => 1],
        ['pow -1', (t) => F.pow(t, -1), (x) => 1 / x],
        ['pow 3', (t) => F.pow(t, 3), (x) => x ** 3],
        ['relu', F.relu, (x) => (x < 0 ? 0 : x)],
      ];
      for (const [name, op, f] of cases) expect([...numbers(op(t))], name).toEqual(Array.from(plainOf(t).data, f));
    });
  });
});

/** Worst error in units in the last place over f32 arguments spread over their bit patterns in the domain. */
function worstUlp(op: (t: Tensor) => Tensor, f: (x: number) => number, low: number, high: number): number {
  const bits = new Uint32Array(1);
  const value = new Float32Array(bits.buffer);
  const x = Float32Array.from({ length: 40_000 }, (_, i) => {
    bits[0] = i * 107_374;
    return value[0];
  }).filter((v) => v >= low && v <= high);
  const y = op(tensor(x)).dataSync() as Float32Array;
  return x.reduce((worst, v, i) => {
    const exact = f(v);
    if (!Number.isFinite(exact) || Math.abs(exact) > 3.4e38 || Math.abs(exact) < 1.2e-38) return worst;
    const ulp = 2 ** (Math.floor(Math.log2(Math.abs(exact))) - 23);
    return Math.max(worst, Math.abs(y[i] - exact) / ulp);
  }, 0);
}

it.each(LEVELS)('functions are accurate to a few units in the last place on %s', (level) => {
  atLevel(level, () => {
    const of = (name: string): ElementwiseRow => UNARY_ROWS.find((row) => row.name === name) as ElementwiseRow;
    const cases: [string, number, number, number][] = [
      ['exp', -87, 88, 2],
      ['expm1', -87, 88, 3],
      ['log', 0, Infinity, 2],
      ['log1p', -1, Infinity, 3],
      ['tanh', -Infinity, Infinity, 2],
      ['sigmoid', -80, Infinity, 3],
      ['softplus', -80, 80, 4],
      ['erf', -Infinity, Infinity, 3],
      ['sin', -8000, 8000, 3],
      ['cos', -8000, 8000, 3],
      ['sqrt', 0, Infinity, 1],
    ];
    for (const [name, low, high, bound] of cases) {
      const { op, reference } = of(name);
      expect(worstUlp(op, reference, low, high), name).toBeLessThanOrEqual(bound);
    }
  });
});

describe('errors', () => {
  const code = (c: string) => expect.objectContaining({ name: 'FoveaError', code: c });

  it('names both shapes', () => {
    const run = (): Tensor => F.add(tensor([1, 2]), tensor([1, 2, 3]));
    expect(run).toThrow(code('ERR_SHAPE'));
    expect(run).toThrow(/\[2\] and \[3\]/);
    expect(() => F.where(tensor([true]), tensor([1, 2]), tensor([1, 2, 3]))).toThrow(code('ERR_SHAPE'));
  });

  it('refuses what makes no sense', () => {
    expect(() => F.add(1, 2)).toThrow(code('ERR_ARGUMENT'));
    for (const other of [null, undefined, [1, 2], '1', 1n])
      expect(() => F.add(tensor([1]), other as never)).toThrow(code('ERR_ARGUMENT'));
    expect(() => F.clamp(tensor([1]), 2, 1)).toThrow(code('ERR_ARGUMENT'));
    expect(() => F.logicalAnd(tensor([1]), tensor([true]))).toThrow(code('ERR_DTYPE'));
    expect(() => F.logicalNot(tensor([1]))).toThrow(code('ERR_DTYPE'));
    expect(() => F.where(tensor([1]), 1, 2)).toThrow(code('ERR_DTYPE'));
  });
});

it('subgradients are as documented', () => {
  const at = (op: (t: Tensor) => Tensor, x: number): number => {
    const t = tensor([x], [1], { requiresGrad: true });
    return numbers(grad(F.sum(op(t)), [t])[0] as Tensor)[0];
  };
  expect(at(F.abs, 0)).toBe(0);
  expect(at(F.relu, 0)).toBe(0);
  expect(at((t) => F.leakyRelu(t, 0.5), 0)).toBe(1);
  expect(at((t) => F.clamp(t, -1, 1), 1)).toBe(1);
  expect(at((t) => F.clamp(t, -1, 1), 1.5)).toBe(0);
  expect(at((t) => F.maximum(t, 2), 2)).toBe(0.5);
  expect(at((t) => F.minimum(t, 2), 2)).toBe(0.5);
  expect(at((t) => F.pow(t, 0), 0)).toBe(0);
  expect(at((t) => F.pow(t, tensor([0])), 0)).toBe(0);
});

it('methods are the functions', () => {
  const a = tensor([[1, 2], [3, 4]]); // prettier-ignore
  expect(a.add(1).mul(2).sum().itemSync()).toBe(28);
  expect([...numbers(a.gt(2).where(a, 0))]).toEqual([0, 0, 3, 4]);
  expect(a.to('i32').dtype).toBe('i32');
  expect(a.transpose().reshape([4]).slice(0, 1, 3).shape).toEqual([2]);
});
