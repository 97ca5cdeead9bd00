/** Rows of a matrix added up by destination: the reverse of a table lookup, for the results of routed attention. */
import { result } from '../autograd/tape.ts';
import { native } from '../native.ts';
import { Tensor } from '../tensor/tensor.ts';

/**
 * out[r] = sum of src[i] over the i with ids[i] = r, in rising i, in f32: src [n, width], ids i32 [n], out [count, width]. Differentiable
 * in src. An id out of range rejects with ERR_INDEX.
 */
export function rowSums(src: Tensor, ids: Tensor, count: number): Tensor {
  const handle = native().addRows('rowSums', src.handle, [count, src.shape[1]], 0, ids.handle);
  return result('rowSums', handle, [src], (g) => [new Tensor(native().takeRows('rowSums', g.handle, 0, ids.handle))], [ids]); // prettier-ignore
}
