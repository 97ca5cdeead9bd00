/**
 * The scalar interpreter: a program at one point, with exactly the semantics of csrc/core/mask_program.h.
 *
 * It is the reference of every faster back end and what verification runs. An evaluator resolves each instruction to a function once and
 * then works in one preallocated array of values.
 */
import { FoveaError } from '../errors.ts';
import { OP } from './program.ts';
import { SCALAR } from './scalar.ts';
import type { Program, Table } from './program.ts';

/** A point of the attention matrix; what a program doesn't read may be left out. */
export interface Point {
  readonly b?: number;
  readonly h?: number;
  readonly q?: number;
  readonly kv?: number;
  /** The scaled logit. */
  readonly s?: number;
  /** dL/d(result), for a derivative program. */
  readonly upstream?: number;
}

/** A gradient contribution of one point: `table`'s element at flat `index` receives `grad`. */
export interface ScatterValue {
  readonly table: number;
  readonly index: number;
  readonly grad: number;
}

type Captured = Pick<Program, 'code' | 'tables' | 'uniforms'>;
type Step = (values: Float64Array, point: Point) => number;

const floatBits = new Float32Array(1);
const intBits = new Int32Array(floatBits.buffer);

/** The f32 whose bits are these. */
export function bitsToFloat(bits: number): number {
  intBits[0] = bits;
  return floatBits[0];
}

/** The bits of the nearest f32. */
export function floatToBits(value: number): number {
  floatBits[0] = value;
  return intBits[0];
}

/**
 * A function that computes every value of the code at a point. The array it returns is reused by the next call; bools are 0 and 1.
 */
export function prepareValues({ code, tables, uniforms }: Captured): (point: Point) => Float64Array {
  const size = code.length / 4;
  const values = new Float64Array(size);
  const steps: Step[] = [];
  for (let i = 0; i < size; ++i) steps.push(step(code.subarray(4 * i, 4 * i + 4), tables, uniforms));
  return (point) => {
    for (let i = 0; i < size; ++i) values[i] = steps[i](values, point);
    return values;
  };
}

const evaluators = new WeakMap<Program, (point: Point) => Float64Array>();

/** The program's result at a point: 0 or 1 for a mask, the score for a score, dL/ds for a derivative. */
export function evaluate(program: Program, point: Point): number {
  return valuesOf(program)(point)[program.result];
}

/** What a derivative program adds to the captured tables at a point. */
export function evaluateScatters(program: Program, point: Point): ScatterValue[] {
  const values = valuesOf(program)(point);
  return program.scatters.map(({ table, index, grad }) => {
    const last = program.tables[table].data.length - 1;
    return { table, index: Math.min(Math.max(values[index], 0), last), grad: values[grad] };
  });
}

function valuesOf(program: Program): (point: Point) => Float64Array {
  let values = evaluators.get(program);
  if (!values) evaluators.set(program, (values = prepareValues(program)));
  return values;
}

function step([op, a, b, c]: Int32Array, tables: readonly Table[], uniforms: Program['uniforms']): Step {
  const scalar = SCALAR[op];
  if (scalar) return (values) => scalar(values[a], values[b], values[c]);
  switch (op) {
    case OP.Batch:
      return (_, point) => point.b ?? 0;
    case OP.Head:
      return (_, point) => point.h ?? 0;
    case OP.Query:
      return (_, point) => point.q ?? 0;
    case OP.Key:
      return (_, point) => point.kv ?? 0;
    case OP.Score:
      return (_, point) => Math.fround(point.s ?? 0);
    case OP.Upstream:
      return (_, point) => Math.fround(point.upstream ?? 1);
    case OP.ConstI:
      return () => a;
    case OP.ConstF: {
      const value = bitsToFloat(a);
      return () => value;
    }
    case OP.UniformI:
    case OP.UniformF: {
      const value = op === OP.UniformF ? Math.fround(uniforms[a].value) : uniforms[a].value;
      return () => value;
    }
    case OP.LoadI:
    case OP.LoadF: {
      const { data } = tables[a];
      const last = data.length - 1;
      if (last < 0) return () => 0;
      return (values) => data[Math.min(Math.max(values[b], 0), last)];
    }
    default:
      throw new FoveaError('ERR_INTERNAL', `mask program: unknown opcode ${op}`);
  }
}
