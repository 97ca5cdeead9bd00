import { embedding } from '../ops/embedding.ts';
import { randn } from '../ops/random.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module, parameter } from './module.ts';

/** A table of `count` vectors, weight [count, dim], normal with deviation `std` (default 1) at first. Key: weight. */
export class Embedding extends Module {
  weight: Tensor;

  constructor(count: number, dim: number, { std = 1 }: { std?: number } = {}) {
    super();
    this.weight = parameter(randn([count, dim], { std }));
  }

  /** ids [...] (i32, i64, u8) to [..., dim]. */
  override forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids);
  }
}
