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

/** Pixel numbers of every region: [batch * regions * area]. */
function regionPixels(grid: RegionGrid): Int32Array {
  const { batch, height, width, regionHeight, regionWidth, down, across } = grid;
  const rows = new Int32Array(batch * regionsOf(grid) * regionArea(grid));
  let at = 0;
  for (let n = 0; n < batch; n++)
    for (let p = 0; p < down; p++)
      for (let o = 0; o < across; o++)
        for (let i = p * regionHeight; i < (p + 1) * regionHeight; i++)
          for (let j = o * regionWidth; j < (o + 1) * regionWidth; j++)
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

/** The pixels of each region: i32 [batch * regions, area]. */
export function regionRows(grid: RegionGrid, device: DeviceName): Tensor {
  const key = `rows ${Object.values(grid).join()}`;
  return constantList(key, device, [grid.batch * regionsOf(grid), regionArea(grid)], () => regionPixels(grid));
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
