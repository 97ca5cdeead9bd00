/** Views: new shapes and strides over the same memory, no kernel runs (except reshape of what has no such view). */
import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectIntegers, expectTensors } from '../tensor/expect.ts';
import { axisOf, shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';

function viewOf(
  t: Tensor,
  shape: readonly number[],
  strides: readonly number[],
  offset = native().offset(t.handle),
): number {
  return native().view(t.handle, shape, strides, offset);
}

function resolveShape(t: Tensor, shape: readonly number[]): number[] {
  if (!Array.isArray(shape))
    throw new FoveaError('ERR_ARGUMENT', `reshape: got ${typeof shape}, expected an array of sizes`);
  if (!shape.every(Number.isSafeInteger))
    throw new FoveaError('ERR_SHAPE', `reshape: sizes are [${shape.map(String).join(', ')}], expected whole numbers`);
  const known = shape.reduce((n, extent) => (extent === -1 ? n : n * extent), 1);
  const free = shape.filter((extent) => extent === -1).length;
  const bad = shape.some((extent) => !Number.isInteger(extent) || extent < -1);
  if (bad || free > 1 || (free === 1 ? known === 0 || t.size % known !== 0 : known !== t.size)) {
    throw new FoveaError(
      'ERR_SHAPE',
      `reshape: ${shapeText(t.shape)} has ${t.size} elements and cannot become ${shapeText(shape)}; at most one size may be -1`,
    );
  }
  return shape.map((extent) => (extent === -1 ? t.size / known : extent));
}

/** Strides of `shape` over the memory of `t`, or null when it has no such view. */
function reshapeStrides(t: Tensor, shape: readonly number[]): number[] | null {
  const from = t.shape.flatMap((extent, i) => (extent === 1 ? [] : [{ extent, stride: t.strides[i] }]));
  const strides = Array<number>(shape.length).fill(1);
  let axis = from.length - 1;
  // Each run of source axes that lies densely is matched with the target axes of the same number of elements.
  for (let i = shape.length - 1; i >= 0;) {
    if (shape[i] === 1) {
      i--;
      continue;
    }
    if (axis < 0) return null;
    let run = from[axis].extent;
    const unit = from[axis].stride;
    let top = axis;
    let wanted = 1;
    const start = i;
    while (i >= 0 && (shape[i] === 1 || wanted * shape[i] <= run || wanted < run)) {
      if (shape[i] !== 1) {
        while (wanted * shape[i] > run) {
          if (top === 0 || from[top - 1].stride !== from[top].stride * from[top].extent) return null;
          top--;
          run *= from[top].extent;
        }
        strides[i] = unit * wanted;
        wanted *= shape[i];
      }
      i--;
      if (wanted === run) break;
    }
    if (wanted !== run || i === start) return null;
    axis = top - 1;
  }
  return axis < 0 ? strides : null;
}

/**
 * The elements in row-major order as `shape`; one size may be -1. A view where possible, a copy otherwise.
 * Throws ERR_SHAPE when the sizes do not fit.
 */
export function reshape(t: Tensor, shape: readonly number[]): Tensor {
  expectTensors('reshape', { t });
  const from = t.shape;
  const dims = resolveShape(t, shape);
  const strides = t.size === 0 ? dims.map(() => 1) : reshapeStrides(t, dims);
  let handle: number;
  if (strides) handle = viewOf(t, dims, strides);
  else {
    const dense = native().contiguous(t.handle);
    const rowMajor = dims.map((_, i) => dims.slice(i + 1).reduce((n, extent) => n * extent, 1));
    handle = native().view(dense, dims, rowMajor, 0);
    native().release(dense);
  }
  return result('reshape', handle, [t], (g) => [reshape(g, from)]);
}

/** Axes in the given order: axis i of the result is axis `axes[i]` of `t`. A view. */
export function permute(t: Tensor, axes: readonly number[]): Tensor {
  expectTensors('permute', { t });
  expectIntegers('permute', 'axes', axes);
  const order = axes.map((axis) => axisOf('permute', axis, t.rank));
  if (order.length !== t.rank || new Set(order).size !== t.rank) {
    throw new FoveaError('ERR_ARGUMENT', `permute: axes ${shapeText(axes)} are not a permutation of ${t.rank} axes`);
  }
  const { shape, strides } = t;
  const inverse = order.map((_, i) => order.indexOf(i));
  const handle = viewOf(
    t,
    order.map((axis) => shape[axis]),
    order.map((axis) => strides[axis]),
  );
  return result('permute', handle, [t], (g) => [permute(g, inverse)]);
}

/** Two axes exchanged; default the last two. A view. */
export function transpose(t: Tensor, a = -2, b = -1): Tensor {
  expectTensors('transpose', { t });
  const [x, y] = [axisOf('transpose', a, t.rank), axisOf('transpose', b, t.rank)];
  const order = t.shape.map((_, i) => (i === x ? y : i === y ? x : i));
  return permute(t, order);
}

/** `t` repeated along axes of size 1 (and new leading ones) without a copy: those axes get stride 0. Throws ERR_SHAPE. */
export function expand(t: Tensor, shape: readonly number[]): Tensor {
  expectTensors('expand', { t });
  expectIntegers('expand', 'shape', shape);
  const lead = shape.length - t.rank;
  const { shape: from, strides } = t;
  const fits = lead >= 0 && from.every((extent, i) => extent === shape[i + lead] || extent === 1);
  if (!fits) throw new FoveaError('ERR_SHAPE', `expand: ${shapeText(from)} does not broadcast to ${shapeText(shape)}`);
  const handle = viewOf(
    t,
    shape,
    shape.map((extent, i) => (i < lead || (from[i - lead] === 1 && extent !== 1) ? 0 : strides[i - lead])),
  );
  return result('expand', handle, [t], (g) => [sumTo(g, from)]);
}

/** `g` summed over the axes along which `shape` was broadcast to g's shape: the gradient of broadcasting. */
export function sumTo(g: Tensor, shape: readonly number[]): Tensor {
  const lead = g.rank - shape.length;
  const axes = g.shape.flatMap((extent, i) => (i < lead || (shape[i - lead] === 1 && extent !== 1) ? [i] : []));
  if (axes.length === 0) return g;
  return reshape(new Tensor(native().sum(g.handle, axes, true)), shape);
}

/** A new axis of size 1 at `axis`. A view. */
export function unsqueeze(t: Tensor, axis: number): Tensor {
  expectTensors('unsqueeze', { t });
  const at = axisOf('unsqueeze', axis, t.rank + 1);
  return reshape(t, t.shape.toSpliced(at, 0, 1));
}

/** Without the axis (or axes, default all) of size 1. A view. Throws ERR_SHAPE for an axis of another size. */
export function squeeze(t: Tensor, axes?: number | readonly number[]): Tensor {
  expectTensors('squeeze', { t });
  const drop = (axes === undefined ? t.shape.flatMap((n, i) => (n === 1 ? [i] : [])) : [axes].flat()).map((axis) =>
    axisOf('squeeze', axis, t.rank),
  );
  for (const axis of drop) {
    if (t.shape[axis] !== 1)
      throw new FoveaError(
        'ERR_SHAPE',
        `squeeze: axis ${axis} of ${shapeText(t.shape)} has size ${t.shape[axis]}, expected 1`,
      );
  }
  return reshape(
    t,
    t.shape.filter((_, i) => !drop.includes(i)),
  );
}

/** Axes `first` to `last` merged into one. */
export function flatten(t: Tensor, first = 0, last = -1): Tensor {
  expectTensors('flatten', { t });
  if (t.rank === 0) return reshape(t, [1]);
  const [a, b] = [axisOf('flatten', first, t.rank), axisOf('flatten', last, t.rank)];
  const merged = t.shape.slice(a, b + 1).reduce((n, extent) => n * extent, 1);
  return reshape(t, [...t.shape.slice(0, a), merged, ...t.shape.slice(b + 1)]);
}

/**
 * Elements [start, end) of `axis`, every `step`-th (step >= 1). Negative bounds count from the end; bounds are clamped as in
 * Array.prototype.slice. A view. Throws ERR_ARGUMENT for bounds that are no whole numbers.
 */
export function slice(t: Tensor, axis: number, start = 0, end = Number.MAX_SAFE_INTEGER, step = 1): Tensor {
  expectTensors('slice', { t });
  const at = axisOf('slice', axis, t.rank);
  if (!Number.isSafeInteger(step) || step < 1)
    throw new FoveaError('ERR_ARGUMENT', `slice: step must be a positive integer, got ${String(step)}`);
  for (const bound of [start, end])
    if (!Number.isInteger(bound) && bound !== Infinity && bound !== -Infinity)
      throw new FoveaError(
        'ERR_ARGUMENT',
        `slice: bounds are ${String(start)} and ${String(end)}, expected whole numbers or infinities`,
      );
  const { shape, strides } = t;
  const extent = shape[at];
  const clamp = (bound: number): number => Math.min(Math.max(bound < 0 ? bound + extent : bound, 0), extent);
  const from = clamp(start);
  const count = Math.max(0, Math.ceil((clamp(end) - from) / step));
  const handle = viewOf(
    t,
    shape.with(at, count),
    strides.with(at, strides[at] * step),
    native().offset(t.handle) + (count > 0 ? from * strides[at] : 0),
  );
  return result('slice', handle, [t], (g) => [new Tensor(native().sliceBackward(g.handle, shape, at, from, step))]);
}

/** Row `index` of `axis`, without that axis. Throws ERR_INDEX when out of range. A view. */
export function select(t: Tensor, axis: number, index: number): Tensor {
  expectTensors('select', { t });
  const at = axisOf('select', axis, t.rank);
  const extent = t.shape[at];
  if (!Number.isInteger(index) || index < -extent || index >= extent) {
    throw new FoveaError('ERR_INDEX', `select: index ${index} is out of range for axis ${at} of ${shapeText(t.shape)}`);
  }
  const i = index < 0 ? index + extent : index;
  return squeeze(slice(t, at, i, i + 1), at);
}
