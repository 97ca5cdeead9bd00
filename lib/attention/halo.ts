/**
 * Halo attention: the image is cut into blocks, and the queries of a block attend to the block and a halo around it.
 *
 * Windows are not copied: a block is one packed sequence of the engine, whose query rows are the block's pixels and whose key rows are the
 * pixels of its window, both named as they lie in memory. Halo positions outside the image are keys and values of zeros that take part in the
 * softmax, as in the published models, so images of k and v get a border.
 *
 * The relative position logits q . height[u - i] + q . width[v - j] are products like q . k, so they are computed as one: queries get a
 * channel per window row and column holding these logits, keys the matching one-hot rows. So no bias of blocks x queries x keys is ever
 * stored. A pixel is a key of several windows, at another (u, v) in each; its one-hot rows say its row and column in the image modulo the
 * window's side, which no two rows of one window share, and queries have their logits in the order this makes of their window.
 */
import { FoveaError } from '../errors.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { indexSelect } from '../ops/embedding.ts';
import { matmul } from '../ops/matmul.ts';
import { mul } from '../ops/binary.ts';
import { pad } from '../ops/pad.ts';
import { expand, permute, reshape } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { tensor } from '../tensor/create.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { expectRank } from './checks.ts';
import { fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { planAttention } from './plan.ts';
import { equalSequences, regionRows, type RegionGrid } from './region_rows.ts';

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
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
  /** Whether `scale` is a factor of the relative logits too, as with scale_pos_embed of timm. Default false. */
  readonly scaleRelative?: boolean;
}

const HALO_OPTIONS: OptionNames<HaloOptions> = {
  blockSize: true,
  haloSize: true,
  relative: true,
  scale: true,
  scaleRelative: true,
};

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
  expectOptions('haloAttention', options, HALO_OPTIONS);
  expectRank('haloAttention', '[batch, rows, columns, heads, dim]', 5, { q, k, v });
  const { blockSize, haloSize = 0, relative, scale = 1 / Math.sqrt(q.shape[q.rank - 1]) } = options;
  const side = queriesOfBlock(q, k, v, blockSize, haloSize);
  const [batch, rows, columns, heads, dim] = q.shape;
  const window = blockSize + 2 * haloSize;
  let [queries, keys] = [q, bordered(k, haloSize)];
  if (relative) {
    expectOptions('haloAttention: relative', relative, { height: true, width: true });
    if (dim + 2 * window > MOST_CHANNELS)
      throw new FoveaError(
        'ERR_UNSUPPORTED',
        `haloAttention: dim ${dim} and windows of ${window} with relative positions need ${dim + 2 * window} channels, at most ${MOST_CHANNELS}`,
      );
    const logits = AXES.map((name) => relativeLogits(q, relative[name], name, side, blockSize, window));
    queries = concat([q, ...logits.map((t) => mul(t, options.scaleRelative ? 1 : 1 / scale))], 4);
    keys = concat([keys, ...AXES.map((name) => places(keys, name, window))], 4);
  }
  const [down, across] = [rows / side, columns / side];
  const blocks = batch * down * across;
  const blocksOf = (size: number): RegionGrid => ({ batch, height: down * size, width: across * size, regionHeight: size, regionWidth: size, down, across }); // prettier-ignore
  const list = (t: Tensor): Tensor => reshape(t, [1, 1, t.size]);
  const plan = {
    qRows: list(regionRows(blocksOf(side), q.device)),
    kvRows: list(regionRows(blocksOf(blockSize), q.device, haloSize)),
  };
  const cuSeqlens = {
    q: equalSequences(blocks, side ** 2, q.device),
    kv: equalSequences(blocks, window ** 2, q.device),
  };
  const values = bordered(v, haloSize);
  const { out } = planAttention(pixelsOf(queries), pixelsOf(keys), pixelsOf(values), plan, { scale, cuSeqlens });
  return reshape(permute(out, [0, 2, 1, 3]), [batch, rows, columns, heads, v.shape[4]]);
}

/** Cost of haloAttention; images of k and v are copied with their border, channels of relative positions are products like the others. */
export function haloCost(
  sizes: CostSizes,
  options: { readonly blockSize?: number; readonly haloSize?: number; readonly relative?: boolean } = {},
): Cost {
  expectOptions('haloCost', options, { blockSize: true, haloSize: true, relative: true });
  const { blockSize = 8, haloSize = 3, relative = true } = options;
  const { length, keys, dim, dimV } = fullSizes(sizes);
  const window = blockSize + 2 * haloSize;
  const channels = dim + (relative ? 2 * window : 0);
  const borderedPixels = (Math.sqrt(keys) + 2 * haloSize) ** 2;
  const copies = (relative || haloSize ? borderedPixels * channels : 0) + (haloSize ? borderedPixels * dimV : 0);
  return pairsCost({ ...sizes, dim: channels, dimV }, length * window ** 2, copies);
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

const AXES = ['height', 'width'] as const;
type Axis = (typeof AXES)[number];

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** [batch, rows, columns, heads, dim] with `halo` pixels of zeros around. */
function bordered(t: Tensor, halo: number): Tensor {
  return halo === 0 ? t : pad(t, [[0, 0], [halo, halo], [halo, halo], [0, 0], [0, 0]]); // prettier-ignore
}

/** All pixels of the batch as one sequence: [1, heads, batch * rows * columns, dim]; a view where they lie densely. */
function pixelsOf(image: Tensor): Tensor {
  const [batch, rows, columns, heads, dim] = image.shape;
  return permute(reshape(image, [1, batch * rows * columns, heads, dim]), [0, 2, 1, 3]);
}

/**
 * For every query its logits with the rows (columns) of its window: [batch, rows, columns, heads, window]. Channel c is for the row u of the
 * window whose number in the bordered image is c modulo the window, and holds q . table[u - i + window - 1].
 */
function relativeLogits(q: Tensor, table: Tensor, axis: Axis, side: number, blockSize: number, window: number): Tensor {
  const [batch, rows, columns, heads, dim] = q.shape;
  if (table.rank !== 2 || table.shape[0] !== 2 * window - 1 || table.shape[1] !== dim)
    throw new FoveaError(
      'ERR_SHAPE',
      `haloAttention: relative.${axis} has shape ${shapeText(table.shape)}, expected [${2 * window - 1}, ${dim}]`,
    );
  const [length, others] = axis === 'height' ? [rows, columns] : [columns, rows];
  const offsets = range(length).flatMap((y) => {
    const first = Math.floor(y / side) * blockSize;
    return range(window).map((c) => ((c + window - (first % window)) % window) - (y % side) + window - 1);
  });
  const ids = tensor(Int32Array.from(offsets), [offsets.length], { dtype: 'i32', device: table.device });
  const chosen = permute(reshape(indexSelect(table, 0, ids), [length, window, dim]), [0, 2, 1]);
  // The queries' coordinate along the axis in front, so that each meets its own rows of the table.
  const front = axis === 'height' ? [1, 0, 2, 3, 4] : [2, 0, 1, 3, 4];
  const logits = matmul(reshape(permute(q, front), [length, batch * others * heads, dim]), chosen);
  const back = axis === 'height' ? [1, 0, 2, 3, 4] : [1, 2, 0, 3, 4];
  return permute(reshape(logits, [length, batch, others, heads, window]), back);
}

/** The row (column) of each pixel of a bordered image modulo the window, as a one-hot row: [batch, rows, columns, heads, window]. */
function places(image: Tensor, axis: Axis, window: number): Tensor {
  const [batch, rows, columns, heads] = image.shape;
  const length = axis === 'height' ? rows : columns;
  const oneHot = Float32Array.from({ length: length * window }, (_, i) =>
    Number(Math.floor(i / window) % window === i % window),
  );
  const shape = axis === 'height' ? [1, length, 1, 1, window] : [1, 1, length, 1, window];
  const each = cast(tensor(oneHot, shape, { dtype: 'f32', device: image.device }), image.dtype);
  return expand(each, [batch, rows, columns, heads, window]);
}
