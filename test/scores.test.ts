import { describe, expect, test } from 'vitest';
import { attention, tensor } from '../lib/index.ts';
import { evaluate } from '../lib/mask/evaluate.ts';
import * as scores from '../lib/mask/scores/index.ts';
import { native } from '../lib/native.ts';
import { expectClose } from './tolerance.ts';
import type { Score } from '../lib/mask/mask.ts';

const HEADS = 6;
const LENGTH = 40;

const bias = (entries: number) =>
  Array.from({ length: HEADS }, (_, h) =>
    Array.from({ length: entries }, (_, i) => Math.fround(Math.sin(1.7 * i + h))),
  );
const hops = Array.from({ length: LENGTH }, (_, i) =>
  Array.from({ length: LENGTH }, (_, j) => Math.min(Math.abs(i - j), LENGTH - Math.abs(i - j), 5)),
);

interface Row {
  readonly name: keyof typeof scores;
  readonly score: Score;
  /** What the paper's formula adds, or makes of s. */
  readonly expected: (s: number, h: number, q: number, kv: number) => number;
}

/** The bucket as T5's description has it: exact up to half, then logarithmic; distances of these tests avoid its rounding edges. */
function t5Bucket(distance: number, buckets: number, far: number): number {
  const exact = buckets / 2;
  if (distance < exact) return distance;
  return Math.min(buckets - 1, exact + Math.floor((Math.log(distance / exact) / Math.log(far / exact)) * exact + 1e-6));
}

const ROWS: readonly Row[] = [
  {
    name: 'alibi',
    score: scores.alibi(HEADS),
    // Six heads: the slopes for four, then the first and third of those for eight.
    expected: (s, h, q, kv) => s - [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8][h] * Math.abs(q - kv),
  },
  { name: 'softcap', score: scores.softcap(5), expected: (s) => 5 * Math.tanh(s / 5) },
  {
    name: 'relativeBias',
    score: scores.relativeBias(bias(15), 7),
    expected: (s, h, q, kv) => s + bias(15)[h][kv - q < -7 ? 0 : kv - q > 7 ? 14 : kv - q + 7],
  },
  {
    name: 't5Bias',
    score: scores.t5Bias(bias(16), { bidirectional: true, buckets: 16, maxDistance: 30 }),
    expected: (s, h, q, kv) => s + bias(16)[h][t5Bucket(Math.abs(q - kv), 8, 30) + (kv > q ? 8 : 0)],
  },
  {
    name: 'sandwich',
    score: scores.sandwich(HEADS, 32, 64),
    expected: (s, h, q, kv) => {
      let sum = 0;
      for (let i = 1; i <= 16; ++i) sum += Math.cos((q - kv) / 10000 ** (i / 16)) - 1;
      return s + sum / ((8 * (h + 1)) / HEADS);
    },
  },
  {
    name: 'graphormer',
    score: scores.graphormer(bias(6), hops),
    expected: (s, h, q, kv) => s + bias(6)[h][hops[q][kv]],
  },
];

describe.each(ROWS)('$name', ({ score, expected }) => {
  test('function and program give the formula', () => {
    for (let h = 0; h < HEADS; ++h)
      for (let q = 0; q < LENGTH; q += 3)
        for (let kv = 0; kv < LENGTH; ++kv) {
          const at = { b: 0, h, q, kv, s: Math.fround((q - 2 * kv) / 7) };
          const wanted = expected(at.s, h, q, kv);
          const scale = 1 + Math.abs(wanted);
          expect(Math.abs(score.value(at) - wanted) / scale).toBeLessThan(1e-6);
          expect(Math.abs(evaluate(score.program, at) - wanted) / scale).toBeLessThan(2e-6);
        }
  });

  test.each(['baseline', native().bestIsa()])('attention applies it, %s', (isa) => {
    const best = native().bestIsa();
    native().setIsa(isa);
    const dim = 8;
    const data = (seed: number) =>
      Float32Array.from({ length: HEADS * LENGTH * dim }, (_, i) => Math.sin(seed * (i + 1) * (i % 11)));
    const [q, k, v] = [1, 2, 3].map(data);
    const shape = [1, HEADS, LENGTH, dim];
    const out = attention(tensor(q, shape), tensor(k, shape), tensor(v, shape), { score });
    const result = out.dataSync() as Float32Array;
    native().setIsa(best);
    expectClose(Array.from(result), reference(q, k, v, dim, expected), 'f32', 4);
  });
});

/** Plain double-precision attention with a changed score. */
function reference(q: Float32Array, k: Float32Array, v: Float32Array, dim: number, change: Row['expected']): number[] {
  const out: number[] = [];
  for (let h = 0; h < HEADS; ++h)
    for (let i = 0; i < LENGTH; ++i) {
      const at = (x: Float32Array, row: number, d: number) => x[(h * LENGTH + row) * dim + d];
      const logits = Array.from({ length: LENGTH }, (_, j) => {
        let dot = 0;
        for (let d = 0; d < dim; ++d) dot += at(q, i, d) * at(k, j, d);
        return change(dot / Math.sqrt(dim), h, i, j);
      });
      const highest = Math.max(...logits);
      const weights = logits.map((x) => Math.exp(x - highest));
      const sum = weights.reduce((a, b) => a + b, 0);
      for (let d = 0; d < dim; ++d) out.push(weights.reduce((acc, w, j) => acc + w * at(v, j, d), 0) / sum);
    }
  return out;
}

test('every score of the library has a row', () => {
  const makers = Object.keys(scores).filter((name) => !/Slopes$|Buckets$/.test(name));
  expect(ROWS.map(({ name }) => name).sort()).toEqual(makers.sort());
});

test('T5 buckets of the published models', () => {
  const buckets = scores.t5Buckets(16, 128);
  expect(Array.from(buckets.slice(0, 9))).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  expect([11, 12, 16, 23, 32, 46, 64, 91, 127, 128].map((d) => buckets[d])).toEqual([
    8, 9, 10, 11, 12, 13, 14, 15, 15, 15,
  ]);
});

test('ALiBi slopes of the paper', () => {
  expect(Array.from(scores.alibiSlopes(8))).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((i) => 2 ** -i));
});
