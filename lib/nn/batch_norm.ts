import { noGrad } from '../autograd/tape.ts';
import {
  BATCH_NORM_OPTIONS,
  batchNorm,
  batchStatistics,
  type BatchNormOptions,
  type BatchStatistics,
} from '../ops/batch_norm.ts';
import { add, mul, sub } from '../ops/binary.ts';
import { cast, copyFrom } from '../ops/copy.ts';
import { ones, zeros } from '../ops/creation.ts';
import { rsqrt } from '../ops/unary.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectNumbers } from '../tensor/expect.ts';
import { scope } from '../tensor/scope.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { buffer, Module, parameter } from './module.ts';

export interface BatchNormLayerOptions extends BatchNormOptions {
  /** Share of the batch's statistics in the running ones. Default 0.1. */
  readonly momentum?: number;
}

const LAYER_OPTIONS: OptionNames<BatchNormLayerOptions> = { ...BATCH_NORM_OPTIONS, momentum: true };

/**
 * Batch normalisation of channels (axis 1 of the input, or `axis`): with the statistics of the batch while training, which also move the
 * running ones, and with the running ones in evaluation. As in PyTorch the running variance is the unbiased estimate.
 *
 * Keys: weight (1 at first), bias (0), and the buffers running_mean (0), running_var (1), num_batches_tracked (i64, 0).
 */
export class BatchNorm extends Module {
  weight: Tensor;
  bias: Tensor;
  running_mean: Tensor;
  running_var: Tensor;
  num_batches_tracked: Tensor;
  readonly momentum: number;
  readonly options: BatchNormOptions;

  constructor(channels: number, options: BatchNormLayerOptions = {}) {
    super();
    expectOptions('BatchNorm', options, LAYER_OPTIONS);
    const { momentum = 0.1, ...statistics } = options;
    expectNumbers('BatchNorm', { momentum, eps: statistics.eps ?? 0 }, 0);
    this.weight = parameter(ones([channels]));
    this.bias = parameter(zeros([channels]));
    this.running_mean = buffer(zeros([channels]));
    this.running_var = buffer(ones([channels]));
    this.num_batches_tracked = buffer(zeros([], { dtype: 'i64' }));
    this.momentum = momentum;
    this.options = statistics;
  }

  override forward(x: Tensor): Tensor {
    if (!this.training) return this.#normalised(x, { mean: this.running_mean, variance: this.running_var });
    const statistics = batchStatistics(x, this.options.axis);
    const y = this.#normalised(x, statistics);
    this.#track(statistics, x.size / this.weight.size);
    return y;
  }

  /** What evaluation does to a channel, x gain + shift, for who would rather change the layer before: [channels] each, in f32 (f64 of f64). */
  affine(): { readonly gain: Tensor; readonly shift: Tensor } {
    const compute = this.weight.dtype === 'f64' ? 'f64' : 'f32';
    const [weight, bias, mean, variance] = [this.weight, this.bias, this.running_mean, this.running_var].map((t) => cast(t, compute)); // prettier-ignore
    const gain = mul(weight, rsqrt(add(variance, this.options.eps ?? 1e-5)));
    return { gain, shift: sub(bias, mul(mean, gain)) };
  }

  #normalised(x: Tensor, statistics: BatchStatistics): Tensor {
    return batchNorm(x, statistics, this.weight, this.bias, this.options);
  }

  /** `count`: values of a channel in the batch. */
  #track({ mean, variance }: BatchStatistics, count: number): void {
    noGrad(() =>
      scope(() => {
        const move = (running: Tensor, now: Tensor, factor: number): void =>
          copyFrom(running, add(mul(running, 1 - this.momentum), mul(now.detach(), this.momentum * factor)));
        move(this.running_mean, mean, 1);
        move(this.running_var, variance, count > 1 ? count / (count - 1) : 1);
        copyFrom(this.num_batches_tracked, add(this.num_batches_tracked, 1));
      }),
    );
  }
}
