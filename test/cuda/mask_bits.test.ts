/**
 * Tiles of masks evaluated on CUDA: the ids and bits of the CPU, bit for bit, for every mask of the library and for random functions,
 * whether intervals would have decided a tile or not.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { attention, cast, type Tensor } from '../../lib/index.ts';
import { evaluateTiles } from '../../lib/mask/build.ts';
import { mask, type Mask } from '../../lib/mask/mask.ts';
import type { Program } from '../../lib/mask/program.ts';
import { compileSource } from '../../lib/mask/term.ts';
import { TileStore } from '../../lib/mask/tile_store.ts';
import { blockMask, evaluateTilesOn } from '../../lib/ops/block_mask.ts';
import { CAPTURES, maskText } from '../mask/grammar.ts';
import { DEFAULT_LENGTHS, ROWS } from '../mask_rows.ts';
import { random } from '../reference_matmul.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();

interface Shape {
  readonly q: number;
  readonly kv: number;
  readonly block: readonly [number, number];
  readonly b?: number;
  readonly h?: number;
}

/** All tiles of a program, by one evaluator: ids, then the distinct matrices. */
function allTiles(
  program: Program,
  { q, kv, block, b = 1, h = 1 }: Shape,
  device: 'cpu' | 'cuda',
): [number[], Uint8Array] {
  const [rows, columns] = [Math.ceil(q / block[0]), Math.ceil(kv / block[1])];
  const tiles = new Int32Array(4 * b * h * rows * columns);
  for (let i = 0; i < tiles.length / 4; ++i) {
    const set = Math.floor(i / (rows * columns));
    tiles.set([Math.floor(set / h), set % h, Math.floor(i / columns) % rows, i % columns], 4 * i);
  }
  const store = new TileStore(...block);
  const request = { program, blockQ: block[0], blockKv: block[1], qLength: q, kvLength: kv, tiles };
  return [Array.from(evaluateTilesOn(device)(request, store)), store.bits];
}

function expectSame(program: Program, shape: Shape, what = ''): void {
  const [ids, bits] = allTiles(program, shape, 'cuda');
  const [wantedIds, wantedBits] = allTiles(program, shape, 'cpu');
  expect(ids, what).toEqual(wantedIds);
  expect(bits, what).toEqual(wantedBits);
}

/** The bits of 32 queries for 16 keys, twice: other bits, but the hash that cuda/mask_bits.cu gives a tile is the same (found by a generalized birthday search). */
const COLLISION = [
  [
    0x0920da71, 0x7095069c, 0x1351c653, 0x9d077346, 0x928b1ebd, 0x4d3b56ab, 0xae1e0ca9, 0x7af2632e, 0x797ba2ee,
    0xee0bef0a, 0x70a646ca, 0x3873d0a8, 0x199f4249, 0xf7562b50, 0x792aaf65, 0xd67353f8,
  ],
  [
    0x6a5d89bd, 0xd7d57869, 0x3fab0eed, 0x9a201e90, 0x2b1fbc5d, 0xe6ab748e, 0xd074184a, 0x8c36c123, 0xe069a803,
    0xab921f1f, 0x9868fe35, 0x6a517ca0, 0x0fad1dc1, 0x8233da81, 0x33394787, 0x62dc1b5c,
  ],
];

/** What cuda/mask_bits.cu adds up over the words of a tile, each with its place above it. */
function mixed(word: bigint): bigint {
  const step = (x: bigint, shift: bigint, factor: bigint): bigint => BigInt.asUintN(64, (x ^ (x >> shift)) * factor);
  const x = step(step(word, 30n, 0xbf58476d1ce4e5b9n), 27n, 0x94d049bb133111ebn);
  return x ^ (x >> 31n);
}

const BLOCKS = [[16, 16], [32, 24], [128, 128], [48, 33]] as const; // prettier-ignore

describe.skipIf(cuda.skip)('tiles of masks on CUDA', () => {
  test.each(ROWS)('$name', ({ make, lengths = DEFAULT_LENGTHS, keys = (n) => n }) => {
    for (const length of lengths)
      for (const block of BLOCKS) expectSame(make(length).program, { q: length, kv: keys(length), block }, `${length}`);
  });

  test('random functions, batches and heads', () => {
    const side = fc.integer({ min: 1, max: 150 });
    fc.assert(
      fc.property(maskText, side, side, fc.constantFrom(...BLOCKS), (text, q, kv, block) => {
        expectSame(compileSource(text, 'mask', CAPTURES), { q, kv, block, b: 2, h: 2 }, text);
      }),
      { numRuns: 120, seed: 3 },
    );
  });

  const floats = Float32Array.from([
    0.5,
    -0,
    0,
    -2.5,
    3e38,
    -3e38,
    1e-40,
    NaN,
    Infinity,
    -Infinity,
    2147483648,
    7.5,
    1.25,
    -0.75,
  ]);
  const wide = Int32Array.from([0, -1, 1, 2147483647, -2147483648, 7, -13, 65536, 46341, 12]);
  test.each(
    Object.entries({
      'float arithmetic':
        '({ q, kv }, { x }) => (x[q % 14] + x[kv % 14]) * x[(q + kv) % 14] - x[kv % 14] < x[q % 14] / x[kv % 14]',
      remainder: '({ q, kv }, { x }) => x[q % 14] % x[kv % 14] > 0.25 || 1 / (x[q % 14] % x[kv % 14]) < 0',
      'minimum and maximum':
        '({ q, kv }, { x }) => 1 / Math.min(x[q % 14], x[kv % 14]) > 0 === Math.max(x[q % 14], x[kv % 14]) > 1',
      rounding:
        '({ q, kv }, { x }) => Math.floor(x[q % 14]) + Math.ceil(x[kv % 14]) > Math.round(x[kv % 14]) * Math.trunc(x[q % 14])',
      'square root, sign, absolute value':
        '({ q, kv }, { x }) => Math.sqrt(x[q % 14]) > Math.sign(x[kv % 14]) - Math.abs(x[kv % 14])',
      'integers at the edge':
        '({ q, kv }, { i }) => (i[q % 10] / i[kv % 10] | 0) + i[q % 10] % i[kv % 10] > Math.imul(i[q % 10], i[kv % 10])',
      shifts: '({ q, kv }, { i }) => (i[q % 10] >> kv) + (i[kv % 10] << q) < (i[q % 10] >>> 3)',
      'float to integer': '({ q, kv }, { x }) => (x[q % 14] | 0) > (x[kv % 14] | 0)',
      'tables of bytes, comparisons':
        '({ q, kv }, { live, x }) => !!live[q % 8] !== !!live[kv % 8] || x[q % 14] !== x[kv % 14]',
      'nothing of the key': '({ q }, { live }) => !!live[q % 8]',
      'nothing of the query': '({ kv }, { live }) => !!live[kv % 8]',
      'head alone': '({ h }) => h % 2 === 1',
      constant: '() => true',
    }),
  )('%s', (_name, text) => {
    const program = compileSource(text, 'mask', { x: floats, i: wide, live: CAPTURES.live });
    expectSame(program, { q: 70, kv: 90, block: [48, 33], h: 2 }, text);
  });

  test('a register file beyond shared memory', () => {
    const terms = Array.from({ length: 80 }, (_, i) => `const t${i} = (q * ${i + 1} + kv * ${3 * i + 1}) % ${i + 5};`);
    const sums = [...Array(80).keys()].reverse().map((i) => `t${i}`);
    const program = compileSource(
      `({ q, kv }) => { ${terms.join('')} return (${sums.join(' ^ ')}) % 3 === 0 }`,
      'mask',
      {},
    );
    expectSame(program, { q: 70, kv: 90, block: [48, 33] });
  });

  test('the longest function', () => {
    const steps = Array.from({ length: 681 }, (_, i) => `const x${i + 1} = ((x${i} * 5 + kv) ^ (q - x${i})) & ${1000 + i};`); // prettier-ignore
    const text = (last: number): string => `({ q, kv }) => { const x0 = q * kv; ${steps.join(' ')} return x${last} % 3 === 1; }`; // prettier-ignore
    const program = compileSource(text(681), 'mask', {});
    expect(program.code.length / 4).toBe(4094);
    expectSame(program, { q: 70, kv: 40, block: [48, 33] });
  });

  test('more matrices than are compared on the host', () => {
    const program = compileSource('({ q, kv }) => (q * 7 + kv * (1 + (q >> 7) % 2)) % 5 < 2', 'mask', {});
    const shape: Shape = { q: 3000, kv: 2000, block: [128, 128] };
    const [ids] = allTiles(program, shape, 'cuda');
    expect(ids.length).toBeGreaterThan(256);
    expect(new Set(ids).size).toBeLessThan(ids.length);
    expectSame(program, shape);
  });

  test('matrices of equal hashes stay apart', () => {
    const hashes = COLLISION.map((words) =>
      words.reduce((sum, word, row) => BigInt.asUintN(64, sum + mixed((BigInt(row) << 32n) | BigInt(word))), 0n),
    );
    expect(hashes[0]).toBe(hashes[1]);
    const program = compileSource(
      `({ q, kv }, { words }) =>
        q % 128 < 32 && kv % 128 < 16 && (words[((q >> 7) % 2) * 16 + (kv % 16)] >>> (q % 32)) % 2 !== 0`,
      'mask',
      { words: Int32Array.from(COLLISION.flat()) },
    );
    for (const side of [256, 2560]) {
      // compared on the host, and on the device
      const shape: Shape = { q: side, kv: side, block: [128, 128] };
      expect(new Set(allTiles(program, shape, 'cpu')[0])).toEqual(new Set([0, 1]));
      expectSame(program, shape);
    }
  });

  test('functions whose last bit a device may round otherwise are evaluated on the CPU', () => {
    const program = compileSource('({ q, kv }) => Math.exp(-Math.abs(q - kv)) > 0.2', 'mask', {});
    const request = { program, blockQ: 16, blockKv: 16, qLength: 40, kvLength: 40, tiles: Int32Array.of(0, 0, 1, 1) };
    const stores = [new TileStore(16, 16), new TileStore(16, 16)];
    expect(evaluateTilesOn('cuda')(request, stores[0])).toEqual(evaluateTiles(request, stores[1]));
    expect(stores[0].bits).toEqual(stores[1].bits);
  });

  test('blockMask with a device, and attention that builds its mask there', () => {
    const m = mask(({ q, kv }) => (q * q + kv) % 3 !== 0);
    const [here, there] = (['cpu', 'cuda'] as const).map((device) =>
      blockMask(m, { q: 500, kv: 300, block: 64, device }),
    );
    for (const part of ['rowBegin', 'columns', 'tiles', 'bits'] as const) expect(there[part]).toEqual(here[part]);

    const [q, k] = [random([1, 1, 2300, 8], 'f32', 1).t, random([1, 1, 2300, 8], 'f32', 2).t];
    const fresh = (): Mask => mask(({ q, kv }) => (q * q + kv) % 3 !== 0);
    const values = (t: Tensor): ArrayLike<number> => cast(t.to('cpu'), 'f32').dataSync() as Float32Array;
    expectClose(
      values(attention(q.to('cuda'), k.to('cuda'), k.to('cuda'), { mask: fresh() })),
      values(attention(q, k, k, { mask: fresh() })),
    );
  });

  test('a device that is not there throws', () => {
    expect(() =>
      blockMask(
        mask(({ q, kv }) => (q + kv) % 2 === 0),
        { q: 64, device: 'cuda:9' },
      ),
    ).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }) as Error);
  });
});
