/**
 * The check that a compiled program means what the function does: both are run at a thousand random points.
 *
 * A mask must agree exactly. A score may differ by rounding (the program computes in f32, JavaScript in double), and where a comparison or
 * rounding of nearly equal floats may fall either way the point is passed over. Points are drawn where every table read is in range:
 * outside, JavaScript reads undefined, which `checkIndices` refuses at use.
 */
import { FoveaError } from '../errors.ts';
import { indexError } from './index_error.ts';
import { prepareValues } from './evaluate.ts';
import { OP, OPS, resultType } from './program.ts';
import type { IndexChecks, Program } from './program.ts';

/** A full point; the order of drawing is fixed, so a function is always verified at the same points. */
export interface SamplePoint {
  b: number;
  h: number;
  q: number;
  kv: number;
  s: number;
}

const POINTS = 1000;
const ATTEMPTS = 10 * POINTS;
/** log2 of the largest coordinates drawn. */
const LARGEST = { b: 6, h: 7, q: 20, kv: 20 };
const INPUTS = { b: OP.Batch, h: OP.Head, q: OP.Query, kv: OP.Key };
/** Relative to the largest intermediate value. */
const TOLERANCE = 2 ** -16;
const MAX_F32 = 3.4028234663852886e38;

/**
 * Compares `program` with `fn`. Where they differ because an integer wraps, as a product may at great lengths, the instruction is returned
 * instead: it has to be proven for the lengths in use.
 *
 * @returns instructions that must not wrap
 * @throws FoveaError ERR_MASK_SYNTAX at the first other difference, ERR_MASK_INDEX where no read is ever in range
 */
export function verify(program: Program, fn: (point: SamplePoint) => unknown, title: string): readonly number[] {
  const exact = new Set<number>();
  let passedOver = 0;
  const values = prepareValues(program);
  const sampler = new Sampler(program);
  for (let attempt = 0, checked = 0; attempt < ATTEMPTS && checked < POINTS; ++attempt) {
    const point = sampler.next();
    if (!point) continue;
    ++checked;
    let expected: unknown;
    try {
      expected = fn(point);
    } catch (cause) {
      throw new FoveaError(
        'ERR_MASK_SYNTAX',
        `${title}: the function throws at ${show(program, point)}: ${String(cause)}`,
        { cause },
      );
    }
    const computed = values(point);
    const agrees =
      program.kind === 'mask'
        ? Boolean(expected) === (computed[program.result] === 1)
        : sameScore(expected, computed, program) || nearTie(computed, program);
    if (agrees) continue;
    const wraps = wrapping(computed, program);
    if (wraps.length === 0 || ++passedOver > POINTS / 2)
      throw difference(program, point, expected, computed[program.result], title);
    for (const i of wraps) exact.add(i);
  }
  if (sampler.unreachable)
    throw indexError(program, sampler.unreachable.read, sampler.unreachable.axis, sampler.unreachable.at, title);
  return [...exact];
}

const EXACT: ReadonlyMap<number, (x: number, y: number) => number> = new Map([
  [OP.AddI, (x, y) => x + y],
  [OP.SubI, (x, y) => x - y],
  [OP.MulI, (x, y) => x * y],
  [OP.ShlI, (x, y) => x * 2 ** (y & 31)],
]);

/** The instructions whose result is not what JavaScript's numbers give. */
function wrapping(values: Float64Array, { code }: Program): number[] {
  const wraps: number[] = [];
  for (let i = 0; i < code.length / 4; ++i) {
    const [op, a, b] = code.subarray(4 * i, 4 * i + 3);
    const exact = EXACT.get(op);
    if (exact && exact(values[a], values[b]) !== values[i]) wraps.push(i);
  }
  return wraps;
}

function difference(
  program: Program,
  point: SamplePoint,
  expected: unknown,
  computed: number,
  title: string,
): FoveaError {
  const got = program.kind === 'mask' ? computed === 1 : computed;
  return new FoveaError(
    'ERR_MASK_SYNTAX',
    `${title}: the compiled program differs from the function at ${show(program, point)}: ` +
      `the function gives ${String(expected)}, the program ${got}\n\n` +
      'Hint: programs compute with 32-bit integers and f32. Keep integers below 2^31, write integer division as Math.floor(a / b), ' +
      'compare integers rather than fractions, index tables with integers, and use nothing but the arguments.',
  );
}

function show(program: Program, { s, ...coordinates }: SamplePoint): string {
  return JSON.stringify(program.kind === 'mask' ? coordinates : { s, ...coordinates }).replace(/"/g, '');
}

function sameScore(expected: unknown, values: Float64Array, program: Program): boolean {
  if (typeof expected !== 'number') return false;
  const computed = values[program.result];
  if (Object.is(expected, computed) || expected === computed) return true;
  if (Math.abs(expected) > MAX_F32) return computed === Math.sign(expected) * Infinity;
  let largest = 0;
  for (let i = 0; i < values.length; ++i) {
    const size = Math.abs(values[i]);
    if (size > largest && size <= MAX_F32) largest = size;
  }
  return Math.abs(expected - computed) <= TOLERANCE * largest;
}

const isDiscontinuous = OPS.map((op) => /^(Eq|Ne|Lt|Le|Floor|Ceil|Trunc|Round|Rem|Sign)F$|^FloatToInt$/.test(op));
const isRemainder = OP.RemF;

/** Whether some float comparison or rounding is so close that f32 and double may decide differently. */
function nearTie(values: Float64Array, { code }: Program): boolean {
  for (let i = 0; i < code.length; i += 4) {
    const [op, a, b] = code.subarray(i, i + 3);
    if (!isDiscontinuous[op]) continue;
    const x = values[a];
    const binary = resultType(OPS[op]) === 'bool';
    const quotient = op === isRemainder ? x / values[b] : x;
    const near = binary ? values[b] : op === OP.SignF ? 0 : Math.round(2 * quotient) / 2;
    if (Math.abs((binary ? x : quotient) - near) <= TOLERANCE * Math.max(1, Math.abs(x))) return true;
  }
  return false;
}

/** Random points at which every reached table read is in range. */
class Sampler {
  /** A read that was never in range so far; undefined once a point was good. */
  unreachable: { read: number; axis: number; at: number } | undefined;
  private readonly checks: IndexChecks | undefined;
  private readonly shapes: readonly (readonly number[])[];
  private readonly values: (point: SamplePoint) => Float64Array;
  private readonly limits: Record<keyof typeof INPUTS, number>;
  private readonly point: SamplePoint = { b: 0, h: 0, q: 0, kv: 0, s: 0 };
  private found = false;
  private state = 0x9e3779b9;

  constructor(program: Program) {
    this.checks = program.checks;
    this.shapes = program.tables.map(({ shape }) => shape);
    this.values = prepareValues({
      code: program.checks?.code ?? new Int32Array(0),
      tables: program.tables,
      uniforms: program.uniforms,
    });
    const limit = (name: keyof typeof INPUTS): number => this.directLimit(INPUTS[name], 2 ** LARGEST[name]);
    this.limits = { b: limit('b'), h: limit('h'), q: limit('q'), kv: limit('kv') };
  }

  next(): SamplePoint | undefined {
    const { point } = this;
    point.b = this.coordinate('b');
    point.h = this.coordinate('h');
    point.q = this.coordinate('q');
    point.kv = this.random() < 0.5 ? this.coordinate('kv') : this.near(point.q);
    point.s = this.random() < 0.05 ? 0 : Math.fround((this.random() - 0.5) * 2 ** (6 * this.random()));
    const bad = this.outOfRange();
    if (bad && !this.found) this.unreachable ??= bad;
    if (bad) return undefined;
    this.found = true;
    this.unreachable = undefined;
    return point;
  }

  /** The length of the shortest table axis that the coordinate itself indexes. */
  private directLimit(input: number, largest: number): number {
    const { code, reads } = this.checks ?? { code: new Int32Array(0), reads: [] };
    let limit = largest;
    for (const { table, indices } of reads) {
      indices.forEach((index, axis) => {
        if (code[4 * index] === input) limit = Math.min(limit, this.shapes[table][axis]);
      });
    }
    return limit;
  }

  private outOfRange(): { read: number; axis: number; at: number } | undefined {
    if (!this.checks) return undefined;
    const values = this.values(this.point);
    for (const [read, { table, indices, path }] of this.checks.reads.entries()) {
      if (!path.every((condition) => values[condition] === 1)) continue;
      const axis = indices.findIndex((index, k) => values[index] < 0 || values[index] >= this.shapes[table][k]);
      if (axis >= 0) return { read, axis, at: values[indices[axis]] };
    }
    return undefined;
  }

  /** Small numbers, numbers of every magnitude, and the last one before the limit. */
  private coordinate(name: keyof typeof INPUTS): number {
    const beyond = this.random() < 0.1;
    const limit = beyond ? 2 ** LARGEST[name] : this.limits[name];
    const kind = this.random();
    if (kind < 0.05) return limit - 1;
    if (kind < 0.4) return Math.floor(this.random() * limit);
    return Math.min(limit - 1, Math.floor(2 ** (this.random() * (32 - Math.clz32(limit)))) - 1);
  }

  private near(q: number): number {
    const distance = Math.floor(2 ** (this.random() * 8)) - 1;
    return Math.max(0, this.random() < 0.6 ? q - distance : q + distance);
  }

  /** mulberry32 */
  private random(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
}
