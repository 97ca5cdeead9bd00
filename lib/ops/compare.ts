/**
 * Comparisons of two tensors, or of a tensor and a number, by broadcasting, and logic of bool tensors. All give bool tensors and no
 * gradients. As in IEEE 754, NaN equals nothing. They throw ERR_SHAPE when shapes do not broadcast.
 */
import { native } from '../native.ts';
import { expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';
import { forward, type Operand } from './binary.ts';
import { UNARY_CODES } from './elementwise_codes.ts';

/** a == b */
export function eq(a: Operand, b: Operand): Tensor {
  return new Tensor(forward('eq', a, b));
}

/** a != b */
export function ne(a: Operand, b: Operand): Tensor {
  return new Tensor(forward('ne', a, b));
}

/** a < b */
export function lt(a: Operand, b: Operand): Tensor {
  return new Tensor(forward('lt', a, b));
}

/** a <= b */
export function le(a: Operand, b: Operand): Tensor {
  return new Tensor(forward('le', a, b));
}

/** a > b */
export function gt(a: Operand, b: Operand): Tensor {
  return new Tensor(forward('gt', a, b));
}

/** a >= b */
export function ge(a: Operand, b: Operand): Tensor {
  return new Tensor(forward('ge', a, b));
}

/** Both of two bool tensors. Throws ERR_DTYPE for other dtypes, as do the three below. */
export function logicalAnd(a: Tensor, b: Tensor): Tensor {
  return new Tensor(forward('logicalAnd', a, b));
}

/** Either of two bool tensors. */
export function logicalOr(a: Tensor, b: Tensor): Tensor {
  return new Tensor(forward('logicalOr', a, b));
}

/** Exactly one of two bool tensors. */
export function logicalXor(a: Tensor, b: Tensor): Tensor {
  return new Tensor(forward('logicalXor', a, b));
}

/** The opposite of a bool tensor. */
export function logicalNot(t: Tensor): Tensor {
  expectTensors('logicalNot', { t });
  return new Tensor(native().unary(UNARY_CODES.logicalNot, t.handle, 0, 0));
}
