/**
 * What every instruction that computes does to single values: the meaning that all back ends must share.
 *
 * Values are JavaScript numbers: i32 as integers, f32 as doubles that f32 can represent, bool as 0 or 1. Inputs, constants, uniforms and
 * loads aren't here, they need a program and a place.
 */
import { OPS } from './program.ts';
import type { OpName } from './program.ts';

export type ScalarFunction = (x: number, y: number, z: number) => number;

const f = Math.fround;
const bool = (x: boolean): number => (x ? 1 : 0);

function roundHalfUp(x: number): number {
  const floor = Math.floor(x);
  return x - floor >= 0.5 ? floor + 1 : floor;
}

function saturate(x: number): number {
  if (x !== x) return 0;
  if (x >= 2147483647) return 2147483647;
  return x <= -2147483648 ? -2147483648 : x | 0;
}

const functions: Partial<Record<OpName, ScalarFunction>> = {
  AddI: (x, y) => (x + y) | 0,
  SubI: (x, y) => (x - y) | 0,
  MulI: (x, y) => Math.imul(x, y),
  DivI: (x, y) => (y === 0 ? 0 : (x / y) | 0),
  RemI: (x, y) => (y === 0 ? 0 : (x % y) | 0),
  NegI: (x) => -x | 0,
  AbsI: (x) => Math.abs(x) | 0,
  MinI: (x, y) => (x < y ? x : y),
  MaxI: (x, y) => (x > y ? x : y),
  AndI: (x, y) => x & y,
  OrI: (x, y) => x | y,
  XorI: (x, y) => x ^ y,
  NotI: (x) => ~x,
  ShlI: (x, y) => x << y,
  ShrI: (x, y) => x >> y,
  ShrU: (x, y) => (x >>> y) | 0,
  EqI: (x, y) => bool(x === y),
  NeI: (x, y) => bool(x !== y),
  LtI: (x, y) => bool(x < y),
  LeI: (x, y) => bool(x <= y),
  AddF: (x, y) => f(x + y),
  SubF: (x, y) => f(x - y),
  MulF: (x, y) => f(x * y),
  DivF: (x, y) => f(x / y),
  RemF: (x, y) => f(x % y),
  NegF: (x) => -x,
  AbsF: (x) => Math.abs(x),
  MinF: (x, y) => Math.min(x, y),
  MaxF: (x, y) => Math.max(x, y),
  FloorF: (x) => Math.floor(x),
  CeilF: (x) => Math.ceil(x),
  TruncF: (x) => Math.trunc(x),
  RoundF: (x) => roundHalfUp(x),
  SqrtF: (x) => f(Math.sqrt(x)),
  ExpF: (x) => f(Math.exp(x)),
  LogF: (x) => f(Math.log(x)),
  TanhF: (x) => f(Math.tanh(x)),
  SinF: (x) => f(Math.sin(x)),
  CosF: (x) => f(Math.cos(x)),
  PowF: (x, y) => f(x ** y),
  SignF: (x) => Math.sign(x),
  EqF: (x, y) => bool(x === y),
  NeF: (x, y) => bool(x !== y),
  LtF: (x, y) => bool(x < y),
  LeF: (x, y) => bool(x <= y),
  AndB: (x, y) => x & y,
  OrB: (x, y) => x | y,
  NotB: (x) => 1 - x,
  SelectI: (x, y, z) => (z ? x : y),
  SelectF: (x, y, z) => (z ? x : y),
  SelectB: (x, y, z) => (z ? x : y),
  IntToFloat: (x) => f(x),
  FloatToInt: (x) => saturate(x),
  BoolToInt: (x) => x,
  BoolToFloat: (x) => x,
};

/** By opcode; undefined for the instructions that read something. */
export const SCALAR: readonly (ScalarFunction | undefined)[] = OPS.map((op) => functions[op]);
