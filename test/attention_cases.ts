/** Calls of attention() with what the reference needs to know of them, and the check of one against it: shared by the attention tests. */
import { expect } from 'vitest';
import { attention, grad, scope, tensor, type AttentionOptions, type DType, type Tensor } from '../lib/index.ts';
import { mask, score } from '../lib/mask/mask.ts';
import { native } from '../lib/native.ts';
import { referenceAttention, referenceGradients, type Problem, type Sizes } from './reference_attention.ts';
import { random, valuesOf } from './reference_matmul.ts';
import { expectClose } from './tolerance.ts';

export const LEVELS = ['baseline', 'avx2', 'avx512', 'avx512bf16', 'amx'];
/** Instruction-set levels of this machine. */
export const available = LEVELS.slice(0, LEVELS.indexOf(native().bestIsa()) + 1);

/** Gradients may be exactly zero (one key); then rounding errors are measured against the inputs, which are of order 1. */
export function expectGradient(actual: Float64Array, expected: Float64Array, dtype: DType = 'f32', factor = 2): void {
  const floor = 0.1;
  expectClose([...actual, floor], [...expected, floor], dtype, factor);
}

export type Rest = Partial<Omit<Problem, keyof Sizes | 'q' | 'k' | 'v'>>;

export interface Case extends Rest {
  readonly name: string;
  readonly size: Sizes;
  readonly options?: AttentionOptions;
}

export const size = (b: number, hq: number, hkv: number, lq: number, lk: number, d: number, dv = d): Sizes => ({
  b,
  hq,
  hkv,
  lq,
  lk,
  d,
  dv,
});

export const boolTensor = (shape: readonly number[], at: (i: number) => boolean): Tensor =>
  tensor(
    Uint8Array.from({ length: shape.reduce((n, x) => n * x, 1) }, (_, i) => Number(at(i))),
    shape,
    { dtype: 'bool' },
  );

export const keyMask = [1, 0, 1, 1, 0, 1, 1];
export const keyed = (i: number): boolean => keyMask[i % 7] === 1;
export const docs = Int32Array.from({ length: 150 }, (_, i) => Math.floor(i / 37));
export const documents = mask(({ q, kv }, { doc }) => doc[q] === doc[kv], { doc: docs });
export const near = mask(({ q, kv }) => q - kv < 20);
export const perHead = mask(({ h, q, kv }) => q >= kv + 5 * h);
export const slopes = [0.3, 0.1];
export const steep = [0.5, 0, -0.25, 2];
export const banded = mask(({ q, kv }) => q % 3 !== kv % 3);

export const cases: readonly Case[] = [
  { name: 'one query, one key', size: size(1, 1, 1, 1, 1, 1) },
  { name: 'plain', size: size(2, 2, 2, 70, 90, 16) },
  { name: 'odd dims and Dv != D', size: size(1, 2, 1, 33, 65, 19, 37) },
  { name: 'dim 256', size: size(1, 1, 1, 20, 70, 256) },
  {
    name: 'causal, grouped heads',
    size: size(1, 6, 2, 100, 100, 16),
    options: { causal: true },
    visible: (_b, _h, i, j) => j <= i,
  },
  {
    name: 'causal top-left, more keys',
    size: size(1, 2, 2, 40, 90, 8),
    options: { causal: 'top-left' },
    visible: (_b, _h, i, j) => j <= i,
  },
  {
    name: 'causal bottom-right with key lengths',
    size: size(3, 2, 1, 40, 70, 8),
    options: { causal: 'bottom-right', kvLengths: [70, 0, 33] },
    visible: (b, _h, i, j) => j < [70, 0, 33][b] && j <= i + [70, 0, 33][b] - 40,
  },
  {
    name: 'window',
    size: size(1, 2, 2, 150, 150, 8),
    options: { window: [20, 5] },
    visible: (_b, _h, i, j) => j >= i - 20 && j <= i + 5,
  },
  {
    name: 'one-sided window, causal',
    size: size(1, 1, 1, 150, 150, 8),
    options: { window: [30, -1], causal: true },
    visible: (_b, _h, i, j) => j >= i - 30 && j <= i,
  },
  {
    name: 'window, more keys than queries',
    size: size(2, 2, 1, 40, 150, 8),
    options: { window: [30, 7] },
    visible: (_b, _h, i, j) => j >= i + 110 - 30 && j <= i + 110 + 7,
  },
  {
    name: 'window, fewer keys than queries, some out of use',
    size: size(2, 1, 1, 150, 90, 8),
    options: { window: [30, 7], kvLengths: [90, 70] },
    visible: (b, _h, i, j) => {
      const inUse = [90, 70][b];
      return j < inUse && j >= i + inUse - 150 - 30 && j <= i + inUse - 150 + 7;
    },
  },
  {
    name: 'window of as many keys as queries, some out of use',
    size: size(2, 1, 1, 90, 90, 8),
    options: { window: 9, kvLengths: [90, 70] },
    visible: (b, _h, i, j) => j < [90, 70][b] && Math.abs(i - j) <= 9,
  },
  {
    name: 'softcap and scale',
    size: size(1, 2, 2, 30, 60, 16),
    options: { softcap: 2, scale: 0.7 },
    softcap: 2,
    scale: 0.7,
  },
  {
    name: 'mask over keys',
    size: size(2, 2, 2, 30, 70, 8),
    options: { mask: boolTensor([2, 1, 1, 70], keyed) },
    visible: (b, _h, _i, j) => keyed(b * 70 + j),
  },
  {
    name: 'mask functions',
    size: size(1, 2, 1, 150, 150, 8),
    options: { mask: [documents, near], causal: true },
    visible: (_b, _h, i, j) => j <= i && i - j < 20 && docs[i] === docs[j],
  },
  {
    name: 'mask per head',
    size: size(2, 2, 2, 70, 70, 8),
    options: { mask: perHead },
    visible: (_b, h, i, j) => i >= j + 5 * h,
  },
  {
    name: 'score of a constant table, softcap',
    size: size(1, 2, 2, 70, 70, 8),
    options: {
      causal: true,
      softcap: 3,
      score: score(({ s, h, q, kv }, { slope }) => s - slope[h] * (q - kv), { slope: slopes }),
    },
    softcap: 3,
    visible: (_b, _h, i, j) => j <= i,
    logit: (s, _b, h, i, j) => s - Math.fround(slopes[h]) * (i - j),
  },
  {
    name: 'score that grows with the distance, masked',
    size: size(1, 4, 2, 150, 300, 8),
    options: {
      causal: 'bottom-right',
      mask: banded,
      score: score(({ s, h, q, kv }, { slope }) => s + slope[h] * (kv - q), { slope: steep }),
    },
    visible: (_b, _h, i, j) => j <= i + 150 && i % 3 !== j % 3,
    logit: (s, _b, h, i, j) => s + steep[h] * (j - i),
  },
  {
    name: 'score that hides the future',
    size: size(1, 1, 1, 150, 150, 8),
    options: { score: score(({ s, q, kv }) => s + (q < kv ? -1e30 : 1 / (1 + q - kv))) },
    visible: (_b, _h, i, j) => j <= i,
    logit: (s, _b, _h, i, j) => s + (i < j ? 0 : 1 / (1 + i - j)),
  },
  {
    name: 'score of query and key, bias, window',
    size: size(1, 2, 2, 70, 150, 8),
    options: {
      window: [90, 60],
      bias: tensor(
        Float32Array.from({ length: 150 }, (_, i) => (i % 5) / 2),
        [1, 150],
      ),
      score: score(({ s, h, q, kv }, { slope }) => slope[h] * (q % 7) + s - (kv % 3), { slope: steep }),
    },
    visible: (_b, _h, i, j) => j >= i - 10 && j <= i + 140,
    logit: (s, _b, h, i, j) => s + steep[h] * (i % 7) - (j % 3) + (j % 5) / 2,
  },
  {
    name: 'score that is not linear in s',
    size: size(1, 1, 1, 40, 70, 8),
    options: { score: score(({ s, q, kv }) => Math.tanh(s) * (1 + 0.01 * (q + kv))) },
    logit: (s, _b, _h, i, j) => Math.tanh(s) * (1 + 0.01 * (i + j)),
    slope: (s, _b, _h, i, j) => (1 - Math.tanh(s) ** 2) * (1 + 0.01 * (i + j)),
  },
];

export function operands(s: Sizes, dtype: DType, seed: number) {
  const q = random([s.b, s.hq, s.lq, s.d], dtype, seed);
  const k = random([s.b, s.hkv, s.lk, s.d], dtype, seed + 1);
  const v = random([s.b, s.hkv, s.lk, s.dv], dtype, seed + 2);
  const dout = random([s.b, s.hq, s.lq, s.dv], dtype, seed + 3);
  const dlse = random([s.b, s.hq, s.lq], 'f32', seed + 4);
  for (const x of [q, k, v]) x.t.requiresGrad = true;
  return { q, k, v, dout, dlse };
}

export function check(c: Case, dtype: DType, seed = 1): void {
  scope(() => {
    const { q, k, v, dout, dlse } = operands(c.size, dtype, seed);
    const problem: Problem = { ...c, ...c.size, q: q.values, k: k.values, v: v.values };
    const want = referenceAttention(problem);
    const { out, lse } = attention(q.t, k.t, v.t, { ...c.options, returnLse: true });
    expect(out.dtype).toBe(dtype);
    expectClose(valuesOf(out), want.out, dtype);
    expectClose(valuesOf(lse), want.lse, dtype === 'f32' ? 'f32' : 'bf16');
    const finite = dlse.values.map((x, i) => (want.lse[i] === -Infinity ? 0 : x));
    const wanted = referenceGradients(problem, dout.values, finite);
    const [dq, dk, dv] = grad([out, lse], [q.t, k.t, v.t], { gradients: [dout.t, dlse.t] }) as Tensor[];
    expect([dq.dtype, dk.dtype, dv.dtype]).toEqual([dtype, dtype, dtype]);
    expectGradient(valuesOf(dq), wanted.dq, dtype);
    expectGradient(valuesOf(dk), wanted.dk, dtype);
    expectGradient(valuesOf(dv), wanted.dv, dtype);
  });
}
