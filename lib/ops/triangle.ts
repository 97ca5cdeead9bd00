import { result } from '../autograd/tape.ts';
import { native } from '../native.ts';
import { expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';

function triangle(op: string, t: Tensor, diagonal: number, upper: boolean): Tensor {
  expectTensors(op, { t });
  const handle = native().triangle(t.handle, diagonal, upper);
  return result(op, handle, [t], (g) => [new Tensor(native().triangle(g.handle, diagonal, upper))]);
}

/** The lower triangle of the last two axes: elements with column - row <= diagonal, 0 elsewhere. Throws ERR_SHAPE below rank 2. */
export function tril(t: Tensor, diagonal = 0): Tensor {
  return triangle('tril', t, diagonal, false);
}

/** The upper triangle of the last two axes: elements with column - row >= diagonal, 0 elsewhere. Throws ERR_SHAPE below rank 2. */
export function triu(t: Tensor, diagonal = 0): Tensor {
  return triangle('triu', t, diagonal, true);
}
