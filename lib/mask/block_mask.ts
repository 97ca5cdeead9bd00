/**
 * Which key blocks each query block visits, and a bit matrix for those it visits in part: what the attention engines read.
 *
 * The lists are CSR over rows (batch, head, query block), columns ascending; `batch` or `heads` is 1 where the mask doesn't depend on it.
 * The layout is csrc/core/block_mask.h, to which a block mask is handed over as it is.
 */
import { FoveaError } from '../errors.ts';
import { expectOptions } from '../options.ts';
import { describe, show, toSVG, type ShowOptions, type SvgOptions } from './show.ts';
import { FULL, tileExtent } from './tile_store.ts';

export interface BlockMaskParts {
  readonly batch: number;
  readonly heads: number;
  readonly qLength: number;
  readonly kvLength: number;
  /** Queries and keys of a block. */
  readonly block: readonly [number, number];
  readonly rowBegin: Int32Array;
  readonly columns: Int32Array;
  readonly tiles: Int32Array;
  readonly bits: Uint8Array;
}

/** Numbers of blocks, summed over batches and heads. */
export interface BlockMaskStats {
  readonly full: number;
  readonly partial: number;
  readonly skipped: number;
  /** Distinct bit matrices. */
  readonly distinct: number;
}

interface Transposed {
  readonly columnBegin: Int32Array;
  readonly rows: Int32Array;
  readonly rowTiles: Int32Array;
}

/** Throws ERR_ARGUMENT for parts that do not fit each other: kernels follow them without looking. */
function expectParts({ batch, heads, qLength, kvLength, block, rowBegin, columns, tiles, bits }: BlockMaskParts): void {
  const bad = (what: string): FoveaError => new FoveaError('ERR_ARGUMENT', `BlockMask: ${what}`);
  for (const [name, size, least] of [
    ['batch', batch, 1],
    ['heads', heads, 1],
    ['qLength', qLength, 0],
    ['kvLength', kvLength, 0],
  ] as const)
    if (!Number.isSafeInteger(size) || size < least)
      throw bad(`${name} is ${String(size)}, expected a whole number of at least ${least}`);
  if (
    !Array.isArray(block) ||
    block.length !== 2 ||
    !block.every((n) => Number.isSafeInteger(n) && n > 0) ||
    block[0] % 8
  )
    throw bad(`block is ${String(block)}, expected [queries, keys], queries a multiple of 8`);
  if (![rowBegin, columns, tiles].every((list) => list instanceof Int32Array) || !(bits instanceof Uint8Array))
    throw bad('rowBegin, columns and tiles must be Int32Arrays, bits a Uint8Array');
  const [qBlocks, kvBlocks] = [Math.ceil(qLength / block[0]), Math.ceil(kvLength / block[1])];
  const [rows, entries] = [batch * heads * qBlocks, columns.length];
  if (rowBegin.length !== rows + 1 || rowBegin[0] !== 0 || rowBegin[rows] !== entries || tiles.length !== entries)
    throw bad(
      `${rowBegin.length} row beginnings, ${entries} columns and ${tiles.length} tiles for ${rows} rows of blocks`,
    );
  const distinct = bits.length / ((block[0] / 8) * block[1]);
  if (!Number.isInteger(distinct)) throw bad(`${bits.length} bytes are no whole number of blocks of ${String(block)}`);
  for (let row = 0; row < rows; ++row) {
    if (rowBegin[row + 1] < rowBegin[row]) throw bad(`row ${row} ends before it begins`);
    for (let i = rowBegin[row], past = -1; i < rowBegin[row + 1]; past = columns[i++])
      if (!(columns[i] > past && columns[i] < kvBlocks && tiles[i] >= FULL && tiles[i] < distinct))
        throw bad(
          `row ${row} has tile ${tiles[i]} at column ${columns[i]}; expected tiles from ${FULL} to ${distinct - 1}, and columns ` +
            `that ascend below ${kvBlocks}`,
        );
  }
}

/**
 * Which blocks of keys each block of queries sees: wholly, in part (a bit matrix) or not at all (no entry). Made by blockMask() and
 * blockMaskFromBoolean(), blockMaskFromBlocks(), blockMaskFromAdjacency().
 *
 * To hand one to a worker thread, post it and make it whole there: `new BlockMask(message)`.
 */
export class BlockMask {
  /** 1 where the mask is the same for every batch. */
  readonly batch: number;
  /** 1 where the mask is the same for every head. */
  readonly heads: number;
  /** Queries the mask was built for; tensors may be shorter, not longer. */
  readonly qLength: number;
  readonly kvLength: number;
  /** Queries and keys of a block. */
  readonly block: readonly [number, number];
  readonly qBlocks: number;
  readonly kvBlocks: number;
  /** Where each row (batch, head, query block) begins in `columns`; one more at the end. */
  readonly rowBegin: Int32Array;
  /** Key block of each entry. */
  readonly columns: Int32Array;
  /** Bit matrix of each entry, -1 where the block is visible throughout. */
  readonly tiles: Int32Array;
  /** The distinct matrices: [tile][key][query / 8], least significant bit first. */
  readonly bits: Uint8Array;
  #transposed: Transposed | undefined;
  #visiblePairs: number | undefined;

  /** @throws FoveaError ERR_ARGUMENT for parts that do not fit each other */
  constructor(parts: BlockMaskParts) {
    expectParts(parts);
    this.batch = parts.batch;
    this.heads = parts.heads;
    this.qLength = parts.qLength;
    this.kvLength = parts.kvLength;
    this.block = parts.block;
    this.qBlocks = Math.ceil(parts.qLength / parts.block[0]);
    this.kvBlocks = Math.ceil(parts.kvLength / parts.block[1]);
    this.rowBegin = parts.rowBegin;
    this.columns = parts.columns;
    this.tiles = parts.tiles;
    this.bits = parts.bits;
  }

  /** Where each column (batch, head, key block) begins in `rows`; one more at the end. */
  get columnBegin(): Int32Array {
    return this.#transpose().columnBegin;
  }

  /** Query block of each entry of the transposed lists, ascending in a column. */
  get rows(): Int32Array {
    return this.#transpose().rows;
  }

  /** Bit matrix of each entry of the transposed lists. */
  get rowTiles(): Int32Array {
    return this.#transpose().rowTiles;
  }

  /** Bytes of one bit matrix. */
  get tileBytes(): number {
    return (this.block[0] / 8) * this.block[1];
  }

  get stats(): BlockMaskStats {
    let full = 0;
    for (const tile of this.tiles) if (tile === FULL) ++full;
    const blocks = this.batch * this.heads * this.qBlocks * this.kvBlocks;
    const distinct = this.tileBytes === 0 ? 0 : this.bits.length / this.tileBytes;
    return { full, partial: this.tiles.length - full, skipped: blocks - this.tiles.length, distinct };
  }

  /** Visible pairs as a fraction of all pairs, between 0 and 1; 0 for an empty mask. */
  density(): number {
    const pairs = this.batch * this.heads * this.qLength * this.kvLength;
    return pairs === 0 ? 0 : this.visiblePairs() / pairs;
  }

  /** Number of visible pairs over all batches and heads. */
  visiblePairs(): number {
    if (this.#visiblePairs !== undefined) return this.#visiblePairs;
    let sum = 0;
    const inner = new Map<number, number>();
    this.#forEachEntry((row, column, tile) => {
      const extent = tileExtent(this.#shape(), row % this.qBlocks, column);
      const whole = extent[0] === this.block[0] && extent[1] === this.block[1];
      if (tile === FULL) sum += extent[0] * extent[1];
      else if (!whole) sum += this.#countOnes(tile, extent);
      else {
        let ones = inner.get(tile);
        if (ones === undefined) inner.set(tile, (ones = this.#countOnes(tile, extent)));
        sum += ones;
      }
    });
    return (this.#visiblePairs = sum);
  }

  /** Whether query `q` sees key `kv`. Batch and head are ignored where the mask doesn't depend on them. */
  visible(b: number, h: number, q: number, kv: number): boolean {
    if (q < 0 || kv < 0 || q >= this.qLength || kv >= this.kvLength) return false;
    const [blockQ, blockKv] = this.block;
    const row = this.#set(b, h) * this.qBlocks + Math.floor(q / blockQ);
    const entry = this.#find(row, Math.floor(kv / blockKv));
    if (entry < 0) return false;
    const tile = this.tiles[entry];
    return tile === FULL || this.#bit(tile, q % blockQ, kv % blockKv);
  }

  /** One byte per pair, 1 = visible: [qLength, kvLength] of one batch and head. For tests and pictures of small masks. */
  toDense(b = 0, h = 0): Uint8Array {
    const dense = new Uint8Array(this.qLength * this.kvLength);
    const [blockQ, blockKv] = this.block;
    const first = this.#set(b, h) * this.qBlocks;
    this.#forEachEntry((row, column, tile) => {
      const [queries, keys] = tileExtent(this.#shape(), row - first, column);
      for (let query = 0; query < queries; ++query) {
        const at = ((row - first) * blockQ + query) * this.kvLength + column * blockKv;
        for (let key = 0; key < keys; ++key)
          if (tile === FULL || this.#bit(tile, query, key)) dense[at + key] = 1;
      }
    }, first, first + this.qBlocks); // prettier-ignore
    return dense;
  }

  /**
   * The mask of a part of the queries and keys: ranges [begin, end) in elements. Beginnings must be multiples of the block; ends are free.
   * The bit matrices are shared. Throws ERR_ARGUMENT for a range out of bounds or a beginning inside a block.
   */
  slice(ranges: { readonly q?: readonly [number, number]; readonly kv?: readonly [number, number] }): BlockMask {
    expectOptions('slice', ranges, { q: true, kv: true });
    const [q0, q1] = checkRange('q', ranges.q ?? [0, this.qLength], this.qLength, this.block[0]);
    const [kv0, kv1] = checkRange('kv', ranges.kv ?? [0, this.kvLength], this.kvLength, this.block[1]);
    const [rowFrom, rowTo] = [q0 / this.block[0], Math.ceil(q1 / this.block[0])];
    const [columnFrom, columnTo] = [kv0 / this.block[1], Math.ceil(kv1 / this.block[1])];
    const rowBegin: number[] = [0];
    const columns: number[] = [];
    const tiles: number[] = [];
    for (let set = 0; set < this.batch * this.heads; ++set) {
      for (let row = rowFrom; row < rowTo; ++row) {
        const at = set * this.qBlocks + row;
        for (let e = this.rowBegin[at]; e < this.rowBegin[at + 1]; ++e) {
          if (this.columns[e] < columnFrom || this.columns[e] >= columnTo) continue;
          columns.push(this.columns[e] - columnFrom);
          tiles.push(this.tiles[e]);
        }
        rowBegin.push(columns.length);
      }
    }
    return new BlockMask({
      batch: this.batch,
      heads: this.heads,
      qLength: q1 - q0,
      kvLength: kv1 - kv0,
      block: this.block,
      rowBegin: Int32Array.from(rowBegin),
      columns: Int32Array.from(columns),
      tiles: Int32Array.from(tiles),
      bits: this.bits,
    });
  }

  /** A drawing for the terminal; see {@link show}. */
  show(options?: ShowOptions): string {
    return show(this, options);
  }

  /** A drawing as an SVG document; see {@link toSVG}. */
  toSVG(options?: SvgOptions): string {
    return toSVG(this, options);
  }

  /** One line: sizes, blocks, density. */
  toString(): string {
    return describe(this);
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `BlockMask(${describe(this)})`;
  }

  #shape() {
    return { blockQ: this.block[0], blockKv: this.block[1], qLength: this.qLength, kvLength: this.kvLength };
  }

  #set(b: number, h: number): number {
    if (b < 0 || h < 0 || (this.batch > 1 && b >= this.batch) || (this.heads > 1 && h >= this.heads))
      throw new FoveaError('ERR_INDEX', `block mask: no batch ${b}, head ${h} in [${this.batch}, ${this.heads}]`);
    return (this.batch > 1 ? b : 0) * this.heads + (this.heads > 1 ? h : 0);
  }

  #bit(tile: number, query: number, key: number): boolean {
    const byte = this.bits[tile * this.tileBytes + key * (this.block[0] / 8) + (query >> 3)];
    return ((byte >> (query & 7)) & 1) === 1;
  }

  #countOnes(tile: number, [queries, keys]: readonly [number, number]): number {
    let ones = 0;
    for (let key = 0; key < keys; ++key)
      for (let query = 0; query < queries; ++query) if (this.#bit(tile, query, key)) ++ones;
    return ones;
  }

  #find(row: number, column: number): number {
    let low = this.rowBegin[row];
    let high = this.rowBegin[row + 1] - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (this.columns[middle] === column) return middle;
      if (this.columns[middle] < column) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  #forEachEntry(visit: (row: number, column: number, tile: number) => void, from = 0, to = this.rowBegin.length - 1) {
    for (let row = from; row < to; ++row)
      for (let e = this.rowBegin[row]; e < this.rowBegin[row + 1]; ++e) visit(row, this.columns[e], this.tiles[e]);
  }

  #transpose(): Transposed {
    if (this.#transposed) return this.#transposed;
    const columnBegin = new Int32Array(this.batch * this.heads * this.kvBlocks + 1);
    const columnOf = (row: number, column: number) => Math.floor(row / this.qBlocks) * this.kvBlocks + column;
    this.#forEachEntry((row, column) => ++columnBegin[columnOf(row, column) + 1]);
    for (let i = 1; i < columnBegin.length; ++i) columnBegin[i] += columnBegin[i - 1];
    const next = columnBegin.slice();
    const rows = new Int32Array(this.columns.length);
    const rowTiles = new Int32Array(this.columns.length);
    this.#forEachEntry((row, column, tile) => {
      const at = next[columnOf(row, column)]++;
      rows[at] = row % this.qBlocks;
      rowTiles[at] = tile;
    });
    return (this.#transposed = { columnBegin, rows, rowTiles });
  }
}

function checkRange(name: string, [begin, end]: readonly [number, number], length: number, block: number) {
  if (!Number.isInteger(begin) || !Number.isInteger(end) || begin < 0 || end > length || begin > end)
    throw new FoveaError('ERR_ARGUMENT', `slice: ${name} range [${begin}, ${end}) is not within [0, ${length})`);
  if (begin % block !== 0)
    throw new FoveaError(
      'ERR_ARGUMENT',
      `slice: ${name} begins at ${begin}, which is not a multiple of the block of ${block}`,
    );
  return [begin, end] as const;
}
