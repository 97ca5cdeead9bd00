/** reversedAttention against goldens, a double-precision reference, and what its mass adds up to. */
import { describe, expect, test } from 'vitest';
import { add, cast, dependencyMask, linear, manualSeed, matmul, mul, permute, rand, randn, reshape, reversedAttention, sigmoid, softmax, sum, transpose, unsqueeze, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, headsOf, softmaxOf } from './plain_attention.ts';
import { expectClose, relativeError } from './tolerance.ts';

describe('goldens', () => {
  test.each(['dependencyvit_revattn', 'dependencyvit_revattn_m'])('%s', (name) =>
    checkGolden(
      name,
      (g) => {
        const { num_heads: heads } = g.config as unknown as { num_heads: number };
        const x = g.input('x');
        const [b, n, c] = x.shape;
        const qkv = permute(reshape(linear(x, g.weight('qkv.weight')), [b, n, 3, heads, c / heads]), [2, 0, 3, 1, 4]);
        const [q, k, v] = [0, 1, 2].map((i) => qkv.select(0, i));
        const p = transpose(softmax(linear(x, g.weight('head_selector.weight')).div(0.1), -1), 1, 2);
        const hidden = linear(x, g.weight('message_controller.fc1.weight'), null, 'gelu');
        const c1 = sigmoid(linear(hidden, g.weight('message_controller.fc2.weight')));
        const m = mul(g.input('m'), reshape(c1, [b, 1, 1, n]));
        const sender = { p, m: reshape(m, [b, 1, n]) };
        const mixed = reversedAttention(q, k, v, sender);
        const y = linear(
          reshape(permute(mixed, [0, 2, 1, 3]), [b, n, c]),
          g.weight('proj.weight'),
          g.weight('proj.bias'),
        );
        return { y, m, prune_mask: reshape(m, [b, n]), dependency_mask: dependencyMask(q, k, sender) };
      },
      {},
    ),
  );
});

test('double-precision reference, values and finite differences', () => {
  const [heads, n, d] = [2, 6, 3];
  checkGradients({
    shapes: [[1, heads, n, d], [1, heads, n, d], [1, heads, n, d], [1, heads, n], [1, 1, n]],
    op: (q, k, v, p, m) => reversedAttention(q, k, v, { p, m }),
    reference: (q, k, v, p, m) =>
      headsOf(q, heads, d).flatMap((qh, h) => {
        const [kh, vh] = [headsOf(k, heads, d)[h], headsOf(v, heads, d)[h]];
        const sends = qh.map((query) => softmaxOf(kh.map((key) => dot(query, key) / Math.sqrt(d))));
        return qh.flatMap((_, i) =>
          vh[0].map((__, c) => sends.reduce((s, f, j) => s + f[i] * p[h * n + j] * m[j] * vh[j][c], 0)),
        );
      }),
  }); // prettier-ignore
});

const inputs = (length: number): Tensor[] => {
  manualSeed(length);
  return [1, 2, 3].map(() => randn([2, 3, length, 8]));
};

test('each sender spreads m over receivers and heads', () => {
  const [q, k, v] = inputs(90);
  const p = softmax(randn([2, 3, 90]), 1);
  const m = rand([2, 1, 90]);
  const d = dependencyMask(q, k, { p, m });
  expectClose(numbers(sum(d, 1)), numbers(reshape(m, [2, 90])), 'f32', 2);
  // Mass of all values is preserved: with v = 1 the sum over receivers is that over senders.
  const ones = mul(v, 0).add(1);
  const total = sum(reversedAttention(q, k, ones, { p, m }), [1, 2]);
  expectClose(numbers(total), numbers(add(mul(total, 0), unsqueeze(sum(reshape(m, [2, 90]), 1), 1))), 'f32', 2);
});

test('without p and m it is the transposed map of attention', () => {
  const [q, k, v] = inputs(20);
  const map = softmax(mul(matmul(q, transpose(k)), 1 / Math.sqrt(8)), -1);
  expectClose(numbers(reversedAttention(q, k, v)), numbers(matmul(transpose(map), v)));
});

test('large logits, and bf16', () => {
  const [q, k, v] = inputs(50);
  const out = numbers(reversedAttention(mul(q, 30), k, v));
  expect(out.every(Number.isFinite)).toBe(true);
  const [a, b, c] = [q, k, v].map((t) => cast(t, 'bf16'));
  expect(relativeError(numbers(reversedAttention(a, b, c)), numbers(reversedAttention(q, k, v)))).toBeLessThan(3e-2);
});

test('shapes that do not fit are refused', () => {
  const [q, k] = inputs(5);
  expect(() => reversedAttention(q, k, randn([2, 3, 6, 8]))).toThrow(
    expect.objectContaining({ code: 'ERR_SHAPE' }) as Error,
  );
});
