/**
 * Arithmetic of two tensors, or of a tensor and a number, by broadcasting.
 *
 * Result dtype: the larger of bool < u8 < i32 < i64 < f16, bf16 < f32 < f64 (f16 with bf16 gives f32). A number takes the tensor's dtype;
 * only a fraction with an integer tensor gives f32. Arithmetic on bool alone gives i64. Integers wrap around. All throw ERR_SHAPE when
 * shapes do not broadcast.
 */
import { gradEnabled, record } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native, type Handle } from '../native.ts';
import { Tensor } from '../tensor/tensor.ts';
import { eq, gt } from './compare.ts';
import { cast } from './copy.ts';
import { BINARY_CODES, type BinaryName } from './elementwise_codes.ts';
import { floor, log, neg, square } from './unary.ts';
import { sumTo } from './view.ts';
import { where } from './where.ts';

export type Operand = Tensor | number;
/** The gradient of one operand before it is summed back to that operand's shape. */
type Rule = (g: Tensor, a: Operand, b: Operand) => Tensor;

/** Runs the kernel of a binary op; internal to lib/ops. */
export function forward(name: BinaryName, a: Operand, b: Operand): Handle {
  const code = BINARY_CODES[name];
  for (const x of [a, b] as readonly unknown[])
    if (typeof x !== 'number' && !(x instanceof Tensor))
      throw new FoveaError(
        'ERR_ARGUMENT',
        `${name}: got ${x === null ? 'null' : Array.isArray(x) ? 'an array' : typeof x}, expected tensors or numbers`,
      );
  if (typeof a === 'number') {
    if (typeof b === 'number')
      throw new FoveaError('ERR_ARGUMENT', `${name}: both operands are numbers, expected a tensor`);
    return native().binaryNumber(code, b.handle, a, true);
  }
  return typeof b === 'number'
    ? native().binaryNumber(code, a.handle, b, false)
    : native().binary(code, a.handle, b.handle);
}

function wantsGrad(x: Operand): x is Tensor {
  return typeof x !== 'number' && x.requiresGrad;
}

/** `g` as a gradient of `t`: summed over broadcast axes, in t's dtype. */
function gradientOf(t: Tensor, g: Tensor): Tensor {
  return cast(sumTo(g, t.shape), t.dtype);
}

/** `saves`: the rules need the operands' values. */
function binary(name: BinaryName, a: Operand, b: Operand, ruleA: Rule, ruleB: Rule, saves: boolean): Tensor {
  const out = new Tensor(forward(name, a, b));
  if (!gradEnabled() || !(wantsGrad(a) || wantsGrad(b))) return out;
  const inputs = [a, b].filter((x) => typeof x !== 'number');
  record(
    name,
    [out],
    inputs,
    ([g]) => {
      const grads: (Tensor | null)[] = [];
      if (typeof a !== 'number') grads.push(a.requiresGrad ? gradientOf(a, ruleA(g as Tensor, a, b)) : null);
      if (typeof b !== 'number') grads.push(b.requiresGrad ? gradientOf(b, ruleB(g as Tensor, a, b)) : null);
      return grads;
    },
    saves ? inputs : [],
  );
  return out;
}

const pass: Rule = (g) => g;

/** a + b */
export function add(a: Operand, b: Operand): Tensor {
  return binary('add', a, b, pass, pass, false);
}

/** a - b */
export function sub(a: Operand, b: Operand): Tensor {
  return binary('sub', a, b, pass, neg, false);
}

/** a b, element by element */
export function mul(a: Operand, b: Operand): Tensor {
  return binary(
    'mul',
    a,
    b,
    (g, _a, b) => mul(g, b),
    (g, a) => mul(g, a),
    true,
  );
}

/** a / b; integers are divided as f32. */
export function div(a: Operand, b: Operand): Tensor {
  return binary(
    'div',
    a,
    b,
    (g, _a, b) => div(g, b),
    (g, a, b) => neg(div(mul(g, div(a, b)), b)),
    true,
  );
}

/**
 * a to the power b. A negative integer power of an integer is 0, except of 1 and -1. Gradients: that of `a` is 0 where b is 0, that of `b`
 * is 0 where a is 0.
 */
export function pow(a: Operand, b: Operand): Tensor {
  if (b === 2 && typeof a !== 'number') return square(a);
  return binary(
    'pow',
    a,
    b,
    (g, a, b) => {
      if (typeof b === 'number') {
        if (b === 0) return mul(g, 0);
        return mul(g, mul(pow(a, b - 1), b));
      }
      return where(eq(b, 0), 0, mul(g, mul(b, pow(a, sub(b, 1)))));
    },
    (g, a, b) =>
      typeof a === 'number'
        ? mul(g, mul(pow(a, b), a === 0 ? 0 : Math.log(a)))
        : where(eq(a, 0), 0, mul(g, mul(pow(a, b), log(a)))),
    true,
  );
}

function shareOf(g: Tensor, winner: Operand, loser: Operand): Tensor {
  return where(gt(winner, loser), g, where(eq(winner, loser), mul(g, 0.5), 0));
}

/** The larger of a and b, NaN where either is NaN. Equal operands get half of the gradient each. */
export function maximum(a: Operand, b: Operand): Tensor {
  return binary(
    'maximum',
    a,
    b,
    (g, a, b) => shareOf(g, a, b),
    (g, a, b) => shareOf(g, b, a),
    true,
  );
}

/** The smaller of a and b, NaN where either is NaN. Equal operands get half of the gradient each. */
export function minimum(a: Operand, b: Operand): Tensor {
  return binary(
    'minimum',
    a,
    b,
    (g, a, b) => shareOf(g, b, a),
    (g, a, b) => shareOf(g, a, b),
    true,
  );
}

/** a - b floor(a / b): has the sign of b. For integers, 0 where b is 0. */
export function remainder(a: Operand, b: Operand): Tensor {
  return binary('remainder', a, b, pass, (g, a, b) => neg(mul(g, floor(div(a, b)))), true);
}

/** The angle of the point (b, a), in (-pi, pi] radians. */
export function atan2(a: Operand, b: Operand): Tensor {
  const radius = (a: Operand, b: Operand): Operand => add(squareOf(a), squareOf(b));
  return binary(
    'atan2',
    a,
    b,
    (g, a, b) => mul(g, div(b, radius(a, b))),
    (g, a, b) => neg(mul(g, div(a, radius(a, b)))),
    true,
  );
}

function squareOf(x: Operand): Operand {
  return typeof x === 'number' ? x * x : square(x);
}
