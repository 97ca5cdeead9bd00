import { ones, zeros } from '../ops/creation.ts';
import { layerNorm, rmsNorm } from '../ops/layer_norm.ts';
import { expectOptions } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module, parameter } from './module.ts';

/** Layer norm over the last axis (or trailing axes), weight 1 and bias 0 at first. Keys: weight, bias. */
export class LayerNorm extends Module {
  weight: Tensor;
  bias: Tensor | null;
  readonly eps: number;

  constructor(shape: number | readonly number[], options: { eps?: number; bias?: boolean } = {}) {
    super();
    expectOptions('LayerNorm', options, { eps: true, bias: true });
    const { eps = 1e-5, bias = true } = options;
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

  constructor(shape: number | readonly number[], options: { eps?: number } = {}) {
    super();
    expectOptions('RMSNorm', options, { eps: true });
    this.weight = parameter(ones([shape].flat()));
    this.eps = options.eps ?? 1e-6;
  }

  override forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, { eps: this.eps });
  }
}
