/**
 * Bi-level routing attention (BiFormer, Zhu et al., CVPR 2023, section 3): an image is cut into regions; every region attends, token by
 * token, only to the pixels of the `topK` regions whose mean key is nearest to its mean query.
 *
 * This file chooses; regional.ts attends.
 */
import { noGrad } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { add, mul } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { depthwiseConv } from '../ops/depthwise_conv.ts';
import { linear } from '../ops/linear.ts';
import { matmul } from '../ops/matmul.ts';
import { pad } from '../ops/pad.ts';
import { softmax } from '../ops/softmax.ts';
import { topK as largest } from '../ops/sort.ts';
import { expand, reshape, select, slice, transpose, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { expectCount, expectRank } from './checks.ts';
import { addCosts, pairsCost, type Cost } from './cost.ts';
import { mergeAttentions } from './merge.ts';
import type { AttentionResult } from './attention.ts';
import { poolRegions, regionMeans, type RegionPooling } from './region_pool.ts';
import { firstRegions, regionsOf, type RegionGrid } from './region_rows.ts';
import { attendRegions, fillRegions, imageOf, wholeGrid } from './regional.ts';

export interface BiLevelRoutingOptions {
  readonly heads: number;
  /** Regions along each side of the image. */
  readonly regions: number;
  /** Regions each region attends to. */
  readonly topK: number;
  /** Factor of q.k in the attention and in the routing; default 1 / sqrt(channels of q), the whole width and not that of a head. */
  readonly scale?: number;
  /**
   * Images whose sides are not multiples of `regions` have regions of floor(side / regions) pixels and a ragged last row and column. 'zero'
   * (default) fills them up with pixels of q = k = v = 0, which are attended to like any others, as the published NCHW op does; 'hidden'
   * leaves the missing pixels out. (The published NHWC module pads its input instead, before the projections: `padToRegions`.)
   */
  readonly ragged?: 'zero' | 'hidden';
  /** Keys and values of a region made fewer after the projections. */
  readonly pooling?: RegionPooling;
  /** Multiplies the routed keys and values by the routing weight of their region. */
  readonly soft?: boolean;
  /** A linear layer [channels of q, channels of q] on the mean queries and keys that regions are compared by; it learns through `soft`. */
  readonly routingProjection?: { readonly weight: Tensor; readonly bias?: Tensor | null };
  /** Lets gradients flow into q and k through the routing weights of `soft`; default false, as published. */
  readonly diffRouting?: boolean;
  /** Local enhancement: a depth-wise convolution of v, added to the result; weight [channels, 1, odd, odd]. */
  readonly lepe?: { readonly weight: Tensor; readonly bias?: Tensor | null };
  /** As in attention(). */
  readonly signal?: AbortSignal;
}

const CALL_OPTIONS: OptionNames<BiLevelRoutingOptions & { returnRouting?: boolean }> = {
  heads: true,
  regions: true,
  topK: true,
  scale: true,
  ragged: true,
  pooling: true,
  soft: true,
  routingProjection: true,
  diffRouting: true,
  lepe: true,
  signal: true,
  returnRouting: true,
};

/** Where each region was sent. */
export interface RegionRouting {
  /** Regions in falling order of affinity: i32 [batch, regions, topK]; region row * columns + column. */
  readonly indices: Tensor;
  /** Softmax of their affinities [batch, regions, topK]. */
  readonly weights: Tensor;
}

const OP = 'biLevelRoutingAttention';

/**
 * Bi-level routing attention over images q, k [batch, height, width, channels] and v [batch, height, width, channels of v] (what a linear
 * layer makes of an image; heads are contiguous chunks of channels). f32, bf16 or f16. Differentiable in q, k, v, `lepe` and
 * `routingProjection`; no gradient passes through the choice of regions.
 *
 * @returns the image [batch, height, width, channels of v]; with `returnRouting` also where regions were sent
 * @throws FoveaError ERR_SHAPE, ERR_ARGUMENT for images and options that do not fit
 */
export function biLevelRoutingAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: BiLevelRoutingOptions & { readonly returnRouting: true },
): { out: Tensor; routing: RegionRouting };
export function biLevelRoutingAttention(q: Tensor, k: Tensor, v: Tensor, options: BiLevelRoutingOptions): Tensor;
export function biLevelRoutingAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: BiLevelRoutingOptions & { readonly returnRouting?: boolean },
): Tensor | { out: Tensor; routing: RegionRouting } {
  expectOptions(OP, options, CALL_OPTIONS);
  const grid = gridOf(q, k, v, options);
  const scale = options.scale ?? 1 / Math.sqrt(q.shape[3]);
  const { indices, values } = route(q, k, grid, scale, options);
  const weights = options.soft || options.returnRouting ? cast(softmax(values, -1), q.dtype) : null;
  const images = filled(q, k, v, grid, options);
  const keys = keysOf(images.k, images.v, images.grid, options);
  const attend = (queries: Tensor, chosen: Tensor): AttentionResult => {
    const first = firstRegions(grid.batch, regionsOf(grid), q.device);
    const regions = noGrad(() => unsqueeze(grid.batch === 1 ? chosen : add(chosen, first), 1));
    return attendRegions(OP, [queries, keys.k, keys.v], [images.grid, keys.grid], regions, { ...options, scale });
  };
  const rows =
    options.soft && weights
      ? attendSoftly(images.q, images.grid, { indices, weights }, attend)
      : attend(images.q, indices).out;
  const [batch, height, width] = q.shape;
  const whole = imageOf(rows, images.grid);
  let out = images.grid === grid ? whole : slice(slice(whole, 1, 0, height), 2, 0, width);
  if (options.lepe) out = add(out, depthwiseConv(v, options.lepe.weight, options.lepe.bias ?? null));
  out = reshape(out, [batch, height, width, v.shape[3]]);
  return options.returnRouting && weights ? { out, routing: { indices, weights } } : out;
}

/** Images [batch, height, width, channels] with zeros to the right and below, so that both sides are multiples of `regions`. */
export function padToRegions(x: Tensor, regions: number): Tensor {
  expectRank('padToRegions', '[batch, height, width, channels]', 4, { x });
  expectCount('padToRegions', 'regions', regions);
  const [, height, width] = x.shape;
  const missing = (side: number): number => (regions - (side % regions)) % regions;
  if (missing(height) + missing(width) === 0) return x;
  return pad(x, [[0, 0], [0, missing(height)], [0, missing(width)], [0, 0]]); // prettier-ignore
}

/** An image and its regions. */
interface ImageSizes {
  readonly batch?: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly heads: number;
  readonly regions: number;
  readonly topK: number;
  readonly elementBytes?: number;
}

const IMAGE_SIZES: OptionNames<ImageSizes> = {
  batch: true,
  height: true,
  width: true,
  channels: true,
  heads: true,
  regions: true,
  topK: true,
  elementBytes: true,
};

/** What a forward call costs: routing, and attention of every pixel over the pixels of `topK` regions. */
export function biLevelRoutingCost(sizes: ImageSizes): Cost {
  expectOptions('biLevelRoutingCost', sizes, IMAGE_SIZES);
  const { batch = 1, height, width, channels, heads, regions, topK, elementBytes = 4 } = sizes;
  const pixels = height * width;
  const count = regions * regions;
  const routing: Cost = {
    flops: batch * (2 * pixels * channels + 2 * count * count * channels),
    bytes: batch * elementBytes * (2 * pixels * channels + 4 * count * channels + count * count),
  };
  const dim = channels / heads;
  const pairs = (pixels * topK * pixels) / count;
  return addCosts(routing, pairsCost({ batch, heads, length: pixels, dim, elementBytes }, pairs));
}

function gridOf(q: Tensor, k: Tensor, v: Tensor, options: BiLevelRoutingOptions): RegionGrid {
  expectRank(OP, '[batch, height, width, channels]', 4, { q, k, v });
  const { heads, regions, topK, ragged = 'zero' } = options;
  for (const [name, value] of Object.entries({ heads, regions, topK })) expectCount(OP, name, value);
  const [batch, height, width] = q.shape;
  const image = (t: Tensor): string => t.shape.slice(0, 3).join();
  if (image(q) !== image(k) || image(q) !== image(v) || q.shape[3] !== k.shape[3])
    throw new FoveaError(
      'ERR_SHAPE',
      `${OP}: q ${shapeText(q.shape)}, k ${shapeText(k.shape)}, v ${shapeText(v.shape)}; expected images of one size, q and k of one width`,
    );
  if (q.shape[3] % heads !== 0 || v.shape[3] % heads !== 0)
    throw new FoveaError(
      'ERR_SHAPE',
      `${OP}: ${q.shape[3]} and ${v.shape[3]} channels are not multiples of ${heads} heads`,
    );
  if (height < regions || width < regions)
    throw new FoveaError(
      'ERR_SHAPE',
      `${OP}: an image of ${height} x ${width} pixels has no ${regions} regions a side`,
    );
  if (!['zero', 'hidden'].includes(ragged))
    throw new FoveaError('ERR_ARGUMENT', `${OP}: ragged is ${String(ragged)}, expected 'zero' or 'hidden'`);
  const [regionHeight, regionWidth] = [Math.floor(height / regions), Math.floor(width / regions)];
  const grid = {
    batch,
    height,
    width,
    regionHeight,
    regionWidth,
    down: Math.ceil(height / regionHeight),
    across: Math.ceil(width / regionWidth),
  };
  if (topK > regionsOf(grid))
    throw new FoveaError('ERR_ARGUMENT', `${OP}: topK is ${topK}, there are ${regionsOf(grid)} regions`);
  return grid;
}

/** The regions each region is sent to, in falling order of affinity, and the affinities: both [batch, regions, topK]. */
function route(q: Tensor, k: Tensor, grid: RegionGrid, scale: number, options: BiLevelRoutingOptions): Affinities {
  const { topK, diffRouting, routingProjection: layer } = options;
  if (diffRouting || layer) {
    const [a, b] = [q, k].map((t) => {
      const means = regionMeans(diffRouting ? t : t.detach(), grid);
      return layer ? linear(means, layer.weight, layer.bias ?? null) : means;
    });
    return largest(matmul(mul(a, scale), transpose(b, 1, 2)), topK);
  }
  const { regionHeight, regionWidth, down, across } = grid;
  const integers = [regionHeight, regionWidth, down, across, topK] as const;
  const [indices, values] = native().regionTop(q.handle, k.handle, integers, scale);
  return { indices: new Tensor(indices), values: new Tensor(values) };
}

interface Affinities {
  readonly indices: Tensor;
  readonly values: Tensor;
}

interface Images {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly grid: RegionGrid;
}

/** With 'zero', ragged images filled up to whole regions. */
function filled(q: Tensor, k: Tensor, v: Tensor, grid: RegionGrid, { ragged }: BiLevelRoutingOptions): Images {
  const whole = wholeGrid(grid);
  if (ragged === 'hidden' || (whole.height === grid.height && whole.width === grid.width)) return { q, k, v, grid };
  return { q: fillRegions(q, grid), k: fillRegions(k, grid), v: fillRegions(v, grid), grid: whole };
}

function keysOf(k: Tensor, v: Tensor, grid: RegionGrid, { pooling }: BiLevelRoutingOptions): Omit<Images, 'q'> {
  if (!pooling) return { k, v, grid };
  if (grid.down * grid.regionHeight !== grid.height || grid.across * grid.regionWidth !== grid.width)
    throw new FoveaError('ERR_UNSUPPORTED', `${OP}: pooling needs whole regions; use ragged: 'zero' or pad the image`);
  const keys = poolRegions(k, grid, pooling);
  return { k: keys.pooled, v: poolRegions(v, grid, pooling).pooled, grid: keys.grid };
}

/**
 * Keys and values weighted by the routing weight r of their region, without touching them: r q.k = (r q).k, so each of the topK regions is
 * attended to on its own by queries times r, its result is multiplied by r, and the results are merged by their log-sum-exp.
 */
function attendSoftly(
  q: Tensor,
  grid: RegionGrid,
  { indices, weights }: RegionRouting,
  attend: (q: Tensor, regions: Tensor) => AttentionResult,
): Tensor {
  const parts: AttentionResult[] = [];
  for (let t = 0; t < indices.shape[2]; t++) {
    const r = pixelWeights(select(weights, 2, t), grid);
    const { out, lse } = attend(mul(q, r), slice(indices, 2, t, t + 1));
    const perRow = reshape(r, [1, 1, out.shape[2], 1]);
    parts.push({ out: mul(out, perRow), lse });
  }
  return mergeAttentions(parts).out;
}

/** A number per region [batch, regions] as an image [batch, height, width, 1]. */
function pixelWeights(weights: Tensor, grid: RegionGrid): Tensor {
  const { batch, height, width, down, across, regionHeight, regionWidth } = grid;
  const cells = expand(reshape(weights, [batch, down, 1, across, 1, 1]), [batch, down, regionHeight, across, regionWidth, 1]); // prettier-ignore
  const image = reshape(cells, [batch, down * regionHeight, across * regionWidth, 1]);
  return slice(slice(image, 1, 0, height), 2, 0, width);
}
