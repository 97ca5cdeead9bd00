import { FoveaError } from '../errors.ts';
import { dropout } from '../ops/dropout.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module } from './module.ts';

/** Dropout with probability `p` while training, nothing otherwise. */
export class Dropout extends Module {
  readonly p: number;

  constructor(p = 0.5) {
    super();
    if (!(p >= 0 && p <= 1)) throw new FoveaError('ERR_ARGUMENT', `Dropout: p is ${String(p)}, expected 0 to 1`);
    this.p = p;
  }

  override forward(x: Tensor): Tensor {
    return dropout(x, this.p, { training: this.training });
  }
}
