/**
 * Which pixels the regions of an image hold, as row lists for the engine. Lists depend on sizes alone and are kept for the next call.
 *
 * Regions are numbered row by row, and so are the pixels within one. A list names pixels of the whole batch, image by image; positions
 * beyond the image (of regions at a ragged edge) are -1.
 */
import type { DeviceName } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { constant } from './constant.ts';

export interface RegionGrid {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  /** Pixels of a region along each axis. */
  readonly regionHeight: number;
  readonly regionWidth: number;
  /** Regions along each axis. */
  readonly down: number;
  readonly across: number;
}

export const regionsOf = (grid: RegionGrid): number => grid.down * grid.across;
export const regionArea = (grid: RegionGrid): number => grid.regionHeight * grid.regionWidth;

/** Pixel numbers of every region, and of `halo` pixels around it in images that have so many more on each side. */
function regionPixels(grid: RegionGrid, halo: number): Int32Array {
  const { batch, regionHeight, regionWidth, down, across } = grid;
  const [height, width] = [grid.height + 2 * halo, grid.width + 2 * halo];
  const [high, wide] = [regionHeight + 2 * halo, regionWidth + 2 * halo];
  const rows = new Int32Array(batch * regionsOf(grid) * high * wide);
  let at = 0;
  for (let n = 0; n < batch; n++)
    for (let p = 0; p < down; p++)
      for (let o = 0; o < across; o++)
        for (let i = p * regionHeight; i < p * regionHeight + high; i++)
          for (let j = o * regionWidth; j < o * regionWidth + wide; j++)
            rows[at++] = i < height && j < width ? (n * height + i) * width + j : -1;
  return rows;
}

const KEPT = 64;
const made = new Map<string, Tensor>();

/** `make()` as an i32 tensor of this shape on the device, made once for each key. */
function constantList(name: string, device: DeviceName, shape: readonly number[], make: () => Int32Array): Tensor {
  const key = `${name} ${device}`;
  let list = made.get(key);
  if (!list || list.disposed) {
    if (made.size >= KEPT) made.delete(made.keys().next().value as string);
    list = constant(make(), 'i32', device, shape);
    made.set(key, list);
  }
  return list;
}

/**
 * The pixels of each region: i32 [batch * regions, area]. With a halo those of the region and so many around it, numbered in images with a
 * border of that width, whose size `grid` does not count.
 */
export function regionRows(grid: RegionGrid, device: DeviceName, halo = 0): Tensor {
  const area = (grid.regionHeight + 2 * halo) * (grid.regionWidth + 2 * halo);
  const key = `rows ${Object.values(grid).join()},${halo}`;
  return constantList(key, device, [grid.batch * regionsOf(grid), area], () => regionPixels(grid, halo));
}

/** Beginnings of `count` sequences of `length` rows each, and the total: i32 [count + 1]. */
export function equalSequences(count: number, length: number, device: DeviceName): Tensor {
  return constantList(`sequences ${count},${length}`, device, [count + 1], () =>
    Int32Array.from({ length: count + 1 }, (_, i) => i * length),
  );
}

/** Where each image's regions begin in the lists: i32 [batch, 1, 1]. */
export function firstRegions(batch: number, regions: number, device: DeviceName): Tensor {
  return constantList(`first ${batch},${regions}`, device, [batch, 1, 1], () =>
    Int32Array.from({ length: batch }, (_, n) => n * regions),
  );
}
