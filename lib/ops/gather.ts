/**
 * Elements by index along one axis: gather reads, scatter writes. The index (i32, i64 or u8, else ERR_DTYPE) has the rank of the tensor;
 * off the axis its sizes are the tensor's or 1, where it is broadcast (ERR_SHAPE otherwise). An index out of range makes the result reject
 * with ERR_INDEX, and nothing is read or written there. Duplicates are taken in rising position along the axis, so results do not depend on
 * the number of threads.
 */
import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { deviceCode } from '../tensor/device.ts';
import { dtypeCode, type DType } from '../tensor/dtype.ts';
import { expectTensors } from '../tensor/expect.ts';
import { axisOf, shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { div, mul } from './binary.ts';
import { eq } from './compare.ts';
import { cast } from './copy.ts';
import { arange, zeros } from './creation.ts';
import { expand, reshape, sumTo, unsqueeze } from './view.ts';

function gatherRaw(t: Tensor, axis: number, index: Tensor): Tensor {
  return new Tensor(native().gather(t.handle, axis, index.handle));
}

/** The shape of an index, broadcast off the axis. */
function fullShape(shape: readonly number[], axis: number, index: Tensor): number[] {
  return shape.with(axis, index.shape[axis]);
}

/** t[..., index[..., j, ...], ...]: the shape of t with the index's size at `axis` (numpy's take_along_axis). */
export function gather(t: Tensor, axis: number, index: Tensor): Tensor {
  expectTensors('gather', { t, index });
  const at = axisOf('gather', axis, t.rank);
  const { shape, dtype, device } = t;
  const handle = native().gather(t.handle, at, index.handle);
  const rule = (g: Tensor): Tensor[] => {
    const base = zeros(shape, { dtype, device });
    return [new Tensor(native().scatterAdd(base.handle, at, index.handle, g.handle))];
  };
  return result('gather', handle, [t], rule, [index]);
}

/**
 * A copy of `t` with `src` written at the index; `src` broadcasts to the index's (broadcast) shape and has the dtype of t. Of duplicates
 * the last stays, and it alone has a gradient.
 */
export function scatter(t: Tensor, axis: number, index: Tensor, src: Tensor): Tensor {
  expectTensors('scatter', { t, index, src });
  const at = axisOf('scatter', axis, t.rank);
  const handle = native().scatter(t.handle, at, index.handle, src.handle);
  const { shape, device } = t;
  const rule = (g: Tensor): (Tensor | null)[] => {
    const h = native();
    const written = fullShape(shape, at, index);
    const none = zeros(
      shape.map(() => 1),
      { dtype: g.dtype, device },
    );
    const forT = t.requiresGrad ? new Tensor(h.scatter(g.handle, at, index.handle, none.handle)) : null;
    if (!src.requiresGrad) return [forT, null];
    // Position j of the index wrote last where a scatter of the positions themselves leaves j.
    const count = index.shape[at];
    const positions = reshape(
      arange(0, count, 1, { dtype: 'i32', device }),
      shape.map((_, i) => (i === at ? count : 1)),
    );
    const last = new Tensor(
      h.scatter(zeros(shape, { dtype: 'i32', device }).handle, at, index.handle, positions.handle),
    );
    const stayed = cast(eq(gatherRaw(last, at, index), positions), g.dtype);
    return [forT, sumTo(mul(expand(gatherRaw(g, at, index), written), stayed), src.shape)];
  };
  return result('scatter', handle, [t, src], rule, [index]);
}

/** A copy of `t` with `src` added at the index, accumulated in f32; f32, bf16 or f16. `src` broadcasts to the index's shape. */
export function scatterAdd(t: Tensor, axis: number, index: Tensor, src: Tensor): Tensor {
  expectTensors('scatterAdd', { t, index, src });
  const at = axisOf('scatterAdd', axis, t.rank);
  const handle = native().scatterAdd(t.handle, at, index.handle, src.handle);
  const rule = (g: Tensor): (Tensor | null)[] => [
    g,
    src.requiresGrad ? cast(sumTo(gatherRaw(g, at, index), src.shape), src.dtype) : null,
  ];
  return result('scatterAdd', handle, [t, src], rule, [index]);
}

/**
 * The mean of the elements of `src` (f32, bf16 or f16) that share an index: the shape of src with `size` at `axis`, 0 where nothing falls.
 * The index has src's size along the axis.
 */
export function scatterMean(src: Tensor, axis: number, index: Tensor, size: number): Tensor {
  expectTensors('scatterMean', { src, index });
  const at = axisOf('scatterMean', axis, src.rank);
  if (!Number.isInteger(size) || size < 0) {
    throw new FoveaError('ERR_ARGUMENT', `scatterMean: size must be a non-negative integer, got ${size}`);
  }
  const [means, counted] = native().scatterMean(src.handle, at, index.handle, size);
  const counts = new Tensor(counted);
  const rule = (g: Tensor): Tensor[] => [gatherRaw(cast(div(g, counts), g.dtype), at, index)];
  const out = result('scatterMean', means, [src], rule, [index, counts]);
  if (!out.node) counts.dispose();
  return out;
}

/** 1 at each id and 0 elsewhere: [...ids.shape, classes]; f32 by default. An id out of range rejects with ERR_INDEX. */
export function oneHot(ids: Tensor, classes: number, dtype: DType = 'f32'): Tensor {
  expectTensors('oneHot', { ids });
  if (!Number.isInteger(classes) || classes < 1) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `oneHot: classes must be a positive integer, got ${classes} for ids ${shapeText(ids.shape)}`,
    );
  }
  const base = zeros([...ids.shape, classes], { dtype, device: ids.device });
  const one = new Tensor(
    native().full(
      base.shape.map(() => 1),
      1,
      dtypeCode(dtype),
      deviceCode(ids.device),
    ),
  );
  return new Tensor(native().scatter(base.handle, ids.rank, unsqueeze(ids, -1).handle, one.handle));
}
