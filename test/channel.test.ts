/** channelAttention against its golden, a double-precision reference, and its invariances. */
import { describe, expect, test } from 'vitest';
import { cast, channelAttention, indexSelect, linear, manualSeed, permute, randn, reshape, tensor, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, range, rowsOf, softmaxOf } from './plain_attention.ts';
import { expectClose, relativeError } from './tolerance.ts';

test('davit_channel_attn', () =>
  checkGolden('davit_channel_attn', (g) => {
    const { num_heads: heads } = g.config as unknown as { num_heads: number };
    const x = g.input('x');
    const [b, n, c] = x.shape;
    const qkv = reshape(linear(x, g.weight('qkv.weight'), g.weight('qkv.bias')), [b, n, 3, heads, c / heads]);
    const [q, k, v] = [0, 1, 2].map((i) => permute(qkv.select(2, i), [0, 2, 1, 3]));
    const y = permute(channelAttention(q, k, v), [0, 2, 1, 3]);
    return { y: linear(reshape(y, [b, n, c]), g.weight('proj.weight'), g.weight('proj.bias')) };
  }));

describe('double-precision reference, values and finite differences', () => {
  test.each(['davit', 'florence'] as const)('%s', (form) => {
    const [n, d] = [7, 4];
    const shape = [1, 1, n, d];
    checkGradients({
      shapes: [shape, shape, shape],
      op: (q, k, v) => channelAttention(q, k, v, { form }),
      reference: (q, k, v) => {
        const [left, right, applied] = (form === 'davit' ? [k, v, q] : [q, k, v]).map((x) => rowsOf(x, d));
        const scale = 1 / Math.sqrt(form === 'davit' ? d : n);
        const column = (x: number[][], c: number): number[] => x.map((row) => row[c]);
        const map = range(0, d).map((c) =>
          softmaxOf(range(0, d).map((e) => scale * dot(column(left, c), column(right, e)))),
        );
        return applied.flatMap((row) => map.map((weights) => dot(weights, row)));
      },
    });
  });
});

const inputs = (): Tensor[] => {
  manualSeed(1);
  return [1, 2, 3].map(() => randn([2, 3, 50, 16]));
};

test('positions permuted, rows of the result permuted', () => {
  const [q, k, v] = inputs();
  const order = tensor(Int32Array.from({ length: 50 }, (_, i) => (i * 7) % 50));
  const moved = [q, k, v].map((t) => indexSelect(t, 2, order));
  expectClose(
    numbers(channelAttention(moved[0], moved[1], moved[2])),
    numbers(indexSelect(channelAttention(q, k, v), 2, order)),
  );
});

test('bf16 follows f32; shapes and forms are checked', () => {
  const [q, k, v] = inputs();
  const [a, b, c] = [q, k, v].map((t) => cast(t, 'bf16'));
  const narrow = channelAttention(a, b, c);
  expect(narrow.dtype).toBe('bf16');
  const wide = channelAttention(...([a, b, c].map((t) => cast(t, 'f32')) as [Tensor, Tensor, Tensor]));
  expect(relativeError(numbers(narrow), numbers(wide))).toBeLessThan(1e-2);
  const code = (name: string) => expect.objectContaining({ code: name }) as Error;
  expect(() => channelAttention(q, k, randn([2, 3, 50, 8]))).toThrow(code('ERR_SHAPE'));
  expect(() => channelAttention(q, k, v, { form: 'x' as never })).toThrow(code('ERR_ARGUMENT'));
});
