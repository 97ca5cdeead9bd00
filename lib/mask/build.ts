/**
 * BlockMask from a mask function, at the cost of the mask's boundary rather than its area.
 *
 * A region of blocks is put to interval analysis: nothing visible drops it, everything visible makes it one rectangle of full blocks, and
 * only what is undecided is split in four. Single blocks that stay undecided are evaluated at every pair, which also finds those that are
 * full or empty after all; equal bit matrices are stored once. Quadrants are visited in reading order, so columns of a row come out
 * ascending without sorting.
 */
import { FoveaError } from '../errors.ts';
import type { OptionNames } from '../options.ts';
import { BlockMask } from './block_mask.ts';
import { prepareValues } from './evaluate.ts';
import { checkIndices } from './indices.ts';
import { BOX_ALL, BOX_NONE, prepareIntervals } from './interval.ts';
import { operandFields, OP, OPS, type Program } from './program.ts';
import { EMPTY, FULL, TileStore, tileExtent, tileFrom, type TileEvaluator } from './tile_store.ts';
import { partsOf, type Mask } from './mask.ts';

/** Default number of queries and keys of a block. */
export const DEFAULT_BLOCK = 128;

export interface BlockMaskSizes {
  /** Number of batches the mask may tell apart; default 1. */
  readonly b?: number;
  /** Number of query heads the mask may tell apart; default 1. */
  readonly h?: number;
  /** Number of queries. */
  readonly q: number;
  /** Number of keys; default `q`. */
  readonly kv?: number;
  /** Block side, or [queries, keys]; default 128. Queries must be a multiple of 16. */
  readonly block?: number | readonly [number, number];
}

export const BLOCK_MASK_SIZES: OptionNames<BlockMaskSizes> = { b: true, h: true, q: true, kv: true, block: true };

export interface ResolvedSizes {
  readonly b: number;
  readonly h: number;
  readonly q: number;
  readonly kv: number;
  readonly block: readonly [number, number];
}

/** Checks and completes sizes. Throws ERR_ARGUMENT. */
export function resolveSizes({ b = 1, h = 1, q, kv = q, block = DEFAULT_BLOCK }: BlockMaskSizes): ResolvedSizes {
  for (const [name, value, least] of [
    ['b', b, 1],
    ['h', h, 1],
    ['q', q, 0],
    ['kv', kv, 0],
  ] as const)
    // prettier-ignore
    if (!Number.isInteger(value) || value < least || value > 2 ** 30)
      throw new FoveaError('ERR_ARGUMENT', `blockMask: ${name} must be an integer from ${least} to 2^30, got ${String(value)}`);
  const [blockQ, blockKv] = Array.isArray(block) ? block : [block, block];
  if (!Number.isInteger(blockQ) || blockQ < 16 || blockQ % 16 !== 0 || blockQ > 4096)
    throw new FoveaError(
      'ERR_ARGUMENT',
      `blockMask: queries of a block must be a multiple of 16 up to 4096, got ${String(blockQ)}`,
    );
  if (!Number.isInteger(blockKv) || blockKv < 1 || blockKv > 65536)
    throw new FoveaError(
      'ERR_ARGUMENT',
      `blockMask: keys of a block must be an integer from 1 to 65536, got ${String(blockKv)}`,
    );
  return { b, h, q, kv, block: [blockQ, blockKv] };
}

/**
 * The block mask of a mask function for given lengths.
 *
 * Batches and heads are only told apart where the function uses `b` or `h`. The result serves every shorter length too (a prefix), and
 * `slice` cuts it; for a decode step at position n build `offset(mask, { q: n })` with `q: 1`.
 *
 * @param evaluate who evaluates undecided tiles; the default is a plain interpreter
 * @throws FoveaError ERR_ARGUMENT for sizes; ERR_MASK_INDEX where a captured table would be read out of range at these lengths
 */
export function buildBlockMask(mask: Mask, sizes: BlockMaskSizes, evaluate: TileEvaluator = evaluateTiles): BlockMask {
  partsOf(mask, 'mask', 'blockMask');
  const { program } = mask;
  const { b, h, q, kv, block } = resolveSizes(sizes);
  const uses = inputsOf(program);
  const batch = uses.has('Batch') ? b : 1;
  const heads = uses.has('Head') ? h : 1;
  if (q > 0 && kv > 0) checkIndices(program, { b: [0, b - 1], h: [0, h - 1], q: [0, q - 1], kv: [0, kv - 1] });
  const leaves = classify(program, { b: batch, h: heads, q, kv, block });
  const store = new TileStore(...block);
  const request = { program, blockQ: block[0], blockKv: block[1], qLength: q, kvLength: kv, tiles: leaves.undecided() };
  const ids = request.tiles.length === 0 ? new Int32Array(0) : evaluate(request, store);
  const rows = batch * heads * Math.ceil(q / block[0]);
  return new BlockMask({
    batch,
    heads,
    qLength: q,
    kvLength: kv,
    block,
    ...leaves.lists(rows, Math.ceil(q / block[0]), ids),
    bits: store.bits,
  });
}

/** Names of the inputs the result of a program depends on. */
export function inputsOf(program: Program): Set<string> {
  const found = new Set<string>();
  const { code } = program;
  const live = new Uint8Array(code.length / 4);
  live[program.result] = 1;
  for (let i = program.result; i >= 0; --i) {
    if (!live[i]) continue;
    const name = OPS[code[4 * i]];
    if (code[4 * i] <= OP.Upstream) found.add(name);
    for (const field of operandFields(name)) live[code[4 * i + 1 + 'abc'.indexOf(field)]] = 1;
  }
  return found;
}

/** Decided rectangles and undecided blocks in reading order: six numbers each, [set, q0, q1, kv0, kv1 (blocks), undecided? 1 : 0]. */
class Leaves {
  #data = new Int32Array(6 * 256);
  #length = 0;
  #undecided = 0;
  readonly #heads: number;

  constructor(heads: number) {
    this.#heads = heads;
  }

  add(set: number, q0: number, q1: number, kv0: number, kv1: number, undecided: boolean): void {
    if (this.#length + 6 > this.#data.length) {
      const grown = new Int32Array(2 * this.#data.length);
      grown.set(this.#data);
      this.#data = grown;
    }
    const at = this.#length;
    this.#data[at] = set;
    this.#data[at + 1] = q0;
    this.#data[at + 2] = q1;
    this.#data[at + 3] = kv0;
    this.#data[at + 4] = kv1;
    this.#data[at + 5] = Number(undecided);
    this.#length += 6;
    this.#undecided += Number(undecided);
  }

  /** The undecided blocks as a TileRequest wants them. */
  undecided(): Int32Array {
    const tiles = new Int32Array(4 * this.#undecided);
    let to = 0;
    for (let at = 0; at < this.#length; at += 6) {
      if (!this.#data[at + 5]) continue;
      const set = this.#data[at];
      tiles[to++] = Math.floor(set / this.#heads);
      tiles[to++] = set % this.#heads;
      tiles[to++] = this.#data[at + 1];
      tiles[to++] = this.#data[at + 3];
    }
    return tiles;
  }

  /** CSR lists; `ids` are the evaluated undecided blocks in order. */
  lists(rowCount: number, qBlocks: number, ids: Int32Array) {
    const rowBegin = new Int32Array(rowCount + 1);
    this.#forEach(ids, (row, kv0, kv1) => (rowBegin[row + 1] += kv1 - kv0), qBlocks);
    for (let row = 0; row < rowCount; ++row) rowBegin[row + 1] += rowBegin[row];
    const columns = new Int32Array(rowBegin[rowCount]);
    const tiles = new Int32Array(rowBegin[rowCount]);
    const next = rowBegin.slice();
    this.#forEach(
      ids,
      (row, kv0, kv1, tile) => {
        let at = next[row];
        for (let column = kv0; column < kv1; ++column) {
          columns[at] = column;
          tiles[at++] = tile;
        }
        next[row] = at;
      },
      qBlocks,
    );
    return { rowBegin, columns, tiles };
  }

  #forEach(
    ids: Int32Array,
    visit: (row: number, kv0: number, kv1: number, tile: number) => void,
    qBlocks: number,
  ): void {
    const data = this.#data;
    for (let at = 0, evaluated = 0; at < this.#length; at += 6) {
      const tile = data[at + 5] ? ids[evaluated++] : FULL;
      if (tile === EMPTY) continue;
      for (let row = data[at + 1]; row < data[at + 2]; ++row)
        visit(data[at] * qBlocks + row, data[at + 3], data[at + 4], tile);
    }
  }
}

function classify(program: Program, { b, h, q, kv, block: [blockQ, blockKv] }: ResolvedSizes): Leaves {
  const leaves = new Leaves(h);
  if (q === 0 || kv === 0) return leaves;
  const decide = prepareIntervals(program);
  const qBlocks = Math.ceil(q / blockQ);
  const kvBlocks = Math.ceil(kv / blockKv);
  const range = (): [number, number] => [0, 0];
  const box = { b: range(), h: range(), q: range(), kv: range() };
  const visit = (set: number, q0: number, kv0: number, side: number): void => {
    const q1 = Math.min(q0 + side, qBlocks);
    const kv1 = Math.min(kv0 + side, kvBlocks);
    if (q0 >= q1 || kv0 >= kv1) return;
    box.q[0] = q0 * blockQ;
    box.q[1] = Math.min(q1 * blockQ, q) - 1;
    box.kv[0] = kv0 * blockKv;
    box.kv[1] = Math.min(kv1 * blockKv, kv) - 1;
    const verdict = decide(box);
    if (verdict === BOX_NONE) return;
    if (verdict === BOX_ALL || side === 1) return leaves.add(set, q0, q1, kv0, kv1, verdict !== BOX_ALL);
    const half = side / 2;
    visit(set, q0, kv0, half);
    visit(set, q0, kv0 + half, half);
    visit(set, q0 + half, kv0, half);
    visit(set, q0 + half, kv0 + half, half);
  };
  const side = 2 ** Math.ceil(Math.log2(Math.max(qBlocks, kvBlocks)));
  for (let set = 0; set < b * h; ++set) {
    box.b[0] = box.b[1] = Math.floor(set / h);
    box.h[0] = box.h[1] = set % h;
    visit(set, 0, 0, side);
  }
  return leaves;
}

/** Evaluates tiles by the scalar interpreter: slow, and the same everywhere. */
export const evaluateTiles: TileEvaluator = (request, store) => {
  const { program, blockQ, blockKv, tiles } = request;
  const values = prepareValues(program);
  const ids = new Int32Array(tiles.length / 4);
  const scratch = new Uint8Array(store.tileBytes);
  const point = { b: 0, h: 0, q: 0, kv: 0 };
  for (let i = 0; i < ids.length; ++i) {
    const [b, h, qBlock, kvBlock] = tiles.subarray(4 * i, 4 * i + 4);
    point.b = b;
    point.h = h;
    ids[i] = tileFrom(store, scratch, blockQ, tileExtent(request, qBlock, kvBlock), (query, key) => {
      point.q = qBlock * blockQ + query;
      point.kv = kvBlock * blockKv + key;
      return values(point)[program.result] !== 0;
    });
  }
  return ids;
};
