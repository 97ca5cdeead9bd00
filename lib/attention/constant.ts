/** Tensors made of arrays that outlive the call: masks, tables, lists that depend on sizes alone. */
import { native } from '../native.ts';
import { deviceCode, type DeviceName } from '../tensor/device.ts';
import { dtypeCode } from '../tensor/dtype.ts';
import { keep } from '../tensor/scope.ts';
import { Tensor } from '../tensor/tensor.ts';

/** `t`, which lives until the scope ends, or its copy on the device. */
export function onDevice(t: Tensor, device: DeviceName): Tensor {
  return t.device === device ? t : new Tensor(native().toDevice(t.handle, deviceCode(device)));
}

/** A copy of the array on the device, which no scope disposes. */
export function constant(
  array: Int32Array | Float32Array | Uint8Array,
  dtype: 'i32' | 'f32' | 'u8',
  device: DeviceName,
  shape: readonly number[] = [array.length],
): Tensor {
  return keep(onDevice(new Tensor(native().fromBytes(array, dtypeCode(dtype), shape)), device));
}
