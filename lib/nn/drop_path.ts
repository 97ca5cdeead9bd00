import { FoveaError } from '../errors.ts';
import { mul } from '../ops/binary.ts';
import { ones } from '../ops/creation.ts';
import { dropout } from '../ops/dropout.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module } from './module.ts';

/**
 * Stochastic depth: while training the whole of a batch entry becomes 0 with probability `rate`, and 1 / (1 - rate) of itself otherwise.
 * f32, bf16 and f16.
 *
 * Source: Huang et al. 2016, "Deep Networks with Stochastic Depth".
 */
export class DropPath extends Module {
  readonly rate: number;

  /** @throws FoveaError ERR_ARGUMENT unless 0 <= rate < 1 */
  constructor(rate = 0) {
    super();
    if (!(rate >= 0 && rate < 1))
      throw new FoveaError('ERR_ARGUMENT', `DropPath: rate is ${rate}, expected a number from 0 to below 1`);
    this.rate = rate;
  }

  override forward(x: Tensor): Tensor {
    if (!this.training || this.rate === 0) return x;
    const entries = ones([x.shape[0], ...x.shape.slice(1).fill(1)], { dtype: x.dtype, device: x.device });
    return mul(x, dropout(entries, this.rate, { training: true }));
  }
}
