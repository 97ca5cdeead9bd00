/**
 * The typed SSA graph that functions are lowered to: hash-consed, constants folded on the way in.
 *
 * A value is the number of its node; equal nodes are one node, so `q - kv` written twice is computed once and comparing a value with
 * itself is known. Nodes carry a static i32 range: coordinates are 0 <= x < 2^30, which turns division and remainder by constants into
 * shifts and masks. bool constants exist only here (the encoding has none); the scheduler writes them as a comparison.
 *
 * `path` holds the conditions under which the code being built is reached; table reads record it for the index check.
 */
import { FoveaError } from '../errors.ts';
import { floatToBits, bitsToFloat } from './evaluate.ts';
import { asInt, fold } from './fold.ts';
import { MAX_PROGRAM_SIZE, OP, OPS, operandFields, resultType } from './program.ts';
import { staticRange } from './static_range.ts';
import type { OpName, Table, Uniform, ValueType } from './program.ts';

/** Opcode of a bool constant inside the graph. */
export const CONST_B = OPS.length;

export interface Read {
  readonly table: number;
  readonly indices: readonly number[];
  readonly path: readonly number[];
  readonly text: string;
}

const types: readonly ValueType[] = [...OPS.map(resultType), 'bool'];

/** Float instructions whose operands should be wide; roundings take the integer form, from which they make an integer. */
const resultsFromFloats: ReadonlySet<OpName> = new Set(
  OPS.filter((op) => /F$/.test(op) && operandFields(op).length > 0 && !/^(Floor|Ceil|Trunc|Round|Load)F$/.test(op)),
);

export class Builder {
  readonly ops: number[] = [];
  readonly a: number[] = [];
  readonly b: number[] = [];
  readonly c: number[] = [];
  /** Static bounds of i32 values. */
  readonly lo: number[] = [];
  readonly hi: number[] = [];
  readonly tables: Table[] = [];
  readonly uniforms: Uniform[] = [];
  readonly reads: Read[] = [];
  readonly path: number[] = [];
  private readonly known = new Map<string, number>();
  private readonly overflowing = new Map<number, boolean>();
  /** For f32 values made of integers: the same computed in f32. */
  private readonly wide = new Map<number, number>();
  private readonly tableNumbers = new Map<Table, number>();

  type(value: number): ValueType {
    return types[this.ops[value]];
  }

  is(value: number, op: OpName): boolean {
    return this.ops[value] === OP[op];
  }

  int(value: number): number {
    return this.node(OP.ConstI, value | 0);
  }

  float(value: number): number {
    return this.node(OP.ConstF, floatToBits(value));
  }

  /** The f32 constant with these bits. */
  constantBits(bits: number): number {
    return this.node(OP.ConstF, bits);
  }

  bool(value: boolean): number {
    return this.node(CONST_B, value ? 1 : 0);
  }

  constant(value: number, type: ValueType): number {
    if (type === 'bool') return this.bool(value !== 0);
    return type === 'i32' ? this.int(value) : this.float(value);
  }

  /** The number of a constant node (0 or 1 for bool), undefined for any other. */
  valueOf(value: number): number | undefined {
    const op = this.ops[value];
    if (op === OP.ConstF) return bitsToFloat(this.a[value]);
    return op === OP.ConstI || op === CONST_B ? this.a[value] : undefined;
  }

  input(op: 'Batch' | 'Head' | 'Query' | 'Key' | 'Score' | 'Upstream'): number {
    return this.node(OP[op]);
  }

  /** A captured number; the same object is the same value. */
  uniform(uniform: Uniform): number {
    return this.node(uniform.type === 'i32' ? OP.UniformI : OP.UniformF, position(this.uniforms, uniform));
  }

  /** A captured table; two snapshots with the same contents are one, so that composed masks share their reads. */
  table(table: Table): number {
    let at = this.tableNumbers.get(table);
    if (at === undefined) {
      at = this.tables.findIndex((other) => sameTable(other, table));
      if (at < 0) at = this.tables.push(table) - 1;
      this.tableNumbers.set(table, at);
    }
    return at;
  }

  load(table: number, index: number): number {
    return this.node(this.tables[table].dtype === 'f32' ? OP.LoadF : OP.LoadI, table, index);
  }

  /** The value of an instruction, simplified where its operands allow. */
  emit(op: OpName, a: number, b = 0, c = 0): number {
    if (this.wide.size > 0 && resultsFromFloats.has(op)) return this.emitWide(op, a, b, c);
    const value = fold(this, OP[op], a, b, c) ?? this.node(OP[op], a, b, c);
    if (op === 'IntToFloat') this.widen(a, value);
    return value;
  }

  /** The value as floats see it: a converted product that i32 might not hold is multiplied in f32 instead. */
  widest(value: number): number {
    return this.wide.get(value) ?? value;
  }

  not(value: number): number {
    return this.emit('NotB', value);
  }

  select(condition: number, a: number, b: number): number {
    const type = this.type(a);
    return this.emit(type === 'bool' ? 'SelectB' : type === 'i32' ? 'SelectI' : 'SelectF', a, b, condition);
  }

  toInt(value: number): number {
    const type = this.type(value);
    return type === 'i32' ? value : this.emit(type === 'bool' ? 'BoolToInt' : 'FloatToInt', value);
  }

  toFloat(value: number): number {
    const type = this.type(value);
    return type === 'f32' ? value : this.emit(type === 'bool' ? 'BoolToFloat' : 'IntToFloat', value);
  }

  /** JavaScript's truth of a value: neither 0 nor NaN. */
  truthy(value: number): number {
    const type = this.type(value);
    if (type === 'bool') return value;
    if (type === 'i32') return this.emit('NeI', value, this.int(0));
    const zero = this.float(0);
    return this.emit('OrB', this.emit('LtF', value, zero), this.emit('LtF', zero, value));
  }

  /** Builds something that is reached only where `condition` is true. */
  under<T>(condition: number, build: () => T): T {
    this.path.push(condition);
    try {
      return build();
    } finally {
      this.path.pop();
    }
  }

  /** Records a table access for the index check. */
  read(table: number, indices: readonly number[], text: string): void {
    const path = [...new Set(this.path)].filter((condition) => this.valueOf(condition) !== 1);
    this.reads.push({ table, indices: [...indices], path, text });
  }

  /** A quotient of integers keeps its integer form for a rounding that may follow; every other use takes the wide form. */
  private emitWide(op: OpName, a: number, b: number, c: number): number {
    const plain = fold(this, OP[op], a, b, c) ?? this.node(OP[op], a, b, c);
    const [x, y] = [this.widest(a), operandFields(op).length > 1 ? this.widest(b) : b];
    if (x === a && y === b) return plain;
    const ints = asInt(this, a) !== undefined && asInt(this, b) !== undefined;
    if (ints && op !== 'DivF' && operandFields(op).length === 2 && this.type(plain) === 'bool') return plain;
    const wide = fold(this, OP[op], x, y, c) ?? this.node(OP[op], x, y, c);
    if (op !== 'DivF' || !ints) return wide;
    this.wide.set(plain, wide);
    return plain;
  }

  private widen(int: number, converted: number): void {
    if (this.wide.has(converted) || !this.mayOverflow(int)) return;
    this.wide.set(converted, this.wideFloat(int));
  }

  /** Products without static bounds, and sums of them. */
  private mayOverflow(int: number): boolean {
    const known = this.overflowing.get(int);
    if (known !== undefined) return known;
    const op = OPS[this.ops[int]];
    let result = false;
    if (op === 'MulI') result = this.lo[int] === -2147483648 && this.hi[int] === 2147483647;
    else if (op === 'AddI' || op === 'SubI') result = this.mayOverflow(this.a[int]) || this.mayOverflow(this.b[int]);
    else if (op === 'NegI') result = this.mayOverflow(this.a[int]);
    this.overflowing.set(int, result);
    return result;
  }

  private wideFloat(int: number): number {
    if (!this.mayOverflow(int)) return this.toFloat(int);
    const converted = this.node(OP.IntToFloat, int);
    let wide = this.wide.get(converted);
    if (wide === undefined) {
      const a = this.wideFloat(this.a[int]);
      if (this.is(int, 'NegI')) wide = this.emit('NegF', a);
      else {
        const op = this.is(int, 'MulI') ? 'MulF' : this.is(int, 'AddI') ? 'AddF' : 'SubF';
        wide = this.emit(op, a, this.wideFloat(this.b[int]));
      }
      this.wide.set(converted, wide);
    }
    return wide;
  }

  private node(op: number, a = 0, b = 0, c = 0): number {
    const key = `${op},${a},${b},${c}`;
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const value = this.ops.length;
    if (value >= 4 * MAX_PROGRAM_SIZE) {
      throw new FoveaError(
        'ERR_MASK_SYNTAX',
        `the function computes more than ${4 * MAX_PROGRAM_SIZE} different values`,
      );
    }
    this.ops.push(op);
    this.a.push(a);
    this.b.push(b);
    this.c.push(c);
    const [lo, hi] = staticRange(this, op, a, b);
    this.lo.push(lo);
    this.hi.push(hi);
    this.known.set(key, value);
    return value;
  }
}

function position<T>(list: T[], item: T): number {
  const at = list.indexOf(item);
  return at >= 0 ? at : list.push(item) - 1;
}

function sameTable(x: Table, y: Table): boolean {
  if (x.dtype !== y.dtype || x.source !== y.source || x.shape.length !== y.shape.length) return false;
  if (!x.shape.every((size, axis) => size === y.shape[axis])) return false;
  return Buffer.compare(bytes(x), bytes(y)) === 0;
}

function bytes({ data }: Table): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
