import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { deviceCode, type DeviceName } from '../tensor/device.ts';
import { DTYPES, dtypeCode, isFloating, type DType } from '../tensor/dtype.ts';
import { expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';

/** `t` itself when its elements lie in row-major order without gaps, else a copy that does. */
export function contiguous(t: Tensor): Tensor {
  expectTensors('contiguous', { t });
  return result('contiguous', native().contiguous(t.handle), [t], (g) => [g]);
}

/**
 * `t` converted to `dtype`. Floats to integers truncate, saturate out of range, NaN gives 0; to bool is x != 0. To 16-bit floats rounds to
 * nearest even. Gradients flow between floating dtypes.
 */
export function cast(t: Tensor, dtype: DType): Tensor {
  expectTensors('cast', { t });
  if (t.dtype === dtype) return t;
  const from = t.dtype;
  const handle = native().cast(t.handle, dtypeCode(dtype));
  if (!isFloating(dtype) || !isFloating(from)) return new Tensor(handle);
  return result('cast', handle, [t], (g) => [new Tensor(native().cast(g.handle, dtypeCode(from)))]);
}

/**
 * `t` converted to a dtype, or on another device ('cpu', 'cuda', 'cuda:N'); itself when it is so already. Gradients flow back to where `t` is.
 * Throws ERR_DEVICE with the reason when the device is not there.
 */
export function to(t: Tensor, target: DType | DeviceName): Tensor {
  expectTensors('to', { t });
  if ((DTYPES as readonly string[]).includes(target)) return cast(t, target as DType);
  const code = deviceCode(target);
  const from = deviceCode(t.device);
  if (code === from) return t;
  const back = (g: Tensor): Tensor => new Tensor(native().toDevice(g.handle, from));
  return result('to', native().toDevice(t.handle, code), [t], (g) => [back(g)]);
}

/**
 * Overwrites `target` in place with `source`, broadcast and converted as needed, and raises the version of its storage.
 * Throws ERR_SHAPE when source does not broadcast to target, ERR_ARGUMENT when indices of target share elements (an expanded view),
 * ERR_AUTOGRAD when target is part of a graph.
 */
export function copyFrom(target: Tensor, source: Tensor): void {
  expectTensors('copyFrom', { target, source });
  if (target.node)
    throw new FoveaError(
      'ERR_AUTOGRAD',
      'copyFrom: the target was computed from tensors with gradients; detach() it first',
    );
  native().copyFrom(target.handle, source.handle);
}
