import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { buildBlockMask } from '../../lib/mask/build.ts';
import { and, not, offset } from '../../lib/mask/compose.ts';
import { mask, type Mask } from '../../lib/mask/mask.ts';
import * as masks from '../../lib/mask/masks/index.ts';
import { blockMaskFromAdjacency, blockMaskFromBlocks, blockMaskFromBoolean } from '../../lib/mask/sources.ts';
import { native } from '../../lib/native.ts';
import { EMPTY, FULL, TileStore } from '../../lib/mask/tile_store.ts';
import { blockMask, evaluateTilesOn } from '../../lib/ops/block_mask.ts';
import { BlockMask } from '../../lib/mask/block_mask.ts';

const LEVELS = ['baseline', 'avx2', 'avx512', 'avx512bf16', 'amx'];
const best = native().bestIsa();
const levels = LEVELS.slice(0, LEVELS.indexOf(best) + 1);
afterAll(() => native().setIsa(best));

const code = (expected: string) => expect.objectContaining({ code: expected });

function dense(m: Mask, q: number, kv: number, b = 0, h = 0): Uint8Array {
  return Uint8Array.from({ length: q * kv }, (_, i) => Number(m.value({ b, h, q: Math.floor(i / kv), kv: i % kv })));
}

/** The invariants every block mask keeps, whoever made it. */
function checkInvariants(bm: BlockMask): void {
  expect(bm.rowBegin.length).toBe(bm.batch * bm.heads * bm.qBlocks + 1);
  expect(bm.rowBegin[bm.rowBegin.length - 1]).toBe(bm.columns.length);
  expect(bm.bits.length % Math.max(1, bm.tileBytes)).toBe(0);
  const byColumn = new Map<string, number>();
  for (let row = 0; row + 1 < bm.rowBegin.length; ++row) {
    for (let e = bm.rowBegin[row]; e < bm.rowBegin[row + 1]; ++e) {
      if (e > bm.rowBegin[row]) expect(bm.columns[e]).toBeGreaterThan(bm.columns[e - 1]);
      expect(bm.tiles[e]).toBeGreaterThanOrEqual(-1);
      expect(bm.tiles[e]).toBeLessThan(bm.bits.length / bm.tileBytes);
      byColumn.set(`${Math.floor(row / bm.qBlocks) * bm.kvBlocks + bm.columns[e]}:${row % bm.qBlocks}`, bm.tiles[e]);
    }
  }
  expect(bm.rows.length).toBe(bm.columns.length);
  for (let column = 0; column + 1 < bm.columnBegin.length; ++column) {
    for (let e = bm.columnBegin[column]; e < bm.columnBegin[column + 1]; ++e) {
      if (e > bm.columnBegin[column]) expect(bm.rows[e]).toBeGreaterThan(bm.rows[e - 1]);
      expect(bm.rowTiles[e]).toBe(byColumn.get(`${column}:${bm.rows[e]}`));
    }
  }
}

/** Masks over q and kv with every kind of arithmetic; `a`, `c` and the table vary. */
const FAMILIES = [
  (a: number, c: number, table: number[]) =>
    mask(({ q, kv }, { a, c }) => (q * a - kv * c) % 7 < 3 && ((q ^ kv) & a) !== c, { a, c, table }),
  (a: number, c: number, table: number[]) =>
    mask(({ q, kv }, { c, table }) => table[Math.min(Math.max(q - kv + c, 0), table.length - 1)] > table[q % table.length], { a, c, table }),
  (a: number, c: number, table: number[]) =>
    mask(({ q, kv }, { a, c }) => {
      const far = Math.abs(q - kv);
      if (a % 3 === 0) return Math.exp(-far) > 0.2 || Math.log(far + 1) > 1.5;
      if (a % 3 === 1) return Math.sin(q % 3) > 0.5 !== Math.cos(kv % 2) > 0.75;
      return Math.tanh(far) < 0.9 || (Math.pow(q % 5, 2.5) > 20 && (q + c) * 0.5 > kv * 0.25);
    }, { a, c, table }),
  (a: number, c: number, table: number[]) =>
    mask(({ q, kv }, { a, c }) => {
      const far = Math.abs(q - kv);
      if (far > a * 4) return (q >> 2) % 3 === kv % 3;
      return far % 2 === 0 ? q >= kv : Math.sqrt(far) > c / 3;
    }, { a, c, table }),
  (a: number, c: number, table: number[]) =>
    mask(({ q, kv }, { a, table }) => (kv > a && Math.trunc(q / (kv - a)) > 1) || (table[kv % table.length] << 1) >= q - kv, { a, c, table }),
]; // prettier-ignore

const anyMask = fc
  .record({
    family: fc.nat(FAMILIES.length - 1),
    a: fc.nat(12),
    c: fc.nat(12),
    table: fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 1, maxLength: 12 }),
  })
  .map(({ family, a, c, table }) => FAMILIES[family](a, c, table));

describe('blockMask', () => {
  test.each(levels)('equals the function at every element, %s', (level) => {
    native().setIsa(level);
    fc.assert(
      fc.property(anyMask, fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 70 }), fc.constantFrom(16, 32, 48), fc.integer({ min: 1, max: 40 }), // prettier-ignore
        (m, q, kv, blockQ, blockKv) => {
          const bm = blockMask(m, { q, kv, block: [blockQ, blockKv] });
          expect(bm.toDense()).toEqual(dense(m, q, kv));
          checkInvariants(bm);
        }), // prettier-ignore
      { numRuns: 25, seed: 7 },
    );
    native().setIsa(best);
  });

  test('the plain interpreter gives the same lists and bits', () => {
    fc.assert(
      fc.property(anyMask, fc.integer({ min: 1, max: 60 }), (m, length) => {
        const [a, b] = [blockMask, buildBlockMask].map((build) => build(m, { q: length, block: [16, 20] }));
        expect(Array.from(a.columns)).toEqual(Array.from(b.columns));
        expect(Array.from(a.tiles)).toEqual(Array.from(b.tiles));
        expect(a.bits).toEqual(b.bits);
      }),
      { numRuns: 25, seed: 8 },
    );
  });

  test('tells batches and heads apart only where the mask does', () => {
    const perHead = mask(({ h, q, kv }, { reach }) => q - kv <= reach[h] && kv <= q, { reach: [1, 5, 30] });
    const bm = blockMask(perHead, { b: 4, h: 3, q: 50, block: 16 });
    expect([bm.batch, bm.heads]).toEqual([1, 3]);
    for (const h of [0, 1, 2]) expect(bm.toDense(3, h)).toEqual(dense(perHead, 50, 50, 3, h));
    checkInvariants(bm);
    const perBatch = masks.prefixLM([3, 20]);
    const both = blockMask(and(perBatch, perHead), { b: 2, h: 3, q: 40, block: 16 });
    expect([both.batch, both.heads]).toEqual([2, 3]);
    expect(both.toDense(1, 2)).toEqual(dense(and(perBatch, perHead), 40, 40, 1, 2));
    expect(() => both.visible(2, 0, 0, 0)).toThrow(code('ERR_INDEX'));
  });

  test('stores equal bit matrices once and never keeps full or empty ones', () => {
    const bm = blockMask(masks.causal(), { q: 4096, block: 64 });
    expect(bm.stats).toEqual({ full: (64 * 63) / 2, partial: 64, skipped: (64 * 63) / 2, distinct: 1 });
    expect(bm.density()).toBeCloseTo(4097 / 8192, 12);
    // Intervals cannot decide this one; evaluation finds that all is visible, or nothing.
    const always = mask(({ q, kv }) => (q * q + kv * kv + 1) % 4 !== 0);
    expect(blockMask(always, { q: 64, block: 32 }).stats).toEqual({ full: 4, partial: 0, skipped: 0, distinct: 0 });
    expect(blockMask(not(always), { q: 64, block: 32 }).stats).toEqual({
      full: 0,
      partial: 0,
      skipped: 4,
      distinct: 0,
    });
  });

  test('does not visit what intervals decide', () => {
    let evaluated = 0;
    const doc = masks.documentIds([1000, 24, 3000, 72]);
    const m = and(masks.causal(), masks.document(doc));
    const bm = buildBlockMask(m, { q: 4096, block: 64 }, ({ tiles }) => {
      evaluated = tiles.length / 4;
      return new Int32Array(evaluated).fill(-2);
    });
    expect(evaluated).toBeLessThan(64 * 3);
    expect(bm.stats.partial).toBe(0);
  });

  test('programs of constants alone can be evaluated', () => {
    const request = { blockQ: 16, blockKv: 16, qLength: 20, kvLength: 20, tiles: Int32Array.of(0, 0, 1, 1) };
    const idOf = (m: Mask): number =>
      evaluateTilesOn('cpu')({ ...request, program: m.program }, new TileStore(16, 16))[0];
    expect([idOf(mask(() => true)), idOf(mask(() => false))]).toEqual([FULL, EMPTY]);
  });

  test('empty and tiny lengths', () => {
    const none = blockMask(masks.causal(), { q: 0, kv: 5 });
    expect([none.stats.full, none.density(), none.rowBegin.length]).toEqual([0, 0, 1]);
    expect(blockMask(masks.causal(), { q: 5, kv: 0 }).toDense()).toEqual(new Uint8Array(0));
    expect(blockMask(masks.causal(), { q: 1 }).stats).toEqual({ full: 1, partial: 0, skipped: 0, distinct: 0 });
  });

  test('refuses bad sizes and reads out of range', () => {
    for (const sizes of [{ q: -1 }, { q: 1.5 }, { q: 8, block: 20 }, { q: 8, block: [16, 0] as const }, { q: 8, h: 0 }])
      expect(() => blockMask(masks.causal(), sizes)).toThrow(code('ERR_ARGUMENT'));
    expect(() => blockMask(masks.document([0, 0, 1]), { q: 4 })).toThrow(code('ERR_MASK_INDEX'));
  });

  test('a decode step is an offset', () => {
    const m = and(masks.slidingWindow(20), not(masks.dilated(3, 40)));
    const all = dense(m, 60, 60);
    const step = blockMask(offset(m, { q: 47 }), { q: 1, kv: 48, block: [16, 16] });
    expect(step.toDense()).toEqual(all.slice(47 * 60, 47 * 60 + 48));
  });
});

describe('slice', () => {
  test('cuts queries and keys and shares the bits', () => {
    const m = masks.globalWindow(5, 11);
    const bm = blockMask(m, { q: 100, kv: 90, block: [16, 12] });
    const cut = bm.slice({ q: [32, 81], kv: [24, 70] });
    expect([cut.qLength, cut.kvLength]).toEqual([49, 46]);
    expect(cut.bits).toBe(bm.bits);
    checkInvariants(cut);
    const whole = bm.toDense();
    const part = cut.toDense();
    for (let q = 0; q < 49; ++q)
      for (let kv = 0; kv < 46; ++kv) expect(part[q * 46 + kv]).toBe(whole[(q + 32) * 90 + kv + 24]);
    expect(cut.visiblePairs()).toBe(part.reduce((sum, x) => sum + x, 0));
    expect(bm.slice({}).toDense()).toEqual(whole);
    expect(() => bm.slice({ q: [8, 20] })).toThrow(code('ERR_ARGUMENT'));
    expect(() => bm.slice({ kv: [0, 91] })).toThrow(code('ERR_ARGUMENT'));
  });
});

describe('other sources', () => {
  test('a boolean array, broadcast over any axis', () => {
    const [b, h, q, kv] = [2, 3, 37, 41];
    fc.assert(
      fc.property(fc.tuple(fc.boolean(), fc.boolean(), fc.boolean(), fc.boolean()), fc.integer(), (wide, seed) => {
        const shape = [b, h, q, kv].map((extent, i) => (wide[i] ? extent : 1));
        let state = seed >>> 0 || 1;
        const data = Uint8Array.from({ length: shape.reduce((x, y) => x * y, 1) }, () => (state = (state * 48271) % 2147483647) & 1);
        const bm = blockMaskFromBoolean(data, shape, { q, kv, block: [16, 12] });
        expect([bm.batch, bm.heads]).toEqual(shape.slice(0, 2));
        checkInvariants(bm);
        for (const [bi, hi] of [[0, 0], [1, 2]]) {
          const got = bm.toDense(bi, hi);
          for (let i = 0; i < q; ++i)
            for (let j = 0; j < kv; ++j) {
              const at = [bi, hi, i, j].reduce((sum, x, axis) => sum * shape[axis] + (shape[axis] > 1 ? x : 0), 0);
              if (got[i * kv + j] !== data[at]) expect.fail(`(${bi}, ${hi}, ${i}, ${j})`);
            }
        }
      }), // prettier-ignore
      { numRuns: 20, seed: 3 },
    );
    expect(() => blockMaskFromBoolean(new Uint8Array(6), [2, 3], { q: 4, kv: 3 })).toThrow(code('ERR_SHAPE'));
  });

  test('adjacency lists', () => {
    // A ring of 50 nodes with a hub.
    const neighbors = Array.from({ length: 50 }, (_, i) =>
      i === 0 ? [...Array(50).keys()] : [0, (i + 1) % 50, i, i - 1],
    );
    const offsets = [0];
    for (const list of neighbors) offsets.push(offsets[offsets.length - 1] + list.length);
    const bm = blockMaskFromAdjacency(offsets, neighbors.flat(), { kv: 50, block: 16 });
    checkInvariants(bm);
    const got = bm.toDense();
    neighbors.forEach((list, i) => {
      for (let j = 0; j < 50; ++j) expect(got[i * 50 + j]).toBe(Number(list.includes(j)));
    });
    // Nodes 48 and 49, the last block of each side, see each other and themselves.
    expect(bm.stats.full).toBe(1);
    expect(() => blockMaskFromAdjacency([0, 1], [50], { kv: 50 })).toThrow(code('ERR_INDEX'));
    expect(() => blockMaskFromAdjacency([0, 2, 1], [0, 1], { kv: 50 })).toThrow(code('ERR_ARGUMENT'));
  });

  test('lists of blocks', () => {
    const bm = blockMaskFromBlocks([[0], [2, 0], [], [3]], { q: 60, kv: 58, block: 16 });
    checkInvariants(bm);
    expect(bm.stats).toEqual({ full: 4, partial: 0, skipped: 12, distinct: 0 });
    expect([bm.visible(0, 0, 17, 33), bm.visible(0, 0, 17, 16), bm.visible(0, 0, 59, 57)]).toEqual([true, false, true]);
    expect(() => blockMaskFromBlocks([[0], [4]], { q: 32, kv: 58, block: 16 })).toThrow(code('ERR_INDEX'));
    expect(() => blockMaskFromBlocks([[0]], { q: 32, kv: 58, block: 16 })).toThrow(code('ERR_SHAPE'));
  });
});

describe('parts', () => {
  const whole = blockMask(masks.causal(), { q: 70, block: 16 });

  test('a copy that another thread posted becomes a block mask again', () => {
    const again = new BlockMask(structuredClone(whole));
    expect(again.stats).toEqual(whole.stats);
    expect(again.visiblePairs()).toBe(whole.visiblePairs());
  });

  test.each([
    ['columns out of range', { columns: whole.columns.map(() => 99) }, /row 0 has tile .* at column 99/],
    ['columns that do not ascend', { columns: whole.columns.map(() => 0) }, /row 1 .* columns that ascend/],
    ['tiles that are not there', { tiles: whole.tiles.map(() => 1000) }, /row 0 has tile 1000/],
    ['rows too few', { rowBegin: whole.rowBegin.slice(1) }, /row beginnings/],
    ['rows that descend', { rowBegin: whole.rowBegin.with(2, 0) }, /row 1 ends before it begins/],
    ['bits missing', { bits: new Uint8Array(0) }, /tiles from -1 to -1/],
    ['bits cut', { bits: whole.bits.slice(1) }, /no whole number of blocks/],
    ['arrays of another kind', { columns: [...whole.columns] }, /must be Int32Arrays/],
    ['a length that is none', { qLength: 1.5 }, /qLength is 1\.5/],
    ['a block that is none', { block: [12, 16] }, /block is 12,16/],
  ])('refused: %s', (_, parts, reason) => {
    expect(() => new BlockMask({ ...whole, ...parts } as never)).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(reason) as unknown }) as Error,
    );
  });
});

describe('pictures', () => {
  test('a block mask as text is one line', () => {
    const text = String(blockMask(masks.causal(), { q: 64, block: 16 }));
    expect(text).toBe('64 x 64, blocks of 16 x 16: 50.8 % visible; 6 full, 4 partial (1 distinct), 6 skipped');
  });

  const bm = blockMask(masks.causal(), { q: 64, block: 16 });

  test('terminal', () => {
    expect(bm.show().split('\n').slice(0, 4)).toEqual(['▒▒······', '██▒▒····', '████▒▒··', '██████▒▒']);
    expect(bm.show()).toContain(
      '64 x 64, blocks of 16 x 16: 50.8 % visible; 6 full, 4 partial (1 distinct), 6 skipped',
    );
    expect(blockMask(masks.causal(), { q: 8 }).show({ style: 'dots' }).split('\n').slice(0, 2)).toEqual([
      '⣷⣄⠀⠀',
      '⣿⣿⣷⣄',
    ]);
    expect(bm.show({ color: true })).toContain('\x1b[38;5;214;48;5;32m▀');
    expect(bm.show({ width: 4 }).split('\n')[0].length).toBeLessThanOrEqual(4);
  });

  test('SVG is well formed, deterministic and complete', () => {
    const svg = bm.toSVG({ title: 'a < b' });
    expect(svg).toBe(blockMask(masks.causal(), { q: 64, block: 16 }).toSVG({ title: 'a < b' }));
    expect(svg).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg"[^]*<\/svg>\n$/);
    expect(svg).toContain('a &lt; b');
    // 64 rows of partial blocks, one run each.
    const partial = /<path fill="#e08214" d="([^"]*)"/.exec(svg)?.[1] ?? '';
    expect(partial.match(/M/g)?.length).toBe(64);
  });
});
