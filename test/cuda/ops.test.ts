/** Every tensor op that has CUDA kernels: the CPU's result and gradients are the reference, which test/*.test.ts hold to double precision. */
import { describe, expect, test } from 'vitest';
import * as F from '../../lib/index.ts';
import type { DType, Tensor } from '../../lib/index.ts';
import { uniform } from '../inputs.ts';
import { BINARY_ROWS, REDUCTION_ROWS, UNARY_ROWS } from '../ops_table.ts';
import { expectClose } from '../tolerance.ts';
import { runScript, useCuda } from './device.ts';

const cuda = useCuda();

interface Case {
  shapes: readonly (readonly number[])[];
  op: (...inputs: Tensor[]) => Tensor;
  dtypes?: readonly DType[];
  domain?: readonly [number, number];
  avoid?: readonly number[];
  gradient?: boolean;
  /** Times the dtype's tolerance. */
  factor?: number;
}

const size = (shape: readonly number[]): number => shape.reduce((n, extent) => n * extent, 1);
const wide = async (t: Tensor): Promise<Float64Array> =>
  Float64Array.from((await F.cast(t, 'f64').data()) as Float64Array);

/** Result and gradients of sum(op(...) weights), as doubles. */
async function evaluate(c: Case, dtype: DType, device: 'cpu' | 'cuda'): Promise<Float64Array[]> {
  const leaves = c.shapes.map((shape, i) => {
    const values = uniform(size(shape), 11 + i, ...(c.domain ?? [-1, 1]), c.avoid ?? []);
    return F.tensor(values, shape, { dtype, device, requiresGrad: c.gradient ?? true });
  });
  const out = c.op(...leaves);
  const results = [await wide(out)];
  if (c.gradient === false) return results;
  const weights = F.tensor(uniform(size(out.shape), 99), out.shape, { dtype: out.dtype, device });
  for (const g of F.grad([F.sum(F.mul(out, weights))], leaves)) results.push(await wide(g as Tensor));
  return results;
}

async function check(c: Case): Promise<void> {
  for (const dtype of c.dtypes ?? (['f32', 'bf16'] as const)) {
    const expected = await evaluate(c, dtype, 'cpu');
    const got = await evaluate(c, dtype, 'cuda');
    expected.forEach((values, i) => expectClose(got[i], values, dtype, c.factor ?? 2));
  }
}

const ids = (values: readonly number[], shape: readonly number[] | null, like: Tensor): Tensor =>
  F.tensor(Int32Array.from(values), shape, { device: like.device });

const CASES: Readonly<Record<string, Case>> = {
  'matmul of odd sizes': { shapes: [[2, 33, 17], [2, 17, 45]], op: F.matmul, dtypes: ['f32', 'bf16', 'f16', 'f64'] },
  'matmul of aligned sizes': { shapes: [[136, 64], [64, 144]], op: F.matmul, dtypes: ['f32', 'bf16'] },
  'matmul of transposed views': {
    shapes: [[24, 40], [56, 24]],
    op: (a, b) => F.matmul(F.permute(a, [1, 0]), F.permute(b, [1, 0])),
  },
  'matmul with a broadcast batch': { shapes: [[3, 1, 5, 8], [2, 8, 7]], op: F.matmul },
  'matmul of nothing': { shapes: [[0, 5], [5, 3]], op: F.matmul, gradient: false },
  'matmul over nothing': { shapes: [[4, 0], [0, 3]], op: F.matmul, gradient: false },
  linear: { shapes: [[3, 5, 24], [40, 24], [40]], op: (x, w, b) => F.linear(x, w, b) },
  'linear with gelu': { shapes: [[9, 24], [40, 24], [40]], op: (x, w, b) => F.linear(x, w, b, 'gelu') },
  'linear with silu': { shapes: [[9, 24], [40, 24], [40]], op: (x, w, b) => F.linear(x, w, b, 'silu') },
  softmax: { shapes: [[5, 37]], op: (x) => F.softmax(x, -1) },
  'softmax of long rows': { shapes: [[2, 1500]], op: (x) => F.softmax(x, -1), dtypes: ['f32'] },
  'softmax along the first axis': { shapes: [[7, 6]], op: (x) => F.softmax(x, 0) },
  logSoftmax: { shapes: [[5, 37]], op: (x) => F.logSoftmax(x, -1) },
  layerNorm: { shapes: [[6, 37], [37], [37]], op: (x, w, b) => F.layerNorm(x, w, b), factor: 4 },
  rmsNorm: { shapes: [[6, 37], [37]], op: (x, w) => F.rmsNorm(x, w), factor: 4 },
  embedding: { shapes: [[11, 6]], op: (t) => F.embedding(t, ids([3, 1, 3, 10, 0, 3], [2, 3], t)) },
  indexSelect: { shapes: [[3, 7, 2]], op: (t) => F.indexSelect(t, 1, ids([6, 0, 6], null, t)) },
  gather: { shapes: [[3, 5]], op: (t) => F.gather(t, 1, ids([4, 0, 0, 1, 2, 2], [3, 2], t)) },
  scatter: { shapes: [[3, 5], [3, 2]], op: (t, s) => F.scatter(t, 1, ids([4, 0, 0, 0, 2, 1], [3, 2], t), s) },
  scatterAdd: { shapes: [[3, 5], [3, 2]], op: (t, s) => F.scatterAdd(t, 1, ids([4, 0, 0, 0, 2, 2], [3, 2], t), s) },
  rotary: { shapes: [[2, 3, 5, 8]], op: (x) => F.rotary(x, { offset: 2 }) },
  'rotary of neighbours': { shapes: [[2, 5, 3, 10]], op: (x) => F.rotary(x, { interleaved: true, layout: 'BLHD', dims: 6 }) },
  'cumsum of rows': { shapes: [[3, 300]], op: (x) => F.cumsum(x, 1) },
  'cumsum of columns': { shapes: [[9, 40]], op: (x) => F.cumsum(x, 0) },
  sort: { shapes: [[3, 41]], op: (x) => F.sort(x, 1).values },
  topK: { shapes: [[3, 41]], op: (x) => F.topK(x, 5, 1).values },
  tril: { shapes: [[2, 5, 7]], op: (x) => F.tril(x, 1) },
  concat: { shapes: [[2, 3], [2, 4]], op: (a, b) => F.concat([a, b], 1) },
  pad: { shapes: [[2, 3]], op: (x) => F.pad(x, [[1, 0], [2, 1]]) },
  slice: { shapes: [[6, 9]], op: (x) => F.slice(x, 1, 1, 8, 3) },
  crossEntropy: { shapes: [[6, 13]], op: (x) => F.crossEntropy(x, ids([0, 12, 5, -100, 3, 3], null, x)) },
  'smoothed crossEntropy': {
    shapes: [[4, 13]],
    op: (x) => F.crossEntropy(x, ids([0, 12, 5, 3], null, x), { labelSmoothing: 0.1, reduction: 'none' }),
  },
  dropout: { shapes: [[100]], op: (x) => F.dropout(x, 0.3, { seed: 5 }) },
}; // prettier-ignore

describe.skipIf(cuda.skip)('tensor ops on CUDA', () => {
  test.each(UNARY_ROWS)('$name', ({ op, domain, kinks }) =>
    check({ shapes: [[3, 37]], op: (t) => op(F.permute(t, [1, 0])), domain, avoid: kinks }),
  );

  test.each(BINARY_ROWS)('$name', ({ op, domain, gradient }) =>
    check({ shapes: [[3, 1, 5], [7, 1]], op, domain, gradient: gradient ?? true }),
  ); // prettier-ignore

  test.each(REDUCTION_ROWS)('$name', async ({ op, domain, gradient, single }) => {
    for (const axes of single ? [[1], [0], [2]] : [[1], [0], [0, 2]])
      await check({ shapes: [[3, 4, 70]], op: (t) => op(t, single ? axes[0] : axes, false), domain, gradient: gradient ?? false }); // prettier-ignore
  });

  test.each(Object.entries(CASES))('%s', (_, c) => check(c));

  test('random streams are those of the CPU', async () => {
    for (const dtype of ['f32', 'bf16', 'f16', 'f64'] as const) {
      const draw = (device: string): Promise<unknown> => F.rand([1003], { seed: 7, dtype, device }).data();
      expect(await draw('cuda')).toEqual(await draw('cpu'));
      const normal = (device: string): Promise<Float64Array> => wide(F.randn([1003], { seed: 7, dtype, device }));
      expectClose(await normal('cuda'), await normal('cpu'), dtype === 'f64' ? 'f32' : dtype, 1);
    }
    const integers = (device: string): Promise<unknown> => F.randint(-5, 90, [77], { seed: 3, device }).data();
    expect(await integers('cuda')).toEqual(await integers('cpu'));
    const flips = (device: string): Promise<unknown> => F.bernoulli(0.3, [77], { seed: 3, device }).data();
    expect(await flips('cuda')).toEqual(await flips('cpu'));
  });

  test('AdamW and clipping step as on the CPU', async () => {
    const run = async (device: 'cpu' | 'cuda'): Promise<Float64Array[]> => {
      const params = [[5, 7], [33]].map((shape, i) => F.tensor(uniform(size(shape), i), shape, { dtype: 'f32', device, requiresGrad: true }));
      const optimizer = new F.AdamW(params, { lr: 0.1 });
      for (let step = 0; step < 3; step++) {
        optimizer.zeroGrad();
        F.add(F.sum(F.exp(params[0])), F.sum(F.square(params[1]))).backward();
        F.clipGradNorm(params, 1);
        optimizer.step();
      }
      return Promise.all(params.map(wide));
    };
    const expected = await run('cpu');
    (await run('cuda')).forEach((values, i) => expectClose(values, expected[i], 'f32', 1));
  }); // prettier-ignore

  test('an index out of range rejects with its position', async () => {
    const table = F.zeros([4, 3], { device: 'cuda' });
    await expect(F.embedding(table, ids([1, 9], null, table)).data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
    expect(await F.sum(table).item()).toBe(0);
  });

  test('operands on two devices are refused', () => {
    const [here, there] = [F.zeros([2, 2]), F.zeros([2, 2], { device: 'cuda' })];
    for (const op of [F.add, F.matmul])
      expect(() => op(here, there)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
  });

  test('the last warp first, copies early', () => {
    const { value } = runScript(
      `const a = fovea.randn([140, 72], { seed: 1, dtype: 'bf16' }), b = fovea.randn([72, 136], { seed: 2, dtype: 'bf16' });
       const x = fovea.randn([3, 1500], { seed: 3 });
       const run = async (device) => [
         ...(await fovea.cast(fovea.matmul(a.to(device), b.to(device)), 'f32').data()),
         ...(await fovea.softmax(x.to(device), -1).data()),
         ...(await fovea.sum(x.to(device), [1]).data()),
         ...(await fovea.sort(x.to(device), 1).values.data()),
       ];
       const [cpu, gpu] = [await run('cpu'), await run('cuda')];
       give(Math.max(...cpu.map((v, i) => Math.abs(v - gpu[i]))));`,
      { SCHEDULE: 'last', ASYNC: 'early' },
    );
    expect(value).toBeLessThan(0.2);
  });
});
