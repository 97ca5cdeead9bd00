/** dualTriangleAttention against goldens, a double-precision reference, and its symmetries. */
import { describe, expect, test } from 'vitest';
import {
  attention,
  cast,
  concat,
  dualTriangleAttention,
  flip,
  manualSeed,
  randn,
  slice,
  type Tensor,
} from '../lib/index.ts';
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { headsOf, plainAttention, type Rows } from './plain_attention.ts';
import { expectClose, relativeError } from './tolerance.ts';

const ROUTING = { split: 'half', flex_code: 'flat', single_softmax: 'single' } as const;

describe('goldens', () => {
  test.each(['dta_split', 'dta_flex_code', 'dta_flex_code_h1', 'dta_single_softmax', 'dta_split_pad'])('%s', (name) =>
    checkGolden(name, (g: GoldenCase) =>
      dualTriangleAttention(g.input('q'), g.input('k'), g.input('v'), {
        routing: ROUTING[g.metadata.mode as keyof typeof ROUTING],
        ...(name.endsWith('pad') && { valid: g.input('mask') }),
      }),
    ),
  );
});

const H = 3;
const D = 4;

function reference(q: ArrayLike<number>, k: ArrayLike<number>, v: ArrayLike<number>, routing: string): number[] {
  const scale = 1 / Math.sqrt(D / 2);
  return headsOf(q, H, D).flatMap((qh, h) => {
    const [kh, vh] = [headsOf(k, H, D)[h], headsOf(v, H, D)[h]];
    const cut = (x: Rows, s: number): Rows => x.map((row) => row.slice((s * D) / 2, ((s + 1) * D) / 2));
    if (routing === 'single')
      return qh.flatMap((_, i) =>
        plainAttention([[1]], kh.map((__, j) => {
          const half = j <= i ? 1 : 0;
          const [a, b] = [cut(qh, half)[i], cut(kh, half)[j]];
          return [a.reduce((sum, x, c) => sum + x * b[c], 0)];
        }), vh, (s) => s * scale)[0],
      ); // prettier-ignore
    const halves = [0, 1].map((s) => {
      const past = routing === 'half' ? s === 0 : 2 * h + s < H;
      return plainAttention(cut(qh, s), cut(kh, s), cut(vh, s), (x, i, j) =>
        (past ? j <= i : j >= i) ? x * scale : -Infinity,
      );
    });
    return qh.flatMap((_, i) => [...halves[0][i], ...halves[1][i]]);
  });
}

describe('double-precision reference, values and finite differences', () => {
  test.each(['half', 'flat', 'single'] as const)('%s', (routing) => {
    const shape = [1, H, 7, D];
    checkGradients({
      shapes: [shape, shape, shape],
      op: (q, k, v) => dualTriangleAttention(q, k, v, { routing }),
      reference: (q, k, v) => reference(q, k, v, routing),
    });
  });
});

const inputs = (length: number): Tensor[] => {
  manualSeed(length);
  return [1, 2, 3].map(() => randn([2, 3, length, 8]));
};

test('the last row of the first half and the first row of the second see everything', () => {
  const [q, k, v] = inputs(70);
  const out = dualTriangleAttention(q, k, v);
  const half = (t: Tensor, s: number): Tensor => slice(t, 3, 4 * s, 4 * s + 4);
  for (const [s, row] of [
    [0, 69],
    [1, 0],
  ] as const)
    // prettier-ignore
    expectClose(
      numbers(slice(half(out, s), 2, row, row + 1)),
      numbers(attention(slice(half(q, s), 2, row, row + 1), half(k, s), half(v, s))),
    );
});

test('time reversed and halves exchanged is the same', () => {
  const [q, k, v] = inputs(33);
  const swap = (t: Tensor): Tensor => concat([slice(t, 3, 4), slice(t, 3, 0, 4)], 3);
  const turned = [q, k, v].map((t) => swap(flip(t, 2)));
  expectClose(
    numbers(swap(flip(dualTriangleAttention(turned[0], turned[1], turned[2]), 2))),
    numbers(dualTriangleAttention(q, k, v)),
  );
});

test('one token gives its value; bf16 follows f32', () => {
  const [q, k, v] = inputs(1);
  expectClose(numbers(dualTriangleAttention(q, k, v)), numbers(v));
  const wide = inputs(40);
  const [a, b, c] = wide.map((t) => cast(t, 'bf16'));
  const narrow = dualTriangleAttention(a, b, c);
  expect(narrow.dtype).toBe('bf16');
  expect(relativeError(numbers(narrow), numbers(dualTriangleAttention(wide[0], wide[1], wide[2])))).toBeLessThan(2e-2);
});

test('odd dims, masks of another shape and unknown routings are refused', () => {
  const odd = randn([1, 1, 4, 3]);
  const [q, k, v] = inputs(4);
  const code = (name: string) => expect.objectContaining({ code: name }) as Error;
  expect(() => dualTriangleAttention(odd, odd, odd)).toThrow(code('ERR_SHAPE'));
  expect(() => dualTriangleAttention(q, k, v, { valid: randn([2, 4]) })).toThrow(code('ERR_SHAPE'));
  expect(() => dualTriangleAttention(q, k, v, { routing: 'x' as never })).toThrow(code('ERR_ARGUMENT'));
});
