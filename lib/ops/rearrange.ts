/** Elements in another order or more than once: roll, flip, repeat, repeatInterleave. Any dtype. */
import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectIntegers, expectTensors } from '../tensor/expect.ts';
import { axisOf, shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { expand, reshape, unsqueeze } from './view.ts';

function checkCounts(op: string, counts: readonly number[]): void {
  expectIntegers(op, 'counts', counts);
  if (counts.some((n) => !Number.isInteger(n) || n < 0)) {
    throw new FoveaError('ERR_ARGUMENT', `${op}: counts must be non-negative integers, got ${shapeText(counts)}`);
  }
}

/** The handle of `t` rolled along one axis: two windows exchanged. */
function rolled(t: Tensor, axis: number, shift: number): number {
  const h = native();
  const { shape, strides } = t;
  const extent = shape[axis];
  const by = extent > 0 ? ((shift % extent) + extent) % extent : 0;
  const start = h.offset(t.handle);
  const tail = h.view(t.handle, shape.with(axis, by), strides, by > 0 ? start + (extent - by) * strides[axis] : start);
  const head = h.view(t.handle, shape.with(axis, extent - by), strides, start);
  const out = h.concat([tail, head], axis);
  h.release(tail);
  h.release(head);
  return out;
}

/** Elements moved by `shifts` along `axes`, those that fall off one end coming back at the other. Throws ERR_ARGUMENT. */
export function roll(t: Tensor, shifts: number | readonly number[], axes: number | readonly number[]): Tensor {
  expectTensors('roll', { t });
  const [by, at] = [[shifts].flat(), [axes].flat().map((axis) => axisOf('roll', axis, t.rank))];
  if (by.length !== at.length || by.some((n) => !Number.isInteger(n))) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `roll: shifts ${shapeText(by)} for axes ${shapeText(at)}; expected one integer each`,
    );
  }
  return at.reduce((x, axis, i) => {
    const handle = rolled(x, axis, by[i]);
    return result('roll', handle, [x], (g) => [new Tensor(rolled(g, axis, -by[i]))]);
  }, t);
}

/** The order of elements reversed along the given axes (default all). */
export function flip(t: Tensor, axes?: number | readonly number[]): Tensor {
  expectTensors('flip', { t });
  const at = axes === undefined ? t.shape.map((_, i) => i) : [axes].flat().map((axis) => axisOf('flip', axis, t.rank));
  const reversed = (x: Tensor): number => {
    const h = native();
    const { shape, strides } = x;
    const turned = strides.map((stride, i) => (at.includes(i) ? -stride : stride));
    const last = shape.reduce((sum, n, i) => sum + (at.includes(i) && n > 0 ? (n - 1) * strides[i] : 0), 0);
    const view = h.view(x.handle, shape, turned, h.offset(x.handle) + last);
    const out = h.contiguous(view);
    h.release(view);
    return out;
  };
  return result('flip', reversed(t), [t], (g) => [new Tensor(reversed(g))]);
}

/** `t` laid end to end counts[i] times along axis i (numpy's tile); leading axes are added when there are more counts. ERR_ARGUMENT. */
export function repeat(t: Tensor, counts: readonly number[]): Tensor {
  expectTensors('repeat', { t });
  checkCounts('repeat', counts);
  if (counts.length < t.rank) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `repeat: ${counts.length} counts for ${shapeText(t.shape)}; expected one per axis`,
    );
  }
  let out = reshape(t, [...Array<number>(counts.length - t.rank).fill(1), ...t.shape]);
  counts.forEach((count, axis) => {
    if (count === 1) return;
    const { shape } = out;
    const wide = expand(unsqueeze(out, axis), shape.toSpliced(axis, 0, count));
    out = reshape(wide, shape.with(axis, shape[axis] * count));
  });
  return out;
}

/** Each slice along `axis` `count` times in a row. Throws ERR_ARGUMENT for a negative or fractional count. */
export function repeatInterleave(t: Tensor, count: number, axis: number): Tensor {
  expectTensors('repeatInterleave', { t });
  checkCounts('repeatInterleave', [count]);
  const at = axisOf('repeatInterleave', axis, t.rank);
  const wide = expand(unsqueeze(t, at + 1), t.shape.toSpliced(at + 1, 0, count));
  return reshape(wide, t.shape.with(at, t.shape[at] * count));
}
