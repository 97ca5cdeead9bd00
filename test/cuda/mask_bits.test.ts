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

  test('more matrices than are compared on the host', () => {
    const program = compileSource('({ q, kv }) => (q * 7 + kv * (1 + (q >> 7) % 2)) % 5 < 2', 'mask', {});
    const shape: Shape = { q: 3000, kv: 2000, block: [128, 128] };
    const [ids] = allTiles(program, shape, 'cuda');
    expect(ids.length).toBeGreaterThan(256);
    expect(new Set(ids).size).toBeLessThan(ids.length);
    expectSame(program, shape);
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
