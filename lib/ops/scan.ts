import { result } from '../autograd/tape.ts';
import { native } from '../native.ts';
import { expectTensors } from '../tensor/expect.ts';
import { axisOf } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';

/**
 * Running sums along `axis`: element i is the sum of elements 0..i, accumulated in f64 and rounded. Integers and bools give i64.
 * Throws ERR_ARGUMENT for an axis out of range.
 */
export function cumsum(t: Tensor, axis: number): Tensor {
  expectTensors('cumsum', { t });
  const at = axisOf('cumsum', axis, t.rank);
  return result('cumsum', native().cumsum(t.handle, at, false), [t], (g) => [
    new Tensor(native().cumsum(g.handle, at, true)),
  ]);
}
