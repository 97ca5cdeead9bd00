import { expectTensors } from '../tensor/expect.ts';
import { axisOf } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { maximum } from './binary.ts';
import { concat } from './concat.ts';
import { slice } from './view.ts';

/**
 * Running maxima along `axis`: element i is the largest of elements 0..i. In log2(n) passes, each joining windows of twice the length that
 * lie beside each other, so an element's gradient goes to the place it came from. Elements that share a maximum share the gradient.
 * Throws ERR_ARGUMENT for an axis out of range.
 */
export function cummax(t: Tensor, axis: number): Tensor {
  expectTensors('cummax', { t });
  const at = axisOf('cummax', axis, t.rank);
  const n = t.shape[at];
  let out = t;
  for (let reach = 1; reach < n; reach *= 2) {
    const joined = maximum(slice(out, at, reach), slice(out, at, 0, n - reach));
    out = concat([slice(out, at, 0, reach), joined], at);
  }
  return out;
}
