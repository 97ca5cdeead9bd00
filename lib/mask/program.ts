/**
 * The compiled form of a mask or score function: straight-line typed SSA, one instruction per value.
 *
 * The encoding and its invariants are documented in csrc/core/mask_program.h; `OPS` lists the same opcodes in the same order
 * (a test compares the two). Instructions are sorted by dependency: (batch, head), query only, key only, the rest.
 */
export const OPS = [
  'Batch', 'Head', 'Query', 'Key', 'Score', 'Upstream',
  'ConstI', 'ConstF', 'UniformI', 'UniformF',
  'LoadI', 'LoadF',
  'AddI', 'SubI', 'MulI', 'DivI', 'RemI', 'NegI', 'AbsI', 'MinI', 'MaxI', 'AndI', 'OrI', 'XorI', 'NotI', 'ShlI', 'ShrI', 'ShrU',
  'EqI', 'NeI', 'LtI', 'LeI',
  'AddF', 'SubF', 'MulF', 'DivF', 'RemF', 'NegF', 'AbsF', 'MinF', 'MaxF', 'FloorF', 'CeilF', 'TruncF', 'RoundF', 'SqrtF', 'ExpF', 'LogF', 'TanhF', 'SinF', 'CosF', 'PowF', 'SignF',
  'EqF', 'NeF', 'LtF', 'LeF',
  'AndB', 'OrB', 'NotB',
  'SelectI', 'SelectF', 'SelectB',
  'IntToFloat', 'FloatToInt', 'BoolToInt', 'BoolToFloat',
] as const; // prettier-ignore

export type OpName = (typeof OPS)[number];

/** Numeric opcode of each name. */
export const OP = Object.fromEntries(OPS.map((name, code) => [name, code])) as Record<OpName, number>;

export type ValueType = 'i32' | 'f32' | 'bool';

/** A captured table: contiguous, row-major; multi-dimensional tables are indexed `table[i][j]` and flattened by the compiler. */
export interface Table {
  readonly name: string;
  readonly dtype: 'f32' | 'i32' | 'u8';
  readonly data: Float32Array | Int32Array | Uint8Array;
  readonly shape: readonly number[];
}

/** A captured number; a uniform of the program, never a constant, so that a new value needs no recompilation. */
export interface Uniform {
  readonly name: string;
  readonly type: 'i32' | 'f32';
  readonly value: number;
}

/** A gradient that a derivative program adds into a captured table at `index`. */
export interface Scatter {
  readonly table: number;
  readonly index: number;
  readonly grad: number;
}

export interface Program {
  readonly kind: 'mask' | 'score' | 'derivative';
  /** Four i32 per instruction: opcode, a, b, c. */
  readonly code: Int32Array;
  /** Ends of the dependency groups: (batch, head) only, query only, key only. The rest mixes. */
  readonly batchHeadEnd: number;
  readonly queryEnd: number;
  readonly keyEnd: number;
  /** Index of the result value: bool for a mask; f32 for a score, and for a derivative dL/ds. */
  readonly result: number;
  readonly scatters: readonly Scatter[];
  readonly tables: readonly Table[];
  readonly uniforms: readonly Uniform[];
}
