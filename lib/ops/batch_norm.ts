/** Normalisation of each channel with statistics over everything else: those of training, kept, or those of the batch. */
import { FoveaError } from '../errors.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { isFloating } from '../tensor/dtype.ts';
import { expectNumbers, expectObject, expectOptionalTensors, expectTensors } from '../tensor/expect.ts';
import { axisOf, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { add, mul, sub } from './binary.ts';
import { cast } from './copy.ts';
import { mean, variance } from './reduce.ts';
import { rsqrt } from './unary.ts';
import { reshape } from './view.ts';

/** Of each channel, [channels]. */
export interface BatchStatistics {
  readonly mean: Tensor;
  /** The mean squared deviation: of the population, not the unbiased estimate. */
  readonly variance: Tensor;
}

export interface BatchNormOptions {
  /** Default 1e-5. */
  readonly eps?: number;
  /** The axis of the channels. Default 1. */
  readonly axis?: number;
}

export const BATCH_NORM_OPTIONS: OptionNames<BatchNormOptions> = { eps: true, axis: true };

/** Mean and variance of each channel of x over its other axes, in f32 (f64 of f64). Differentiable. */
export function batchStatistics(x: Tensor, axis = 1): BatchStatistics {
  expectTensors('batchStatistics', { x });
  const at = axisOf('batchStatistics', axis, x.rank);
  const others = x.shape.map((_, i) => i).filter((i) => i !== at);
  const wide = cast(x, x.dtype === 'f64' ? 'f64' : 'f32');
  return { mean: mean(wide, others), variance: variance(wide, others, false, 0) };
}

/**
 * (x - mean) / sqrt(variance + eps) * weight + bias for each channel, computed in f32 (f64 of f64) and rounded once. x [batch, channels, ...]
 * or as `axis` says, of f32, bf16, f16 or f64; statistics, weight and bias [channels], of any floating dtype. Differentiable in all: with
 * batchStatistics(x) this is batch normalisation in training.
 *
 * @throws FoveaError ERR_SHAPE where a vector does not have one element a channel, ERR_ARGUMENT for an axis out of range,
 * ERR_DTYPE for x that is not floating
 *
 * Source: Ioffe and Szegedy 2015, "Batch Normalization".
 */
export function batchNorm(
  x: Tensor,
  statistics: BatchStatistics,
  weight: Tensor | null = null,
  bias: Tensor | null = null,
  options: BatchNormOptions = {},
): Tensor {
  expectTensors('batchNorm', { x });
  expectObject('batchNorm', 'statistics', statistics);
  expectTensors('batchNorm', { mean: statistics.mean, variance: statistics.variance });
  expectOptionalTensors('batchNorm', { weight, bias });
  expectOptions('batchNorm', options, BATCH_NORM_OPTIONS);
  const { eps = 1e-5, axis = 1 } = options;
  expectNumbers('batchNorm', { eps }, 0);
  if (!isFloating(x.dtype))
    throw new FoveaError('ERR_DTYPE', `batchNorm: x is ${x.dtype}, expected a floating dtype; use cast() first`);
  const at = axisOf('batchNorm', axis, x.rank);
  const channels = x.shape[at];
  const compute = x.dtype === 'f64' ? 'f64' : 'f32';
  const vector = (name: string, t: Tensor): Tensor => {
    if (t.rank !== 1 || t.shape[0] !== channels)
      throw new FoveaError('ERR_SHAPE', `batchNorm: ${name} has shape ${shapeText(t.shape)}, expected [${channels}]`);
    return cast(t, compute);
  };
  const wide = (t: Tensor): Tensor => reshape(t, x.shape.map((_, i) => (i === at ? channels : 1))); // prettier-ignore
  const scale = rsqrt(add(vector('variance', statistics.variance), eps));
  const gain = weight ? mul(scale, vector('weight', weight)) : scale;
  const centered = sub(cast(x, compute), wide(vector('mean', statistics.mean)));
  const scaled = mul(centered, wide(gain));
  return cast(bias ? add(scaled, wide(vector('bias', bias))) : scaled, x.dtype);
}
