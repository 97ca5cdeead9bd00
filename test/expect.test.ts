/** What plain JavaScript may hand in: every function names what it got, and nothing computes with it. */
import { describe, expect, test } from 'vitest';
import * as F from '../lib/index.ts';
import type { Tensor } from '../lib/index.ts';

const x = F.ones([4, 6]);
const ids = F.zeros([4, 2], { dtype: 'i32' });
const flags = F.ones([4, 6], { dtype: 'bool' });
const image = F.ones([1, 4, 6, 6]);
const vector = F.ones([6]);
const heads = F.ones([1, 2, 8, 8]);
const spans = F.spanSearch(heads, heads, { swIndex: 1 }).ranges;

type Call = (...operands: Tensor[]) => unknown;
/** Functions of one tensor and nothing else that must be given. */
const OF_ONE = `
  abs all any argMax argMin argsort ceil contiguous cos erf exp expm1 flatten flip floor gelu geluTanh leakyRelu log log1p logSoftmax logSumExp
  max mean min neg norm onesLike prod reciprocal relu rmsNorm round rsqrt sigmoid sign silu sin softmax softplus sort sqrt square squeeze std sum
  tanh transpose tril triu variance zerosLike layerNorm dropout rotary batchStatistics buffer keep`;
const CALLS: Readonly<Record<string, readonly [readonly Tensor[], Call]>> = {
  assignment: [[F.ones([3, 3])], (t) => F.assignment(t)],
  avgPool2d: [[image], (t) => F.avgPool2d(t, 2)],
  batchNorm: [[x, vector, vector], (t, mean, variance) => F.batchNorm(t, { mean, variance })],
  cast: [[x], (t) => F.cast(t, 'bf16')],
  chunk: [[x], (t) => F.chunk(t, 2)],
  clamp: [[x], (t) => F.clamp(t, 0, 1)],
  concat: [[x, x], (...parts) => F.concat(parts)],
  conv2d: [[image, F.ones([8, 4, 3, 3])], (t, w) => F.conv2d(t, w)],
  copyFrom: [[F.ones([6]), vector], (t, s) => F.copyFrom(t, s)],
  crossEntropy: [[x, F.zeros([4], { dtype: 'i32' })], (t, i) => F.crossEntropy(t, i)],
  cummax: [[x], (t) => F.cummax(t, 0)],
  cumsum: [[x], (t) => F.cumsum(t, 0)],
  depthwiseConv: [[F.ones([1, 6, 6, 4]), F.ones([4, 1, 3, 3])], (t, w) => F.depthwiseConv(t, w)],
  embedding: [[x, ids], (t, i) => F.embedding(t, i)],
  expand: [[F.ones([1, 6])], (t) => F.expand(t, [4, 6])],
  fullLike: [[x], (t) => F.fullLike(t, 1)],
  gather: [[x, ids], (t, i) => F.gather(t, 1, i)],
  indexSelect: [[x, F.zeros([2], { dtype: 'i32' })], (t, i) => F.indexSelect(t, 0, i)],
  linear: [[x, F.ones([3, 6])], (t, w) => F.linear(t, w)],
  logicalNot: [[flags], (t) => F.logicalNot(t)],
  matmul: [[x, F.ones([6, 2])], (a, b) => F.matmul(a, b)],
  maxPool2d: [[image], (t) => F.maxPool2d(t, 2)],
  mergeAttentions: [[heads, F.ones([1, 2, 8])], (out, lse) => F.mergeAttentions([{ out, lse }])],
  mse: [[x, x], (a, b) => F.mse(a, b)],
  oneHot: [[ids], (t) => F.oneHot(t, 3)],
  pad: [[x], (t) => F.pad(t, [1, 1])],
  permute: [[x], (t) => F.permute(t, [1, 0])],
  repeat: [[x], (t) => F.repeat(t, [2, 1])],
  repeatInterleave: [[x], (t) => F.repeatInterleave(t, 2, 0)],
  reshape: [[x], (t) => F.reshape(t, [24])],
  roll: [[x], (t) => F.roll(t, 1, 0)],
  scatter: [[x, ids, F.ones([4, 2])], (t, i, s) => F.scatter(t, 1, i, s)],
  scatterAdd: [[x, ids, F.ones([4, 2])], (t, i, s) => F.scatterAdd(t, 1, i, s)],
  scatterMean: [[F.ones([4, 2]), ids], (s, i) => F.scatterMean(s, 1, i, 3)],
  select: [[x], (t) => F.select(t, 0, 1)],
  slice: [[x], (t) => F.slice(t, 0, 1)],
  spanAttention: [[heads, heads, heads, spans], (q, k, v, r) => F.spanAttention(q, k, v, r)],
  split: [[x], (t) => F.split(t, 2)],
  stack: [[x, x], (...parts) => F.stack(parts)],
  to: [[x], (t) => F.to(t, 'bf16')],
  tokenDistances: [[x, x], (a, b) => F.tokenDistances(a, b)],
  topK: [[x], (t) => F.topK(t, 2)],
  unsqueeze: [[x], (t) => F.unsqueeze(t, 0)],
  where: [[flags, x], (c, t) => F.where(c, t, 0)],
}; // prettier-ignore
for (const name of OF_ONE.trim().split(/\s+/))
  (CALLS as Record<string, readonly [readonly Tensor[], Call]>)[name] = [
    [x],
    (F as unknown as Record<string, Call>)[name],
  ];

const UNTYPED = [undefined, null, 'x', {}, [1, 2], new Float32Array(4)] as const;
const refused = (message: RegExp, code = 'ERR_ARGUMENT'): Error =>
  expect.objectContaining({ name: 'FoveaError', code, message: expect.stringMatching(message) as unknown }) as Error;

describe('what is no tensor is refused by the name of its place', () => {
  test.each(Object.entries(CALLS))('%s', (name, [operands, call]) => {
    call(...operands);
    operands.forEach((_, i) => {
      for (const other of UNTYPED)
        expect(() => call(...operands.with(i, other as never))).toThrow(
          refused(new RegExp(`^${name}: .* must be a tensor`)),
        );
    });
  });

  test('an operand that may be left out, too', () => {
    const weight = F.ones([3, 6]);
    expect(() => F.linear(x, weight, [1, 2, 3] as never)).toThrow(refused(/linear: bias must be a tensor or left out, got an array/)); // prettier-ignore
    expect(() => F.layerNorm(x, 1 as never)).toThrow(refused(/layerNorm: weight .* got a number/));
    expect(() => F.conv2d(image, F.ones([8, 4, 3, 3]), {} as never)).toThrow(refused(/conv2d: bias .* got an Object/));
    expect(() => F.neighborhoodAttention(F.ones([1, 6, 2, 8]), F.ones([1, 6, 2, 8]), F.ones([1, 6, 2, 8]), { kernelSize: 3, rpb: 1 as never })).toThrow(refused(/rpb must be a tensor/)); // prettier-ignore
  });

  test('an option that is one, too', () => {
    const pixels = F.ones([1, 4, 4, 2, 4]);
    const pooled = { pooledK: F.ones([1, 2, 1, 4]), pooledV: F.ones([1, 2, 1, 4]) };
    const options: Readonly<Record<string, (other: never) => unknown>> = {
      'laraAttention: noise': (noise) => F.laraAttention(heads, heads, heads, { noise }),
      'causalLongShortAttention: windowQ': (windowQ) =>
        F.causalLongShortAttention(heads, heads, heads, { landmarkK: heads, landmarkV: heads, chunk: 1, window: 2, windowQ }),
      'aggregatedAttention: localBias': (localBias) => F.aggregatedAttention(pixels, pixels, pixels, { ...pooled, localBias }),
      'aggregatedAttention: pooledBias': (pooledBias) => F.aggregatedAttention(pixels, pixels, pixels, { ...pooled, pooledBias }),
      'aggregatedAttention: tokens.keys': (keys) =>
        F.aggregatedAttention(pixels, pixels, pixels, { ...pooled, tokens: { queries: pixels, keys, bias: x } }),
      'rotary: table.cos': (cos) => F.rotary(heads, { table: { cos, sin: x } }),
    }; // prettier-ignore
    for (const [name, call] of Object.entries(options))
      for (const other of [5, 'x', {}, [5], true] as never[])
        expect(() => call(other)).toThrow(refused(new RegExp(`^${name} must be a tensor`)));
  });

  test('lists of them', () => {
    expect(() => F.grad(F.sum(x), [5] as never)).toThrow(refused(/grad: inputs\[0\] must be a tensor/));
    expect(() => F.clipGradNorm(5 as never, 1)).toThrow(refused(/clipGradNorm: got a number/));
    for (const params of [5, [5], [{}], [{ params: [5] }]])
      expect(() => new F.AdamW(params as never)).toThrow(refused(/optimizer: /));
  });
});

describe('numbers', () => {
  const ODD = [NaN, Infinity, 1.5, 1n, '3', null, {}] as never[];
  const integers: Readonly<Record<string, (n: never) => unknown>> = {
    'an axis': (n) => F.softmax(x, n),
    'axes of a reduction': (n) => F.sum(x, [n]),
    'axes of permute': (n) => F.permute(x, [n, 1]),
    'a size of a shape': (n) => F.zeros([n, 2]),
    'a size of reshape': (n) => F.reshape(x, [n, 4]),
    'a size of expand': (n) => F.expand(x, [n, 4, 6]),
    'sizes of split': (n) => F.split(x, [n, 2]),
    'a step': (n) => F.slice(x, 0, 0, 4, n),
    'counts of repeat': (n) => F.repeat(x, [n, 1]),
    'counts of pad': (n) => F.pad(x, [n, 1]),
    'a side of a pooling window': (n) => F.maxPool2d(image, n),
    'a kernel size': (n) => F.neighborhoodAttention(F.ones([1, 6, 2, 8]), F.ones([1, 6, 2, 8]), F.ones([1, 6, 2, 8]), { kernelSize: n }),
    'a window': (n) => F.attention(heads, heads, heads, { window: [n, 0] }),
    'a length of keys': (n) => F.attention(heads, heads, heads, { kvLengths: [n] }),
    'lengths of packed sequences': (n) => F.attention(heads, heads, heads, { cuSeqlens: [0, n] }),
    'an offset of positions': (n) => F.rotary(heads, { offset: n }),
    'features of a layer': (n) => new F.Linear(n, 2),
    'channels of a layer': (n) => new F.Conv2d(n, 4, 3),
    'heads of a layer': (n) => new F.MultiHeadAttention(16, { heads: n }),
    'a block of a mask': (n) => F.blockMask(F.masks.causal(), { q: 64, block: n }),
    'a count of directions': (n) => F.orthogonalProjection(2, n, 4),
    'a length of a cost': (n) => F.combinerCost({ length: n, dim: 8 }),
    threads: (n) => F.setNumThreads(n),
  }; // prettier-ignore
  test.each(Object.entries(integers))('%s is a whole number', (_, call) => {
    for (const odd of ODD) expect(() => call(odd)).toThrow(expect.objectContaining({ name: 'FoveaError' }) as Error);
  });

  test('whole numbers of 32 bits where a kernel reads them as such', () => {
    for (const n of [2 ** 31, 2 ** 32 + 8, 2 ** 53])
      expect(() => F.attention(heads, heads, heads, { cuSeqlens: [0, n] })).toThrow(refused(/cuSeqlens .* 32 bits/));
    expect(() => F.setNumThreads(2 ** 32 + 2)).toThrow(refused(/from 1 to 256/));
  });

  test('bounds of a slice: whole numbers, or infinities for the ends', async () => {
    for (const odd of [NaN, 1.5, '3', null, {}, 1n] as never[])
      for (const call of [() => F.slice(x, 0, odd), () => F.slice(x, 0, 0, odd)])
        expect(call).toThrow(refused(/^slice: bounds are/));
    expect(F.slice(x, 0, -Infinity, Infinity).shape).toEqual([4, 6]);
    expect(await F.slice(F.arange(5), 0, -2).toArray()).toEqual([3, 4]);
  });

  test('numbers that must be finite', () => {
    const odd = NaN;
    expect(() => F.randn([2], { std: odd })).toThrow(refused(/randn: std is NaN/));
    expect(() => F.rand([2], { high: '3' as never })).toThrow(refused(/rand: high is 3/));
    expect(() => F.layerNorm(x, null, null, { eps: odd })).toThrow(refused(/layerNorm: eps is NaN/));
    expect(() => new F.Dropout(2)).toThrow(refused(/Dropout: p is 2/));
    expect(() => new F.BatchNorm(4, { momentum: odd })).toThrow(refused(/BatchNorm: momentum/));
    expect(() => F.cosineSchedule({ lr: odd, steps: 3 })).toThrow(refused(/lr NaN/));
    expect(() => F.guidanceAt(odd, { w: 1 })).toThrow(refused(/guidanceAt: t is NaN/));
    expect(() => F.setMemoryLimit('3' as never)).toThrow(refused(/setMemoryLimit/));
  });

  test('neighborhoodWork refuses the windows that neighborhoodAttention refuses', () => {
    const q = F.ones([1, 6, 2, 8]);
    for (const options of [{ kernelSize: 7 }, { kernelSize: -3 }, { kernelSize: 3, stride: 4 }])
      expect(() => F.neighborhoodWork(q, q, q, options)).toThrow(refused(/kernelSize|stride/));
  });
});

test('data that is none', () => {
  expect(() => F.tensor([1.5], null, { dtype: 'i64' })).toThrow(refused(/1\.5 is no whole number/));
  expect(() => F.fromBytes([1, 2] as never, 'f32', [2])).toThrow(refused(/fromBytes: got an array/));
  expect(() => F.fromBytes(new Uint8Array(8), 'f33' as never, [2])).toThrow(
    refused(/unknown dtype 'f33'/, 'ERR_DTYPE'),
  );
  expect(() => F.receive(null as never)).toThrow(refused(/what share\(\) gave/));
  expect(() => F.blockMaskFromBoolean(null as never, [2, 2], { q: 2 })).toThrow(refused(/data is null/));
});

test('an argument of the wrong kind that reaches the addon is named by function, place and kind', () => {
  expect(() => F.leakyRelu(x, 'steep' as never)).toThrow(refused(/argument 2 is a string, expected a number/));
});

const search = { candidates: [1], evaluate: () => 1, k: 1, rounds: 1 };
/** Calls of what calls `fn`, which may be missing where the name says so. */
const CALLERS: Readonly<Record<string, (fn: never) => unknown>> = {
  abortable: (fn) => F.abortable(undefined, fn),
  checkpoint: (fn) => F.checkpoint(fn, x),
  noGrad: F.noGrad,
  scope: F.scope,
  'Stream.run': (fn) => F.Stream.default('cpu').run(fn),
  withMatmulPrecision: (fn) => F.withMatmulPrecision('high', fn),
  mask: (fn) => F.mask(fn),
  score: (fn) => F.score(fn),
  'Sequential forward of a layer': (forward) => new F.Sequential({ forward } as never),
  'headHunter evaluate': (evaluate) => F.headHunter({ ...search, evaluate }),
  'headHunter onScore, if given': (onScore) => F.headHunter({ ...search, onScore }),
  'combinerAttention summaryKeys, if given': (summaryKeys) => F.combinerAttention(heads, heads, heads, { summaryKeys }),
  'linearAttention feature, if given': (feature) => F.linearAttention(heads, heads, heads, { feature }),
};

test.each(Object.entries(CALLERS))('%s takes a function alone', async (name, call) => {
  for (const other of [null, 5, 'x', {}, [], true, x, ...(name.endsWith('if given') ? [] : [undefined])] as never[])
    await expect((async () => call(other))(), String(other)).rejects.toEqual(
      refused(new RegExp(`^${name.split(' ')[0]}: .*(function|feature)`)),
    );
});

/** Functions with an effect on the process. */
const SETTERS = ['setMemoryLimit', 'setNumThreads'];

test('no exported function answers nonsense with an error of its inside', async () => {
  const functions = Object.entries({ ...F, ...F.masks, ...F.scores } as Record<string, unknown>).filter(
    ([name, f]) => typeof f === 'function' && !/^class\b/.test(String(f)) && !SETTERS.includes(name),
  ) as [string, (...args: unknown[]) => unknown][];
  expect(functions.length).toBeGreaterThan(150);
  const inside: string[] = [];
  for (const [name, f] of functions)
    for (const nonsense of [undefined, null, 7, 7n, 'x', {}, [], [7], [7n]])
      try {
        await f(nonsense, nonsense, nonsense, nonsense);
      } catch (error) {
        if (!(error instanceof F.FoveaError)) inside.push(`${name}(${String(nonsense)}): ${String(error)}`);
      }
  expect(inside).toEqual([]);
});
