/** explain(): kernels and reasons, tile counts against counting by hand. */
import { describe, expect, test } from 'vitest';
import { attention, cast, explain, tensor, zeros, type AttentionOptions, type Tensor } from '../lib/index.ts';
import { atLevel, LEVELS } from './levels.ts';

const qkv = (lq: number, lkv: number, heads = 2, kvHeads = heads, dim = 8) =>
  [zeros([1, heads, lq, dim]), zeros([1, kvHeads, lkv, dim]), zeros([1, kvHeads, lkv, dim])] as const;

/** Tiles of one head by looking at every pair. */
function count(
  lq: number,
  lkv: number,
  visible: (i: number, j: number) => boolean,
  [tq, tk]: readonly [number, number],
) {
  const counts = { full: 0, partial: 0, skipped: 0 };
  for (let q0 = 0; q0 < lq; q0 += tq)
    for (let k0 = 0; k0 < lkv; k0 += tk) {
      let seen = 0;
      let all = 0;
      for (let i = q0; i < Math.min(q0 + tq, lq); i++)
        for (let j = k0; j < Math.min(k0 + tk, lkv); j++, all++) seen += visible(i, j) ? 1 : 0;
      counts[seen === 0 ? 'skipped' : seen === all ? 'full' : 'partial']++;
    }
  return counts;
}

describe('tiles', () => {
  const cases: [string, AttentionOptions, number, number, (i: number, j: number) => boolean][] = [
    ['dense', {}, 100, 130, () => true],
    ['causal', { causal: true }, 200, 200, (i, j) => j <= i],
    ['bottom-right', { causal: 'bottom-right' }, 70, 300, (i, j) => j <= i + 230],
    ['window', { window: [40, 10] }, 400, 400, (i, j) => j >= i - 40 && j <= i + 10],
    ['lengths', { kvLengths: [150] }, 100, 150, () => true],
  ];
  test.each(cases)('%s', (_, options, lq, lkv, visible) => {
    const [q, k, v] = qkv(lq, options.kvLengths ? 300 : lkv);
    const plan = explain(q, k, v, options);
    const expected = count(lq, lkv, visible, plan.tile);
    expect(plan.tiles).toEqual({
      full: 2 * expected.full,
      partial: 2 * expected.partial,
      skipped: 2 * expected.skipped,
    });
    expect(plan.denseFlops).toBe(2 * 2 * 16 * lq * lkv);
    expect(plan.flops).toBeLessThanOrEqual(plan.denseFlops);
  });

  test('a mask tensor makes every visited tile partial', () => {
    const [q, k, v] = qkv(100, 100);
    const plan = explain(q, k, v, { mask: tensor([true], [1], { dtype: 'bool' }) });
    expect(plan.tiles.full).toBe(0);
    expect(plan.tiles.partial).toBe(2 * 3 * 2);
  });
});

// What is refused besides the kernels that x86-64 alone lists.
const refused = (plan: ReturnType<typeof explain>) => plan.refused.filter((r) => !/^cpu\.(amx|bf16)/.test(r.kernel));

test('decode is chosen for few rows, and refused with the reason', () => {
  expect(explain(...qkv(1, 5000, 8, 2)).kernel).toBe('cpu.decode');
  const many = explain(...qkv(16, 5000, 8, 2));
  expect(many.kernel).toBe('cpu.tiles-split-keys');
  expect(refused(many)).toEqual([{ kernel: 'cpu.decode', reason: expect.stringContaining('8 rows') as string }]);
  const prefill = explain(...qkv(100, 100));
  expect(prefill.kernel).toBe('cpu.tiles');
  expect(refused(prefill).map((r) => r.kernel)).toEqual(['cpu.decode', 'cpu.tiles-split-keys']);
  expect(prefill.toString()).toContain('cpu.tiles');
});

test('bf16 goes to what multiplies it at each level', () => {
  const chosen = (...sizes: Parameters<typeof qkv>) =>
    explain(...(qkv(...sizes).map((t) => cast(t, 'bf16')) as [Tensor, Tensor, Tensor]));
  const rows: Record<string, [string, string, string]> = {
    avx512bf16: ['cpu.bf16-dot', 'cpu.bf16-dot-decode', 'cpu.bf16-dot-decode'],
    amx: ['cpu.amx', 'cpu.amx-decode', 'cpu.decode'],
  };
  for (const level of LEVELS)
    atLevel(level, () => {
      const [many, few, oddFew] = rows[level] ?? ['cpu.tiles', 'cpu.decode', 'cpu.decode'];
      const plan = chosen(100, 100);
      expect(plan.kernel, level).toBe(many);
      expect(chosen(1, 5000, 8, 2, 64).kernel, level).toBe(few);
      expect(chosen(1, 5000, 8, 2, 40).kernel, level).toBe(oddFew);
      expect(explain(...qkv(100, 100)).kernel, level).toBe('cpu.tiles');
      if (level !== 'amx' && process.arch === 'x64')
        expect(plan.refused.find((r) => r.kernel === 'cpu.amx')?.reason).toContain('FOVEA_CPU_ISA');
    });
});

test('the same errors as the call itself', () => {
  const [q, k] = qkv(4, 4);
  const v = zeros([1, 2, 5, 8]);
  expect(() => explain(q, k, v)).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }) as Error);
  expect(() => attention(q, k, v)).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }) as Error);
});
