/** Names of devices, and the device new tensors are made on. */
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';

/** 'cuda' is 'cuda:0'. */
export type DeviceName = 'cpu' | 'cuda' | `cuda:${number}`;

/** Code of the device across the seam: 0 is the CPU, n + 1 is cuda:n. */
let current = 0;

/** True for what names a device, there or not. */
export function isDeviceName(name: string): name is DeviceName {
  return /^(cpu|cuda(:\d{1,2})?)$/.test(name);
}

/** The code of a device; throws ERR_DEVICE for what is no device's name. */
export function deviceCode(name: string): number {
  if (!isDeviceName(name))
    throw new FoveaError('ERR_DEVICE', `device '${name}' is unknown; expected 'cpu', 'cuda' or 'cuda:N'`);
  return name === 'cpu' ? 0 : 1 + Number(name.slice(5) || 0);
}

export function deviceName(code: number): DeviceName {
  return code === 0 ? 'cpu' : `cuda:${code - 1}`;
}

/** The code of an option's device, or of the device set by setDevice(). */
export function chosenDevice(name: string | undefined): number {
  return name === undefined ? current : deviceCode(name);
}

/**
 * Makes `device` the one that tensors are made on unless told otherwise, on this thread. Throws ERR_DEVICE with the reason when it is not
 * there, and changes nothing then.
 */
export function setDevice(device: DeviceName): void {
  const code = deviceCode(device);
  const h = native();
  h.release(h.full([0], 0, 0, code));
  current = code;
}

/** The device that tensors are made on unless told otherwise. */
export function getDevice(): DeviceName {
  return deviceName(current);
}
