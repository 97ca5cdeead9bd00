import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { tensor, type DType, type Tensor } from '../lib/index.ts';
import { native } from '../lib/native.ts';
import { Tensor as TensorClass } from '../lib/tensor/tensor.ts';
import { noise } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { relativeError, toleranceOf } from './tolerance.ts';

interface Case {
  readonly out: Tensor;
  readonly lse: Tensor;
  readonly pairs: Tensor;
  readonly gate: Tensor;
  readonly near: Tensor | null;
  readonly nearLse: Tensor | null;
}

/** Some spans and some windows see nothing: 0 and -inf. */
function makeCase(rows: number, spans: number, dim: number, seed: number, window: boolean, dtype: DType = 'f32'): Case {
  const count = rows * spans;
  const order = [...noise(count, seed).entries()].toSorted(([, x], [, y]) => x - y).map(([i]) => i);
  const some = (x: number): number => (x > 0.6 ? -Infinity : 8 * x);
  const of = (values: Float64Array, shape: number[], type: DType = 'f32'): Tensor => tensor(values, shape, { dtype: type }); // prettier-ignore
  return {
    out: of(noise(count * dim, seed + 1), [count, dim], dtype),
    lse: of(noise(count, seed + 2).map(some), [count]),
    pairs: tensor(order, [count], { dtype: 'i32' }),
    gate: of(noise(count, seed + 3).map(Math.abs), [rows, spans]),
    near: window ? of(noise(rows * dim, seed + 4), [rows, dim], dtype) : null,
    nearLse: window ? of(noise(rows, seed + 5).map(some), [rows]) : null,
  };
}

function mixSpans({ out, lse, pairs, gate, near, nearLse }: Case): Tensor {
  const handles = [out.handle, lse.handle, pairs.handle, gate.handle] as const;
  return new TensorClass(native().mixSpans(...handles, near?.handle ?? null, nearLse?.handle ?? null));
}

function reference({ out, lse, pairs, gate, near, nearLse }: Case): Float64Array {
  const [rows, spans] = gate.shape;
  const dim = out.shape[1];
  const [o, l, p, g] = [out, lse, pairs, gate].map(numbers);
  const [n, nl] = [near, nearLse].map((t) => t && numbers(t));
  const result = new Float64Array(rows * dim);
  if (n) result.set(n);
  p.forEach((pair, i) => {
    const row = Math.floor(pair / spans);
    const share = nl ? 1 / (1 + Math.exp(Math.max(nl[row], -1e30) - Math.max(l[i], -1e30))) : 1;
    for (let d = 0; d < dim; d++)
      result[row * dim + d] += g[pair] * share * (o[i * dim + d] - (n ? n[row * dim + d] : 0));
  });
  return result;
}

describe.each(LEVELS)('mixSpans on %s', (level) => {
  it('weighs spans against the window, for any sizes', () => {
    const sizes = fc.tuple(fc.integer({ min: 1, max: 90 }), fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 70 }), fc.boolean(), fc.nat()); // prettier-ignore
    atLevel(level, () => {
      fc.assert(
        fc.property(sizes, ([rows, spans, dim, window, seed]) => {
          const c = makeCase(rows, spans, dim, seed, window);
          expect(relativeError(numbers(mixSpans(c)), reference(c))).toBeLessThanOrEqual(toleranceOf('f32'));
        }),
        { numRuns: 40 },
      );
    });
  });

  it.each(['bf16', 'f16'] as const)('of %s', (dtype) => {
    atLevel(level, () => {
      const c = makeCase(33, 3, 40, 5, true, dtype);
      const mixed = mixSpans(c);
      expect(mixed.dtype).toBe(dtype);
      expect(relativeError(numbers(mixed), reference(c))).toBeLessThanOrEqual(toleranceOf(dtype));
    });
  });
});

it('gives the same bits for any number of threads', () => {
  const c = makeCase(300, 3, 48, 9, true);
  expectSameBitsForAnyThreads(() => mixSpans(c));
});

it('refuses what does not fit, and rejects for pairs out of range', async () => {
  const c = makeCase(4, 2, 3, 1, true);
  expect(() => mixSpans({ ...c, near: null })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  expect(() => mixSpans({ ...c, out: makeCase(3, 2, 3, 1, true).out })).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' })); // prettier-ignore
  const bad = mixSpans({ ...c, pairs: tensor([0, 1, 2, 3, 4, 5, 6, 8], [8], { dtype: 'i32' }) });
  await expect(bad.data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
});
