/** Op codes of the seam's `binary` and `unary`: the order is that of the enums in csrc/core/elementwise_params.h. */
const BINARY = [
  'add',
  'sub',
  'mul',
  'div',
  'pow',
  'maximum',
  'minimum',
  'remainder',
  'atan2',
  'eq',
  'ne',
  'lt',
  'le',
  'gt',
  'ge',
  'logicalAnd',
  'logicalOr',
  'logicalXor',
] as const;

const UNARY = [
  'neg',
  'abs',
  'sign',
  'square',
  'floor',
  'ceil',
  'round',
  'exp',
  'expm1',
  'log',
  'log1p',
  'sqrt',
  'rsqrt',
  'reciprocal',
  'sin',
  'cos',
  'tanh',
  'sigmoid',
  'erf',
  'relu',
  'gelu',
  'geluTanh',
  'silu',
  'softplus',
  'leakyRelu',
  'clamp',
  'logicalNot',
] as const;

export type BinaryName = (typeof BINARY)[number];
export type UnaryName = (typeof UNARY)[number];

function codes<N extends string>(names: readonly N[]): Readonly<Record<N, number>> {
  return Object.fromEntries(names.map((name, code) => [name, code])) as Record<N, number>;
}

export const BINARY_CODES = codes(BINARY);
export const UNARY_CODES = codes(UNARY);
