/**
 * Attention of image regions over the regions that a graph names.
 *
 * Nothing is gathered: a region is one packed sequence of the engine, whose query rows are the region's pixels and whose key rows are the
 * pixels of the regions it looks at. Both lists name pixels of the images as they lie in memory.
 */
import { noGrad } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { add } from '../ops/binary.ts';
import { ge, logicalOr, lt } from '../ops/compare.ts';
import { cast } from '../ops/copy.ts';
import { pad } from '../ops/pad.ts';
import { permute, reshape, slice, unsqueeze } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AttentionResult } from './attention.ts';
import { expectCount, expectRank } from './checks.ts';
import { planAttention } from './plan.ts';
import { equalSequences, firstRegions, regionArea, regionRows, regionsOf, type RegionGrid } from './region_rows.ts';

export interface RegionalOptions {
  readonly heads: number;
  /** Rows and columns of a region of queries; one number for both. */
  readonly regionSize: number | readonly [number, number];
  /** .. and of a region of keys. Default `regionSize`. */
  readonly keyRegionSize?: number | readonly [number, number];
  /** Factor of q.k; default 1 / sqrt(dim of a head). */
  readonly scale?: number;
  /** As in attention(). */
  readonly signal?: AbortSignal;
}

const REGIONAL_OPTIONS: OptionNames<RegionalOptions> = {
  heads: true,
  regionSize: true,
  keyRegionSize: true,
  scale: true,
  signal: true,
};

const OP = 'regionalAttention';

/**
 * Attention over images q [batch, height, width, channels], k [batch, rows, columns, channels] and v [batch, rows, columns, channels of v]:
 * the pixels of region p see those of the regions graph[b, h, p, :] of the keys. `graph` i32 or i64 [batch, heads or 1, regions, n]; region
 * row * regions across + column. Images that are not whole regions are filled up to the right and below with q = k = v = 0, whose keys are
 * attended to like others. f32, bf16 or f16; differentiable in q, k, v. A region that is not there rejects with ERR_INDEX.
 *
 * @returns [batch, height, width, channels of v]
 * @throws FoveaError ERR_SHAPE, ERR_ARGUMENT for operands and options that do not fit
 *
 * Source: Zhu et al., "BiFormer", CVPR 2023: the regional attention of its NCHW op.
 */
export function regionalAttention(q: Tensor, k: Tensor, v: Tensor, graph: Tensor, options: RegionalOptions): Tensor {
  expectOptions(OP, options, REGIONAL_OPTIONS);
  const { heads, regionSize, keyRegionSize = regionSize, signal } = options;
  expectRank(OP, '[batch, height, width, channels]', 4, { q, k, v });
  expectRank(OP, '[batch, heads or 1, regions, n]', 4, { graph });
  expectCount(OP, 'heads', heads);
  const image = (t: Tensor): string => t.shape.slice(0, 3).join();
  const fits = q.shape[0] === k.shape[0] && q.shape[3] === k.shape[3] && image(k) === image(v);
  if (!fits || q.shape[3] % heads !== 0 || v.shape[3] % heads !== 0)
    throw new FoveaError(
      'ERR_SHAPE',
      `${OP}: q ${shapeText(q.shape)}, k ${shapeText(k.shape)}, v ${shapeText(v.shape)}, ${heads} heads; expected one batch, q and k of one ` +
        'width, k and v of one size, and heads that divide the channels',
    );
  const [grid, keyGrid] = [regionGrid(q, regionSize), regionGrid(k, keyRegionSize)];
  if (graph.shape[0] !== grid.batch || ![1, heads].includes(graph.shape[1]) || graph.shape[2] !== regionsOf(grid))
    throw new FoveaError(
      'ERR_SHAPE',
      `${OP}: graph has shape ${shapeText(graph.shape)}, expected [${grid.batch}, 1 or ${heads}, ${regionsOf(grid)}, n]`,
    );
  const chosen = noGrad(() => {
    const [regions, t] = [regionsOf(keyGrid), cast(graph, 'i32')];
    const first = unsqueeze(firstRegions(grid.batch, regions, t.device), 3);
    return where(logicalOr(lt(t, 0), ge(t, regions)), grid.batch * regions, add(t, first));
  });
  const scale = options.scale ?? Math.sqrt(heads / q.shape[3]);
  const [queries, keys, values] = [fillRegions(q, grid), fillRegions(k, keyGrid), fillRegions(v, keyGrid)];
  const [whole, wholeKeys] = [wholeGrid(grid), wholeGrid(keyGrid)];
  const { out } = attendRegions(OP, [queries, keys, values], [whole, wholeKeys], chosen, { heads, scale, signal });
  return slice(slice(imageOf(out, whole), 1, 0, grid.height), 2, 0, grid.width);
}

function regionGrid(t: Tensor, size: number | readonly [number, number]): RegionGrid {
  const [batch, height, width] = t.shape;
  const [regionHeight, regionWidth] = typeof size === 'number' ? [size, size] : size;
  expectCount(OP, 'regionSize', regionHeight);
  expectCount(OP, 'regionSize', regionWidth);
  const [down, across] = [Math.ceil(height / regionHeight), Math.ceil(width / regionWidth)];
  return { batch, height, width, regionHeight, regionWidth, down, across };
}

/** The grid of images that fillRegions() has made whole. */
export function wholeGrid(grid: RegionGrid): RegionGrid {
  return { ...grid, height: grid.down * grid.regionHeight, width: grid.across * grid.regionWidth };
}

/** An image with zeros to the right and below up to whole regions. */
export function fillRegions(t: Tensor, grid: RegionGrid): Tensor {
  const { height, width } = wholeGrid(grid);
  if (height === grid.height && width === grid.width) return t;
  return pad(t, [[0, 0], [0, height - grid.height], [0, width - grid.width], [0, 0]]); // prettier-ignore
}

/** An image as one sequence of rows of all heads: [1, heads, pixels, dim]; a view where channels and pixels lie densely. */
function rowsOf(image: Tensor, heads: number): Tensor {
  const [batch, height, width, channels] = image.shape;
  const rows = reshape(image, [1, batch * height * width, heads, channels / heads]);
  return permute(rows, [0, 2, 1, 3]);
}

/** Its inverse. */
export function imageOf(rows: Tensor, grid: RegionGrid): Tensor {
  const channels = rows.shape[1] * rows.shape[3];
  return reshape(permute(rows, [0, 2, 1, 3]), [grid.batch, grid.height, grid.width, channels]);
}

/**
 * Attention of every region of q over the regions `chosen` of k and v, numbered through the batch: [batch, heads or 1, regions, n]. Rows of
 * out and lse are pixels, as rowsOf() has them.
 */
export function attendRegions(
  op: string,
  [q, k, v]: readonly [Tensor, Tensor, Tensor],
  [grid, keyGrid]: readonly [RegionGrid, RegionGrid],
  chosen: Tensor,
  options: { readonly heads: number; readonly scale: number; readonly signal?: AbortSignal | undefined },
): AttentionResult {
  const { heads, scale, signal } = options;
  const sequences = grid.batch * regionsOf(grid);
  const queries = regionRows(grid, q.device);
  const keysEach = chosen.shape[3] * regionArea(keyGrid);
  const plan = noGrad(() => {
    const byHead = chosen.shape[1] === 1 ? chosen : permute(chosen, [1, 0, 2, 3]);
    const ids = reshape(byHead, [chosen.size]);
    const kvRows = new Tensor(native().takeRows(op, regionRows(keyGrid, q.device).handle, 0, ids.handle));
    return {
      qRows: reshape(queries, [1, 1, queries.size]),
      kvRows: reshape(kvRows, [1, chosen.shape[1], sequences * keysEach]),
    };
  });
  const cuSeqlens = {
    q: equalSequences(sequences, queries.shape[1], q.device),
    kv: equalSequences(sequences, keysEach, q.device),
  };
  return planAttention(rowsOf(q, heads), rowsOf(k, heads), rowsOf(v, heads), plan, {
    scale,
    cuSeqlens,
    ...(signal && { signal }),
  });
}
