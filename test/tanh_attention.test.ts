/** tanhAttention against the golden TSA blocks (the rest of the block is of this file) and a double-precision reference. */
import { describe, expect, test } from 'vitest';
import { add, cast, leakyRelu, linear, manualSeed, mul, pad, permute, randn, reshape, slice, tanhAttention, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, headsOf, range } from './plain_attention.ts';
import { expectClose, relativeError } from './tolerance.ts';

/** Convolution of [N, C, T, V, U] along one axis with "same" zero padding: a sum of linear maps of shifted copies. */
function convolve(x: Tensor, weight: Tensor, bias: Tensor, axis: 2 | 4): Tensor {
  const size = weight.shape[axis];
  const by = (size - 1) / 2;
  const wide = pad(x, range(0, 5).map((i) => (i === axis ? [by, by] : [0, 0]) as [number, number])); // prettier-ignore
  const taps = range(0, size).map((i) => {
    const channels = permute(slice(wide, axis, i, i + x.shape[axis]), [0, 2, 3, 4, 1]);
    return linear(channels, reshape(slice(weight, axis, i, i + 1), weight.shape.slice(0, 2)));
  });
  return permute(add(taps.reduce((a, b) => add(a, b)), bias), [0, 4, 1, 2, 3]); // prettier-ignore
}

function block(g: GoldenCase): Record<string, Tensor> {
  const { num_heads: heads, qkv_dim: dq } = g.config as unknown as { num_heads: number; qkv_dim: number };
  const x = g.input('x');
  const [n, c, t, v, u] = x.shape;
  const layer = (name: string, input: Tensor, axis: 2 | 4 = 4): Tensor => {
    const y = convolve(input, g.weight(`${name}.0.weight`), g.weight(`${name}.0.bias`), axis);
    const channel = (part: string): Tensor => reshape(g.weight(`${name}.1.${part}`), [1, -1, 1, 1, 1]);
    const normal = mul(y.sub(channel('running_mean')), channel('running_var').add(1e-5).rsqrt());
    return add(mul(normal, channel('weight')), channel('bias'));
  };
  const expands = g.weight('proj.0.weight').shape[0] !== c;
  const qk = convolve(add(x, g.weight('pes.pe')), g.weight('to_qkvs.weight'), g.weight('to_qkvs.bias'), 4);
  const apart = permute(reshape(qk, [n, 2 * heads, dq, t, v, u]), [0, 1, 5, 2, 3, 4]);
  const tokens = reshape(apart, [n, 2 * heads, u, dq * t * v]);
  const values = reshape(permute(x, [0, 4, 1, 2, 3]), [n, 1, u, c * t * v]);
  const mixed = tanhAttention(slice(tokens, 1, 0, heads), slice(tokens, 1, heads), values, {
    alpha: g.weight('alpha'),
    bias: g.weight('M'),
  });
  const merged = reshape(permute(reshape(mixed, [n, heads, u, c, t, v]), [0, 1, 3, 4, 5, 2]), [n, heads * c, t, v, u]);
  const activate = (y: Tensor): Tensor => leakyRelu(y, 0.1);
  const rest = expands ? layer('residual', x) : x;
  const first = activate(add(layer('proj', merged), rest));
  const second = activate(add(layer('FFN', first), rest));
  return { y: activate(add(layer('TA', second, 2), expands ? layer('residual_TA', second) : second)) };
}

describe('goldens', () => {
  test.each(['ista_tsablock', 'ista_tsablock_expand'])('%s', (name) => checkGolden(name, block, { factor: 5 }));
});

test('double-precision reference, values and finite differences', () => {
  const [heads, n, d] = [2, 5, 3];
  checkGradients({
    shapes: [[1, heads, n, d], [1, heads, n, d], [1, 1, n, d], [1, heads, 1, 1], [1, heads, n, n]],
    op: (q, k, x, alpha, bias) => tanhAttention(q, k, x, { alpha, bias, scale: 0.7 }),
    reference: (q, k, x, alpha, bias) =>
      range(0, heads).flatMap((h) => {
        const [qs, ks, xs] = [headsOf(q, heads, d)[h], headsOf(k, heads, d)[h], headsOf(x, 1, d)[0]];
        const map = qs.map((a, i) =>
          ks.map((b, j) => alpha[h] * Math.tanh(0.7 * dot(a, b)) + bias[(h * n + i) * n + j]),
        );
        return range(0, n).flatMap((j) => range(0, d).map((c) => map.reduce((s, row, i) => s + row[j] * xs[i][c], 0)));
      }),
  }); // prettier-ignore
});

test('without alpha it mixes by M alone; bf16; errors', () => {
  manualSeed(1);
  const [q, k] = [randn([2, 3, 10, 8]), randn([2, 3, 10, 8])];
  const [x, m] = [randn([2, 1, 10, 6]), randn([1, 3, 10, 10])];
  const mixed = numbers(tanhAttention(q, k, x, { alpha: 0, bias: m }));
  expectClose(mixed, numbers(permute(m, [0, 1, 3, 2]).expand([2, 3, 10, 10]).mul(1).reshape([2, 3, 10, 10, 1]).mul(x.reshape([2, 1, 1, 10, 6])).sum(3))); // prettier-ignore
  const narrow = tanhAttention(cast(q, 'bf16'), cast(k, 'bf16'), cast(x, 'bf16'), { bias: m });
  expect(relativeError(numbers(narrow), numbers(tanhAttention(q, k, x, { bias: m })))).toBeLessThan(2e-2);
  expect(() => tanhAttention(q, k, randn([2, 2, 10, 6]))).toThrow(
    expect.objectContaining({ code: 'ERR_SHAPE' }) as Error,
  );
});
