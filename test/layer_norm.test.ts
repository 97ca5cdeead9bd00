import { describe, expect, it } from 'vitest';
import { grad, layerNorm, permute, rmsNorm, scope, tensor, type DType } from '../lib/index.ts';
import { checkGradients, noise } from './gradient_check.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { expectClose } from './tolerance.ts';

/** Rows of `width`, normalised in double precision; `centered` false is RMS norm. */
function reference(
  x: Float64Array,
  width: number,
  eps: number,
  centered: boolean,
  weight?: Float64Array,
  bias?: Float64Array,
): Float64Array {
  const out = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += width) {
    const part = x.subarray(row, row + width);
    const mean = centered ? part.reduce((a, b) => a + b, 0) / width : 0;
    const square = part.reduce((a, b) => a + (b - mean) ** 2, 0) / width;
    part.forEach((v, i) => {
      out[row + i] = ((v - mean) / Math.sqrt(square + eps)) * (weight?.[i] ?? 1) + (bias?.[i] ?? 0);
    });
  }
  return out;
}

describe.each(LEVELS)('on %s', (level) => {
  it.each([1, 3, 16, 17, 70, 130])('gradients agree with finite differences for width %i', (width) => {
    atLevel(level, () => {
      const inputs = [noise(5 * width, 1), noise(width, 2), noise(width, 3)];
      if (width > 1) {
        checkGradients({
          shapes: [[5, width], [width], [width]],
          inputs,
          op: (x, w, b) => layerNorm(x, w, b),
          reference: (x, w, b) => reference(x, width, 1e-5, true, w, b),
          tolerance: width === 3 ? 1e-4 : 2e-5,
        });
      }
      checkGradients({
        shapes: [[5, width], [width]],
        inputs: inputs.slice(0, 2),
        op: (x, w) => rmsNorm(x, w, { eps: 1e-2 }),
        reference: (x, w) => reference(x, width, 1e-2, false, w),
      });
    });
  });

  it.each<DType>(['f32', 'bf16', 'f16'])('agrees with the reference in %s', (dtype) => {
    atLevel(level, () => {
      for (const width of [1, 31, 257]) {
        const x = tensor(noise(7 * width), [7, width], { dtype });
        const w = tensor(noise(width, 5), [width], { dtype });
        const [xv, wv] = [x, w].map((t) => Float64Array.from(t.dataSync() as Float32Array));
        expectClose(rmsNorm(x, w).dataSync() as Float32Array, reference(xv, width, 1e-6, false, wv), dtype);
        if (width > 1) {
          expectClose(layerNorm(x, w, w).dataSync() as Float32Array, reference(xv, width, 1e-5, true, wv, wv), dtype);
          const wide = tensor(wv, [width], { dtype: 'f32' });
          const mixed = layerNorm(x, wide, wide);
          expect(mixed.dtype).toBe(dtype);
          expectClose(mixed.dataSync() as Float32Array, reference(xv, width, 1e-5, true, wv, wv), dtype);
        }
      }
    });
  });
});

describe('shapes', () => {
  it('normalises several trailing axes together', () => {
    const x = noise(2 * 3 * 4 * 5);
    const out = layerNorm(tensor(x, [2, 3, 4, 5], { dtype: 'f32' }), null, null, { normalizedShape: [4, 5] });
    expectClose(out.dataSync() as Float32Array, reference(x, 20, 1e-5, true));
    const w = noise(20, 4);
    const weighted = rmsNorm(tensor(x, [2, 3, 4, 5], { dtype: 'f32' }), tensor(w, [4, 5], { dtype: 'f32' }));
    expectClose(weighted.dataSync() as Float32Array, reference(x, 20, 1e-6, false, w));
  });

  it('takes strided views', () => {
    const x = tensor(noise(6 * 33), [33, 6], { dtype: 'f32' });
    const turned = permute(x, [1, 0]);
    const values = Float64Array.from({ length: 6 * 33 }, (_, i) => noise(6 * 33)[(i % 33) * 6 + Math.floor(i / 33)]);
    expectClose(layerNorm(turned).dataSync() as Float32Array, reference(values, 33, 1e-5, true));
  });

  it('handles no rows, and gives zero gradients for the weights then', () => {
    const x = tensor(new Float32Array(0), [0, 8], { requiresGrad: true });
    const w = tensor(noise(8), [8], { dtype: 'f32', requiresGrad: true });
    const out = layerNorm(x, w);
    expect(out.shape).toEqual([0, 8]);
    const [gx, gw] = grad(out, [x, w], { gradients: [tensor(new Float32Array(0), [0, 8])] });
    expect(gx?.shape).toEqual([0, 8]);
    expect([...(gw?.dataSync() as Float32Array)]).toEqual(Array(8).fill(0));
  });

  it('keeps its accuracy when the mean is large beside the deviation', () => {
    const x = noise(4 * 256).map((v) => Math.fround(1000 + v));
    expectClose(
      layerNorm(tensor(x, [4, 256], { dtype: 'f32' })).dataSync() as Float32Array,
      reference(x, 256, 1e-5, true),
      'f32',
      5,
    );
  });

  it('refuses what does not fit', () => {
    const x = tensor(noise(12), [3, 4], { dtype: 'f32' });
    const code = (code: string): unknown => expect.objectContaining({ code });
    expect(() => layerNorm(x, tensor(noise(3), [3], { dtype: 'f32' }))).toThrow(code('ERR_SHAPE'));
    expect(() => layerNorm(x, null, null, { normalizedShape: [3] })).toThrow(code('ERR_SHAPE'));
    expect(() => layerNorm(tensor(noise(12), [3, 4], { dtype: 'f64' }))).toThrow(code('ERR_DTYPE'));
    expect(() => layerNorm(tensor(1))).toThrow(code('ERR_SHAPE'));
  });
});

describe('determinism', () => {
  it('gives the same bits for any number of threads, and for a row in any batch', () => {
    const x = tensor(noise(500 * 96), [500, 96], { dtype: 'f32', requiresGrad: true });
    const w = tensor(noise(96), [96], { dtype: 'f32', requiresGrad: true });
    const g = tensor(noise(500 * 96, 7), [500, 96], { dtype: 'f32' });
    expectSameBitsForAnyThreads(() => layerNorm(x, w));
    for (const i of [0, 1]) {
      expectSameBitsForAnyThreads(() => grad(layerNorm(x, w, w), [x, w], { gradients: [g] })[i] as never);
    }
    scope(() => {
      const whole = layerNorm(x, w).dataSync() as Float32Array;
      const part = layerNorm(tensor(noise(500 * 96).slice(300 * 96), [200, 96], { dtype: 'f32' }), w);
      expect([...(part.dataSync() as Float32Array)]).toEqual([...whole.subarray(300 * 96)]);
    });
  });
});
