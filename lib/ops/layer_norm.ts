/** Normalisation over the trailing axes, one fused kernel forward and one backward. */
import { gradEnabled, result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectNumbers, expectOptionalTensors, expectTensors } from '../tensor/expect.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';

export interface NormOptions {
  /** Added to the variance (layerNorm, default 1e-5) or mean square (rmsNorm, default 1e-6). */
  eps?: number;
  /** The trailing sizes that are normalised together. Default: the shape of weight or bias, or the last axis. */
  normalizedShape?: readonly number[];
}

const NORM_OPTIONS: OptionNames<NormOptions> = { eps: true, normalizedShape: true };

function norm(
  op: 'layerNorm' | 'rmsNorm',
  x: Tensor,
  weight: Tensor | null,
  bias: Tensor | null,
  eps: number,
  normalizedShape: readonly number[] | undefined,
): Tensor {
  expectTensors(op, { x });
  expectOptionalTensors(op, { weight, bias });
  expectNumbers(op, { eps }, 0);
  const dims = normalizedShape ?? weight?.shape ?? bias?.shape ?? x.shape.slice(-1);
  const fits = (shape: readonly number[]): boolean => sameShape(shape, dims);
  if (dims.length === 0 || !fits(x.shape.slice(-dims.length))) {
    throw new FoveaError('ERR_SHAPE', `${op}: ${shapeText(x.shape)} does not end in ${shapeText(dims)}`);
  }
  if ((weight && !fits(weight.shape)) || (bias && !fits(bias.shape))) {
    const got = [weight, bias].map((t) => (t ? shapeText(t.shape) : 'none')).join(' and ');
    throw new FoveaError('ERR_SHAPE', `${op}: weight and bias have shapes ${got}, expected ${shapeText(dims)}`);
  }
  const h = native();
  const inputs = [x, ...(weight ? [weight] : []), ...(bias ? [bias] : [])];
  const [out, mean, rstd] = h.norm(x.handle, weight?.handle ?? null, bias?.handle ?? null, eps, dims.length, op === 'layerNorm'); // prettier-ignore
  if (!gradEnabled() || !inputs.some((t) => t.requiresGrad)) {
    if (mean !== null) h.release(mean);
    h.release(rstd as number);
    return new Tensor(out as number);
  }
  const means = mean === null ? null : new Tensor(mean);
  const scales = new Tensor(rstd as number);
  const rule = (g: Tensor): (Tensor | null)[] => {
    const wanted = [x, weight, bias].map((t) => t?.requiresGrad ?? false);
    const handles = native().normBackward(
      g.handle,
      x.handle,
      means?.handle ?? null,
      scales.handle,
      weight?.handle ?? null,
      bias?.handle ?? null,
      dims.length,
      wanted[0],
      wanted[1],
      wanted[2],
    );
    const [forX, forWeight, forBias] = handles.map((handle) => (handle === null ? null : new Tensor(handle)));
    return [forX, ...(weight ? [forWeight] : []), ...(bias ? [forBias] : [])];
  };
  return result(op, out as number, inputs, rule, [x, ...(weight ? [weight] : []), ...(means ? [means] : []), scales]);
}

/**
 * (x - mean) / sqrt(variance + eps) * weight + bias, with mean and (biased) variance over the trailing axes. x f32, bf16 or f16
 * (ERR_DTYPE); weight and bias of one dtype among these, of the normalised shape (ERR_SHAPE).
 *
 * Source: Ba et al. 2016, "Layer Normalization".
 */
export function layerNorm(
  x: Tensor,
  weight: Tensor | null = null,
  bias: Tensor | null = null,
  options: NormOptions = {},
): Tensor {
  expectOptions('layerNorm', options, NORM_OPTIONS);
  return norm('layerNorm', x, weight, bias, options.eps ?? 1e-5, options.normalizedShape);
}

/**
 * x / sqrt(mean(x^2) + eps) * weight over the trailing axes. Dtypes and errors as layerNorm.
 *
 * Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".
 */
export function rmsNorm(x: Tensor, weight: Tensor | null = null, options: NormOptions = {}): Tensor {
  expectOptions('rmsNorm', options, NORM_OPTIONS);
  return norm('rmsNorm', x, weight, null, options.eps ?? 1e-6, options.normalizedShape);
}
