import { FoveaError } from '../../errors.ts';
import { expectOptions, type OptionNames } from '../../options.ts';
import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

export interface TileOptions {
  /** Tiles along each of the three axes (time, height, width). */
  readonly tiles: readonly [number, number, number];
  /** Tiles of the window along each axis, at most as many as there are. */
  readonly window: readonly [number, number, number];
  /** Tokens of one tile. */
  readonly tileTokens: number;
}

const TILE_OPTIONS: OptionNames<TileOptions> = { tiles: true, window: true, tileTokens: true };

/**
 * Sliding tile attention over video: all tokens of a tile see all tokens of the `window` of tiles around it, shifted inwards at the
 * borders. Tokens are ordered tile by tile (tiles in row-major order), so that every block of `tileTokens` is full or skipped.
 *
 * @throws FoveaError ERR_ARGUMENT for windows larger than the canvas
 *
 * Source: Zhang et al., "Fast Video Generation with Sliding Tile Attention", 2025.
 */
export function tile(options: TileOptions): Mask {
  expectOptions('tile', options, TILE_OPTIONS);
  const { tiles, window, tileTokens } = options;
  expectWhole('tile', { tileTokens }, 1);
  for (let axis = 0; axis < 3; ++axis)
    if (!(Number.isInteger(window[axis]) && window[axis] >= 1 && window[axis] <= tiles[axis]))
      throw new FoveaError('ERR_ARGUMENT', `tile: window of ${window[axis]} tiles on an axis of ${tiles[axis]}`);
  const [depth, height, width] = tiles;
  const [windowDepth, windowHeight, windowWidth] = window;
  return mask(
    ({ q, kv }, { depth, height, width, windowDepth, windowHeight, windowWidth, tileTokens }) => {
      const tileQ = Math.floor(q / tileTokens);
      const tileKv = Math.floor(kv / tileTokens);
      const rowQ = Math.floor(tileQ / width);
      const rowKv = Math.floor(tileKv / width);
      const fromDepth = Math.floor(rowQ / height) - Math.floor(windowDepth / 2);
      const fromHeight = (rowQ % height) - Math.floor(windowHeight / 2);
      const fromWidth = (tileQ % width) - Math.floor(windowWidth / 2);
      const inDepth = Math.floor(rowKv / height) - Math.min(Math.max(fromDepth, 0), depth - windowDepth);
      const inHeight = (rowKv % height) - Math.min(Math.max(fromHeight, 0), height - windowHeight);
      const inWidth = (tileKv % width) - Math.min(Math.max(fromWidth, 0), width - windowWidth);
      return (
        inDepth >= 0 &&
        inDepth < windowDepth &&
        inHeight >= 0 &&
        inHeight < windowHeight &&
        inWidth >= 0 &&
        inWidth < windowWidth
      );
    },
    { depth, height, width, windowDepth, windowHeight, windowWidth, tileTokens },
  );
}
