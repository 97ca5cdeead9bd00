import { describe, expect, it } from 'vitest';
import { crossEntropy, grad, tensor, type CrossEntropyOptions, type DType, type Tensor } from '../lib/index.ts';
import { checkGradients, noise } from './gradient_check.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { expectClose } from './tolerance.ts';

function reference(x: Float64Array, targets: readonly number[], options: CrossEntropyOptions = {}): number[] {
  const { ignoreIndex = -100, labelSmoothing = 0, reduction = 'mean' } = options;
  const classes = x.length / targets.length;
  const losses = targets.map((target, row) => {
    if (target === ignoreIndex) return 0;
    const part = x.subarray(row * classes, (row + 1) * classes);
    const top = Math.max(...part);
    const lse = top + Math.log(part.reduce((sum, v) => sum + Math.exp(v - top), 0));
    const smooth = part.reduce((sum, v) => sum + (lse - v), 0) / classes;
    return (1 - labelSmoothing) * (lse - part[target]) + labelSmoothing * smooth;
  });
  const total = losses.reduce((a, b) => a + b, 0);
  const kept = targets.filter((target) => target !== ignoreIndex).length;
  return reduction === 'none' ? losses : [reduction === 'sum' ? total : total / kept];
}

function ids(values: readonly number[], dtype: DType = 'i32'): Tensor {
  return tensor(Int32Array.from(values), [values.length], { dtype });
}

const OPTIONS: CrossEntropyOptions[] = [
  {},
  { reduction: 'sum' },
  { reduction: 'none' },
  { labelSmoothing: 0.1 },
  { labelSmoothing: 0.3, reduction: 'none', ignoreIndex: 2 },
  { ignoreIndex: 0 },
  { labelSmoothing: 1, reduction: 'sum' },
];

describe.each(LEVELS)('on %s', (level) => {
  it.each(OPTIONS)('agrees with the reference and finite differences for %o', (options) => {
    atLevel(level, () => {
      for (const [rows, classes] of [
        [1, 3],
        [6, 17],
        [4, 40],
      ]) {
        const targets = Array.from({ length: rows }, (_, i) => (i * 5 + 2) % classes);
        if (rows > 2 && options.ignoreIndex === undefined) targets[2] = -100;
        checkGradients({
          shapes: [[rows, classes]],
          inputs: [noise(rows * classes).map((v) => v * 4)],
          op: (x) => crossEntropy(x, ids(targets), options),
          reference: (x) => (rows === 1 && options.ignoreIndex === 2 ? [0] : reference(x, targets, options)),
        });
      }
    });
  });

  it.each<DType>(['bf16', 'f16'])('agrees in %s, with an f32 loss', (dtype) => {
    atLevel(level, () => {
      const x = tensor(noise(5 * 300), [5, 300], { dtype, requiresGrad: true });
      const targets = [0, 299, 7, 8, 150];
      const loss = crossEntropy(x, ids(targets, 'i64'));
      expect(loss.dtype).toBe('f32');
      const values = Float64Array.from(x.dataSync() as Float32Array);
      expectClose(loss.dataSync() as Float32Array, reference(values, targets), 'f32');
      const [g] = grad(loss, [x]);
      expect(g?.dtype).toBe(dtype);
      const probabilities = values.map((v, i) => {
        const row = values.subarray(Math.floor(i / 300) * 300, Math.floor(i / 300) * 300 + 300);
        const p = Math.exp(v) / row.reduce((sum, u) => sum + Math.exp(u), 0);
        return (p - Number(i % 300 === targets[Math.floor(i / 300)])) / 5;
      });
      expectClose(g?.dataSync() as Float32Array, probabilities, dtype);
    });
  });
});

describe('edges', () => {
  const logits = (): Tensor => tensor(noise(12), [3, 4], { dtype: 'f32', requiresGrad: true });

  it('is NaN in the mean and 0 in the sum when every row is ignored, with zero gradient', () => {
    const x = logits();
    const all = ids([-100, -100, -100]);
    expect(crossEntropy(x, all).itemSync()).toBeNaN();
    expect(crossEntropy(x, all, { reduction: 'sum' }).itemSync()).toBe(0);
    expect([...(grad(crossEntropy(x, all, { reduction: 'sum' }), [x])[0]?.dataSync() as Float32Array)]).toEqual(
      Array(12).fill(0),
    );
  });

  it('takes very large and infinitely negative logits', () => {
    const x = tensor(new Float32Array([1e30, 0, -1e30, -Infinity, 0, 0]), [2, 3]);
    const [a, b] = crossEntropy(x, ids([0, 2]), { reduction: 'none' }).dataSync();
    expect(a).toBe(0);
    expect(Number(b)).toBeCloseTo(Math.log(2), 6);
  });

  it('keeps NaN visible', () => {
    expect(crossEntropy(tensor(new Float32Array([NaN, 0]), [1, 2]), ids([1])).itemSync()).toBeNaN();
  });

  it('takes byte targets and no rows', () => {
    const x = noise(2 * 256);
    const loss = crossEntropy(tensor(x, [2, 256], { dtype: 'f32' }), tensor(Uint8Array.from([200, 10])));
    expectClose(loss.dataSync() as Float32Array, reference(x, [200, 10]));
    const none = crossEntropy(tensor(new Float32Array(0), [0, 5]), ids([]), { reduction: 'none' });
    expect(none.shape).toEqual([0]);
    expect(crossEntropy(tensor(new Float32Array(0), [0, 5]), ids([])).itemSync()).toBeNaN();
  });

  it('rejects a target out of range when awaited, naming it', async () => {
    const loss = crossEntropy(logits(), ids([0, 4, -1]));
    await expect(loss.data()).rejects.toMatchObject({
      code: 'ERR_INDEX',
      message: expect.stringMatching(/index 4 at position \[1\].*0 to 3/) as string,
    });
  });

  it('refuses wrong shapes and options at once', () => {
    const code = (code: string): unknown => expect.objectContaining({ code });
    expect(() => crossEntropy(logits(), ids([0, 1]))).toThrow(code('ERR_SHAPE'));
    expect(() => crossEntropy(logits(), tensor([0, 1, 2]))).toThrow(code('ERR_DTYPE'));
    expect(() => crossEntropy(logits(), ids([0, 1, 2]), { labelSmoothing: 2 })).toThrow(code('ERR_ARGUMENT'));
    expect(() => crossEntropy(logits(), ids([0, 1, 2]), { reduction: 'avg' as never })).toThrow(code('ERR_ARGUMENT'));
  });

  it('gives the same bits for any number of threads', () => {
    const x = tensor(noise(300 * 257), [300, 257], { dtype: 'f32', requiresGrad: true });
    const targets = ids(Array.from({ length: 300 }, (_, i) => (i * 7) % 257));
    expectSameBitsForAnyThreads(() => crossEntropy(x, targets, { labelSmoothing: 0.1 }));
    expectSameBitsForAnyThreads(() => grad(crossEntropy(x, targets), [x])[0] as Tensor);
  });
});
