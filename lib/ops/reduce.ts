/**
 * Reductions over one axis, several, or (by default) all. Negative axes count from the end; `keepDims` leaves reduced axes in place with
 * size 1. 16-bit floats are accumulated in f32 and f64 and rounded once; integers and bools sum exactly as i64. The order of summation is
 * fixed: the same bits for any number of threads, any strides and any neighbouring rows (docs/numerics.md).
 * All throw ERR_ARGUMENT for axes out of range or given twice.
 */
import { gradEnabled, record } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { isFloating } from '../tensor/dtype.ts';
import { expectIntegers, expectTensors } from '../tensor/expect.ts';
import { axisOf } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { div, mul, sub } from './binary.ts';
import { eq } from './compare.ts';
import { cast } from './copy.ts';
import { exp, sqrt } from './unary.ts';
import { expand, reshape } from './view.ts';
import { where } from './where.ts';

export type Axes = number | readonly number[] | null;

/** In the order of the enum in csrc/core/reduce_params.h. */
const OPS = [
  'sum',
  'mean',
  'prod',
  'max',
  'min',
  'argMax',
  'argMin',
  'any',
  'all',
  'variance',
  'norm',
  'logSumExp',
] as const;
type ReduceName = (typeof OPS)[number];

function axesOf(name: string, axes: Axes | undefined, rank: number): number[] {
  if (axes === undefined || axes === null) return Array.from({ length: rank }, (_, i) => i);
  if (typeof axes !== 'number') expectIntegers(name, 'axes', axes);
  const list = (typeof axes === 'number' ? [axes] : axes).map((axis) => axisOf(name, axis, rank));
  if (list.length === 0) throw new FoveaError('ERR_ARGUMENT', `${name}: no axes given; leave them out to reduce all`);
  return list;
}

/** What a backward rule sees: `wide` brings a tensor of the result's shape to size 1 along the reduced axes. */
interface Reduced {
  out: Tensor;
  count: number;
  wide: (t: Tensor) => Tensor;
}
type Rule = (g: Tensor, t: Tensor, reduced: Reduced) => Tensor;

function reduce(
  name: ReduceName,
  t: Tensor,
  axes: Axes | undefined,
  keepDims: boolean,
  rule: Rule | null,
  correction = 0,
): Tensor {
  expectTensors(name, { t });
  if (typeof keepDims !== 'boolean')
    throw new FoveaError('ERR_ARGUMENT', `${name}: keepDims is ${String(keepDims)}, expected true or false`);
  const list = axesOf(name, axes, t.rank);
  const out = new Tensor(native().reduce(OPS.indexOf(name), t.handle, list, keepDims, correction));
  if (!rule || !gradEnabled() || !t.requiresGrad || !isFloating(t.dtype)) return out;
  const kept = t.shape.map((extent, i) => (list.includes(i) ? 1 : extent));
  const count = list.reduce((n, axis) => n * t.shape[axis], 1);
  const wide = (x: Tensor): Tensor => reshape(x, kept);
  const backward = ([g]: readonly (Tensor | null)[]): Tensor[] => [
    expand(rule(wide(g as Tensor), t, { out, count, wide }), t.shape),
  ];
  record(name, [out], [t], backward, name === 'sum' || name === 'mean' ? [] : [t, out]);
  return out;
}

/** The sum; 0 for no elements. */
export function sum(t: Tensor, axes?: Axes, keepDims = false): Tensor {
  return reduce('sum', t, axes, keepDims, (g) => g);
}

/** The arithmetic mean; NaN for no elements. Throws ERR_DTYPE for integers. */
export function mean(t: Tensor, axes?: Axes, keepDims = false): Tensor {
  return reduce('mean', t, axes, keepDims, (g, _t, { count }) => div(g, count));
}

/** The product; 1 for no elements. */
export function prod(t: Tensor, axes?: Axes, keepDims = false): Tensor {
  return reduce('prod', t, axes, keepDims, (g, t, { out, wide }) => {
    // A zero's gradient is the product of the others: the product without zeros when it is the only one.
    const zero = eq(t, 0);
    const reduced = axesOf('prod', axes, t.rank);
    const zeros = sum(zero, reduced, true);
    const others = prod(where(zero, 1, t), reduced, true);
    const atZeros = where(eq(zeros, 1), mul(g, others), 0);
    return where(zero, atZeros, div(mul(g, wide(out)), t));
  });
}

/** The gradient of an extreme: shared equally by the elements that attain it. */
function toExtremes(axes: Axes | undefined): Rule {
  return (g, t, { out, wide }) => {
    const attained = eq(t, wide(out));
    const count = sum(attained, axesOf('max', axes, t.rank), true);
    return where(attained, div(g, cast(count, g.dtype)), 0);
  };
}

/** The largest element, NaN if any is. Elements that share it share the gradient. Throws ERR_SHAPE when a reduced axis is empty. */
export function max(t: Tensor, axes?: Axes, keepDims = false): Tensor {
  return reduce('max', t, axes, keepDims, toExtremes(axes));
}

/** The smallest element, NaN if any is. Elements that share it share the gradient. Throws ERR_SHAPE when a reduced axis is empty. */
export function min(t: Tensor, axes?: Axes, keepDims = false): Tensor {
  return reduce('min', t, axes, keepDims, toExtremes(axes));
}

/**
 * The index (i64) of the first largest element along `axis`, NaN counting as largest; over all axes, in row-major order. No gradient.
 * Throws ERR_SHAPE when the axis is empty.
 */
export function argMax(t: Tensor, axis?: number | null, keepDims = false): Tensor {
  return reduce('argMax', t, axis, keepDims, null);
}

/** The index (i64) of the first smallest element along `axis`, NaN counting as smallest. As argMax otherwise. */
export function argMin(t: Tensor, axis?: number | null, keepDims = false): Tensor {
  return reduce('argMin', t, axis, keepDims, null);
}

/** Whether any element is not 0, as bool; false for no elements. */
export function any(t: Tensor, axes?: Axes, keepDims = false): Tensor {
  return reduce('any', t, axes, keepDims, null);
}

/** Whether no element is 0, as bool; true for no elements. */
export function all(t: Tensor, axes?: Axes, keepDims = false): Tensor {
  return reduce('all', t, axes, keepDims, null);
}

/**
 * The variance: squared deviations from the mean, over count - correction (1 by default, the unbiased estimate; 0 for the population).
 * NaN or Infinity when the divisor is not positive. Throws ERR_DTYPE for integers.
 */
export function variance(t: Tensor, axes?: Axes, keepDims = false, correction = 1): Tensor {
  const rule: Rule = (g, t, { count }) => {
    const center = mean(t, axesOf('variance', axes, t.rank), true);
    return mul(sub(t, center), mul(g, 2 / (count - correction)));
  };
  return reduce('variance', t, axes, keepDims, rule, correction);
}

/** The standard deviation: the square root of variance(); its gradient at 0, where all elements are equal, is 0. */
export function std(t: Tensor, axes?: Axes, keepDims = false, correction = 1): Tensor {
  expectTensors('std', { t });
  const squares = variance(t, axes, keepDims, correction);
  const none = eq(squares, 0);
  return where(none, 0, sqrt(where(none, 1, squares)));
}

/** The Euclidean norm: the square root of the sum of squares; its gradient at 0 is 0. Throws ERR_DTYPE for integers. */
export function norm(t: Tensor, axes?: Axes, keepDims = false): Tensor {
  return reduce('norm', t, axes, keepDims, (g, t, { out, wide }) => {
    const length = wide(out);
    return mul(g, where(eq(length, 0), 0, div(t, length)));
  });
}

/** log(sum(exp(t))) without overflow; -Infinity for no elements. Throws ERR_DTYPE for integers. */
export function logSumExp(t: Tensor, axes?: Axes, keepDims = false): Tensor {
  return reduce('logSumExp', t, axes, keepDims, (g, t, { out, wide }) => {
    const total = wide(out);
    // Where every element is -Infinity all gradients are 0.
    return mul(g, exp(sub(t, where(eq(total, -Infinity), 0, total))));
  });
}
