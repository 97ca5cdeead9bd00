/**
 * Halo attention: the image is cut into blocks, and the queries of a block attend to the block and a halo around it.
 *
 * Blocks become batch entries of the attention engine. The relative position logits q . height[u - i] + q . width[v - j] are products like
 * q . k, so they are computed as one: queries get a channel per window row and column holding these logits, keys the matching one-hot rows.
 * So no bias of blocks x queries x keys is ever stored. Halo positions outside the image are keys and values of zeros that take part in the
 * softmax, as in the published models.
 */
import { FoveaError } from '../errors.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { indexSelect } from '../ops/embedding.ts';
import { matmul } from '../ops/matmul.ts';
import { mul } from '../ops/binary.ts';
import { pad } from '../ops/pad.ts';
import { expand, permute, reshape } from '../ops/view.ts';
import { tensor } from '../tensor/create.ts';
import type { DeviceName } from '../tensor/device.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';

export interface HaloOptions {
  /** Rows and columns of a block of keys; must divide both extents of the image. */
  readonly blockSize: number;
  /** Keys around the block on each side; default 0. */
  readonly haloSize?: number;
  /**
   * Tables [2 window - 1, dim] of the relative positions, window = blockSize + 2 haloSize, shared by the heads: query (i, j) of a block and
   * key (u, v) of its window have the logit q . height[u - i + window - 1] + q . width[v - j + window - 1].
   */
  readonly relative?: { readonly height: Tensor; readonly width: Tensor };
  /** Factor of q.k, not of the relative logits; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const MOST_CHANNELS = 256;

/**
 * Halo attention of q [batch, rows / s, columns / s, heads, dim] over k [batch, rows, columns, heads, dim] and v [batch, rows, columns, heads,
 * dim_v]: with s > 1 queries are those of every s-th row and column (a block then has blockSize / s of them per side, which are also the
 * coordinates that relative positions see).
 *
 * @returns [batch, rows / s, columns / s, heads, dim_v]; differentiable in q, k, v and both tables
 * @throws FoveaError ERR_SHAPE where operands, blocks or tables do not fit; ERR_UNSUPPORTED where dim + 2 windows exceeds 256
 *
 * Source: Vaswani et al., "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", 2021, section 2.2.
 */
export function haloAttention(q: Tensor, k: Tensor, v: Tensor, options: HaloOptions): Tensor {
  const { blockSize, haloSize = 0, relative, scale = 1 / Math.sqrt(q.shape[q.rank - 1]) } = options;
  const side = queriesOfBlock(q, k, v, blockSize, haloSize);
  const [batch, rows, columns, heads, dim] = q.shape;
  const [down, across] = [rows / side, columns / side];
  const window = blockSize + 2 * haloSize;
  const blocks = batch * down * across;
  const split = reshape(q, [batch, down, side, across, side, heads, dim]);
  let queries = reshape(permute(split, [0, 1, 3, 5, 2, 4, 6]), [blocks, heads, side * side, dim]);
  let keys = windows(k, blockSize, haloSize);
  if (relative) {
    if (dim + 2 * window > MOST_CHANNELS)
      throw new FoveaError(
        'ERR_UNSUPPORTED',
        `haloAttention: dim ${dim} and windows of ${window} with relative positions need ${dim + 2 * window} channels, at most ${MOST_CHANNELS}`,
      );
    const logits = (['height', 'width'] as const).map((name) =>
      mul(relativeLogits(split, relative[name], name, side, window), 1 / scale),
    );
    queries = concat([queries, ...logits.map((t) => reshape(t, [blocks, heads, side * side, window]))], 3);
    const places = expand(cast(oneHotPlaces(window, k.device), k.dtype), [blocks, heads, window * window, 2 * window]);
    keys = concat([keys, places], 3);
  }
  const out = attention(queries, keys, windows(v, blockSize, haloSize), { scale });
  const apart = reshape(out, [batch, down, across, heads, side, side, v.shape[4]]);
  return reshape(permute(apart, [0, 1, 4, 2, 5, 3, 6]), [batch, rows, columns, heads, v.shape[4]]);
}

/** Cost of haloAttention; the keys of a window are copied, channels of relative positions are products like the others. */
export function haloCost(
  sizes: CostSizes,
  { blockSize = 8, haloSize = 3, relative = true }: { blockSize?: number; haloSize?: number; relative?: boolean } = {},
): Cost {
  const { length, keys, dim, dimV } = fullSizes(sizes);
  const window = blockSize + 2 * haloSize;
  const channels = dim + (relative ? 2 * window : 0);
  const copies = (keys / blockSize ** 2) * window ** 2;
  return pairsCost({ ...sizes, dim: channels, dimV }, length * window ** 2, copies * (channels + dimV));
}

/** Checks the operands; queries per side of a block. */
function queriesOfBlock(q: Tensor, k: Tensor, v: Tensor, block: number, halo: number): number {
  const fail = (what: string): never => {
    throw new FoveaError(
      'ERR_SHAPE',
      `haloAttention: q ${shapeText(q.shape)}, k ${shapeText(k.shape)}, v ${shapeText(v.shape)}: ${what}`,
    );
  };
  if (q.rank !== 5 || k.rank !== 5 || v.rank !== 5) fail('expected [batch, rows, columns, heads, dim]');
  if (!Number.isInteger(block) || block < 1 || !Number.isInteger(halo) || halo < 0)
    throw new FoveaError('ERR_ARGUMENT', `haloAttention: blockSize ${block}, haloSize ${halo}`);
  const [rows, columns] = [k.shape[1], k.shape[2]];
  const matches = [0, 1, 2, 3].every((i) => k.shape[i] === v.shape[i]);
  if (!matches || k.shape[0] !== q.shape[0] || k.shape[3] !== q.shape[3] || k.shape[4] !== q.shape[4])
    fail('k and v share all but dim, q and k share batch, heads and dim');
  if (rows % block !== 0 || columns % block !== 0)
    fail(`blocks of ${block} do not divide ${rows} x ${columns}; pad the image`);
  const stride = rows / q.shape[1];
  if (!Number.isInteger(stride) || stride * q.shape[2] !== columns || block % stride !== 0)
    fail(`queries must be every s-th row and column, s a divisor of the block size ${block}`);
  return block / stride;
}

const ids = (list: readonly number[], like: Tensor): Tensor =>
  tensor(Int32Array.from(list), [list.length], { dtype: 'i32', device: like.device });
const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** [batch, rows, columns, heads, dim] as the overlapping windows of all blocks, [blocks, heads, window * window, dim]. */
function windows(t: Tensor, block: number, halo: number): Tensor {
  const [batch, rows, columns, heads, dim] = t.shape;
  const window = block + 2 * halo;
  const [down, across] = [rows / block, columns / block];
  const around = halo === 0 ? t : pad(t, [[0, 0], [halo, halo], [halo, halo], [0, 0], [0, 0]]); // prettier-ignore
  const places = (count: number): Tensor =>
    ids(
      range(count).flatMap((b) => range(window).map((u) => b * block + u)),
      t,
    );
  const unfolded = indexSelect(indexSelect(around, 1, places(down)), 2, places(across));
  const apart = reshape(unfolded, [batch, down, window, across, window, heads, dim]);
  return reshape(permute(apart, [0, 1, 3, 5, 2, 4, 6]), [batch * down * across, heads, window * window, dim]);
}

/** q . table[u - i + window - 1] of split queries, [batch, down, across, heads, i, j, window]. */
function relativeLogits(split: Tensor, table: Tensor, axis: 'height' | 'width', side: number, window: number): Tensor {
  const [batch, down, , across, , heads, dim] = split.shape;
  if (table.rank !== 2 || table.shape[0] !== 2 * window - 1 || table.shape[1] !== dim)
    throw new FoveaError(
      'ERR_SHAPE',
      `haloAttention: relative.${axis} has shape ${shapeText(table.shape)}, expected [${2 * window - 1}, ${dim}]`,
    );
  const offsets = range(side).flatMap((i) => range(window).map((u) => u - i + window - 1));
  const chosen = permute(reshape(indexSelect(table, 0, ids(offsets, table)), [side, window, dim]), [0, 2, 1]);
  // The queries' coordinate along the axis in front, so that each meets its own rows of the table.
  const front = axis === 'height' ? [2, 0, 1, 3, 5, 4, 6] : [4, 0, 1, 3, 5, 2, 6];
  const rows = reshape(permute(split, front), [side, batch * down * across * heads * side, dim]);
  const logits = reshape(matmul(rows, chosen), [side, batch, down, across, heads, side, window]);
  return permute(logits, axis === 'height' ? [1, 2, 3, 4, 0, 5, 6] : [1, 2, 3, 4, 5, 0, 6]);
}

/** For key (u, v) of a window, u and v as one-hot rows: [window * window, 2 window]. */
function oneHotPlaces(window: number, device: DeviceName): Tensor {
  const places = new Float32Array(window * window * 2 * window);
  for (let key = 0; key < window * window; key++) {
    places[key * 2 * window + Math.floor(key / window)] = 1;
    places[key * 2 * window + window + (key % window)] = 1;
  }
  return tensor(places, [1, 1, window * window, 2 * window], { dtype: 'f32', device });
}
