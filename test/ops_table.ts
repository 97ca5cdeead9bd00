/** One row per elementwise op and per reduction: the op, its double-precision reference, and where it is defined. */
import * as F from '../lib/index.ts';
import type { Tensor } from '../lib/index.ts';
import { erf, logSumExp, normalCdf } from './reference.ts';

export interface ElementwiseRow {
  name: string;
  op: (...inputs: Tensor[]) => Tensor;
  reference: (...x: number[]) => number;
  /** Values are drawn from [low, high] for every operand. */
  domain: readonly [number, number];
  /** Points too near to a kink or a jump for a finite difference (and for 16-bit rounding), moved away from. */
  kinks?: readonly number[];
  gradient?: boolean;
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const wide = [-6, 6] as const;
const positive = [0.1, 8] as const;

function unary(
  name: string,
  op: (t: Tensor) => Tensor,
  reference: (x: number) => number,
  domain: readonly [number, number] = wide,
  kinks?: readonly number[],
): ElementwiseRow {
  return { name, op: op as ElementwiseRow['op'], reference: reference as ElementwiseRow['reference'], domain, kinks };
}

function halfEven(x: number): number {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

const wholes = Array.from({ length: 13 }, (_, i) => i - 6);

export const UNARY_ROWS: readonly ElementwiseRow[] = [
  unary('neg', F.neg, (x) => -x),
  unary('abs', F.abs, Math.abs, wide, [0]),
  unary('sign', F.sign, Math.sign, wide, [0]),
  unary('square', F.square, (x) => x * x),
  unary('floor', F.floor, Math.floor, wide, wholes),
  unary('ceil', F.ceil, Math.ceil, wide, wholes),
  unary(
    'round',
    F.round,
    halfEven,
    wide,
    wholes.map((n) => n + 0.5),
  ),
  unary('exp', F.exp, Math.exp),
  unary('expm1', F.expm1, Math.expm1, [-3, 3]),
  unary('log', F.log, Math.log, positive),
  unary('log1p', F.log1p, Math.log1p, [-0.9, 8]),
  unary('sqrt', F.sqrt, Math.sqrt, positive),
  unary('rsqrt', F.rsqrt, (x) => 1 / Math.sqrt(x), positive),
  unary('reciprocal', F.reciprocal, (x) => 1 / x, positive),
  unary('sin', F.sin, Math.sin, [-20, 20]),
  unary('cos', F.cos, Math.cos, [-20, 20]),
  unary('tanh', F.tanh, Math.tanh),
  unary('sigmoid', F.sigmoid, sigmoid),
  unary('erf', F.erf, erf, [-4, 4]),
  unary('relu', F.relu, (x) => Math.max(x, 0), wide, [0]),
  unary(
    'leakyRelu',
    (t) => F.leakyRelu(t, 0.125),
    (x) => (x < 0 ? 0.125 * x : x),
    wide,
    [0],
  ),
  unary('gelu', F.gelu, (x) => x * normalCdf(x)),
  unary('geluTanh', F.geluTanh, (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))),
  unary('silu', F.silu, (x) => x * sigmoid(x)),
  unary('softplus', F.softplus, (x) => Math.log1p(Math.exp(x))),
  unary(
    'clamp',
    (t) => F.clamp(t, -1.25, 2),
    (x) => Math.min(Math.max(x, -1.25), 2),
    wide,
    [-1.25, 2],
  ),
  unary(
    'clamp from below',
    (t) => F.clamp(t, 0.5, null),
    (x) => Math.max(x, 0.5),
    wide,
    [0.5],
  ),
  unary(
    'pow 3',
    (t) => F.pow(t, 3),
    (x) => x ** 3,
  ),
  unary(
    'pow 2',
    (t) => F.pow(t, 2),
    (x) => x ** 2,
  ),
  unary(
    'pow -1.5',
    (t) => F.pow(t, -1.5),
    (x) => x ** -1.5,
    positive,
  ),
  unary(
    '2 to the power',
    (t) => F.pow(2, t),
    (x) => 2 ** x,
  ),
  unary(
    'add number',
    (t) => F.add(t, 1.5),
    (x) => x + 1.5,
  ),
  unary(
    'number minus',
    (t) => F.sub(1.5, t),
    (x) => 1.5 - x,
  ),
  unary(
    'number times',
    (t) => F.mul(3, t),
    (x) => 3 * x,
  ),
  unary(
    'number over',
    (t) => F.div(2, t),
    (x) => 2 / x,
    positive,
  ),
  unary(
    'maximum with number',
    (t) => F.maximum(t, 0.5),
    (x) => Math.max(x, 0.5),
    wide,
    [0.5],
  ),
];

function binary(
  name: string,
  op: (a: Tensor, b: Tensor) => Tensor,
  reference: (a: number, b: number) => number,
  domain: readonly [number, number] = wide,
  gradient = true,
): ElementwiseRow {
  return {
    name,
    op: op as ElementwiseRow['op'],
    reference: reference as ElementwiseRow['reference'],
    domain,
    gradient,
  };
}

const truth = (f: (a: number, b: number) => boolean) => (a: number, b: number) => Number(f(a, b));

export const BINARY_ROWS: readonly ElementwiseRow[] = [
  binary('add', F.add, (a, b) => a + b),
  binary('sub', F.sub, (a, b) => a - b),
  binary('mul', F.mul, (a, b) => a * b),
  binary('div', F.div, (a, b) => a / b, positive),
  binary('pow', F.pow, (a, b) => a ** b, [0.25, 3]),
  binary('maximum', F.maximum, Math.max),
  binary('minimum', F.minimum, Math.min),
  binary('remainder', F.remainder, (a, b) => a - b * Math.floor(a / b), [1, 9], false),
  binary('atan2', F.atan2, Math.atan2),
  binary(
    'eq',
    (a, b) => F.eq(F.round(a), F.round(b)),
    truth((a, b) => halfEven(a) === halfEven(b)),
    wide,
    false,
  ),
  binary(
    'ne',
    (a, b) => F.ne(F.round(a), F.round(b)),
    truth((a, b) => halfEven(a) !== halfEven(b)),
    wide,
    false,
  ),
  binary(
    'lt',
    F.lt,
    truth((a, b) => a < b),
    wide,
    false,
  ),
  binary(
    'le',
    F.le,
    truth((a, b) => a <= b),
    wide,
    false,
  ),
  binary(
    'gt',
    F.gt,
    truth((a, b) => a > b),
    wide,
    false,
  ),
  binary(
    'ge',
    F.ge,
    truth((a, b) => a >= b),
    wide,
    false,
  ),
  binary(
    'and',
    (a, b) => F.logicalAnd(F.gt(a, 0), F.gt(b, 0)),
    truth((a, b) => a > 0 && b > 0),
    wide,
    false,
  ),
  binary(
    'or',
    (a, b) => F.logicalOr(F.gt(a, 0), F.gt(b, 0)),
    truth((a, b) => a > 0 || b > 0),
    wide,
    false,
  ),
  binary(
    'xor',
    (a, b) => F.logicalXor(F.gt(a, 0), F.gt(b, 0)),
    truth((a, b) => a > 0 !== b > 0),
    wide,
    false,
  ),
  binary(
    'not',
    (a, b) => F.logicalNot(F.gt(a, b)),
    truth((a, b) => a <= b),
    wide,
    false,
  ),
  binary(
    'where',
    (a, b) => F.where(F.gt(F.add(a, b), 0), a, b),
    (a, b) => (a + b > 0 ? a : b),
  ),
];

export interface ReductionRow {
  name: string;
  op: (t: Tensor, axes: F.Axes | undefined, keepDims: boolean) => Tensor;
  reference: (values: number[]) => number;
  /** Of an empty row; null where there is none. */
  identity: number | null;
  gradient?: boolean;
  /** Values are drawn from [low, high], default [-1, 1]. */
  domain?: readonly [number, number];
  /** One axis or all of them. */
  single?: boolean;
}

const total = (v: readonly number[]): number => v.reduce((a, b) => a + b, 0);
const average = (v: readonly number[]): number => total(v) / v.length;

function spread(v: readonly number[], correction: number): number {
  const center = average(v);
  return total(v.map((x) => (x - center) ** 2)) / Math.max(v.length - correction, 0);
}

export const REDUCTION_ROWS: readonly ReductionRow[] = [
  { name: 'sum', op: F.sum, reference: total, identity: 0, gradient: true },
  { name: 'mean', op: F.mean, reference: average, identity: NaN, gradient: true },
  {
    name: 'prod',
    op: F.prod,
    reference: (v) => v.reduce((a, b) => a * b, 1),
    identity: 1,
    domain: [0.75, 1.3],
    gradient: true,
  },
  { name: 'max', op: F.max, reference: (v) => Math.max(...v), identity: null, gradient: true },
  { name: 'min', op: F.min, reference: (v) => Math.min(...v), identity: null, gradient: true },
  {
    name: 'argMax',
    op: (t, axes, keep) => F.argMax(t, axes as number, keep),
    reference: (v) => v.indexOf(Math.max(...v)),
    identity: null,
    single: true,
  },
  {
    name: 'argMin',
    op: (t, axes, keep) => F.argMin(t, axes as number, keep),
    reference: (v) => v.indexOf(Math.min(...v)),
    identity: null,
    single: true,
  },
  {
    name: 'any',
    op: (t, axes, keep) => F.any(F.gt(t, 0.9), axes, keep),
    reference: (v) => Number(v.some((x) => x > 0.9)),
    identity: 0,
  },
  {
    name: 'all',
    op: (t, axes, keep) => F.all(F.gt(t, -0.9), axes, keep),
    reference: (v) => Number(v.every((x) => x > -0.9)),
    identity: 1,
  },
  { name: 'variance', op: F.variance, reference: (v) => spread(v, 1), identity: NaN, gradient: true },
  {
    name: 'population variance',
    op: (t, axes, keep) => F.variance(t, axes, keep, 0),
    reference: (v) => spread(v, 0),
    identity: NaN,
    gradient: true,
  },
  { name: 'std', op: F.std, reference: (v) => Math.sqrt(spread(v, 1)), identity: NaN, gradient: true },
  { name: 'norm', op: F.norm, reference: (v) => Math.sqrt(total(v.map((x) => x * x))), identity: 0, gradient: true },
  { name: 'logSumExp', op: F.logSumExp, reference: logSumExp, identity: -Infinity, gradient: true },
];
