import { expectCount } from '../attention/checks.ts';
import { activationCode, linear, type Activation } from '../ops/linear.ts';
import { PRECISION_OPTIONS, type PrecisionOptions } from '../ops/matmul_precision.ts';
import { rand } from '../ops/random.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module, parameter } from './module.ts';

export interface LinearOptions extends PrecisionOptions {
  /** Default true. */
  bias?: boolean;
  /** Fused after the bias. Default 'none'. */
  activation?: Activation;
}

const LINEAR_OPTIONS: OptionNames<LinearOptions> = { ...PRECISION_OPTIONS, bias: true, activation: true };

/**
 * activation(x W^T + b): weight [out, in], bias [out], both uniform in +-1 / sqrt(in) at first (PyTorch's default).
 * Keys: weight, bias.
 */
export class Linear extends Module {
  weight: Tensor;
  bias: Tensor | null;
  readonly activation: Activation;
  readonly precision: LinearOptions['precision'];

  constructor(inFeatures: number, outFeatures: number, options: LinearOptions = {}) {
    super();
    expectOptions('Linear', options, LINEAR_OPTIONS);
    const { bias = true, activation = 'none', precision } = options;
    expectCount('Linear', 'inFeatures', inFeatures, 0);
    expectCount('Linear', 'outFeatures', outFeatures, 0);
    activationCode('Linear', activation);
    const high = 1 / Math.sqrt(Math.max(1, inFeatures));
    this.weight = parameter(rand([outFeatures, inFeatures], { low: -high, high }));
    this.bias = bias ? parameter(rand([outFeatures], { low: -high, high })) : null;
    this.activation = activation;
    this.precision = precision;
  }

  /** x [..., in] to [..., out]. */
  override forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias, this.activation, { precision: this.precision });
  }
}
