/**
 * Whether a mask is true everywhere, nowhere, or perhaps here and there in a box of coordinates, without visiting its points.
 *
 * Every instruction is evaluated on intervals (transfer.ts). Comparing equal SSA values is decided, table reads are bounded by the exact
 * minimum and maximum of the range they touch, so document ids, prefix lengths and segments come out exact. "all" and "none" are proofs;
 * "mixed" may be either.
 *
 * A prepared analyser works in place and keeps the bounds of the last box: where only the keys changed, only what depends on keys is
 * recomputed. The order of the instructions says which that is.
 */
import { FoveaError } from '../errors.ts';
import { bitsToFloat } from './evaluate.ts';
import { OP } from './program.ts';
import { Bounds, TRANSFER } from './transfer.ts';
import type { Program } from './program.ts';
import type { Transfer } from './transfer.ts';

export type Interval = readonly [lo: number, hi: number];

/** Inclusive ranges of the coordinates. */
export interface Box {
  readonly b: Interval;
  readonly h: Interval;
  readonly q: Interval;
  readonly kv: Interval;
}

/** Class of a box: the mask is false everywhere, true everywhere, or neither is proven. */
export const BOX_NONE = 0;
export const BOX_ALL = 1;
export const BOX_MIXED = 2;
export type BoxClass = typeof BOX_NONE | typeof BOX_ALL | typeof BOX_MIXED;

type Code = Pick<Program, 'code' | 'tables' | 'uniforms'>;

/** Forward interval evaluation of some code, restartable by dependency group. */
export class IntervalMachine {
  readonly bounds: Bounds;
  readonly size: number;
  private readonly code: Int32Array;
  private readonly steps: (Transfer | undefined)[] = [];
  private readonly inputs: [number[], number[], number[], number[]] = [[], [], [], []];

  constructor(program: Code) {
    this.code = program.code;
    this.size = program.code.length / 4;
    this.bounds = new Bounds(program);
    for (let i = 0; i < this.size; ++i) this.prepare(i);
  }

  private prepare(i: number): void {
    const { bounds, code } = this;
    const op = code[4 * i];
    if (op <= OP.Key) this.inputs[op].push(i);
    if (op === OP.ConstI || op === OP.ConstF) {
      const value = op === OP.ConstI ? code[4 * i + 1] : bitsToFloat(code[4 * i + 1]);
      bounds.nan[i] = value !== value ? 1 : 0;
      bounds.lo[i] = value !== value ? -Infinity : value;
      bounds.hi[i] = value !== value ? Infinity : value;
    }
    this.steps.push(TRANSFER[op]);
  }

  /** Bounds of one coordinate: 0 batch, 1 head, 2 query, 3 key. */
  set(coordinate: 0 | 1 | 2 | 3, lo: number, hi: number): void {
    for (const i of this.inputs[coordinate]) {
      this.bounds.lo[i] = lo;
      this.bounds.hi[i] = hi;
    }
  }

  /** Evaluates the instructions from `begin` up to `end`. */
  run(begin: number, end: number): void {
    const { bounds, code, steps } = this;
    for (let i = begin; i < end; ++i) {
      const step = steps[i];
      if (step) step(bounds, i, code[4 * i + 1], code[4 * i + 2], code[4 * i + 3]);
    }
  }

  setBox({ b, h, q, kv }: Box): void {
    this.set(0, b[0], b[1]);
    this.set(1, h[0], h[1]);
    this.set(2, q[0], q[1]);
    this.set(3, kv[0], kv[1]);
  }
}

/**
 * An analyser of one mask program: a function from a box to BOX_NONE, BOX_ALL or BOX_MIXED. It allocates nothing per box and isn't
 * reentrant. Boxes that differ in the keys alone, one after the other, are the cheapest.
 *
 * @throws FoveaError ERR_ARGUMENT where the program isn't a mask
 */
export function prepareIntervals(program: Program): (box: Box) => BoxClass {
  if (program.kind !== 'mask')
    throw new FoveaError('ERR_ARGUMENT', `intervals: expected a mask program, got a ${program.kind}`);
  const machine = new IntervalMachine(program);
  const { batchHeadEnd, queryEnd, keyEnd, result } = program;
  const { lo, hi } = machine.bounds;
  const last = new Float64Array(8).fill(NaN);
  const changed = (at: number, [low, high]: Interval): boolean => {
    if (last[at] === low && last[at + 1] === high) return false;
    last[at] = low;
    last[at + 1] = high;
    machine.set((at >> 1) as 0 | 1 | 2 | 3, low, high);
    return true;
  };
  return (box) => {
    const newBatch = changed(0, box.b);
    const newOuter = changed(2, box.h) || newBatch;
    const newQuery = changed(4, box.q) || newOuter;
    const newKey = changed(6, box.kv) || newOuter;
    if (newOuter) machine.run(0, batchHeadEnd);
    if (newQuery) machine.run(batchHeadEnd, queryEnd);
    if (newKey) machine.run(queryEnd, keyEnd);
    machine.run(keyEnd, machine.size);
    return (lo[result] === hi[result] ? lo[result] : BOX_MIXED) as BoxClass;
  };
}

const prepared = new WeakMap<Program, (box: Box) => BoxClass>();

/** The class of one box, in words. */
export function intervalOf(program: Program, box: Box): 'all' | 'none' | 'mixed' {
  let analyse = prepared.get(program);
  if (!analyse) prepared.set(program, (analyse = prepareIntervals(program)));
  return (['none', 'all', 'mixed'] as const)[analyse(box)];
}
