import { createHash } from 'node:crypto';

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

/**
 * What the mask language needs of a tensor; the library's Tensor satisfies it. A tensor with `requiresGrad` may receive gradients
 * from the derivative program of a score.
 */
export interface CapturedTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly requiresGrad?: boolean;
  /** The elements in row-major order, read once when the function is compiled. */
  toTableData(): ArrayLike<number> | ArrayLike<bigint> | ArrayLike<boolean>;
}

/** A captured table: contiguous, row-major; multi-dimensional tables are indexed `table[i][j]` and flattened by the compiler. */
export interface Table {
  readonly name: string;
  readonly dtype: 'f32' | 'i32' | 'u8';
  readonly data: Float32Array | Int32Array | Uint8Array;
  readonly shape: readonly number[];
  /** The tensor that `data` was read from, so that attention can bind its present values and return its gradient. */
  readonly source?: CapturedTensor;
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

/** One `table[i][j]` of the source text: where its indices are computed and under which conditions it is reached. */
export interface TableRead {
  readonly table: number;
  /** Values of `IndexChecks.code`, one per axis of the table. */
  readonly indices: readonly number[];
  /** bool values of `IndexChecks.code`, all true where the read is reached. */
  readonly path: readonly number[];
  /** The expression as written. */
  readonly text: string;
}

/** A program of its own that computes every index and guard; only `checkIndices` runs it, on intervals. */
export interface IndexChecks {
  readonly code: Int32Array;
  readonly reads: readonly TableRead[];
  /** Instructions of the program itself (not of `code`) that JavaScript computes beyond i32 for some lengths; they must not wrap. */
  readonly exact?: readonly number[];
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
  /** Present where the program was compiled from a function; refers to the same tables and uniforms. */
  readonly checks?: IndexChecks;
}

/** Number of instructions a program may have; kMaskProgramMaxSize in csrc/core/mask_program.h. */
export const MAX_PROGRAM_SIZE = 4096;

/** First word of an encoded program. */
export const PROGRAM_MAGIC = 0x464d5031;

/** What an instruction's name says about its result: a comparison or a suffix B is bool, F is f32, I is i32. */
export function resultType(op: OpName): ValueType {
  if (/^(Eq|Ne|Lt|Le)[IF]$/.test(op) || op.endsWith('B')) return 'bool';
  if (op === 'FloatToInt' || op === 'BoolToInt') return 'i32';
  if (op === 'IntToFloat' || op === 'BoolToFloat' || op === 'Score' || op === 'Upstream') return 'f32';
  return op.endsWith('F') ? 'f32' : 'i32';
}

/** Which of the fields a, b, c name earlier values; the other fields are bits, table or uniform numbers, or unused. */
export function operandFields(op: OpName): readonly ('a' | 'b' | 'c')[] {
  return OPERANDS[OP[op]];
}

const UNARY = new Set<OpName>([
  'NegI', 'AbsI', 'NotI', 'NegF', 'AbsF', 'FloorF', 'CeilF', 'TruncF', 'RoundF', 'SqrtF', 'ExpF', 'LogF', 'TanhF', 'SinF', 'CosF', 'SignF',
  'NotB', 'IntToFloat', 'FloatToInt', 'BoolToInt', 'BoolToFloat',
]); // prettier-ignore

const OPERANDS: readonly (readonly ('a' | 'b' | 'c')[])[] = OPS.map((op) => {
  if (OP[op] <= OP.UniformF) return [];
  if (op === 'LoadI' || op === 'LoadF') return ['b'];
  if (op.startsWith('Select')) return ['a', 'b', 'c'];
  return UNARY.has(op) ? ['a'] : ['a', 'b'];
});

/**
 * The flat form handed to native code:
 * `[magic, size, batchHeadEnd, queryEnd, keyEnd, result, scatterCount, ...code (4 per instruction), ...scatters (table, index, grad)]`.
 * Captured values travel apart, so that one encoded program serves every binding of them.
 */
export function encodeProgram(program: Program): Int32Array {
  const { code, scatters } = program;
  const flat = new Int32Array(7 + code.length + 3 * scatters.length);
  const { batchHeadEnd, queryEnd, keyEnd, result } = program;
  flat.set([PROGRAM_MAGIC, code.length / 4, batchHeadEnd, queryEnd, keyEnd, result, scatters.length]);
  flat.set(code, 7);
  scatters.forEach(({ table, index, grad }, i) => flat.set([table, index, grad], 7 + code.length + 3 * i));
  return flat;
}

/** The bits of the captured numbers in order, i32 or f32, as `MaskProgram::uniforms` wants them. */
export function uniformBits(program: Program): Int32Array {
  const bits = new Int32Array(program.uniforms.length);
  const floats = new Float32Array(bits.buffer);
  program.uniforms.forEach(({ type, value }, i) => ((type === 'f32' ? floats : bits)[i] = value));
  return bits;
}

const keys = new WeakMap<Program, string>();

/**
 * A hash of the structure alone: equal for two programs that differ only in captured values, table contents or lengths. Caches of
 * generated code are keyed by it.
 */
export function programKey(program: Program): string {
  let key = keys.get(program);
  if (key === undefined) {
    const hash = createHash('sha256').update(program.kind).update(encodeProgram(program));
    for (const { dtype } of program.tables) hash.update(dtype);
    hash.update('|');
    for (const { type } of program.uniforms) hash.update(type);
    key = hash.digest('hex').slice(0, 32);
    keys.set(program, key);
  }
  return key;
}
