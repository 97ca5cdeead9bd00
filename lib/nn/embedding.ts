import { embedding } from '../ops/embedding.ts';
import { randn } from '../ops/random.ts';
import { expectOptions } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module, parameter } from './module.ts';

/** A table of `count` vectors, weight [count, dim], normal with deviation `std` (default 1) at first. Key: weight. */
export class Embedding extends Module {
  weight: Tensor;

  constructor(count: number, dim: number, options: { std?: number } = {}) {
    super();
    expectOptions('Embedding', options, { std: true });
    const { std = 1 } = options;
    this.weight = parameter(randn([count, dim], { std }));
  }

  /** ids [...] (i32, i64, u8) to [..., dim]. */
  override forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids);
  }
}
