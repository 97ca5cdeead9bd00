/** Rows averaged by destination: the results of several clusters become those of tokens. */
import { result } from '../autograd/tape.ts';
import { native } from '../native.ts';
import { Tensor } from '../tensor/tensor.ts';
import { add, mul } from './binary.ts';
import { cast } from './copy.ts';
import { embedding } from './embedding.ts';
import { rowStarts } from './row_starts.ts';
import { reshape } from './view.ts';

/**
 * out[g, r] = sum of src[g, i] over the i with ids[g, i] = r, divided by their number plus `epsilon` > 0. src
 * [groups, n, width] f32, bf16 or f16, ids i32 [groups, n], out [groups, size, width]; sums are f32, in rising i. Differentiable in src. An
 * id out of range rejects with ERR_INDEX.
 */
export function meanRows(src: Tensor, ids: Tensor, size: number, epsilon: number): Tensor {
  const [groups, count, width] = src.shape;
  const flatIds = (): Tensor => {
    const first = reshape(rowStarts(groups, size, src.device), [groups, 1]);
    return reshape(add(ids, first), [groups * count]);
  };
  const [out, inverseHandle] = native().meanRows(src.handle, ids.handle, size, epsilon);
  const inverse = new Tensor(inverseHandle);
  return result(
    'meanRows',
    out,
    [src],
    (g) => {
      const scaled = mul(g, cast(reshape(inverse, [groups, size, 1]), g.dtype));
      return [reshape(embedding(reshape(scaled, [groups * size, width]), flatIds()), src.shape)];
    },
    [ids, inverse],
  );
}
