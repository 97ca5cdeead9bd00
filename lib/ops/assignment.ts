import { native } from '../native.ts';
import { expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';

/**
 * A column of its own for each row, so that the sum of the chosen costs is least (the Hungarian method): costs [..., rows, columns] of any
 * floating dtype, rows <= columns, to i32 [..., rows]. Computed in f64, in O(rows^2 columns) a matrix; without gradient. On the CPU only: bring
 * costs there with to('cpu').
 *
 * @throws FoveaError ERR_SHAPE, ERR_DTYPE; ERR_UNSUPPORTED for costs on another device. A cost that is not finite rejects with ERR_ARGUMENT
 *
 * Source: Kuhn 1955; shortest augmenting paths as in Jonker and Volgenant 1987.
 */
export function assignment(costs: Tensor): Tensor {
  expectTensors('assignment', { costs });
  return new Tensor(native().assignment(costs.handle));
}
