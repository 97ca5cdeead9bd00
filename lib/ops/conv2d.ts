/**
 * Convolution of images as matrix products: windows are laid out as rows (columns of the literature) and multiplied by the filters, with the
 * bias in the product's epilogue. A filter of one pixel reads the image where it lies. Rows are made again for the gradient of the filters
 * rather than kept. The gradient of the image is a convolution too where the stride is 1; otherwise products with the filters are added where
 * their windows lie. Filters of one channel each go to depthwiseConv().
 */
import { noGrad, record } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { scope } from '../tensor/scope.ts';
import { expectOptionalTensors, expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { add } from './binary.ts';
import { cast } from './copy.ts';
import { depthwiseConv } from './depthwise_conv.ts';
import { addWindows, channelsLast, inLayout, WINDOW_OPTIONS, windowGrid, windowsOf, type WindowGrid, type WindowOptions } from './image_windows.ts'; // prettier-ignore
import { linear } from './linear.ts';
import { matmul } from './matmul.ts';
import { pad } from './pad.ts';
import { flip, repeatInterleave } from './rearrange.ts';
import { permute, reshape, slice, transpose, unsqueeze } from './view.ts';

export interface Conv2dOptions extends WindowOptions {
  /** Channels in and out are cut into so many runs, each run out of its run in. Default 1. */
  readonly groups?: number;
}

export const CONV2D_OPTIONS: OptionNames<Conv2dOptions> = { ...WINDOW_OPTIONS, groups: true };

const OP = 'conv2d';

/**
 * y[b, o, i, j] = bias[o] + sum over c, r, s of weight[o, c, r, s] x[b, g(o) + c, i stride + r dilation - padding, j ...], zeros outside the
 * image (cross-correlation, as PyTorch's conv2d); g(o) is the first channel of o's group.
 *
 * x [batch, in, height, width] (or with `layout: 'nhwc'` [batch, height, width, in]), weight [out, in / groups, rows, columns], bias [out]; one
 * dtype of f32, bf16, f16, f64, sums in f32 (f64). The result has the layout of x in its shape and channels next to each other in memory.
 * Differentiable in all three.
 *
 * @throws FoveaError ERR_SHAPE where operands do not fit, ERR_ARGUMENT for options out of range, ERR_DTYPE
 */
export function conv2d(x: Tensor, weight: Tensor, bias: Tensor | null = null, options: Conv2dOptions = {}): Tensor {
  expectTensors(OP, { x, weight });
  expectOptionalTensors(OP, { bias });
  expectOptions(OP, options, CONV2D_OPTIONS);
  const { groups = 1, layout = 'nchw' } = options;
  const image = channelsLast(OP, x, layout);
  const channels = image.shape[3];
  if (!Number.isSafeInteger(groups) || groups < 1)
    throw new FoveaError('ERR_ARGUMENT', `${OP}: groups is ${groups}, expected a positive whole number`);
  if (weight.rank !== 4 || weight.shape[1] * groups !== channels || weight.shape[0] % groups !== 0)
    throw new FoveaError(
      'ERR_SHAPE',
      `${OP}: weight has shape ${shapeText(weight.shape)}, expected [out, ${channels / groups}, rows, columns] with out a multiple of ` +
        `${groups} groups, for x ${shapeText(x.shape)} in layout ${layout}`,
    );
  if (bias && (bias.rank !== 1 || bias.shape[0] !== weight.shape[0]))
    throw new FoveaError('ERR_SHAPE', `${OP}: bias has shape ${shapeText(bias.shape)}, expected [${weight.shape[0]}]`);
  if (bias && bias.dtype !== x.dtype)
    throw new FoveaError('ERR_DTYPE', `${OP}: bias is ${bias.dtype}, expected ${x.dtype} as x`);
  const grid = windowGrid(OP, image, [weight.shape[2], weight.shape[3]], options);
  const alone = groups > 1 && weight.shape[1] === 1 && x.dtype !== 'f64';
  const y = alone ? channelwise(image, weight, bias, grid) : products(image, weight, bias, grid, groups);
  return inLayout(y, layout);
}

/** Windows as rows of each group: [groups, rows, taps x channels of the group]. */
function rowsOf(x: Tensor, grid: WindowGrid, groups: number): Tensor {
  const windows = windowsOf(x, grid);
  const extents = windows.shape;
  const each = extents[5] / groups;
  const apart = permute(reshape(windows, [...extents.slice(0, 5), groups, each]), [5, 0, 1, 2, 3, 4, 6]);
  return reshape(apart, [groups, extents[0] * extents[1] * extents[2], extents[3] * extents[4] * each]);
}

/** [groups, out of the group, taps x channels of the group]. */
function filtersOf(weight: Tensor, groups: number): Tensor {
  const [out, each, rows, columns] = weight.shape;
  return reshape(permute(weight.detach(), [0, 2, 3, 1]), [groups, out / groups, rows * columns * each]);
}

/** Filters of the way back, [in, out / groups, rows, columns]: each turned by half a turn, channels in and out exchanged. */
function turned(weight: Tensor, groups: number): Tensor {
  const [out, each, rows, columns] = weight.shape;
  const apart = reshape(flip(weight.detach(), [2, 3]), [groups, out / groups, each, rows, columns]);
  return reshape(permute(apart, [0, 2, 1, 3, 4]), [groups * each, out / groups, rows, columns]);
}

function products(x: Tensor, weight: Tensor, bias: Tensor | null, grid: WindowGrid, groups: number): Tensor {
  const [out, each, tapRows, tapColumns] = weight.shape;
  const { batch, rows, columns } = grid;
  const count = batch * rows.windows * columns.windows;
  const shape = [batch, rows.windows, columns.windows, out];
  const y = noGrad(() =>
    scope(() => {
      const [windows, filters] = [rowsOf(x, grid, groups), filtersOf(weight, groups)];
      if (groups === 1) {
        const [matrix, filter] = [reshape(windows, windows.shape.slice(1)), reshape(filters, filters.shape.slice(1))];
        return reshape(linear(matrix, filter, bias), shape);
      }
      const together = reshape(permute(matmul(windows, transpose(filters)), [1, 0, 2]), shape);
      return bias ? add(together, bias) : together;
    }),
  );
  const rule = (g: Tensor): (Tensor | null)[] => {
    const dy = permute(reshape(g, [count, groups, out / groups]), [1, 0, 2]);
    const inputs = (): Tensor => {
      const border = [rows, columns].map((axis) => (axis.taps - 1) * axis.dilation - axis.padding);
      if (rows.stride === 1 && columns.stride === 1 && border.every((n) => n >= 0))
        return conv2d(g, turned(weight, groups), null, {
          padding: [border[0], border[1]],
          dilation: [rows.dilation, columns.dilation],
          groups,
          layout: 'nhwc',
        });
      const wide = x.dtype === 'f64' ? 'f64' : 'f32';
      const given = matmul(dy, filtersOf(weight, groups), { dtype: wide });
      const cells = [batch, rows.windows, columns.windows, tapRows, tapColumns];
      const windows = reshape(permute(given, [1, 0, 2]), [count, groups, tapRows * tapColumns, each]);
      return cast(addWindows(reshape(permute(windows, [0, 2, 1, 3]), [...cells, groups * each]), grid), x.dtype);
    };
    const filters = (): Tensor => {
      const sums = reshape(matmul(transpose(dy), rowsOf(x, grid, groups)), [out, tapRows, tapColumns, each]);
      return permute(sums, [0, 3, 1, 2]);
    };
    const dx = x.requiresGrad ? inputs() : null;
    const dw = weight.requiresGrad ? filters() : null;
    const db = bias?.requiresGrad ? new Tensor(native().sum(g.handle, [0, 1, 2], false)) : null;
    return bias ? [dx, dw, db] : [dx, dw];
  };
  record(OP, [y], bias ? [x, weight, bias] : [x, weight], ([g]) => rule(g as Tensor), [x, weight]);
  return y;
}

/**
 * Every group one channel in: the filter, spread by its dilation and filled up to an odd size, over the whole image; of its pixels those that
 * are windows.
 */
function channelwise(x: Tensor, weight: Tensor, bias: Tensor | null, { rows, columns, channels }: WindowGrid): Tensor {
  const [out] = weight.shape;
  const places = [rows, columns].map(({ extent, taps, stride, padding, dilation, windows }) => {
    const half = Math.floor(((taps - 1) * dilation + 1) / 2);
    const start = Math.max(0, half - padding);
    const end = start + (windows - 1) * stride + 1;
    const before = Math.max(0, padding - half);
    return { before, after: Math.max(0, end - before - extent), start, end, stride };
  });
  const filter = [rows, columns].reduce((f, axis, i) => oddFilter(f, 2 + i, axis.dilation), weight);
  const image = places.reduce(
    (t, { before, after }, i) => (before + after === 0 ? t : pad(t, t.shape.map((_, axis) => (axis === 1 + i ? [before, after] : [0, 0])))), // prettier-ignore
    out === channels ? x : repeatInterleave(x, out / channels, 3),
  );
  return places.reduce(
    (y, { start, end, stride }, i) => {
      const whole = start === 0 && stride === 1 && end === y.shape[1 + i];
      return whole ? y : slice(y, 1 + i, start, end, stride);
    },
    depthwiseConv(image, filter, bias),
  );
}

/** `filter` with `dilation` - 1 zeros between its taps along `axis`, and one at the end where that makes an odd size. */
function oddFilter(filter: Tensor, axis: number, dilation: number): Tensor {
  const taps = filter.shape[axis];
  const size = ((taps - 1) * dilation + 1) | 1;
  if (size === taps) return filter;
  const apart = unsqueeze(filter, axis + 1);
  const spread = pad(apart, apart.shape.map((_, at) => (at === axis + 1 ? [0, dilation - 1] : [0, 0]))); // prettier-ignore
  const length = taps * dilation;
  const line = reshape(spread, filter.shape.with(axis, length));
  if (size <= length) return slice(line, axis, 0, size);
  return pad(line, line.shape.map((_, at) => (at === axis ? [0, size - length] : [0, 0]))); // prettier-ignore
}
