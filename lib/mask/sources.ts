/**
 * Block masks that don't come from a function: boolean arrays, adjacency lists of graphs and meshes, lists of blocks.
 */
import { FoveaError } from '../errors.ts';
import { expectOptions } from '../options.ts';
import { BlockMask } from './block_mask.ts';
import { resolveSizes, type BlockMaskSizes } from './build.ts';
import { EMPTY, FULL, TileStore, tileExtent, tileFrom } from './tile_store.ts';

/** Collects entries row by row. */
class Rows {
  readonly rowBegin: number[] = [0];
  readonly columns: number[] = [];
  readonly tiles: number[] = [];

  add(column: number, tile: number): void {
    if (tile === EMPTY) return;
    this.columns.push(column);
    this.tiles.push(tile);
  }

  endRow(): void {
    this.rowBegin.push(this.columns.length);
  }

  lists() {
    const { rowBegin, columns, tiles } = this;
    return { rowBegin: Int32Array.from(rowBegin), columns: Int32Array.from(columns), tiles: Int32Array.from(tiles) };
  }
}

/**
 * A block mask from a boolean array, 0 = masked.
 *
 * @param data row-major elements of `shape`
 * @param shape [b, h, q, kv] or its last axes; an extent of 1 is broadcast
 * @throws FoveaError ERR_SHAPE where the shape doesn't broadcast to [*, *, q, kv] or doesn't match the data
 */
export function blockMaskFromBoolean(
  data: ArrayLike<number | boolean>,
  shape: readonly number[],
  sizes: Pick<BlockMaskSizes, 'q' | 'kv' | 'block'>,
): BlockMask {
  expectOptions('blockMaskFromBoolean', sizes, { q: true, kv: true, block: true });
  const { q, kv, block } = resolveSizes(sizes);
  expectLists('blockMaskFromBoolean', { data, shape });
  const full = [...Array<number>(Math.max(0, 4 - shape.length)).fill(1), ...shape];
  const fits = full.length === 4 && [1, q].includes(full[2]) && [1, kv].includes(full[3]);
  if (!fits || full.reduce((a, b) => a * b, 1) !== data.length)
    throw new FoveaError(
      'ERR_SHAPE',
      `blockMask: a boolean array of shape [${shape.join(', ')}] with ${data.length} elements; expected [b, h, ${q}, ${kv}], any of them 1`,
    );
  const [batch, heads] = full;
  const [qStride, kvStride] = [full[2] > 1 ? full[3] : 0, full[3] > 1 ? 1 : 0];
  const store = new TileStore(...block);
  const scratch = new Uint8Array(store.tileBytes);
  const request = { blockQ: block[0], blockKv: block[1], qLength: q, kvLength: kv };
  const rows = new Rows();
  for (let set = 0; set < batch * heads; ++set) {
    for (let row = 0; row * block[0] < q; ++row) {
      for (let column = 0; column * block[1] < kv; ++column) {
        const from = set * full[2] * full[3] + row * block[0] * qStride + column * block[1] * kvStride;
        const tile = tileFrom(store, scratch, block[0], tileExtent(request, row, column), (query, key) =>
          Boolean(data[from + query * qStride + key * kvStride]),
        );
        rows.add(column, tile);
      }
      rows.endRow();
    }
  }
  return new BlockMask({ batch, heads, qLength: q, kvLength: kv, block, ...rows.lists(), bits: store.bits });
}

/**
 * A block mask from adjacency lists in CSR form: query i sees keys `neighbors[offsets[i]]` up to `neighbors[offsets[i + 1]]`. The cost
 * follows the number of neighbours. Number nodes so that neighbours are near each other, and few blocks are visited.
 *
 * @param offsets where each query's list begins, one more at the end
 * @param neighbors keys in any order; repeated ones count once
 * @param sizes `kv`: number of keys, default as many as queries
 * @throws FoveaError ERR_ARGUMENT where offsets don't ascend within the neighbours; ERR_INDEX for a neighbour out of range
 */
export function blockMaskFromAdjacency(
  offsets: ArrayLike<number>,
  neighbors: ArrayLike<number>,
  sizes: Pick<BlockMaskSizes, 'kv' | 'block'> = {},
): BlockMask {
  expectOptions('blockMaskFromAdjacency', sizes, { kv: true, block: true });
  expectLists('blockMaskFromAdjacency', { offsets, neighbors });
  const { q, kv, block } = resolveSizes({ ...sizes, q: Math.max(0, offsets.length - 1) });
  for (let i = 0; i < q; ++i)
    if (!(offsets[i] >= 0 && offsets[i] <= offsets[i + 1] && offsets[i + 1] <= neighbors.length))
      throw new FoveaError(
        'ERR_ARGUMENT',
        `blockMask: list ${i} goes from ${offsets[i]} to ${offsets[i + 1]} of ${neighbors.length} neighbors`,
      );
  const store = new TileStore(...block);
  const request = { blockQ: block[0], blockKv: block[1], qLength: q, kvLength: kv };
  const rows = new Rows();
  const rowBytes = block[0] / 8;
  for (let row = 0; row * block[0] < q; ++row) {
    const matrices = new Map<number, Uint8Array>();
    for (let i = row * block[0]; i < Math.min((row + 1) * block[0], q); ++i) {
      const query = i - row * block[0];
      for (let n = offsets[i]; n < offsets[i + 1]; ++n) {
        const key = neighbors[n];
        if (!Number.isInteger(key) || key < 0 || key >= kv)
          throw new FoveaError('ERR_INDEX', `blockMask: neighbor ${key} of query ${i}; there are ${kv} keys`);
        const column = Math.floor(key / block[1]);
        let bits = matrices.get(column);
        if (!bits) matrices.set(column, (bits = new Uint8Array(store.tileBytes)));
        bits[(key % block[1]) * rowBytes + (query >> 3)] |= 1 << (query & 7);
      }
    }
    for (const [column, bits] of [...matrices].sort(([a], [b]) => a - b)) {
      const [queries, keys] = tileExtent(request, row, column);
      rows.add(column, countOnes(bits) === queries * keys ? FULL : store.add(bits));
    }
    rows.endRow();
  }
  return new BlockMask({ batch: 1, heads: 1, qLength: q, kvLength: kv, block, ...rows.lists(), bits: store.bits });
}

/** Throws ERR_ARGUMENT for what has no length: nobody's list. */
function expectLists(op: string, lists: Readonly<Record<string, unknown>>): void {
  for (const [name, list] of Object.entries(lists))
    if (!Array.isArray(list) && !ArrayBuffer.isView(list))
      throw new FoveaError('ERR_ARGUMENT', `${op}: ${name} is ${String(list)}, expected an array`);
}

function countOnes(bytes: Uint8Array): number {
  let ones = 0;
  for (let byte of bytes) for (; byte !== 0; byte &= byte - 1) ++ones;
  return ones;
}

/**
 * A block mask from the key blocks each query block sees throughout (routing, block-sparse patterns).
 *
 * @param lists key blocks of each query block, in any order
 * @throws FoveaError ERR_SHAPE unless there is one list per query block; ERR_INDEX for a block out of range
 */
export function blockMaskFromBlocks(
  lists: readonly ArrayLike<number>[],
  sizes: Pick<BlockMaskSizes, 'q' | 'kv' | 'block'>,
): BlockMask {
  expectOptions('blockMaskFromBlocks', sizes, { q: true, kv: true, block: true });
  expectLists('blockMaskFromBlocks', { lists, ...lists });
  const { q, kv, block } = resolveSizes(sizes);
  const [qBlocks, kvBlocks] = [Math.ceil(q / block[0]), Math.ceil(kv / block[1])];
  if (lists.length !== qBlocks)
    throw new FoveaError('ERR_SHAPE', `blockMask: ${lists.length} lists for ${qBlocks} query blocks of ${block[0]}`);
  const rows = new Rows();
  for (const list of lists) {
    for (const column of [...new Set(Array.from(list))].sort((a, b) => a - b)) {
      if (!Number.isInteger(column) || column < 0 || column >= kvBlocks)
        throw new FoveaError('ERR_INDEX', `blockMask: key block ${column}; there are ${kvBlocks} of ${block[1]} keys`);
      rows.add(column, FULL);
    }
    rows.endRow();
  }
  const bits = new Uint8Array(0);
  return new BlockMask({ batch: 1, heads: 1, qLength: q, kvLength: kv, block, ...rows.lists(), bits });
}
