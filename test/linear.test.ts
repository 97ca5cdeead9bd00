import { afterEach, describe, expect, it } from 'vitest';
import { ACTIVATIONS, grad, linear, scope, setNumThreads, slice, tensor, transpose } from '../lib/index.ts';
import type { Activation, DType, Tensor } from '../lib/index.ts';
import { native } from '../lib/native.ts';
import { LEVELS } from './levels.ts';
import { random, referenceActivation, referenceMatmul, referenceTranspose, valuesOf } from './reference_matmul.ts';
import { expectClose } from './tolerance.ts';

const DTYPES: readonly DType[] = ['f32', 'bf16', 'f16', 'f64'];

afterEach(() => {
  native().setIsa(native().bestIsa());
  setNumThreads(2);
});

/** [count, inner] x [features, inner]^T + [features], activated. */
function reference(
  x: Float64Array,
  w: Float64Array,
  bias: Float64Array | null,
  kind: Activation,
  inner: number,
  features: number,
): Float64Array {
  const turned = referenceTranspose(w, features, inner);
  const z = referenceMatmul(x, turned, 1, x.length / inner, inner, features);
  return z.map((v, i) => referenceActivation(kind, v + (bias ? bias[i % features] : 0)));
}

describe.each(LEVELS)('on %s', (level) => {
  it.each(DTYPES)('agrees with the reference for every activation in %s', (dtype) => {
    native().setIsa(level);
    for (const kind of ACTIVATIONS) {
      for (const [rows, inner, features] of [
        [1, 33, 50],
        [5, 64, 7],
        [19, 130, 100],
      ]) {
        for (const withBias of [true, false]) {
          scope(() => {
            const x = random([rows, inner], dtype, rows);
            const w = random([features, inner], dtype, features);
            const bias = random([features], dtype, 3);
            const out = linear(x.t, w.t, withBias ? bias.t : null, kind);
            const expected = reference(x.values, w.values, withBias ? bias.values : null, kind, inner, features);
            expectClose(valuesOf(out), expected, dtype);
          });
        }
      }
    }
  });

  it('keeps GELU exact far into both tails', () => {
    native().setIsa(level);
    const x = Float64Array.from({ length: 601 }, (_, i) => -15 + i / 20);
    const one = tensor(new Float64Array([1]), [1, 1], { dtype: 'f32' });
    const out = valuesOf(linear(tensor(x, [601, 1], { dtype: 'f32' }), one, null, 'gelu'));
    x.forEach((v, i) =>
      expect(Math.abs(out[i] - referenceActivation('gelu', v))).toBeLessThanOrEqual(1e-6 * Math.max(1, v)),
    );
    expect(Math.abs(out[0])).toBeLessThan(1e-14);
  });
});

it('keeps leading axes, takes a vector and strided inputs', async () => {
  const w = tensor([
    [1, 2],
    [3, 4],
    [5, 6],
  ]);
  expect(await linear(tensor([1, 1]), w, tensor([1, 0, -1])).toArray()).toEqual([4, 7, 10]);
  const x = random([2, 3, 4, 6], 'f32', 4);
  const weight = random([5, 6], 'f32', 5);
  const out = linear(x.t, weight.t);
  expect(out.shape).toEqual([2, 3, 4, 5]);
  expectClose(valuesOf(out), reference(x.values, weight.values, null, 'none', 6, 5), 'f32');
  const turned = transpose(random([6, 9], 'f32', 6).t);
  expectClose(
    valuesOf(linear(turned, weight.t)),
    reference(valuesOf(turned), weight.values, null, 'none', 6, 5),
    'f32',
  );
  const columns = slice(random([5, 13], 'f32', 7).t, 1, 0, 12, 2);
  expectClose(
    valuesOf(linear(turned, columns)),
    reference(valuesOf(turned), valuesOf(columns), null, 'none', 6, 5),
    'f32',
  );
});

it('gives the activated bias for an empty inner axis', async () => {
  const out = linear(
    tensor(new Float32Array(0), [2, 0]),
    tensor(new Float32Array(0), [3, 0]),
    tensor([-1, 0, 2]),
    'relu',
  );
  expect(await out.toArray()).toEqual([
    [0, 0, 2],
    [0, 0, 2],
  ]);
});

it('gives a row the same bits alone and in a batch', () => {
  for (const dtype of DTYPES) {
    const x = random([40, 300], dtype, 8).t;
    const w = random([130, 300], dtype, 9).t;
    const bias = random([130], dtype, 10).t;
    const all = Buffer.from(native().readSync(linear(x, w, bias, 'silu').handle));
    const bytes = all.length / 40;
    for (const [row, threads] of [
      [0, 1],
      [21, 2],
      [39, 1],
    ]) {
      setNumThreads(threads);
      const one = Buffer.from(native().readSync(linear(slice(x, 0, row, row + 1), w, bias, 'silu').handle));
      expect(one.compare(all, row * bytes, (row + 1) * bytes)).toBe(0);
    }
  }
});

describe('gradients', () => {
  it.each(ACTIVATIONS)('match finite differences with %s', (kind) => {
    const parts = [random([2, 3, 5], 'f64', 11), random([4, 5], 'f64', 12), random([4], 'f64', 13)];
    for (const { t } of parts) t.requiresGrad = true;
    const run = (ts: readonly Tensor[]): Tensor => linear(ts[0], ts[1], ts[2], kind);
    const weights = random([2, 3, 4], 'f64', 14);
    const grads = grad(
      run(parts.map(({ t }) => t)),
      parts.map(({ t }) => t),
      { gradients: [weights.t] },
    );
    parts.forEach((part, at) => {
      const loss = (values: Float64Array): number => {
        const ts = parts.map(({ t }, i) => (i === at ? tensor(values, t.shape) : t));
        return valuesOf(run(ts)).reduce((sum, v, i) => sum + v * weights.values[i], 0);
      };
      const numeric = part.values.map(
        (v, i) => (loss(part.values.with(i, v + 1e-4)) - loss(part.values.with(i, v - 1e-4))) / 2e-4,
      );
      expectClose(valuesOf(grads[at] as Tensor), numeric, 'f64', 1e5);
    });
  });

  it.each(ACTIVATIONS)('in f32, bf16 and f16 agree with f64 with %s', (kind) => {
    const gradientsIn = (dtype: DType): Float64Array[] => {
      const ts = [random([30, 20], 'bf16', 15), random([50, 20], 'bf16', 16), random([50], 'bf16', 17)].map(
        ({ values, t }) => tensor(values, t.shape, { dtype, requiresGrad: true }),
      );
      const seed = tensor(random([30, 50], 'bf16', 18).values, [30, 50], { dtype });
      return grad(linear(ts[0], ts[1], ts[2], kind), ts, { gradients: [seed] }).map((g) => valuesOf(g as Tensor));
    };
    const exact = gradientsIn('f64');
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      // A 16-bit pre-activation may round across ReLU's corner; elsewhere derivatives are smooth.
      const factor = dtype === 'f32' ? 1 : 2;
      gradientsIn(dtype).forEach((g, i) => expectClose(g, exact[i], dtype, factor));
    }
  });

  it('leave out inputs that need none', () => {
    const x = random([3, 4], 'f32', 19).t;
    const w = random([2, 4], 'f32', 20).t;
    w.requiresGrad = true;
    const out = linear(x, w, null, 'relu');
    expect(grad(out, [x, w], { gradients: [random([3, 2], 'f32', 21).t] })[0]).toBeNull();
  });
});

it.each([
  ['ERR_SHAPE', 'expected [..., 3]', [2, 4], [5, 3], null, 'none'],
  ['ERR_SHAPE', 'expected [out, in]', [2, 3], [5, 3, 1], null, 'none'],
  ['ERR_SHAPE', 'bias has shape [4]', [2, 3], [5, 3], [4], 'none'],
  ['ERR_ARGUMENT', "unknown activation 'swish'", [2, 3], [5, 3], null, 'swish'],
] as const)('refuses with %s: %s', (code, text, x, w, bias, kind) => {
  const zeros = (shape: readonly number[]): Tensor =>
    tensor(new Float32Array(shape.reduce((n, extent) => n * extent, 1)), shape);
  expect(() => linear(zeros(x), zeros(w), bias ? zeros(bias) : null, kind as Activation)).toThrowError(
    expect.objectContaining({ code, message: expect.stringContaining(text) }),
  );
});
