/**
 * The intersection of block masks with equal blocks: rows are merged, full with partial is partial, two partial tiles are the AND of their
 * bits (once per distinct pair of matrices).
 */
import { FoveaError } from '../errors.ts';
import { BlockMask } from './block_mask.ts';
import { EMPTY, FULL, TileStore } from './tile_store.ts';

/**
 * What both masks show. Lengths are the shorter ones; batches and heads broadcast.
 *
 * @throws FoveaError ERR_ARGUMENT where the block sizes differ, ERR_SHAPE where numbers of batches or heads do
 */
export function intersect(a: BlockMask, b: BlockMask): BlockMask {
  if (a.block[0] !== b.block[0] || a.block[1] !== b.block[1]) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `block masks with blocks of ${a.block.join(' x ')} and ${b.block.join(' x ')} cannot be combined; build both with the same block`,
    );
  }
  const batch = broadcast('batches', a.batch, b.batch);
  const heads = broadcast('heads', a.heads, b.heads);
  const qLength = Math.min(a.qLength, b.qLength);
  const kvLength = Math.min(a.kvLength, b.kvLength);
  const qBlocks = Math.ceil(qLength / a.block[0]);
  const kvBlocks = Math.ceil(kvLength / a.block[1]);
  const store = new TileStore(...a.block);
  const known = new Map<string, number>();
  const tileOf = (x: number, y: number): number => {
    if (x === FULL && y === FULL) return FULL;
    const key = `${x},${y}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    const id = both(a, x, b, y, store);
    known.set(key, id);
    return id;
  };
  const rowBegin = [0];
  const columns: number[] = [];
  const tiles: number[] = [];
  for (let set = 0; set < batch * heads; ++set) {
    const [at, h] = [Math.floor(set / heads), set % heads];
    for (let row = 0; row < qBlocks; ++row) {
      const x = entries(a, at, h, row);
      const y = entries(b, at, h, row);
      for (let i = x[0], j = y[0]; i < x[1] && j < y[1];) {
        const [left, right] = [a.columns[i], b.columns[j]];
        if (left === right && left < kvBlocks) {
          const tile = tileOf(a.tiles[i], b.tiles[j]);
          if (tile !== EMPTY) {
            columns.push(left);
            tiles.push(tile);
          }
        }
        if (left <= right) ++i;
        if (right <= left) ++j;
      }
      rowBegin.push(columns.length);
    }
  }
  return new BlockMask({
    batch,
    heads,
    qLength,
    kvLength,
    block: a.block,
    rowBegin: Int32Array.from(rowBegin),
    columns: Int32Array.from(columns),
    tiles: Int32Array.from(tiles),
    bits: store.bits,
  });
}

function broadcast(what: string, x: number, y: number): number {
  if (x !== y && x !== 1 && y !== 1)
    throw new FoveaError('ERR_SHAPE', `block masks for ${x} and ${y} ${what} cannot be combined`);
  return Math.max(x, y);
}

/** Range of the entries of a row of blocks. */
function entries(m: BlockMask, b: number, h: number, row: number): readonly [number, number] {
  const at = ((m.batch > 1 ? b : 0) * m.heads + (m.heads > 1 ? h : 0)) * m.qBlocks + row;
  return [m.rowBegin[at], m.rowBegin[at + 1]];
}

function both(a: BlockMask, x: number, b: BlockMask, y: number, store: TileStore): number {
  const bytes = store.tileBytes;
  const of = (m: BlockMask, tile: number): Uint8Array =>
    tile === FULL ? new Uint8Array(bytes).fill(255) : m.bits.subarray(tile * bytes, (tile + 1) * bytes);
  const [left, right] = [of(a, x), of(b, y)];
  const matrix = left.map((byte, i) => byte & right[i]);
  return matrix.every((byte) => byte === 0) ? EMPTY : store.add(matrix);
}
