/** The variants of "Deconstructing Attention" against goldens, double-precision references, and each other. */
import { describe, expect, test } from 'vitest';
import { attention, cast, manualSeed, mul, positionlessAttention, positionlessCost, randn, streamAttention, taylorAttention, taylorCost, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, plainAttention, rowsOf } from './plain_attention.ts';
import { expectClose, relativeError } from './tolerance.ts';

const operands = (g: GoldenCase): [Tensor, Tensor, Tensor] => [g.input('q'), g.input('k'), g.input('v')];

describe('goldens', () => {
  test.each(['score', 'features'] as const)('decon_taylor by %s', (method) =>
    checkGolden('decon_taylor', (g) => taylorAttention(...operands(g), { method }), { factor: 2 }),
  );
  test('decon_nonapprox', () => checkGolden('decon_nonapprox', (g) => positionlessAttention(...operands(g))));
  test('decon_static_qk', () =>
    checkGolden('decon_static_qk', (g) => {
      const [q, k, v] = ['w_q', 'w_k', 'w_v'].map((name) => g.input(name));
      return streamAttention(g.input('hidden'), g.input('qk_stream'), { q, k, v }, 2);
    }));
});

describe('double-precision reference, values and finite differences', () => {
  const d = 3;
  const silu = (x: number): number => x / (1 + Math.exp(-x));
  test.each(['score', 'features'] as const)('taylor by %s', (method) => {
    const shape = [1, 1, 9, d];
    checkGradients({
      shapes: [shape, shape, shape],
      op: (q, k, v) => taylorAttention(q, k, v, { method }),
      reference: (q, k, v) =>
        plainAttention(rowsOf(q, d), rowsOf(k, d), rowsOf(v, d), (s, i, j) => {
          const x = s / Math.sqrt(d);
          return j <= i ? Math.log(1 + x + (x * x) / 2) : -Infinity;
        }).flat(),
      tolerance: 4e-5,
    });
  });
  test.each([7, 40])('positionless, length %i', (n) => {
    const shape = [1, 1, n, d];
    checkGradients({
      shapes: [shape, shape, shape],
      op: (q, k, v) => positionlessAttention(q, k, v),
      reference: (q, k, v) => {
        const [qs, ks] = [rowsOf(q.map(silu), d), rowsOf(k, d)];
        const logits = qs.map((row, j) => [dot(row, ks[j]) / Math.sqrt(d)]);
        return plainAttention(qs.map(() => [1]), logits, rowsOf(v, d), (s, i, j) => (j <= i ? s : -Infinity)).flat(); // prettier-ignore
      },
    });
  });
});

const inputs = (length: number): [Tensor, Tensor, Tensor] => {
  manualSeed(length);
  return [1, 2, 3].map(() => randn([2, 2, length, 8])) as [Tensor, Tensor, Tensor];
};

test('both methods of taylor agree, and tend to softmax for small logits', () => {
  const [q, k, v] = inputs(150);
  const score = numbers(taylorAttention(q, k, v, { method: 'score' }));
  expectClose(numbers(taylorAttention(q, k, v, { method: 'features' })), score, 'f32', 5);
  const gap = (by: number): number =>
    relativeError(numbers(taylorAttention(mul(q, by), k, v)), numbers(attention(mul(q, by), k, v, { causal: true })));
  expect(gap(0.2) / gap(0.1)).toBeGreaterThan(5);
});

test('the running mean over several levels of chunks is causal attention with one key logit', () => {
  const [q, k, v] = inputs(2100);
  const scaled = mul(q, 20);
  const logits = mul(scaled, scaled.sigmoid())
    .mul(k)
    .sum(3, true)
    .mul(1 / Math.sqrt(8));
  const ones = mul(logits, 0).add(1);
  const expected = attention(ones, logits, v, { causal: true, scale: 1 });
  expectClose(numbers(positionlessAttention(scaled, k, v)), numbers(expected), 'f32', 5);
});

test('a stream of batch 1 is shared; its map does not depend on the input', () => {
  manualSeed(3);
  const [hidden, stream] = [randn([2, 6, 8]), randn([1, 6, 8])];
  const [q, k, v] = [1, 2, 3].map(() => randn([8, 8]));
  const weights = { q, k, v };
  const out = streamAttention(hidden, stream, weights, 2);
  const twice = streamAttention(mul(hidden, 2), stream, weights, 2);
  expectClose(numbers(twice), numbers(mul(out, 2)));
});

test('bf16, cost, errors', () => {
  const [q, k, v] = inputs(50);
  const [a, b, c] = [q, k, v].map((t) => cast(t, 'bf16'));
  for (const op of [taylorAttention, positionlessAttention])
    expect(relativeError(numbers(op(a, b, c)), numbers(op(q, k, v)))).toBeLessThan(3e-2);
  const code = (name: string) => expect.objectContaining({ code: name }) as Error;
  expect(() => taylorAttention(q, k, v, { method: 'x' as never })).toThrow(code('ERR_ARGUMENT'));
  const weights = { q: randn([8, 8]), k: randn([8, 8]), v: randn([8, 8]) };
  expect(() => streamAttention(randn([2, 6, 8]), randn([3, 6, 8]), weights)).toThrow(code('ERR_SHAPE'));
  const growth = (f: (length: number) => number): number => f(65536) / f(4096);
  expect(growth((length) => positionlessCost({ length, dim: 64 }).flops)).toBeCloseTo(16, 1);
  expect(growth((length) => taylorCost({ length, dim: 64 }, { method: 'features' }).flops)).toBeCloseTo(16, 1);
});
