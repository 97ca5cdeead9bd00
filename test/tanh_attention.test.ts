/** tanhAttention against the golden TSA blocks and ISTA-Net models (what is around it is of this file) and a double-precision reference. */
import { describe, expect, test } from 'vitest';
import { add, cast, concat, leakyRelu, linear, manualSeed, mean, mul, pad, permute, randn, reshape, slice, tanhAttention, type Tensor } from '../lib/index.ts'; // prettier-ignore
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

type Weights = (name: string) => Tensor;

/** A 1 x 1 x 1 convolution or one along an axis, and batch normalisation as in evaluation. */
function layer(weight: Weights, name: string, input: Tensor, axis: 2 | 4 = 4): Tensor {
  const y = convolve(input, weight(`${name}.0.weight`), weight(`${name}.0.bias`), axis);
  const channel = (part: string): Tensor => reshape(weight(`${name}.1.${part}`), [1, -1, 1, 1, 1]);
  const normal = mul(y.sub(channel('running_mean')), channel('running_var').add(1e-5).rsqrt());
  return add(mul(normal, channel('weight')), channel('bias'));
}

const activate = (y: Tensor): Tensor => leakyRelu(y, 0.1);

function block(weight: Weights, x: Tensor, heads: number, dq: number): Tensor {
  const [n, c, t, v, u] = x.shape;
  const expands = weight('proj.0.weight').shape[0] !== c;
  const qk = convolve(add(x, weight('pes.pe')), weight('to_qkvs.weight'), weight('to_qkvs.bias'), 4);
  const apart = permute(reshape(qk, [n, 2 * heads, dq, t, v, u]), [0, 1, 5, 2, 3, 4]);
  const tokens = reshape(apart, [n, 2 * heads, u, dq * t * v]);
  const values = reshape(permute(x, [0, 4, 1, 2, 3]), [n, 1, u, c * t * v]);
  const mixed = tanhAttention(slice(tokens, 1, 0, heads), slice(tokens, 1, heads), values, {
    alpha: weight('alpha'),
    bias: weight('M'),
  });
  const merged = reshape(permute(reshape(mixed, [n, heads, u, c, t, v]), [0, 1, 3, 4, 5, 2]), [n, heads * c, t, v, u]);
  const rest = expands ? layer(weight, 'residual', x) : x;
  const first = activate(add(layer(weight, 'proj', merged), rest));
  const second = activate(add(layer(weight, 'FFN', first), rest));
  return activate(add(layer(weight, 'TA', second, 2), expands ? layer(weight, 'residual_TA', second) : second));
}

/** [N, C, T, J, E] as tokens [N, C, window of T, windows of J and E, tokens]: a token takes every (extent / window)-th element of an axis. */
function tokensOf(x: Tensor, windows: readonly number[]): Tensor {
  const whole = windows.reduce((t, window, i) => {
    const extent = t.shape[2 + i];
    const last = slice(t, 2 + i, extent - 1);
    return concat([t, ...range(0, (window - (extent % window)) % window).map(() => last)], 2 + i);
  }, x);
  const [n, c, ...extents] = whole.shape;
  const apart = reshape(whole, [n, c, ...extents.flatMap((extent, i) => [windows[i], extent / windows[i]])]);
  const [t, j, e] = windows;
  return reshape(permute(apart, [0, 1, 2, 4, 6, 3, 5, 7]), [n, c, t, j * e, -1]);
}

interface ModelConfig {
  readonly window_size: readonly number[];
  readonly config: readonly (readonly [number, number, number])[];
  readonly num_heads: number;
}

function model(g: GoldenCase): Record<string, Tensor> {
  const { window_size: windows, config, num_heads: heads } = g.config as unknown as ModelConfig;
  const tokens = tokensOf(g.input('x'), windows);
  const embedded = activate(layer((name) => g.weight(name), 'embed', tokens));
  const out = config.reduce(
    (x, [, , dq], i) => block((name) => g.weight(`blocks.${i}.${name}`), x, heads, dq),
    embedded,
  );
  return { y: linear(mean(out, [2, 3, 4]), g.weight('fc.weight'), g.weight('fc.bias')), tokens };
}

describe('goldens', () => {
  test.each(['ista_tsablock', 'ista_tsablock_expand'])('%s', (name) =>
    checkGolden(
      name,
      (g) => {
        const { num_heads: heads, qkv_dim: dq } = g.config as unknown as { num_heads: number; qkv_dim: number };
        return { y: block((key) => g.weight(key), g.input('x'), heads, dq) };
      },
      { factor: 5 },
    ),
  );
  test.each(['ista_model_tiny', 'ista_model_pad'])('%s', (name) => checkGolden(name, model, { factor: 10 }));
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
