/** Interval classes: exact where the mask language promises it. Soundness for random programs is in properties.test.ts. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { evaluate } from '../../lib/mask/evaluate.ts';
import { BOX_MIXED, intervalOf, prepareIntervals } from '../../lib/mask/interval.ts';
import { RangeTable } from '../../lib/mask/range_table.ts';
import { compileSource } from '../../lib/mask/term.ts';
import type { Program } from '../../lib/mask/program.ts';

const box = (q: [number, number], kv: [number, number], b = 0, h = 0) => ({ b: [b, b], h: [h, h], q, kv }) as const;

/** Compares every tile's class with the truth of its points. Gives how many tiles are of one kind but weren't proven so. */
function unproven(program: Program, length: number, tile: number): number {
  const classify = prepareIntervals(program);
  let missed = 0;
  for (let q = 0; q < length; q += tile) {
    for (let kv = 0; kv < length; kv += tile) {
      let count = 0;
      for (let i = q; i < q + tile; ++i)
        for (let j = kv; j < kv + tile; ++j) count += evaluate(program, { q: i, kv: j });
      const kind = classify(box([q, q + tile - 1], [kv, kv + tile - 1]));
      const truth = count === 0 ? 0 : count === tile * tile ? 1 : BOX_MIXED;
      if (kind === BOX_MIXED) missed += Number(truth !== BOX_MIXED);
      else expect(kind).toBe(truth);
    }
  }
  return missed;
}

describe('interval classes', () => {
  const doc = Int32Array.from({ length: 128 }, (_, i) => [0, 0, 1, 1, 1, 2, 5, 5][i >> 4]);
  it.each<[string, string, Record<string, unknown>]>([
    ['everything', '() => true', {}],
    ['nothing', '() => false', {}],
    ['causal', '({ q, kv }) => q >= kv', {}],
    ['window', '({ q, kv }, { w }) => Math.abs(q - kv) <= w', { w: 13 }],
    ['causal window', '({ q, kv }, { w }) => q - kv >= 0 && q - kv < w', { w: 40 }],
    ['documents', '({ q, kv }, { doc }) => doc[q] === doc[kv]', { doc }],
    ['causal documents', '({ q, kv }, { doc }) => q >= kv && doc[q] === doc[kv]', { doc }],
    ['prefix', '({ b, q, kv }, { prefix }) => kv < prefix[b] || q >= kv', { prefix: [37] }],
    ['blocks', '({ q, kv }) => Math.floor(q / 24) === Math.floor(kv / 24)', {}],
    ['blocks of captured size', '({ q, kv }, { size }) => Math.floor(q / size) >= Math.floor(kv / size)', { size: 24 }],
    ['global tokens', '({ q, kv }, { g, w }) => q < g || kv < g || Math.abs(q - kv) < w', { g: 5, w: 9 }],
    [
      'neighborhood',
      '({ q, kv }) => { const first = Math.min(Math.max(q - 6, 0), 128 - 13); return kv >= first && kv < first + 13 }',
      {},
    ],
    ['half precision position', '({ q, kv }) => q * 0.5 < kv - 20.5', {}],
    ['remainders', '({ q, kv }) => q % 32 < 16 && kv % 32 >= 0', {}],
    ['bits', '({ q, kv }) => (q & 31) < 16 && (kv >> 4) === 3', {}],
  ])('are exact for %s', (_, text, captures) => {
    for (const tile of [8, 16]) expect(unproven(compileSource(text, 'mask', captures), 128, tile)).toBe(0);
  });

  it('do not prove what is not so', () => {
    const dilated = compileSource('({ q, kv }) => (q - kv) % 4 === 0', 'mask');
    expect(intervalOf(dilated, box([0, 15], [0, 15]))).toBe('mixed');
    expect(intervalOf(dilated, box([5, 5], [1, 1]))).toBe('all');
    expect(intervalOf(dilated, box([5, 5], [2, 2]))).toBe('none');
    const products = compileSource('({ q, kv }) => q * kv >= 0', 'mask');
    expect(intervalOf(products, box([0, 100_000], [0, 100_000]))).toBe('mixed');
    expect(intervalOf(products, box([0, 1000], [0, 1000]))).toBe('all');
    const notNumbers = compileSource('({ q, kv }, { t }) => t[q] < t[kv] || t[q] >= t[kv]', 'mask', {
      t: Float32Array.of(1, NaN, 3),
    });
    expect(intervalOf(notNumbers, box([0, 2], [0, 2]))).toBe('mixed');
  });

  it('recompute what a new box changes', () => {
    const program = compileSource('({ b, h, q, kv }, { t }) => t[b] + h > q - kv', 'mask', { t: [3, 9] });
    const classify = prepareIntervals(program);
    const random = fc.sample(fc.tuple(fc.nat(1), fc.nat(2), fc.nat(12), fc.nat(12)), { numRuns: 400, seed: 1 });
    for (const [b, h, q, kv] of random) {
      const at = box([q, q + 1], [kv, kv], b, h);
      expect(classify(at)).toBe(prepareIntervals(program)(at));
    }
  });

  it('only exist for masks', () => {
    expect(() => prepareIntervals(compileSource('({ s }) => s', 'score'))).toThrow(/expected a mask/);
  });
});

describe('range tables', () => {
  it('give the minimum and maximum of every range', () => {
    for (const length of [1, 2, 15, 16, 17, 100, 257]) {
      const data = Int32Array.from({ length }, (_, i) => ((i * 7919) % 613) - 300);
      const table = new RangeTable(data);
      for (let first = 0; first < length; ++first) {
        let [min, max] = [Infinity, -Infinity];
        for (let last = first; last < length; ++last) {
          min = Math.min(min, data[last]);
          max = Math.max(max, data[last]);
          table.query(first, last);
          if (table.min !== min || table.max !== max) expect.fail(`${first} to ${last} of ${length}`);
        }
      }
    }
  });

  it('know about NaN', () => {
    const table = new RangeTable(Float32Array.of(1, NaN, -2));
    table.query(0, 2);
    expect([table.min, table.max, table.hasNaN]).toEqual([-2, 1, true]);
  });
});
