/**
 * Functions of one tensor, element by element. Floating dtypes keep theirs (16-bit ones are computed in f32 and rounded once); integers
 * stay integers where the function maps integers to integers, and give f32 otherwise. docs/numerics.md has the accuracy of each.
 */
import { gradEnabled, record } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { isFloating } from '../tensor/dtype.ts';
import { expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';
import { UNARY_CODES, type UnaryName } from './elementwise_codes.ts';

/** Functions whose derivative is computed from their result; the others' from their argument. As in csrc/cpu/unary_math.h. */
const FROM_RESULT: ReadonlySet<UnaryName> = new Set([
  'exp',
  'expm1',
  'sqrt',
  'rsqrt',
  'reciprocal',
  'tanh',
  'sigmoid',
  'relu',
]);

function unary(name: UnaryName, t: Tensor, first = 0, second = 0): Tensor {
  expectTensors(name, { t });
  const code = UNARY_CODES[name];
  const out = new Tensor(native().unary(code, t.handle, first, second));
  if (!gradEnabled() || !t.requiresGrad || !isFloating(t.dtype)) return out;
  const saved = FROM_RESULT.has(name) ? out : t;
  const rule = ([g]: readonly (Tensor | null)[]): Tensor[] => [
    new Tensor(native().unaryBackward(code, (g as Tensor).handle, saved.handle, first, second)),
  ];
  record(name, [out], [t], rule, [saved]);
  return out;
}

/** -t */
export function neg(t: Tensor): Tensor {
  return unary('neg', t);
}

/** |t|; the gradient at 0 is 0. */
export function abs(t: Tensor): Tensor {
  return unary('abs', t);
}

/** -1, 0 or 1; NaN stays NaN. The gradient is 0. */
export function sign(t: Tensor): Tensor {
  return unary('sign', t);
}

/** t t */
export function square(t: Tensor): Tensor {
  return unary('square', t);
}

/** The largest whole number not above t. The gradient is 0, as for ceil and round. */
export function floor(t: Tensor): Tensor {
  return unary('floor', t);
}

/** The smallest whole number not below t. */
export function ceil(t: Tensor): Tensor {
  return unary('ceil', t);
}

/** The nearest whole number, halves to the even one. */
export function round(t: Tensor): Tensor {
  return unary('round', t);
}

/** e to the power t. */
export function exp(t: Tensor): Tensor {
  return unary('exp', t);
}

/** exp(t) - 1, accurate near 0. */
export function expm1(t: Tensor): Tensor {
  return unary('expm1', t);
}

/** The natural logarithm; -Infinity at 0, NaN below. */
export function log(t: Tensor): Tensor {
  return unary('log', t);
}

/** log(1 + t), accurate near 0. */
export function log1p(t: Tensor): Tensor {
  return unary('log1p', t);
}

/** The square root; NaN below 0. The gradient at 0 is infinite. */
export function sqrt(t: Tensor): Tensor {
  return unary('sqrt', t);
}

/** 1 / sqrt(t) */
export function rsqrt(t: Tensor): Tensor {
  return unary('rsqrt', t);
}

/** 1 / t */
export function reciprocal(t: Tensor): Tensor {
  return unary('reciprocal', t);
}

/** The sine of an angle in radians. */
export function sin(t: Tensor): Tensor {
  return unary('sin', t);
}

/** The cosine of an angle in radians. */
export function cos(t: Tensor): Tensor {
  return unary('cos', t);
}

/** The hyperbolic tangent. */
export function tanh(t: Tensor): Tensor {
  return unary('tanh', t);
}

/** 1 / (1 + exp(-t)) */
export function sigmoid(t: Tensor): Tensor {
  return unary('sigmoid', t);
}

/** The error function. */
export function erf(t: Tensor): Tensor {
  return unary('erf', t);
}

/** max(t, 0); the gradient at 0 is 0. */
export function relu(t: Tensor): Tensor {
  return unary('relu', t);
}

/** t for t >= 0, slope t below. The gradient at 0 is 1. */
export function leakyRelu(t: Tensor, slope = 0.01): Tensor {
  return unary('leakyRelu', t, slope);
}

/** t times the normal distribution's cumulative probability of t. Source: Hendrycks and Gimpel 2016, section 2. */
export function gelu(t: Tensor): Tensor {
  return unary('gelu', t);
}

/** The approximation t / 2 (1 + tanh(sqrt(2 / pi) (t + 0.044715 t^3))) of gelu. Source: Hendrycks and Gimpel 2016, section 2. */
export function geluTanh(t: Tensor): Tensor {
  return unary('geluTanh', t);
}

/** t sigmoid(t), also called swish. Source: Elfwing et al. 2017. */
export function silu(t: Tensor): Tensor {
  return unary('silu', t);
}

/** log(1 + exp(t)) without overflow. */
export function softplus(t: Tensor): Tensor {
  return unary('softplus', t);
}

/**
 * t held between `low` and `high`; null leaves that side open. NaN stays NaN. Integer tensors keep their dtype, fractional bounds act as
 * the nearest whole number inside. The gradient is 1 from bound to bound, both included, and 0 outside.
 * Throws ERR_ARGUMENT when low > high.
 */
export function clamp(t: Tensor, low: number | null, high: number | null): Tensor {
  const from = low ?? -Infinity;
  const to = high ?? Infinity;
  if (!(from <= to)) throw new FoveaError('ERR_ARGUMENT', `clamp: expected low <= high, got ${from} and ${to}`);
  return unary('clamp', t, from, to);
}
