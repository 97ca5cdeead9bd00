/** Pooling of images [batch, height, width, channels] region by region. */
import { FoveaError } from '../errors.ts';
import { div } from '../ops/binary.ts';
import { stack } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { pad } from '../ops/pad.ts';
import { max, mean, sum } from '../ops/reduce.ts';
import { reshape, slice } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { tensor } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { regionsOf, type RegionGrid } from './region_rows.ts';

/**
 * How keys and values are made fewer inside each region: 'mean' or 'max' over cells of `ratio` x `ratio` pixels (pixels left over are
 * dropped), or over the `size` x `size` cells into which a region is cut whatever its own size.
 */
export interface RegionPooling {
  readonly mode: 'mean' | 'max';
  readonly ratio?: number;
  readonly size?: number;
}

const REGION_POOLING: OptionNames<RegionPooling> = { mode: true, ratio: true, size: true };

const reducers = { mean, max };

/** The mean of each region over the pixels it really has: [batch, regions, channels]. */
export function regionMeans(t: Tensor, grid: RegionGrid): Tensor {
  const { batch, height, width, regionHeight, regionWidth, down, across } = grid;
  const channels = t.shape[3];
  const [tall, wide] = [down * regionHeight, across * regionWidth];
  const whole = tall === height && wide === width;
  const padded = whole ? t : pad(t, [[0, 0], [0, tall - height], [0, wide - width], [0, 0]]); // prettier-ignore
  const cells = reshape(padded, [batch, down, regionHeight, across, regionWidth, channels]);
  if (whole) return reshape(mean(mean(cells, 4), 2), [batch, regionsOf(grid), channels]);
  const present = (size: number, step: number, count: number): number[] =>
    Array.from({ length: count }, (_, i) => Math.min(size - i * step, step));
  const [rows, columns] = [present(height, regionHeight, down), present(width, regionWidth, across)];
  const counts = rows.flatMap((r) => columns.map((c) => r * c));
  const divisor = cast(tensor(counts, [1, counts.length, 1], { device: t.device }), t.dtype);
  return div(reshape(sum(cells, [2, 4]), [batch, regionsOf(grid), channels]), divisor);
}

/** Keys or values pooled inside each region, and the grid of what is left. The grid's regions must be whole. */
export function poolRegions(t: Tensor, grid: RegionGrid, pooling: RegionPooling): { pooled: Tensor; grid: RegionGrid } {
  expectOptions('biLevelRoutingAttention: pooling', pooling, REGION_POOLING);
  const { ratio, size, mode } = pooling;
  const cells = (extent: number): (readonly [number, number])[] => {
    if (size !== undefined)
      return Array.from({ length: size }, (_, i) => [
        Math.floor((i * extent) / size),
        Math.ceil(((i + 1) * extent) / size),
      ]);
    const step = ratio as number;
    return Array.from({ length: Math.floor(extent / step) }, (_, i) => [i * step, (i + 1) * step]);
  };
  if ((ratio === undefined) === (size === undefined) || !((ratio ?? size) as number) || !(mode in reducers))
    throw new FoveaError(
      'ERR_ARGUMENT',
      `biLevelRoutingAttention: pooling ${JSON.stringify(pooling)}; expected mode 'mean' or 'max' and either ratio or size`,
    );
  const { batch, regionHeight, regionWidth, down, across } = grid;
  const channels = t.shape[3];
  const [rows, columns] = [cells(regionHeight), cells(regionWidth)];
  if (rows.length === 0 || columns.length === 0)
    throw new FoveaError(
      'ERR_SHAPE',
      `biLevelRoutingAttention: pooling by ${String(ratio)} leaves nothing of regions of ${regionHeight} x ${regionWidth}`,
    );
  const map = reshape(t, [batch, down, regionHeight, across, regionWidth, channels]);
  const pooledRows = rows.map(([r0, r1]) => {
    const band = slice(map, 2, r0, r1);
    return stack(
      columns.map(([c0, c1]) => reducers[mode](slice(band, 4, c0, c1), [2, 4])),
      3,
    );
  });
  // Each band is [batch, down, across, columns, channels]; bands become the rows of the pooled image.
  const joined = stack(pooledRows, 2);
  const pooled = reshape(joined, [batch, down * rows.length, across * columns.length, channels]);
  return {
    pooled,
    grid: {
      ...grid,
      height: down * rows.length,
      width: across * columns.length,
      regionHeight: rows.length,
      regionWidth: columns.length,
    },
  };
}
