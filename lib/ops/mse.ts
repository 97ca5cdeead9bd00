import { FoveaError } from '../errors.ts';
import { expectOptions } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { sub } from './binary.ts';
import { reductionCode, type Reduction } from './cross_entropy.ts';
import { mean, sum } from './reduce.ts';
import { square } from './unary.ts';

const MSE_OPTIONS = { reduction: true } as const;

/** Squared differences of two tensors of one shape (ERR_SHAPE): their mean (default), their sum, or each ('none'). */
export function mse(a: Tensor, b: Tensor, options: { reduction?: Reduction } = {}): Tensor {
  expectTensors('mse', { a, b });
  expectOptions('mse', options, MSE_OPTIONS);
  const { reduction = 'mean' } = options;
  reductionCode('mse', reduction);
  if (!sameShape(a.shape, b.shape)) {
    throw new FoveaError('ERR_SHAPE', `mse: shapes ${shapeText(a.shape)} and ${shapeText(b.shape)} differ`);
  }
  const squares = square(sub(a, b));
  return reduction === 'none' ? squares : reduction === 'sum' ? sum(squares) : mean(squares);
}
