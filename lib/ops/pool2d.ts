/** Pooling of images over windows: the maximum, or the mean. */
import { noGrad, record } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { tensor } from '../tensor/create.ts';
import { isFloating } from '../tensor/dtype.ts';
import { scope } from '../tensor/scope.ts';
import { expectTensors } from '../tensor/expect.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { add, div, maximum, mul } from './binary.ts';
import { eq } from './compare.ts';
import { cast } from './copy.ts';
import { addWindows, channelsLast, inLayout, tapsOf, WINDOW_OPTIONS, windowGrid, windowsOf, type Pair, type WindowGrid, type WindowOptions } from './image_windows.ts'; // prettier-ignore
import { sum } from './reduce.ts';
import { expand, reshape } from './view.ts';
import { where } from './where.ts';

export interface PoolOptions extends WindowOptions {
  /** Default: the kernel's size, windows side by side. */
  readonly stride?: Pair;
}

export interface AvgPoolOptions extends Omit<PoolOptions, 'dilation'> {
  /** Whether the border that `padding` adds counts as pixels of 0, as in PyTorch. Default true; otherwise the mean of the pixels there are. */
  readonly countPadding?: boolean;
}

const AVG_POOL_OPTIONS: OptionNames<AvgPoolOptions> = { stride: true, padding: true, layout: true, countPadding: true };

/**
 * Result of a pooling, computed in f32 (f64 of f64), in the layout of x; `backward` gives what each tap of
 * [batch, windows down, windows across, tap rows, tap columns, channels] gets of a gradient.
 */
function pooled(
  op: string,
  x: Tensor,
  kernel: Pair,
  options: PoolOptions,
  value: number,
  forward: (windows: Tensor, grid: WindowGrid) => Tensor,
  backward: (g: Tensor, out: Tensor, windows: () => Tensor, grid: WindowGrid) => Tensor,
): Tensor {
  expectTensors(op, { x });
  if (!isFloating(x.dtype))
    throw new FoveaError('ERR_DTYPE', `${op}: image is ${x.dtype}, expected a floating dtype; use cast() first`);
  const { layout = 'nchw', stride = kernel } = options;
  const image = channelsLast(op, cast(x, x.dtype === 'f64' ? 'f64' : 'f32'), layout);
  const grid = windowGrid(op, image, kernel, { ...options, stride });
  for (const { taps, dilation, padding } of [grid.rows, grid.columns])
    if (2 * padding > (taps - 1) * dilation + 1)
      throw new FoveaError(
        'ERR_ARGUMENT',
        `${op}: padding ${padding} exceeds half of a window of ${taps}; some would see no pixel`,
      );
  const windows = (): Tensor => windowsOf(image, grid, value);
  const out = noGrad(() => scope(() => forward(windows(), grid)));
  record(op, [out], [image], ([g]) => [addWindows(backward(g as Tensor, out.detach(), windows, grid), grid)], [
    image,
    out,
  ]);
  return inLayout(cast(out, x.dtype), layout);
}

/**
 * The largest pixel of each window, the border being -Infinity: x [batch, channels, rows, columns] (or as `layout` says) to the same with one
 * pixel a window. f32, bf16, f16 or f64; pixels that share the maximum of a window share its gradient.
 *
 * @throws FoveaError ERR_SHAPE, ERR_ARGUMENT for images and options that do not fit, ERR_DTYPE for images that are not floating
 */
export function maxPool2d(x: Tensor, kernel: Pair, options: PoolOptions = {}): Tensor {
  expectOptions('maxPool2d', options, WINDOW_OPTIONS);
  const largest = (windows: Tensor): Tensor => tapsOf(windows).reduce(maximum);
  const toLargest = (g: Tensor, out: Tensor, windows: () => Tensor): Tensor => {
    const wide = (t: Tensor): Tensor => reshape(t, [...t.shape.slice(0, 3), 1, 1, t.shape[3]]);
    const attained = eq(windows(), wide(out));
    return where(attained, wide(div(g, cast(sum(attained, [3, 4]), g.dtype))), 0);
  };
  return pooled('maxPool2d', x, kernel, options, -Infinity, largest, toLargest);
}

/**
 * The mean of each window: x [batch, channels, rows, columns] (or as `layout` says) to the same with one pixel a window. f32, bf16, f16 or f64.
 *
 * @throws FoveaError ERR_SHAPE, ERR_ARGUMENT for images and options that do not fit, ERR_DTYPE for images that are not floating
 */
export function avgPool2d(x: Tensor, kernel: Pair, options: AvgPoolOptions = {}): Tensor {
  expectOptions('avgPool2d', options, AVG_POOL_OPTIONS);
  const { countPadding = true } = options;
  const shared = (t: Tensor, grid: WindowGrid): Tensor => (countPadding ? t : mul(t, tapsPerPixel(grid, t)));
  const means = (windows: Tensor, grid: WindowGrid): Tensor =>
    shared(div(tapsOf(windows).reduce(add), grid.rows.taps * grid.columns.taps), grid);
  const evenly = (g: Tensor, _out: Tensor, _windows: () => Tensor, grid: WindowGrid): Tensor => {
    const taps = [grid.rows.taps, grid.columns.taps];
    const [batch, down, across, channels] = g.shape;
    const each = reshape(div(shared(g, grid), taps[0] * taps[1]), [batch, down, across, 1, 1, channels]);
    return expand(each, [batch, down, across, ...taps, channels]);
  };
  return pooled('avgPool2d', x, kernel, options, 0, means, evenly);
}

/** Taps of each window over those of them that lie in the image: [1, windows down, windows across, 1]. */
function tapsPerPixel({ rows, columns }: WindowGrid, like: Tensor): Tensor {
  const [down, across] = [rows, columns].map(({ extent, taps, stride, padding, windows }) =>
    Array.from({ length: windows }, (_, i) => {
      const start = i * stride - padding;
      return taps / Math.max(1, Math.min(start + taps, extent) - Math.max(start, 0));
    }),
  );
  const ratios = Float64Array.from(down.flatMap((r) => across.map((c) => r * c)));
  return tensor(ratios, [1, down.length, across.length, 1], { dtype: like.dtype, device: like.device });
}
