/**
 * The bit matrices of a block mask, each stored once, and the contract of whoever evaluates tiles.
 *
 * A matrix has `blockKv` rows of `blockQ` bits, least significant bit first (csrc/core/block_mask.h), so that queries lie in lanes.
 */
import type { Program } from './program.ts';

/** Id of a tile that is visible throughout; it has no matrix. */
export const FULL = -1;
/** Id of a tile in which nothing is visible; block masks leave it out. */
export const EMPTY = -2;

export interface TileRequest {
  readonly program: Program;
  readonly blockQ: number;
  readonly blockKv: number;
  readonly qLength: number;
  readonly kvLength: number;
  /** Four numbers per tile: batch, head, query block, key block. */
  readonly tiles: Int32Array;
}

/** Evaluates a mask at every pair of the tiles, adds their matrices to the store and returns one id per tile: FULL, EMPTY or the store's. */
export type TileEvaluator = (request: TileRequest, store: TileStore) => Int32Array;

/** Distinct bit matrices of one size. */
export class TileStore {
  /** Bytes of one matrix. */
  readonly tileBytes: number;
  #bits = new Uint8Array(0);
  #count = 0;
  /** Hash to the ids that have it. */
  readonly #ids = new Map<number, number[]>();

  constructor(blockQ: number, blockKv: number) {
    this.tileBytes = (blockQ / 8) * blockKv;
  }

  get count(): number {
    return this.#count;
  }

  /** The matrices one after the other. */
  get bits(): Uint8Array {
    return this.#bits.slice(0, this.#count * this.tileBytes);
  }

  /** The id of a matrix, which is copied when it is new. */
  add(matrix: Uint8Array): number {
    const hash = hashOf(matrix);
    const known = this.#ids.get(hash);
    const same = known?.find((id) => this.#equals(id, matrix));
    if (same !== undefined) return same;
    const id = this.#count++;
    this.#reserve(this.#count * this.tileBytes);
    this.#bits.set(matrix, id * this.tileBytes);
    if (known) known.push(id);
    else this.#ids.set(hash, [id]);
    return id;
  }

  #equals(id: number, matrix: Uint8Array): boolean {
    const from = id * this.tileBytes;
    for (let i = 0; i < matrix.length; ++i) if (this.#bits[from + i] !== matrix[i]) return false;
    return true;
  }

  #reserve(bytes: number): void {
    if (bytes <= this.#bits.length) return;
    const grown = new Uint8Array(Math.max(bytes, 2 * this.#bits.length, 4 * this.tileBytes));
    grown.set(this.#bits);
    this.#bits = grown;
  }
}

function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  if (bytes.byteOffset % 4 === 0 && bytes.length % 4 === 0) {
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let i = 0; i < words.length; ++i) hash = Math.imul(hash ^ words[i], 0x01000193) ^ (hash >>> 15);
    return hash;
  }
  for (let i = 0; i < bytes.length; ++i) hash = Math.imul(hash ^ bytes[i], 0x01000193);
  return hash;
}

/** Pairs of a tile that lie inside the lengths: [queries, keys]. */
export function tileExtent(
  shape: Pick<TileRequest, 'blockQ' | 'blockKv' | 'qLength' | 'kvLength'>,
  qBlock: number,
  kvBlock: number,
): [number, number] {
  const { blockQ, blockKv, qLength, kvLength } = shape;
  return [Math.min(blockQ, qLength - qBlock * blockQ), Math.min(blockKv, kvLength - kvBlock * blockKv)];
}

/**
 * Fills one tile from a predicate over offsets inside it and returns its id. `scratch` has the store's `tileBytes` and is overwritten.
 */
export function tileFrom(
  store: TileStore,
  scratch: Uint8Array,
  blockQ: number,
  [queries, keys]: readonly [number, number],
  visible: (query: number, key: number) => boolean,
): number {
  scratch.fill(0);
  const rowBytes = blockQ / 8;
  let ones = 0;
  for (let key = 0; key < keys; ++key) {
    for (let query = 0; query < queries; ++query) {
      if (!visible(query, key)) continue;
      scratch[key * rowBytes + (query >> 3)] |= 1 << (query & 7);
      ++ones;
    }
  }
  return ones === 0 ? EMPTY : ones === queries * keys ? FULL : store.add(scratch);
}
