/** linearAttention against CARE's golden, a double-precision reference, and its chunked and stepwise forms. */
import { describe, expect, test } from 'vitest';
import { cast, concat, linear, linearAttention, linearAttentionStep, linearCost, manualSeed, mul, pad, permute, randn, reshape, slice, split, type LinearState, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, rowsOf, weighted } from './plain_attention.ts';
import { expectClose, relativeError } from './tolerance.ts';

/** Depthwise k x k convolution of [B, C, H, W] with zero padding, as a sum of shifted copies. */
function depthwise(x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  const [, c, height, width] = x.shape;
  const size = weight.shape[2];
  const by = (size - 1) / 2;
  const wide = pad(x, [[0, 0], [0, 0], [by, by], [by, by]]); // prettier-ignore
  let out = reshape(bias, [1, c, 1, 1]);
  for (let i = 0; i < size; i++)
    for (let j = 0; j < size; j++) {
      const tap = reshape(slice(slice(weight, 2, i, i + 1), 3, j, j + 1), [1, c, 1, 1]);
      out = out.add(mul(slice(slice(wide, 2, i, i + height), 3, j, j + width), tap));
    }
  return out;
}

test('care_tokenmixer_att', () =>
  checkGolden('care_tokenmixer_att', (g) => {
    const { mem_dim: width, att_head_dim: d } = g.config as unknown as { mem_dim: number; att_head_dim: number };
    const x = g.input('x');
    const [b, c, h, w] = x.shape;
    const [mem, att, one, two] = split(x, [c - 3 * width, width, width, width], 1);
    const tokens = permute(reshape(att, [b, width, h * w]), [0, 2, 1]);
    const qk = linear(tokens, reshape(g.weight('qk.weight'), [2 * width, width]), g.weight('qk.bias'));
    const heads = (t: Tensor): Tensor => permute(reshape(t, [b, h * w, width / d, d]), [0, 2, 1, 3]);
    const [q, k] = split(qk, width, 2).map(heads);
    const mixed = linearAttention(q, k, heads(tokens));
    const image = reshape(permute(mixed, [0, 1, 3, 2]), [b, width, h, w]);
    const convolved = [one, two].map((t, i) =>
      depthwise(t, g.weight(`dwconv${i + 1}.weight`), g.weight(`dwconv${i + 1}.bias`)),
    );
    return { mem: mul(mem, 1), feats: concat([image, ...convolved], 1) };
  }));

const elu1 = (x: number): number => (x < 0 ? Math.exp(x) : x + 1);

describe('double-precision reference, values and finite differences', () => {
  test.each([
    [false, 6],
    [true, 6],
    [true, 4],
  ])('causal %j, chunks of %i', (causal, chunk) => {
    const [n, d] = [13, 3];
    const shape = [1, 1, n, d];
    checkGradients({
      shapes: [shape, shape, shape],
      op: (q, k, v) => linearAttention(q, k, v, { causal, chunk, eps: 1e-3 }),
      reference: (q, k, v) => {
        const [fq, fk] = [q, k].map((x) => rowsOf(x.map(elu1), d));
        return fq.flatMap((query, i) => {
          const weights = fk.map((key, j) => (causal && j > i ? 0 : dot(query, key)));
          const count = causal ? i + 1 : n;
          const total = weights.reduce((a, b) => a + b, 0) + 1e-3 * count;
          return weighted(weights.map((w) => w / total), rowsOf(v, d)); // prettier-ignore
        });
      },
    });
  });
});

test('step by step is the causal form', () => {
  manualSeed(1);
  const [q, k, v] = [1, 2, 3].map(() => randn([2, 2, 70, 8]));
  const whole = linearAttention(q, k, v, { causal: true, chunk: 32 });
  let state: LinearState | null = null;
  const rows: Tensor[] = [];
  for (let i = 0; i < 70; i++) {
    const [a, b, c] = [q, k, v].map((t) => slice(t, 2, i, i + 1));
    const step: { out: Tensor; state: LinearState } = linearAttentionStep(a, b, c, state);
    rows.push(step.out);
    state = step.state;
  }
  expectClose(numbers(concat(rows, 2)), numbers(whole));
});

test('features near 0 keep their digits', () => {
  const far = randn([1, 1, 8, 4]).sub(30);
  const near = linearAttention(far, far, randn([1, 1, 8, 4]), { eps: 0 });
  expect(numbers(near).every(Number.isFinite)).toBe(true);
});

test('keys of another length, bf16, errors, cost', () => {
  manualSeed(2);
  const q = randn([1, 2, 5, 8]);
  const [k, v] = [randn([1, 2, 33, 8]), randn([1, 2, 33, 4])];
  const wide = linearAttention(q, k, v);
  expect(wide.shape).toEqual([1, 2, 5, 4]);
  const narrow = linearAttention(cast(q, 'bf16'), cast(k, 'bf16'), cast(v, 'bf16'));
  expect(relativeError(numbers(narrow), numbers(wide))).toBeLessThan(2e-2);
  const code = (name: string) => expect.objectContaining({ code: name }) as Error;
  expect(() => linearAttention(q, k, v, { causal: true })).toThrow(code('ERR_SHAPE'));
  expect(() => linearAttention(q, k, v, { feature: 'x' as never })).toThrow(code('ERR_ARGUMENT'));
  const flops = (length: number): number => linearCost({ length, dim: 64 }, { causal: true }).flops;
  expect(flops(65536) / flops(4096)).toBeCloseTo(16, 1);
});
