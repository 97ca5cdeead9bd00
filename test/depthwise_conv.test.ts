import { describe, expect, it } from 'vitest';
import { cast, depthwiseConv, permute, tensor } from '../lib/index.ts';
import { checkGradients, noise, sizeOf } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { expectClose } from './tolerance.ts';

function reference(
  shape: number[],
  [rows, columns]: number[],
  x: Float64Array,
  w: Float64Array,
  b?: Float64Array,
): Float64Array {
  const [n, h, width, c] = shape;
  const y = new Float64Array(x.length);
  for (let i = 0; i < y.length; i++) {
    const ch = i % c;
    const col = Math.floor(i / c) % width;
    const row = Math.floor(i / (c * width)) % h;
    const image = Math.floor(i / (c * width * h));
    if (image >= n) continue;
    y[i] = b ? b[ch] : 0;
    for (let r = 0; r < rows; r++)
      for (let s = 0; s < columns; s++) {
        const [u, t] = [row + r - (rows - 1) / 2, col + s - (columns - 1) / 2];
        if (u >= 0 && t >= 0 && u < h && t < width)
          y[i] += w[(ch * rows + r) * columns + s] * x[((image * h + u) * width + t) * c + ch];
      }
  }
  return y;
}

const cases: [number[], number[]][] = [
  [[1, 1, 1, 1], [1, 1]],
  [[2, 3, 4, 5], [3, 3]],
  [[1, 5, 2, 17], [5, 5]],
  [[1, 2, 7, 33], [1, 5]],
  [[1, 4, 4, 16], [7, 3]],
]; // prettier-ignore

describe('depthwiseConv', () => {
  it.each(cases)('image %j, filter %j: values and gradients', (shape, filter) => {
    const c = shape[3];
    checkGradients({
      shapes: [shape, [c, 1, ...filter], [c]],
      op: (x, w, b) => depthwiseConv(x, w, b),
      reference: (x, w, b) => reference(shape, filter, x, w, b),
    });
  });

  it.each(LEVELS)('at level %s, dtypes and strides', (level) => {
    atLevel(level, () => {
      const shape = [1, 6, 5, 19];
      const x = tensor(noise(sizeOf(shape), 1), shape, { dtype: 'f32' });
      const w = tensor(noise(19 * 9, 2), [19, 1, 3, 3], { dtype: 'f32' });
      const expected = reference(shape, [3, 3], numbers(x), numbers(w));
      expectClose(numbers(depthwiseConv(x, w)), expected);
      const turned = permute(tensor(numbers(permute(x, [0, 3, 1, 2])), [1, 19, 6, 5], { dtype: 'f32' }), [0, 2, 3, 1]);
      expectClose(numbers(depthwiseConv(turned, w)), expected);
      for (const dtype of ['bf16', 'f16'] as const)
        expectClose(numbers(cast(depthwiseConv(cast(x, dtype), cast(w, dtype)), 'f32')), expected, dtype);
    });
  });

  it('gives the same bits for any number of threads', () => {
    const x = tensor(noise(2 * 9 * 9 * 20, 1), [2, 9, 9, 20], { dtype: 'f32' });
    const w = tensor(noise(20 * 25, 2), [20, 1, 5, 5], { dtype: 'f32' });
    expectSameBitsForAnyThreads(() => depthwiseConv(x, w));
  });

  it('refuses even filters and other channels', () => {
    const x = tensor(new Float32Array(16), [1, 2, 2, 4]);
    const bad = (shape: number[]) => () => depthwiseConv(x, tensor(new Float32Array(sizeOf(shape)), shape));
    expect(bad([4, 1, 2, 3])).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
    expect(bad([3, 1, 3, 3])).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
    expect(() => depthwiseConv(x, cast(tensor(new Float32Array(36), [4, 1, 3, 3]), 'bf16'))).toThrow(
      expect.objectContaining({ code: 'ERR_DTYPE' }),
    );
  });
});
