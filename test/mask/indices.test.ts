/** The index rule: guarded reads are proven, others are refused with a message that helps. */
import { describe, expect, it } from 'vitest';
import { checkIndices } from '../../lib/mask/indices.ts';
import { mask } from '../../lib/mask/mask.ts';
import { and, offset } from '../../lib/mask/compose.ts';
import { compileSource } from '../../lib/mask/term.ts';
import type { FoveaError } from '../../lib/errors.ts';

const lengths = (q: number, kv: number, b = 1, h = 1) =>
  ({ b: [0, b - 1], h: [0, h - 1], q: [0, q - 1], kv: [0, kv - 1] }) as const;

const captures = { doc: Int32Array.from({ length: 64 }, (_, i) => i >> 3), bias: [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7]], w: 3, n: 64 }; // prettier-ignore

function code(text: string, q = 64, kv = 64): string {
  try {
    checkIndices(compileSource(text, 'mask', captures), lengths(q, kv));
    return 'proven';
  } catch (error) {
    return (error as FoveaError).code;
  }
}

describe('table reads', () => {
  it.each([
    '({ q, kv }, { doc }) => doc[q] === doc[kv]',
    '({ kv }, { doc }) => (kv > 0 ? doc[kv - 1] : 0) === 1',
    '({ kv }, { doc }) => doc[Math.max(kv - 1, 0)] === 1',
    '({ q, kv }, { doc }) => kv <= q && doc[q - kv] === 1',
    '({ q, kv }, { doc }) => { if (kv > q) return false; const d = q - kv; if (d < 3) return doc[d + 61] === 1; return doc[d - 3] === 1 }',
    '({ q, kv }, { bias, w }) => Math.abs(q - kv) <= w && bias[1][q - kv + w] > 2',
    '({ q, kv }, { bias, w }) => !(q - kv > w || kv - q > w) && bias[0][w - (q - kv)] > 2',
    '({ q, kv }, { bias }) => { const i = q - kv + 3; return i >= 0 && i < bias[0].length && bias[0][i] > 2 }',
    '({ q, kv }, { doc }) => doc[doc[q]] === doc[kv >> 1]',
    '({ q, kv }, { doc }) => doc[q] === doc[kv] || doc[(q + kv) % 64] === doc[Math.floor((q + kv) / 2)]',
    '({ q, kv }, { doc }) => q === kv + 1 ? doc[q - 1] === 2 : true',
    '({ q, kv }, { doc }) => doc[q > kv ? q - kv : kv - q] === 1',
    '({ q, kv }, { doc }) => { const d = Math.max(q - kv, 0); return doc[d < 16 ? d : Math.min(16 + Math.floor(Math.log(d / 16) * 9), 63)] === 1 }',
    '({ q }, { doc }) => q !== 0 && doc[q - 1] === 1',
  ])('%s', (text) => expect(code(text)).toBe('proven'));

  it('guards by length hold for any length', () => {
    const text = '({ q, kv }, { doc, n }) => q < n && kv < doc.length && doc[q] === doc[kv]';
    expect(code(text, 1_000_000, 5_000)).toBe('proven');
    expect(code(text.replace('kv < doc.length', 'kv <= doc.length'), 100, 100)).toBe('ERR_MASK_INDEX');
  });

  it.each([
    ['({ kv }, { doc }) => doc[kv - 1] === 1', 64],
    ['({ kv }, { doc }) => doc[kv] === 1', 65],
    ['({ kv }, { doc }) => kv > 0 || doc[kv - 1] === 1', 64],
    ['({ q, kv }, { doc }) => q <= kv && doc[q - kv] === 1', 64],
    ['({ q, kv }, { bias, w }) => Math.abs(q - kv) <= w + 1 && bias[1][q - kv + w] > 2', 64],
    ['({ h, q }, { bias }) => bias[h + 2][q % 7] > 2', 64],
  ])('%s is refused', (text, length) => expect(code(text, length, length)).toBe('ERR_MASK_INDEX'));

  it('are refused with the read, its range, the length and a way out', () => {
    const shifted = compileSource('({ q, kv }, { bias }) => bias[1][q - kv + 3] > 2', 'mask', captures);
    expect(() => checkIndices(shifted, lengths(10, 20), 'mask "near"')).toThrow(
      'mask "near": bias[1][q - kv + 3]: the index may be anything from -16 to 12, axis 1 of "bias" has 7 entries (0 to 6)\n\n' +
        'Hint: keep it in range with Math.min and Math.max, or guard the read: kv > 0 ? table[kv - 1] : 0',
    );
  });

  it('of composed masks are guarded by the masks before them', () => {
    const inside = mask(({ q, kv }, { n }) => q < n && kv < n, { n: 64 });
    const same = mask(({ q, kv }, { doc }) => doc[q] === doc[kv], { doc: captures.doc });
    expect(() => checkIndices(and(inside, same).program, lengths(100, 100))).not.toThrow();
    expect(() => checkIndices(and(same, inside).program, lengths(100, 100))).toThrow(/doc\[q\]/);
    const later = offset(same, { q: 60 });
    expect(() => checkIndices(later.program, lengths(4, 64))).not.toThrow();
    expect(() => checkIndices(later.program, lengths(5, 64))).toThrow(/from 60 to 64/);
  });

  it('remember boxes, not the arrays that held them', () => {
    const program = compileSource('({ kv }, { doc }) => doc[kv] === 1', 'mask', captures);
    const kv: [number, number] = [0, 63];
    checkIndices(program, { ...lengths(1, 1), kv });
    kv[1] = 200;
    expect(() => checkIndices(program, { ...lengths(1, 1), kv })).toThrow(/from 0 to 200/);
  });
});

describe('integers beyond i32', () => {
  it('are refused for lengths where they may wrap, and only there', () => {
    const disc = mask(({ q, kv }, { r }) => (q - kv) * (q - kv) <= r * r, { r: 50 });
    expect(() => checkIndices(disc.program, lengths(40_000, 40_000))).not.toThrow();
    expect(() => checkIndices(disc.program, lengths(50_000, 50_000))).toThrow(/may exceed 2\^31 for 50000 queries/);
  });
});
