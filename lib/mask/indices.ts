/**
 * The index rule: a table read must be provably in range for the lengths in use, or it is refused.
 *
 * JavaScript reads undefined outside an array; native code would read foreign memory. Interpreters clamp, so memory is safe regardless, but
 * a clamped value is a wrong value, hence the proof. First the index is bounded over the whole box. Where that isn't enough, the conditions
 * under which the read is reached are assumed, their bounds propagated backward and forward (narrow.ts, affine.ts) until nothing changes.
 */
import { IntervalMachine } from './interval.ts';
import { Relations } from './affine.ts';
import { Narrowing } from './narrow.ts';
import { OP } from './program.ts';
import { FoveaError } from '../errors.ts';
import { indexError } from './index_error.ts';
import type { Box } from './interval.ts';
import type { IndexChecks, Program } from './program.ts';

const MAX_ROUNDS = 16;

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
  const machine = new IntervalMachine({ code: checks.code, tables: program.tables, uniforms: program.uniforms });
  machine.setBox(box);
  machine.run(0, machine.size);
  checks.reads.forEach((_, read) => checkRead(program, checks, machine, read, title));
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

function checkRead(
  program: Program,
  checks: IndexChecks,
  machine: IntervalMachine,
  read: number,
  title?: string,
): void {
  const { table, indices, path } = checks.reads[read];
  const { shape, data } = program.tables[table];
  const lengths = indices.length === shape.length ? shape : [data.length];
  const { lo, hi } = machine.bounds;
  const outside = (): number => indices.findIndex((index, axis) => lo[index] < 0 || hi[index] >= lengths[axis]);
  if (outside() < 0) return;
  const saved = [lo.slice(), hi.slice()];
  const reachable = path.length === 0 || assume(machine, checks.code, path);
  const axis = reachable ? outside() : -1;
  const range = axis >= 0 ? ([lo[indices[axis]], hi[indices[axis]]] as const) : null;
  lo.set(saved[0]);
  hi.set(saved[1]);
  if (range) throw indexError({ ...program, checks }, read, axis, range, title);
}

/** Tightens all bounds under the assumption that `path` is true; false where that is impossible. */
function assume(machine: IntervalMachine, code: Int32Array, path: readonly number[]): boolean {
  const narrowing = new Narrowing(machine.bounds);
  const relations = new Relations(code, narrowing);
  const { lo, hi, wrapped } = machine.bounds;
  for (const condition of path) narrowing.is(condition, 1);
  for (let round = 0; round < MAX_ROUNDS && !narrowing.empty; ++round) {
    narrowing.changed = false;
    for (let i = machine.size - 1; i >= 0 && !narrowing.empty; --i) {
      narrowing.back(code[4 * i], i, code[4 * i + 1], code[4 * i + 2], code[4 * i + 3]);
    }
    if (narrowing.empty) break;
    relations.apply();
    const before = narrowing.changed;
    for (let i = 0; i < machine.size && !narrowing.empty; ++i) {
      const [low, high, wraps] = [lo[i], hi[i], wrapped[i]];
      machine.run(i, i + 1);
      const [newLow, newHigh] = [lo[i], hi[i]];
      lo[i] = low;
      hi[i] = high;
      wrapped[i] = wraps;
      narrowing.within(i, newLow, newHigh);
    }
    if (!narrowing.changed && !before) break;
  }
  return !narrowing.empty;
}
