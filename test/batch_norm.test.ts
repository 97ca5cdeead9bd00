import { describe, expect, it } from 'vitest';
import { BatchNorm, batchNorm, batchStatistics, cast, permute, tensor, zeros, type Tensor } from '../lib/index.ts';
import { checkGradients, noise, sizeOf } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { expectClose } from './tolerance.ts';

const SHAPE = [3, 4, 2, 5];
const CHANNELS = 4;

/** Channel of element i of [batch, channels, ...]. */
const channelOf = (i: number, shape: readonly number[]): number => Math.floor(i / sizeOf(shape.slice(2))) % shape[1];

function plainStatistics(x: ArrayLike<number>, shape: readonly number[]): { mean: number[]; variance: number[] } {
  const of = (value: (v: number, c: number) => number): number[] => {
    const sums = new Array<number>(shape[1]).fill(0);
    Array.from(x).forEach((v, i) => (sums[channelOf(i, shape)] += value(v, channelOf(i, shape))));
    return sums.map((total) => (total * shape[1]) / x.length);
  };
  const mean = of((v) => v);
  return { mean, variance: of((v, c) => (v - mean[c]) ** 2) };
}

function plainNorm(x: ArrayLike<number>, mean: ArrayLike<number>, variance: ArrayLike<number>, w: ArrayLike<number>, b: ArrayLike<number>): number[] {
  return Array.from(x, (v, i) => {
    const c = channelOf(i, SHAPE);
    return ((v - mean[c]) / Math.sqrt(variance[c] + 1e-5)) * w[c] + b[c];
  });
} // prettier-ignore

const leaf = (shape: readonly number[], seed: number): Tensor =>
  tensor(noise(sizeOf(shape), seed), shape, { dtype: 'f32' });
const positive = noise(CHANNELS, 3).map((v) => Math.fround(v + 1.5));
const vectors = [[CHANNELS], [CHANNELS], [CHANNELS], [CHANNELS]];

describe('batchNorm', () => {
  it('with given statistics: values and gradients', () => {
    checkGradients({
      shapes: [SHAPE, ...vectors],
      inputs: [noise(sizeOf(SHAPE), 1), noise(CHANNELS, 2), positive, noise(CHANNELS, 4), noise(CHANNELS, 5)],
      op: (x, mean, variance, w, b) => batchNorm(x, { mean, variance }, w, b),
      reference: plainNorm,
    });
  });

  it('with those of the batch: values and gradients', () => {
    checkGradients({
      shapes: [SHAPE, [CHANNELS], [CHANNELS]],
      op: (x, w, b) => batchNorm(x, batchStatistics(x), w, b),
      reference: (x, w, b) => {
        const { mean, variance } = plainStatistics(x, SHAPE);
        return plainNorm(x, mean, variance, w, b);
      },
    });
  });

  it('channels last, other dtypes, far from 0, no weight', () => {
    const x = leaf(SHAPE, 1).add(300);
    const { mean, variance } = plainStatistics(numbers(x), SHAPE);
    const expected = plainNorm(numbers(x), mean, variance, [1, 1, 1, 1], [0, 0, 0, 0]);
    expectClose(numbers(batchNorm(x, batchStatistics(x))), expected, 'f32', 10);
    const last = permute(x, [0, 2, 3, 1]);
    const y = batchNorm(last, batchStatistics(last, -1), null, null, { axis: -1 });
    expectClose(numbers(permute(y, [0, 3, 1, 2])), expected, 'f32', 10);
    const near = leaf(SHAPE, 2);
    const statistics = batchStatistics(near);
    const wide = numbers(batchNorm(near, statistics));
    for (const dtype of ['bf16', 'f16'] as const) {
      const narrow = batchNorm(cast(near, dtype), statistics);
      expect(narrow.dtype).toBe(dtype);
      expectClose(numbers(narrow), wide, dtype);
    }
  });

  it('refuses vectors of other lengths', () => {
    const wrong = zeros([3]);
    const refused = expect.objectContaining({ code: 'ERR_SHAPE' }) as Error;
    expect(() => batchNorm(leaf(SHAPE, 1), { mean: wrong, variance: wrong })).toThrow(refused);
    expect(() => batchNorm(leaf(SHAPE, 1), batchStatistics(leaf(SHAPE, 1)), wrong)).toThrow(refused);
  });

  it('refuses integers', () => {
    const x = zeros(SHAPE, { dtype: 'i32' });
    const refused = expect.objectContaining({ code: 'ERR_DTYPE' }) as Error;
    expect(() => batchNorm(x, batchStatistics(leaf(SHAPE, 1)))).toThrow(refused);
  });

  it('BatchNorm does not follow a batch it refuses', () => {
    const layer = new BatchNorm(CHANNELS);
    expect(() => layer.forward(zeros([2, 1, 3]).add(5))).toThrow(
      expect.objectContaining({ code: 'ERR_SHAPE' }) as Error,
    );
    expect([...numbers(layer.running_mean)]).toEqual(new Array(CHANNELS).fill(0));
    expect(Number(layer.num_batches_tracked.dataSync()[0])).toBe(0);
  });

  it('affine() of f64 is in f64', () => {
    const layer = new BatchNorm(CHANNELS).to('f64').eval();
    expect(layer.affine().gain.dtype).toBe('f64');
  });

  it('BatchNorm has the keys of PyTorch, follows the batches in training and uses what it followed', () => {
    const layer = new BatchNorm(CHANNELS);
    expect(Object.keys(layer.stateDict())).toEqual(['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']); // prettier-ignore
    expect(layer.parameters().length).toBe(2);
    const [first, second] = [leaf(SHAPE, 1), leaf(SHAPE, 2)];
    layer.forward(first);
    const y = layer.forward(second);
    const statistics = [first, second].map((t) => plainStatistics(numbers(t), SHAPE));
    const count = sizeOf(SHAPE) / CHANNELS;
    const followed = (start: number, values: (s: (typeof statistics)[0]) => number[], factor: number): number[] =>
      statistics.reduce((at, s) => at.map((v, c) => 0.9 * v + 0.1 * factor * values(s)[c]), new Array<number>(CHANNELS).fill(start)); // prettier-ignore
    const [mean, variance] = [followed(0, (s) => s.mean, 1), followed(1, (s) => s.variance, count / (count - 1))];
    expectClose(numbers(layer.running_mean), mean);
    expectClose(numbers(layer.running_var), variance);
    expect(Number(layer.num_batches_tracked.dataSync()[0])).toBe(2);
    const { mean: own, variance: spread } = statistics[1];
    expectClose(numbers(y), plainNorm(numbers(second), own, spread, [1, 1, 1, 1], [0, 0, 0, 0]));
    layer.eval();
    expectClose(numbers(layer.forward(second)), plainNorm(numbers(second), mean, variance, [1, 1, 1, 1], [0, 0, 0, 0]));
    expect(Number(layer.num_batches_tracked.dataSync()[0])).toBe(2);
    const { gain, shift } = layer.affine();
    const whole = (t: Tensor): Tensor => t.reshape([1, CHANNELS, 1, 1]);
    expectClose(numbers(second.mul(whole(gain)).add(whole(shift))), numbers(layer.forward(second)));
  });
});
