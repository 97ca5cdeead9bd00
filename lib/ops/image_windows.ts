/**
 * The windows of a filter over images with channels last: what convolution and pooling read, and the way back for their gradients.
 *
 * Windows are a view: an image, with its border, seen through two more axes whose strides are those of its rows and columns. The way back
 * adds up what each pixel gave to the windows it lies in. Pixels whose rows and columns leave the same remainders on division by the stride
 * lie under the same taps, so each such phase is a sum of views, one of each tap, and the phases interleave.
 */
import { noGrad } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import type { OptionNames } from '../options.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { add } from './binary.ts';
import { stack } from './concat.ts';
import { zeros } from './creation.ts';
import { permute, reshape, select, slice } from './view.ts';

/** 'nchw' is [batch, channels, rows, columns], 'nhwc' [batch, rows, columns, channels]. Either may lie in memory as the other. */
export type ImageLayout = 'nchw' | 'nhwc';

/** A number for rows and one for columns, or one for both. */
export type Pair = number | readonly [rows: number, columns: number];

export interface WindowOptions {
  /** Rows and columns from a window to the next. Default 1. */
  readonly stride?: Pair;
  /** Rows and columns added on both sides of the image. Default 0. */
  readonly padding?: Pair;
  /** Rows and columns from a tap of the filter to the next. Default 1. */
  readonly dilation?: Pair;
  /** Default 'nchw'. */
  readonly layout?: ImageLayout;
}

export const WINDOW_OPTIONS: OptionNames<WindowOptions> = { stride: true, padding: true, dilation: true, layout: true };

/** Windows along one axis of an image. */
interface Axis {
  readonly extent: number;
  readonly taps: number;
  readonly stride: number;
  readonly padding: number;
  readonly dilation: number;
  readonly windows: number;
}

export interface WindowGrid {
  readonly batch: number;
  readonly channels: number;
  readonly rows: Axis;
  readonly columns: Axis;
}

export const pairOf = (value: Pair): readonly [number, number] =>
  typeof value === 'object' && value !== null ? value : [value, value];

/** The image [batch, rows, columns, channels], a view. Throws ERR_SHAPE, or ERR_ARGUMENT for an unknown layout. */
export function channelsLast(op: string, x: Tensor, layout: ImageLayout): Tensor {
  if (layout !== 'nchw' && layout !== 'nhwc')
    throw new FoveaError('ERR_ARGUMENT', `${op}: layout is '${String(layout)}', expected 'nchw' or 'nhwc'`);
  const names = layout === 'nchw' ? '[batch, channels, rows, columns]' : '[batch, rows, columns, channels]';
  if (x.rank !== 4)
    throw new FoveaError('ERR_SHAPE', `${op}: image has shape ${shapeText(x.shape)}, expected ${names}`);
  return layout === 'nchw' ? permute(x, [0, 2, 3, 1]) : x;
}

/** Its inverse. */
export function inLayout(x: Tensor, layout: ImageLayout): Tensor {
  return layout === 'nchw' ? permute(x, [0, 3, 1, 2]) : x;
}

/** Windows of `kernel` over x [batch, rows, columns, channels]. Throws ERR_ARGUMENT, or ERR_SHAPE where the image is too small for one. */
export function windowGrid(op: string, x: Tensor, kernel: Pair, options: WindowOptions): WindowGrid {
  const { stride = 1, padding = 0, dilation = 1 } = options;
  const lists = {
    kernel: pairOf(kernel),
    stride: pairOf(stride),
    padding: pairOf(padding),
    dilation: pairOf(dilation),
  };
  for (const [name, list] of Object.entries(lists)) {
    const least = name === 'padding' ? 0 : 1;
    if (list.length !== 2 || list.some((n) => !Number.isSafeInteger(n) || n < least))
      throw new FoveaError(
        'ERR_ARGUMENT',
        `${op}: ${name} is ${shapeText(list)}, expected whole numbers of at least ${least} for rows and columns`,
      );
  }
  const [rows, columns] = [0, 1].map((i) => {
    const axis = {
      extent: x.shape[1 + i],
      taps: lists.kernel[i],
      stride: lists.stride[i],
      padding: lists.padding[i],
      dilation: lists.dilation[i],
    };
    const room = axis.extent + 2 * axis.padding - axis.dilation * (axis.taps - 1) - 1;
    return { ...axis, windows: Math.floor(room / axis.stride) + 1 };
  });
  if (rows.windows < 1 || columns.windows < 1)
    throw new FoveaError(
      'ERR_SHAPE',
      `${op}: images of ${rows.extent} x ${columns.extent} pixels with padding ${shapeText(lists.padding)} have no window of ` +
        `${shapeText(lists.kernel)} with dilation ${shapeText(lists.dilation)}`,
    );
  return { batch: x.shape[0], channels: x.shape[3], rows, columns };
}

/** Positions from the first tap of the first window to the last tap of the last. */
const span = (axis: Axis): number => (axis.windows - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1;

/**
 * [batch, windows down, windows across, tap rows, tap columns, channels]: a view of the image, or of a copy with a border of `value`. Outside
 * the graph.
 */
export function windowsOf(x: Tensor, { batch, channels, rows, columns }: WindowGrid, value = 0): Tensor {
  const before = [0, rows.padding, columns.padding, 0];
  const missing = (axis: Axis): number => Math.max(0, span(axis) - axis.extent - axis.padding);
  const after = [0, missing(rows), missing(columns), 0];
  const whole = before.concat(after).every((n) => n === 0);
  const image = whole ? x.detach() : new Tensor(native().pad(x.handle, before, after, value));
  const [forBatch, down, across, forChannel] = image.strides;
  return new Tensor(
    native().view(
      image.handle,
      [batch, rows.windows, columns.windows, rows.taps, columns.taps, channels],
      [
        forBatch,
        down * rows.stride,
        across * columns.stride,
        down * rows.dilation,
        across * columns.dilation,
        forChannel,
      ],
      native().offset(image.handle),
    ),
  );
}

/** All pairs of a number below `m` and one below `n`. */
function pairsOf(m: number, n: number): [number, number][] {
  return Array.from({ length: m * n }, (_, i) => [Math.floor(i / n), i % n]);
}

/** The places of each tap in the windows, [batch, windows down, windows across, channels] each: views. */
export function tapsOf(windows: Tensor): Tensor[] {
  const [, , , rows, columns] = windows.shape;
  return pairsOf(rows, columns).map(([i, j]) => select(select(windows, 3, i), 3, j));
}

/** One phase of an axis: positions p with p % stride = phase, and the taps that meet there. */
interface Phase {
  readonly count: number;
  /** The first tap, and from a tap to the next. */
  readonly tap: number;
  readonly tapStep: number;
  /** Windows by which the first tap lies back, and from a tap to the next. */
  readonly back: number;
  readonly backStep: number;
}

function phasesOf({ taps, stride, dilation }: Axis): Phase[] {
  const divisor = gcd(stride, dilation);
  const [tapStep, backStep] = [stride / divisor, dilation / divisor];
  return Array.from({ length: stride }, (_, phase) => {
    let tap = 0;
    while (tap < tapStep && (tap * dilation - phase) % stride !== 0) tap++;
    const count = tap < tapStep ? Math.max(0, Math.ceil((taps - tap) / tapStep)) : 0;
    return { count, tap, tapStep, back: (tap * dilation - phase) / stride, backStep };
  });
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

/**
 * The transpose of windowsOf(): an image [batch, rows, columns, channels] whose pixels are the sums of their places in `windows`. Outside the
 * graph.
 */
export function addWindows(windows: Tensor, grid: WindowGrid): Tensor {
  return noGrad(() => {
    const { batch, channels, rows, columns } = grid;
    // Windows of zeros around: before for the taps that lie back most, after for pixels that no window reaches.
    const cells = (axis: Axis): number => Math.ceil((axis.padding + axis.extent) / axis.stride);
    const lead = (axis: Axis): number => Math.floor(((axis.taps - 1) * axis.dilation) / axis.stride);
    const tail = (axis: Axis): number => Math.max(0, cells(axis) - axis.windows);
    const around = new Tensor(
      native().pad(windows.handle, [0, lead(rows), lead(columns), 0, 0, 0], [0, tail(rows), tail(columns), 0, 0, 0], 0),
    );
    const [forBatch, down, across, tapDown, tapAcross, forChannel] = around.strides;
    const phase = (r: Phase, c: Phase): Tensor => {
      const cell = [batch, cells(rows), cells(columns), channels];
      const taps = pairsOf(r.count, c.count).map(([i, j]) => {
        const [tapRow, tapColumn] = [r.tap + i * r.tapStep, c.tap + j * c.tapStep];
        const [top, left] = [lead(rows) - r.back - i * r.backStep, lead(columns) - c.back - j * c.backStep];
        const at = top * down + left * across + tapRow * tapDown + tapColumn * tapAcross;
        const offset = native().offset(around.handle) + (around.size > 0 ? at : 0);
        return new Tensor(native().view(around.handle, cell, [forBatch, down, across, forChannel], offset));
      });
      return taps.length > 0 ? taps.reduce(add) : zeros(cell, { dtype: windows.dtype, device: windows.device });
    };
    const lines = phasesOf(rows).map((r) =>
      stack(
        phasesOf(columns).map((c) => phase(r, c)),
        3,
      ),
    );
    const image = reshape(stack(lines, 2), [
      batch,
      cells(rows) * rows.stride,
      cells(columns) * columns.stride,
      channels,
    ]);
    const cut = (t: Tensor, at: number, axis: Axis): Tensor => slice(t, at, axis.padding, axis.padding + axis.extent);
    return cut(cut(image, 1, rows), 2, columns);
  });
}
