import { FoveaError } from '../../errors.ts';
import { expectOptions, type OptionNames } from '../../options.ts';
import { expectIntegers } from '../../tensor/expect.ts';
import { and } from '../compose.ts';
import { mask, type Mask } from '../mask.ts';

export interface NattenOptions {
  /** Extent of each axis; tokens lie in row-major order. One to three axes. */
  readonly shape: readonly number[];
  /** Keys of the window along each axis. */
  readonly kernelSize: number | readonly number[];
  /** Queries along each axis that share one window, at most the kernel size; default 1. */
  readonly stride?: number | readonly number[];
  /** Distance of neighbouring keys along each axis; default 1. */
  readonly dilation?: number | readonly number[];
  /** Whether a query sees no key after it along the axis; default false. */
  readonly causal?: boolean | readonly boolean[];
}

const NATTEN_OPTIONS: OptionNames<NattenOptions> = {
  shape: true,
  kernelSize: true,
  stride: true,
  dilation: true,
  causal: true,
};

/**
 * Neighborhood attention as a mask: a query sees the `kernelSize` nearest tokens along every axis.
 *
 * At the borders the window is shifted inwards, so every query sees exactly `kernelSize` keys per axis, nothing is padded; along a causal
 * axis it is cut off instead. With dilation only tokens of equal coordinate modulo the dilation meet, and all of this holds among them.
 * With a stride the queries of a group share the window of the one in their middle (causal: of the last). `neighborhoodAttention` computes
 * the same without a mask.
 *
 * @throws FoveaError ERR_ARGUMENT unless per axis 1 <= stride <= kernelSize and kernelSize * dilation <= extent
 *
 * Source: Hassani et al., "Neighborhood Attention Transformer", 2023; "Dilated Neighborhood Attention", 2022; "Generalized Neighborhood
 * Attention", 2025.
 */
export function natten(options: NattenOptions): Mask {
  expectOptions('natten', options, NATTEN_OPTIONS);
  const { shape, kernelSize, stride = 1, dilation = 1, causal = false } = options;
  expectIntegers('natten', 'shape', shape);
  if (shape.length < 1 || shape.length > 3)
    throw new FoveaError('ERR_ARGUMENT', `natten: shape must have 1 to 3 axes, got [${shape.join(', ')}]`);
  const axes = shape.map((length, axis) => {
    const inner = shape.slice(axis + 1).reduce((product, extent) => product * extent, 1);
    const own = { inner, length, kernel: at(kernelSize, axis), stride: at(stride, axis), dilation: at(dilation, axis) };
    check(axis, own);
    return at(causal, axis) ? causalAxis(own) : centredAxis(own);
  });
  return axes.length === 1 ? axes[0] : and(...axes);
}

interface Axis {
  /** Tokens between neighbours along the axis. */
  readonly inner: number;
  readonly length: number;
  readonly kernel: number;
  readonly stride: number;
  readonly dilation: number;
}

const at = <T extends number | boolean>(value: T | readonly T[], axis: number): T =>
  typeof value === 'object' ? value[axis] : value;

function check(axis: number, { length, kernel, stride, dilation }: Axis): void {
  const whole = [length, kernel, stride, dilation].every((n) => Number.isInteger(n) && n >= 1);
  if (!whole || stride > kernel || kernel * dilation > length)
    throw new FoveaError(
      'ERR_ARGUMENT',
      `natten: axis ${axis}: kernel size ${kernel}, stride ${stride}, dilation ${dilation} on ${length} tokens; ` +
        'wanted integers with 1 <= stride <= kernel size and kernel size * dilation <= tokens',
    );
}

function centredAxis(axis: Axis): Mask {
  return mask(
    ({ q, kv }, { inner, length, kernel, stride, dilation }) => {
      const x = Math.floor(q / inner) % length;
      const y = Math.floor(kv / inner) % length;
      const group = x % dilation;
      const i = Math.floor(x / dilation);
      const j = Math.floor(y / dilation);
      const size = Math.floor((length - group + dilation - 1) / dilation);
      const leader = Math.min(Math.floor(i / stride) * stride + Math.floor(stride / 2), size - 1);
      const start = Math.min(Math.max(leader - Math.floor(kernel / 2), 0), size - kernel);
      return y % dilation === group && j >= start && j < start + kernel;
    },
    { ...axis },
  );
}

function causalAxis(axis: Axis): Mask {
  return mask(
    ({ q, kv }, { inner, length, kernel, stride, dilation }) => {
      const x = Math.floor(q / inner) % length;
      const y = Math.floor(kv / inner) % length;
      const group = x % dilation;
      const i = Math.floor(x / dilation);
      const j = Math.floor(y / dilation);
      const size = Math.floor((length - group + dilation - 1) / dilation);
      const leader = Math.min(Math.floor(i / stride) * stride + stride - 1, size - 1);
      return y % dilation === group && j >= leader - kernel + 1 && j <= i;
    },
    { ...axis },
  );
}
