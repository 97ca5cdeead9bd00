import { ones, zeros } from '../ops/creation.ts';
import { layerNorm, rmsNorm } from '../ops/layer_norm.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module, parameter } from './module.ts';

/** Layer norm over the last axis (or trailing axes), weight 1 and bias 0 at first. Keys: weight, bias. */
export class LayerNorm extends Module {
  weight: Tensor;
  bias: Tensor | null;
  readonly eps: number;

  constructor(shape: number | readonly number[], { eps = 1e-5, bias = true }: { eps?: number; bias?: boolean } = {}) {
    super();
    const dims = [shape].flat();
    this.weight = parameter(ones(dims));
    this.bias = bias ? parameter(zeros(dims)) : null;
    this.eps = eps;
  }

  override forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, { eps: this.eps });
  }
}

/** RMS norm over the last axis (or trailing axes), weight 1 at first. Key: weight. */
export class RMSNorm extends Module {
  weight: Tensor;
  readonly eps: number;

  constructor(shape: number | readonly number[], { eps = 1e-6 }: { eps?: number } = {}) {
    super();
    this.weight = parameter(ones([shape].flat()));
    this.eps = eps;
  }

  override forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, { eps: this.eps });
  }
}
