/** mixedAttentionMask against its golden and what its description says. */
import { expect, test } from 'vitest';
import { attention, blockMask, manualSeed, mixedAttentionMask, randn, tensor } from '../lib/index.ts';
import { checkGolden } from './golden_case.ts';
import { numbers } from './inputs.ts';
import { range } from './plain_attention.ts';

/** 0 and 1 of all batch entries. */
function dense(mask: ReturnType<typeof mixedAttentionMask>, b: number, length: number): number[] {
  const built = blockMask(mask, { b, q: length, kv: length, block: 16 });
  return range(0, b).flatMap((entry) => [...built.toDense(entry)]);
}

test('croc.mixed_mask', () =>
  checkGolden('croc.mixed_mask', (g) => {
    const [b, length] = g.input('labels').shape;
    const mask = mixedAttentionMask({ labels: g.input('labels'), attentionMask: g.input('attention_mask') });
    return { allowed: tensor(dense(mask, b, length), [b, 1, length, length]) };
  }));

test('image tokens among themselves, text causal', () => {
  const image = [[0, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]; // prettier-ignore
  const valid = [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]; // prettier-ignore
  const mask = mixedAttentionMask({ mode: 'visualOnly', imageTokens: tensor(image), attentionMask: tensor(valid) });
  const got = dense(mask, 2, 6);
  const expected = range(0, 2).flatMap((b) =>
    range(0, 6).flatMap((i) => range(0, 6).map((j) => Number(valid[b][j] === 1 && (j <= i || (image[b][i] === 1 && image[b][j] === 1))))),
  ); // prettier-ignore
  expect([...got]).toEqual(expected);
});

test('the prefix does not see the answer', () => {
  manualSeed(1);
  const [q, k, v] = [1, 2, 3].map(() => randn([1, 1, 8, 4]));
  const mask = mixedAttentionMask({ labels: tensor([[-100, -100, -100, 5, 6, 7, 8, 9]]) });
  const changed = tensor(numbers(v).map((x, i) => (i >= 12 ? x + 1 : x)), v.shape, { dtype: 'f32' }); // prettier-ignore
  const [a, b] = [v, changed].map((values) => [...numbers(attention(q, k, values, { mask })).slice(0, 12)]);
  expect(a).toEqual(b);
});

test('missing tensors and unknown modes are refused', () => {
  const code = (name: string) => expect.objectContaining({ code: name }) as Error;
  expect(() => mixedAttentionMask({})).toThrow(code('ERR_SHAPE'));
  expect(() => mixedAttentionMask({ labels: tensor([[1, 2]]), attentionMask: tensor([[1, 1, 1]]) })).toThrow(
    code('ERR_SHAPE'),
  );
  expect(() => mixedAttentionMask({ mode: 'x' as never })).toThrow(code('ERR_ARGUMENT'));
});
