/** Rows by index: the table lookup of a model's first layer, and its general form along any axis. */
import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectTensors } from '../tensor/expect.ts';
import { axisOf, shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';

function takeRows(op: string, t: Tensor, axis: number, ids: Tensor): Tensor {
  const { shape } = t;
  const handle = native().takeRows(op, t.handle, axis, ids.handle);
  return result(op, handle, [t], (g) => [new Tensor(native().addRows(op, g.handle, shape, axis, ids.handle))], [ids]);
}

/**
 * Row `ids[...]` of `weight` [V, D] for each id: shape [...ids.shape, D]. ids i32, i64 or u8 (ERR_DTYPE).
 * An id outside [0, V) makes the result reject with ERR_INDEX. The gradient of repeated ids is summed in their order, in f32.
 */
export function embedding(weight: Tensor, ids: Tensor): Tensor {
  expectTensors('embedding', { weight, ids });
  if (weight.rank !== 2) {
    throw new FoveaError('ERR_SHAPE', `embedding: weight has shape ${shapeText(weight.shape)}, expected [V, D]`);
  }
  return takeRows('embedding', weight, 0, ids);
}

/**
 * The slices `ids` [N] of `t` along `axis`, in that order: the shape of t with N at `axis`. ids i32, i64 or u8 (ERR_DTYPE).
 * An id outside the axis makes the result reject with ERR_INDEX.
 */
export function indexSelect(t: Tensor, axis: number, ids: Tensor): Tensor {
  expectTensors('indexSelect', { t, ids });
  const at = axisOf('indexSelect', axis, t.rank);
  if (ids.rank !== 1) {
    throw new FoveaError('ERR_SHAPE', `indexSelect: ids have shape ${shapeText(ids.shape)}, expected one axis`);
  }
  return takeRows('indexSelect', t, at, ids);
}
