import type { DeviceName } from '../tensor/device.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { mul } from './binary.ts';
import { arange } from './creation.ts';

/** The first row of each of `groups` groups of `size` rows, 0 rows too: i32 [groups]. */
export function rowStarts(groups: number, size: number, device: DeviceName): Tensor {
  return mul(arange(0, groups, 1, { dtype: 'i32', device }), size);
}
