/** Gradients of an op against central differences of its double-precision reference. */
import { expect } from 'vitest';
import { grad, tensor, type Tensor } from '../lib/index.ts';
import { relativeError } from './tolerance.ts';

/** Repeatable pseudo-random numbers in (-1, 1), exact in f32. */
export function noise(count: number, seed = 1): Float64Array {
  let state = (seed * 2654435761) >>> 0;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.fround(state / 2 ** 31 - 1);
  });
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((n, extent) => n * extent, 1);
}

export interface GradientCase {
  /** Shapes of the differentiated inputs. */
  shapes: readonly (readonly number[])[];
  op: (...inputs: Tensor[]) => Tensor;
  /** The same on flat row-major arrays. */
  reference: (...inputs: Float64Array[]) => ArrayLike<number>;
  /** Default noise(). */
  inputs?: readonly Float64Array[];
  tolerance?: number;
}

/** Checks the forward and, for a random gradient of the output, the gradient of every input. */
export function checkGradients({ shapes, op, reference, inputs, tolerance = 2e-5 }: GradientCase): void {
  const values = inputs ?? shapes.map((shape, i) => noise(sizeOf(shape), i + 1));
  const leaves = values.map((v, i) => tensor(v, shapes[i], { dtype: 'f32', requiresGrad: true }));
  const out = op(...leaves);
  const expected = Float64Array.from(reference(...values));
  expect(out.size).toBe(expected.length);
  expect(relativeError(out.dataSync() as Float32Array, expected)).toBeLessThanOrEqual(tolerance);
  const weights = noise(out.size, 99);
  const grads = grad(out, leaves, { gradients: [tensor(weights, out.shape, { dtype: 'f32' })] });
  const step = 1e-5;
  values.forEach((v, i) => {
    const numeric = v.map((x, k) => {
      const at = (delta: number): number => {
        const y = reference(...values.map((other, j) => (j === i ? v.with(k, x + delta) : other)));
        return weights.reduce((sum, w, n) => sum + w * y[n], 0);
      };
      return (at(step) - at(-step)) / (2 * step);
    });
    expect(grads[i]?.shape).toEqual(shapes[i]);
    const got = (grads[i] as Tensor).dataSync() as Float32Array;
    expect(relativeError(got, numeric), `gradient of input ${i}`).toBeLessThanOrEqual(5 * tolerance);
  });
}
