/**
 * The index rule: a table read must be provably in range for the lengths in use, or it is refused.
 *
 * JavaScript reads undefined outside an array; native code would read foreign memory. Interpreters clamp, so memory is safe regardless, but
 * a clamped value is a wrong value, hence the proof. First the index is bounded over the whole box. Where that isn't enough, the conditions
 * under which the read is reached are assumed, their bounds propagated backward and forward (narrow.ts, affine.ts) until nothing changes; an
 * index that is a choice is proven for each case.
 */
import { IntervalMachine } from './interval.ts';
import { Relations } from './affine.ts';
import { Narrowing } from './narrow.ts';
import { OP, OPS, operandFields } from './program.ts';
import { Bounds } from './transfer.ts';
import { FoveaError } from '../errors.ts';
import { indexError } from './index_error.ts';
import type { Box } from './interval.ts';
import type { IndexChecks, Program } from './program.ts';

const MAX_ROUNDS = 16;
/** Selects in an index that are told apart. */
const MAX_SPLITS = 5;

/** A bool value that is known. */
interface Fact {
  readonly condition: number;
  readonly truth: 0 | 1;
}

interface Failure {
  readonly axis: number;
  readonly range: readonly [number, number];
}

const proven = new WeakMap<Program, Box[]>();

/**
 * Checks every table read of a program for a box of coordinates, for instance all of `0 <= q < queries`, `0 <= kv < keys`.
 *
 * @param title how the message names the mask; by default its kind
 * @throws FoveaError ERR_MASK_INDEX naming the read, its index range and the table's length, where a read may be out of range; also where an
 * integer of the function may exceed 2^31
 */
export function checkIndices(program: Program, box: Box, title?: string): void {
  const known = proven.get(program) ?? [];
  if (known.some((larger) => contains(larger, box))) return;
  const checks = program.checks ?? loadChecks(program);
  const prover = new Prover(program, checks, box);
  checks.reads.forEach(({ table, indices, path }, read) => {
    const { shape, data } = program.tables[table];
    const lengths = indices.length === shape.length ? shape : [data.length];
    if (!prover.failure(indices, lengths, [], 0)) return;
    const facts = path.map((condition): Fact => ({ condition, truth: 1 }));
    const failure = prover.failure(indices, lengths, facts);
    if (failure) throw indexError({ ...program, checks }, read, failure.axis, failure.range, title);
  });
  checkExact(program, box, title);
  const own: Box = { b: [...box.b], h: [...box.h], q: [...box.q], kv: [...box.kv] };
  proven.set(program, [...known.filter((smaller) => !contains(box, smaller)), own].slice(-8));
}

function contains(outer: Box, inner: Box): boolean {
  return (['b', 'h', 'q', 'kv'] as const).every(
    (name) => outer[name][0] <= inner[name][0] && outer[name][1] >= inner[name][1],
  );
}

/** Where the function's integers may exceed i32 at great lengths: a proof that they don't for these. */
function checkExact(program: Program, box: Box, title: string = program.kind): void {
  const exact = program.checks?.exact ?? [];
  if (exact.length === 0) return;
  const machine = new IntervalMachine(program);
  machine.setBox(box);
  machine.run(0, machine.size);
  if (!exact.some((i) => machine.bounds.wrapped[i])) return;
  const ends = `${box.q[1] + 1} queries and ${box.kv[1] + 1} keys`;
  throw new FoveaError(
    'ERR_MASK_INDEX',
    `${title}: an integer sum or product of the function may exceed 2^31 for ${ends}, where programs compute with 32-bit integers\n\n` +
      'Hint: compare smaller numbers, or make it a float by multiplying with 0.5',
  );
}

/** For a program without recorded reads: every load, unguarded. */
function loadChecks({ code, tables }: Program): IndexChecks {
  const reads = [];
  for (let i = 0; i < code.length; i += 4) {
    const [op, table, index] = code.subarray(i, i + 3);
    if (op !== OP.LoadI && op !== OP.LoadF) continue;
    reads.push({ table, indices: [index], path: [], text: `a read of ${tables[table].name}` });
  }
  return { code, reads };
}

/** Proves reads of one program in one box; `base` holds the bounds that need no assumption. */
class Prover {
  private readonly code: Int32Array;
  private readonly machine: IntervalMachine;
  private readonly base: Bounds;

  constructor(program: Program, checks: IndexChecks, box: Box) {
    const code = { code: checks.code, tables: program.tables, uniforms: program.uniforms };
    this.code = checks.code;
    this.machine = new IntervalMachine(code);
    this.machine.setBox(box);
    this.machine.run(0, this.machine.size);
    this.base = new Bounds(code);
    copyBounds(this.machine.bounds, this.base);
  }

  /**
   * An index that may be out of range where `facts` hold, undefined if none may. An index that is one of two values is proven for each of
   * them under its condition.
   */
  failure(
    indices: readonly number[],
    lengths: readonly number[],
    facts: readonly Fact[],
    splits = MAX_SPLITS,
  ): Failure | undefined {
    const { lo, hi } = this.machine.bounds;
    copyBounds(this.base, this.machine.bounds);
    if (facts.length > 0 && !this.assume(facts)) return undefined;
    const axis = indices.findIndex((index, k) => lo[index] < 0 || hi[index] >= lengths[k]);
    if (axis < 0) return undefined;
    const range = [lo[indices[axis]], hi[indices[axis]]] as const;
    const condition = splits > 0 ? this.openCondition(indices[axis]) : -1;
    if (condition < 0) return { axis, range };
    const under = (truth: 0 | 1): Failure | undefined =>
      this.failure(indices, lengths, [...facts, { condition, truth }], splits - 1);
    return under(1) ?? under(0);
  }

  /** The condition of a select that the index is made of, where it isn't known; -1 if there is none. */
  private openCondition(index: number): number {
    const { lo, hi } = this.machine.bounds;
    const seen = new Set([index]);
    for (const value of seen) {
      const [op, a, b, c] = this.code.subarray(4 * value, 4 * value + 4);
      const fields = { a, b, c };
      if (OPS[op].startsWith('Select') && lo[c] !== hi[c]) return c;
      for (const field of operandFields(OPS[op])) seen.add(fields[field]);
    }
    return -1;
  }

  /** Tightens all bounds under the assumption of facts; false where they exclude each other. */
  private assume(facts: readonly Fact[]): boolean {
    const { machine, code } = this;
    const narrowing = new Narrowing(machine.bounds);
    const relations = new Relations(code, narrowing);
    for (const { condition, truth } of facts) narrowing.is(condition, truth);
    for (let round = 0; round < MAX_ROUNDS && !narrowing.empty; ++round) {
      narrowing.changed = false;
      for (let i = machine.size - 1; i >= 0 && !narrowing.empty; --i) {
        narrowing.back(code[4 * i], i, code[4 * i + 1], code[4 * i + 2], code[4 * i + 3]);
      }
      if (narrowing.empty) break;
      relations.apply();
      this.forward(narrowing);
      if (!narrowing.changed) break;
    }
    return !narrowing.empty;
  }

  /** Recomputes every value within its present bounds. */
  private forward(narrowing: Narrowing): void {
    const { machine } = this;
    const { lo, hi, wrapped } = machine.bounds;
    for (let i = 0; i < machine.size && !narrowing.empty; ++i) {
      const [low, high, wraps] = [lo[i], hi[i], wrapped[i]];
      machine.run(i, i + 1);
      const [newLow, newHigh] = [lo[i], hi[i]];
      lo[i] = low;
      hi[i] = high;
      wrapped[i] = wraps;
      narrowing.within(i, newLow, newHigh);
    }
  }
}

function copyBounds(from: Bounds, to: Bounds): void {
  to.lo.set(from.lo);
  to.hi.set(from.hi);
  to.nan.set(from.nan);
  to.wrapped.set(from.wrapped);
}
