/** Every tensor op that has CUDA kernels: the CPU's result and gradients are the reference, which test/*.test.ts hold to double precision. */
import { describe, expect, test } from 'vitest';
import * as F from '../../lib/index.ts';
import { native } from '../../lib/native.ts';
import { uniform } from '../inputs.ts';
import { BINARY_ROWS, REDUCTION_ROWS, UNARY_ROWS } from '../ops_table.ts';
import { sizeOf } from '../reference.ts';
import { expectClose } from '../tolerance.ts';
import { runScript, useCuda } from './device.ts';
import { check, doubles, ids, type OpCase } from './op_case.ts';

const cuda = useCuda({}, 0);

const CASES: Readonly<Record<string, OpCase>> = {
  'matmul of odd sizes': { shapes: [[2, 33, 17], [2, 17, 45]], op: F.matmul, dtypes: ['f32', 'bf16', 'f16', 'f64'] },
  'matmul of aligned sizes': { shapes: [[136, 64], [64, 144]], op: F.matmul, dtypes: ['f32', 'bf16'] },
  'matmul of transposed views': {
    shapes: [[24, 40], [56, 24]],
    op: (a, b) => F.matmul(F.permute(a, [1, 0]), F.permute(b, [1, 0])),
  },
  'matmul with a broadcast batch': { shapes: [[3, 1, 5, 8], [2, 8, 7]], op: F.matmul },
  'matmul of nothing': { shapes: [[0, 5], [5, 3]], op: F.matmul, gradient: false },
  'matmul over nothing': { shapes: [[4, 0], [0, 3]], op: F.matmul, gradient: false },
  'matmul over a long axis': { shapes: [[3, 4200], [4200, 5]], op: F.matmul },
  'linear of many rows': { shapes: [[4200, 8], [6, 8], [6]], op: (x, w, b) => F.linear(x, w, b, 'silu') },
  linear: { shapes: [[3, 5, 24], [40, 24], [40]], op: (x, w, b) => F.linear(x, w, b) },
  ...Object.fromEntries(
    F.ACTIVATIONS.map((name): [string, OpCase] => [
      `linear with ${name}`,
      { shapes: [[9, 24], [40, 24], [40]], op: (x, w, b) => F.linear(x, w, b, name), avoid: [0] },
    ]),
  ),
  'linear without a bias': { shapes: [[9, 24], [40, 24]], op: (x, w) => F.linear(x, w, null, 'gelu') },
  'logSumExp of long rows': { shapes: [[2, 1500]], op: (x) => F.logSumExp(x, [1]) },
  softmax: { shapes: [[5, 37]], op: (x) => F.softmax(x, -1) },
  'softmax of long rows': { shapes: [[2, 1500]], op: (x) => F.softmax(x, -1), dtypes: ['f32'] },
  'softmax along the first axis': { shapes: [[7, 6]], op: (x) => F.softmax(x, 0) },
  logSoftmax: { shapes: [[5, 37]], op: (x) => F.logSoftmax(x, -1) },
  layerNorm: { shapes: [[6, 37], [37], [37]], op: (x, w, b) => F.layerNorm(x, w, b), factor: 4 },
  rmsNorm: { shapes: [[6, 37], [37]], op: (x, w) => F.rmsNorm(x, w), factor: 4 },
  'layerNorm without weights': { shapes: [[6, 37]], op: (x) => F.layerNorm(x), factor: 4 },
  'layerNorm of long rows': { shapes: [[2, 1500], [1500], [1500]], op: (x, w, b) => F.layerNorm(x, w, b), factor: 4 },
  'rmsNorm over two axes': {
    shapes: [[5, 3, 14], [3, 14]],
    op: (x, w) => F.rmsNorm(x, w, { normalizedShape: [3, 14] }),
    factor: 4,
  },
  embedding: { shapes: [[11, 6]], op: (t) => F.embedding(t, ids([3, 1, 3, 10, 0, 3], [2, 3], t)) },
  indexSelect: { shapes: [[3, 7, 2]], op: (t) => F.indexSelect(t, 1, ids([6, 0, 6], null, t)) },
  gather: { shapes: [[3, 5]], op: (t) => F.gather(t, 1, ids([4, 0, 0, 1, 2, 2], [3, 2], t)) },
  scatter: { shapes: [[3, 5], [3, 2]], op: (t, s) => F.scatter(t, 1, ids([4, 0, 0, 0, 2, 1], [3, 2], t), s) },
  scatterAdd: { shapes: [[3, 5], [3, 2]], op: (t, s) => F.scatterAdd(t, 1, ids([4, 0, 0, 0, 2, 2], [3, 2], t), s) },
  scatterMean: { shapes: [[7, 3]], op: (s) => F.scatterMean(s, 0, ids([4, 0, 0, 1, 0, 1, 4].flatMap((i) => [i, 1, i]), [7, 3], s), 6) },
  oneHot: { shapes: [[4]], op: (t) => F.oneHot(ids([2, 0, 1, 2], null, t), 3), gradient: false },
  rotary: { shapes: [[2, 3, 5, 8]], op: (x) => F.rotary(x, { offset: 2 }) },
  'rotary of neighbours': { shapes: [[2, 5, 3, 10]], op: (x) => F.rotary(x, { interleaved: true, layout: 'BLHD', dims: 6 }) },
  'cumsum of rows': { shapes: [[3, 300]], op: (x) => F.cumsum(x, 1) },
  'cumsum of columns': { shapes: [[9, 40]], op: (x) => F.cumsum(x, 0) },
  sort: { shapes: [[3, 41]], op: (x) => F.sort(x, 1).values },
  'sort of columns, descending': { shapes: [[41, 3]], op: (x) => F.sort(x, 0, { descending: true }).values },
  argsort: { shapes: [[3, 41]], op: (x) => F.argsort(F.round(F.mul(x, 4)), 1), gradient: false },
  'topK of the smallest': { shapes: [[41, 3]], op: (x) => F.topK(x, 7, 0, { largest: false }).values },
  'indices of topK': { shapes: [[3, 41]], op: (x) => F.topK(F.round(F.mul(x, 4)), 9, 1).indices, gradient: false },
  topK: { shapes: [[3, 41]], op: (x) => F.topK(x, 5, 1).values },
  tril: { shapes: [[2, 5, 7]], op: (x) => F.tril(x, 1) },
  triu: { shapes: [[2, 7, 5]], op: (x) => F.triu(x, -1) },
  stack: { shapes: [[2, 3], [2, 3], [2, 3]], op: (...parts) => F.stack(parts, 1) },
  split: { shapes: [[5, 9]], op: (x) => F.sum(F.stack(F.split(x, 3, 1).map((t, i) => F.mul(t, i + 1)), 0), [0]) },
  chunk: { shapes: [[5, 8]], op: (x) => F.matmul(F.chunk(x, 2, 1)[1], F.transpose(F.chunk(x, 2, 1)[0])) },
  roll: { shapes: [[4, 5]], op: (x) => F.roll(x, [1, -2], [0, 1]) },
  flip: { shapes: [[4, 5]], op: (x) => F.flip(x, [1]) },
  repeat: { shapes: [[2, 3]], op: (x) => F.repeat(x, [2, 3]) },
  repeatInterleave: { shapes: [[2, 3]], op: (x) => F.repeatInterleave(x, 3, 1) },
  'pad by reflection': { shapes: [[3, 4]], op: (x) => F.pad(x, [1, 2], { mode: 'reflect' }) },
  'pad by the edge': { shapes: [[3, 4]], op: (x) => F.pad(x, [3, 2], { mode: 'replicate' }) },
  'pad around': { shapes: [[3, 4]], op: (x) => F.pad(x, [[0, 2], [3, 1]], { mode: 'circular' }) },
  'cast to bf16 and back': { shapes: [[3, 4]], op: (x) => F.cast(F.cast(x, 'bf16'), x.dtype), dtypes: ['f32', 'bf16'] },
  expand: { shapes: [[3, 1, 4]], op: (x) => F.mul(F.expand(x, [2, 3, 5, 4]), 2) },
  mse: { shapes: [[5, 7], [5, 7]], op: (a, b) => F.mse(a, b) },
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

  // The baseline of x86 has no fused multiply-add.
  test.skipIf(native().isa() === 'baseline')('f32 products have the bits of the CPU', async () => {
    for (const [m, k, n] of [
      [5, 1000, 7],
      [130, 257, 33],
      [1, 4096, 16],
    ]) {
      const [a, b] = [F.randn([m, k], { seed: 1 }), F.randn([k, n], { seed: 2 })];
      expect(await F.matmul(a.to('cuda'), b.to('cuda')).data()).toEqual(await F.matmul(a, b).data());
    }
  });

  test('random streams are those of the CPU', async () => {
    for (const dtype of ['f32', 'bf16', 'f16', 'f64'] as const) {
      const draw = (device: string): Promise<unknown> => F.rand([1003], { seed: 7, dtype, device }).data();
      expect(await draw('cuda')).toEqual(await draw('cpu'));
      const normal = (device: string): Promise<Float64Array> => doubles(F.randn([1003], { seed: 7, dtype, device }));
      expectClose(await normal('cuda'), await normal('cpu'), dtype === 'f64' ? 'f32' : dtype, 1);
    }
    const integers = (device: string): Promise<unknown> => F.randint(-5, 90, [77], { seed: 3, device }).data();
    expect(await integers('cuda')).toEqual(await integers('cpu'));
    const flips = (device: string): Promise<unknown> => F.bernoulli(0.3, [77], { seed: 3, device }).data();
    expect(await flips('cuda')).toEqual(await flips('cpu'));
  });

  test.each(['f32', 'bf16', 'f16'] as const)('optimizers and clipping step as on the CPU, %s', async (dtype) => {
    const optimizers: Readonly<Record<string, (params: F.Tensor[]) => F.AdamW | F.SGD>> = {
      AdamW: (params) => new F.AdamW(params, { lr: 0.1 }),
      SGD: (params) => new F.SGD(params, { lr: 0.1 }),
      momentum: (params) => new F.SGD(params, { lr: 0.1, momentum: 0.9, weightDecay: 0.01 }),
      nesterov: (params) => new F.SGD(params, { lr: 0.1, momentum: 0.9, nesterov: true }),
    };
    for (const make of Object.values(optimizers)) {
      const run = async (device: 'cpu' | 'cuda'): Promise<Float64Array[]> => {
        const params = [[5, 7], [33], [0]].map((shape, i) =>
          F.tensor(uniform(sizeOf(shape), i), shape, { dtype, device, requiresGrad: true }),
        );
        const optimizer = make(params);
        const norms: F.Tensor[] = [];
        for (let step = 0; step < 3; step++) {
          optimizer.zeroGrad();
          F.add(F.add(F.sum(F.exp(params[0])), F.sum(F.square(params[1]))), F.sum(params[2])).backward();
          norms.push(F.clipGradNorm(params, 1));
          optimizer.step();
        }
        return Promise.all([...params, ...norms].map(doubles));
      };
      const expected = await run('cpu');
      (await run('cuda')).forEach((values, i) => expectClose(values, expected[i], dtype, 1));
    }
  });

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
