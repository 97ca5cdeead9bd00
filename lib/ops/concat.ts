/** Joining tensors along an axis and cutting them apart again. */
import { gradEnabled, record, result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectIntegers, expectTensorList, expectTensors } from '../tensor/expect.ts';
import { axisOf, shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { zeros } from './creation.ts';
import { unsqueeze } from './view.ts';

/** A view of [start, start + count) along `axis`, outside the graph. */
function windowOf(t: Tensor, axis: number, start: number, count: number): Tensor {
  const { shape, strides } = t;
  const offset = native().offset(t.handle) + (count > 0 ? start * strides[axis] : 0);
  return new Tensor(native().view(t.handle, shape.with(axis, count), strides, offset));
}

function windows(t: Tensor, axis: number, sizes: readonly number[]): Tensor[] {
  let start = 0;
  return sizes.map((count) => {
    const part = windowOf(t, axis, start, count);
    start += count;
    return part;
  });
}

/**
 * `parts` one after the other along `axis`. All other sizes and the dtype must agree (ERR_SHAPE, ERR_DTYPE); at least one part
 * (ERR_ARGUMENT).
 */
export function concat(parts: readonly Tensor[], axis = 0): Tensor {
  expectTensorList('concat', 'parts', parts);
  if (parts.length === 0) throw new FoveaError('ERR_ARGUMENT', 'concat: no tensors given');
  const at = axisOf('concat', axis, parts[0].rank);
  const handle = native().concat(
    parts.map((t) => t.handle),
    at,
  );
  const sizes = parts.map((t) => t.shape[at]);
  return result('concat', handle, parts, (g) => windows(g, at, sizes));
}

/** `parts`, all of one shape and dtype, side by side along a new axis. Errors as concat(). */
export function stack(parts: readonly Tensor[], axis = 0): Tensor {
  expectTensorList('stack', 'parts', parts);
  if (parts.length === 0) throw new FoveaError('ERR_ARGUMENT', 'stack: no tensors given');
  const at = axisOf('stack', axis, parts[0].rank + 1);
  return concat(
    parts.map((t) => unsqueeze(t, at)),
    at,
  );
}

/**
 * Consecutive pieces of `t` along `axis`, as views: of the given sizes, which must add up to the axis (ERR_SHAPE), or of one size, the last
 * piece being smaller when it does not divide. Backward joins the pieces' gradients in one pass.
 */
export function split(t: Tensor, sizes: number | readonly number[], axis = 0): Tensor[] {
  expectTensors('split', { t });
  const at = axisOf('split', axis, t.rank);
  const extent = t.shape[at];
  if (typeof sizes === 'number' && !(Number.isInteger(sizes) && sizes > 0)) {
    throw new FoveaError('ERR_ARGUMENT', `split: size must be a positive integer, got ${sizes}`);
  }
  const list =
    typeof sizes === 'number'
      ? Array.from({ length: Math.max(1, Math.ceil(extent / sizes)) }, (_, i) => Math.min(sizes, extent - i * sizes))
      : sizes;
  if (typeof sizes !== 'number') expectIntegers('split', 'sizes', sizes);
  if (list.some((n) => !Number.isInteger(n) || n < 0) || list.reduce((a, b) => a + b, 0) !== extent) {
    throw new FoveaError(
      'ERR_SHAPE',
      `split: sizes ${shapeText(list)} do not add up to ${extent}, axis ${at} of ${shapeText(t.shape)}`,
    );
  }
  const parts = windows(t, at, list);
  if (!gradEnabled() || !t.requiresGrad) return parts;
  const { shape, dtype, device } = t;
  record('split', parts, [t], (grads) => {
    const present = grads.map((g, i) => g ?? zeros(shape.with(at, list[i]), { dtype, device }));
    return [concat(present, at)];
  });
  return parts;
}

/** `t` in `count` pieces along `axis`, all of size ceil(n / count) but the last ones; there may be fewer than `count`. Views. */
export function chunk(t: Tensor, count: number, axis = 0): Tensor[] {
  expectTensors('chunk', { t });
  const at = axisOf('chunk', axis, t.rank);
  if (!Number.isInteger(count) || count < 1) {
    throw new FoveaError('ERR_ARGUMENT', `chunk: count must be a positive integer, got ${count}`);
  }
  return split(t, Math.max(1, Math.ceil(t.shape[at] / count)), at);
}
