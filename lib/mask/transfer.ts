/**
 * Interval arithmetic: the bounds of every instruction's result from the bounds of its operands.
 *
 * Bounds are closed and conservative. i32 results that may wrap become the whole i32 range and are marked; f32 ends are rounded as the
 * instruction rounds, which is exact because rounding is monotone; functions that back ends approximate are widened by far more than any
 * of them errs. `nan` marks values that may be NaN besides their bounds. bool values are bounds within [0, 1].
 */
import { OPS } from './program.ts';
import { SCALAR } from './scalar.ts';
import { rangeTable } from './range_table.ts';
import type { OpName, Program } from './program.ts';
import type { RangeTable } from './range_table.ts';

export const INT_MIN = -2147483648;
export const INT_MAX = 2147483647;

/** Bounds of every value of some code. */
export class Bounds {
  readonly lo: Float64Array;
  readonly hi: Float64Array;
  readonly nan: Uint8Array;
  /** i32 values whose arithmetic may have wrapped. */
  readonly wrapped: Uint8Array;
  readonly ranges: readonly RangeTable[];
  /** i32 or f32 values of the captured numbers. */
  readonly uniforms: readonly number[];

  constructor(program: Pick<Program, 'code' | 'tables' | 'uniforms'>) {
    const size = program.code.length / 4;
    this.lo = new Float64Array(size);
    this.hi = new Float64Array(size);
    this.nan = new Uint8Array(size);
    this.wrapped = new Uint8Array(size);
    this.ranges = program.tables.map(({ data }) => rangeTable(data));
    this.uniforms = program.uniforms.map(({ type, value }) => (type === 'f32' ? Math.fround(value) : value));
  }
}

/** Sets the bounds of value i from its operands. */
export type Transfer = (m: Bounds, i: number, a: number, b: number, c: number) => void;

const f = Math.fround;

function int(m: Bounds, i: number, lo: number, hi: number): void {
  const wraps = lo < INT_MIN || hi > INT_MAX;
  m.lo[i] = wraps ? INT_MIN : lo;
  m.hi[i] = wraps ? INT_MAX : hi;
  m.wrapped[i] = wraps ? 1 : 0;
}

function float(m: Bounds, i: number, lo: number, hi: number, nan: number): void {
  if (lo !== lo || hi !== hi) {
    anyFloat(m, i);
    return;
  }
  m.lo[i] = f(lo);
  m.hi[i] = f(hi);
  m.nan[i] = nan;
}

function anyFloat(m: Bounds, i: number): void {
  m.lo[i] = -Infinity;
  m.hi[i] = Infinity;
  m.nan[i] = 1;
}

/** For functions that back ends approximate. */
function widened(m: Bounds, i: number, lo: number, hi: number, nan: number): void {
  float(m, i, lo - Math.abs(lo) * 1e-5 - 1e-30, hi + Math.abs(hi) * 1e-5 + 1e-30, nan);
}

function bool(m: Bounds, i: number, surely: boolean, maybe: boolean): void {
  m.lo[i] = surely ? 1 : 0;
  m.hi[i] = maybe ? 1 : 0;
}

const single = (m: Bounds, a: number): boolean => m.lo[a] === m.hi[a];

/** Exact for known operands, otherwise what `otherwise` says. */
function known(op: OpName, otherwise: Transfer): Transfer {
  const scalar = SCALAR[OPS.indexOf(op)] ?? (() => NaN);
  return (m, i, a, b, c) => {
    if (single(m, a) && single(m, b)) {
      const value = scalar(m.lo[a], m.lo[b], 0);
      int(m, i, value, value);
    } else otherwise(m, i, a, b, c);
  };
}

function corners(m: Bounds, i: number, a: number, b: number, op: (x: number, y: number) => number): void {
  const p = op(m.lo[a], m.lo[b]);
  const q = op(m.lo[a], m.hi[b]);
  const r = op(m.hi[a], m.lo[b]);
  const s = op(m.hi[a], m.hi[b]);
  int(m, i, Math.min(p, q, r, s), Math.max(p, q, r, s));
}

const multiply = (x: number, y: number): number => x * y;
const divide = (x: number, y: number): number => Math.trunc(x / y);

function divI(m: Bounds, i: number, a: number, b: number): void {
  if (m.lo[b] > 0 || m.hi[b] < 0) corners(m, i, a, b, divide);
  else {
    const most = Math.max(Math.abs(m.lo[a]), Math.abs(m.hi[a]));
    int(m, i, -most, most);
  }
}

function remI(m: Bounds, i: number, a: number, b: number): void {
  const [lo, hi] = [m.lo[a], m.hi[a]];
  const divisor = m.lo[b];
  if (single(m, b) && divisor > 0 && lo >= 0 && Math.floor(lo / divisor) === Math.floor(hi / divisor)) {
    int(m, i, lo % divisor, hi % divisor);
    return;
  }
  const most = Math.max(Math.abs(divisor), Math.abs(m.hi[b])) - 1;
  int(m, i, lo >= 0 ? 0 : Math.max(lo, -Math.max(most, 0)), hi <= 0 ? 0 : Math.min(hi, Math.max(most, 0)));
}

function absI(m: Bounds, i: number, a: number): void {
  const [lo, hi] = [m.lo[a], m.hi[a]];
  int(m, i, lo > 0 ? lo : hi < 0 ? -hi : 0, Math.max(-lo, hi));
}

function andI(m: Bounds, i: number, a: number, b: number): void {
  const mask = m.lo[b];
  if (single(m, b) && mask >= 0 && (mask & (mask + 1)) === 0 && m.lo[a] >= 0) {
    const bits = 32 - Math.clz32(mask);
    if (bits === 0 || m.lo[a] >> bits === m.hi[a] >> bits) {
      int(m, i, m.lo[a] & mask, m.hi[a] & mask);
      return;
    }
  }
  const [x, y] = [m.lo[a] >= 0, m.lo[b] >= 0];
  if (x && y) int(m, i, 0, Math.min(m.hi[a], m.hi[b]));
  else if (x || y) int(m, i, 0, x ? m.hi[a] : m.hi[b]);
  else int(m, i, INT_MIN, Math.max(m.hi[a], m.hi[b]));
}

/** or, xor: of numbers that are not negative, no more bits than the larger has. */
function orI(m: Bounds, i: number, a: number, b: number): void {
  if (m.lo[a] >= 0 && m.lo[b] >= 0) {
    const bits = 32 - Math.clz32(Math.max(m.hi[a], m.hi[b]));
    int(m, i, 0, 2 ** bits - 1);
  } else int(m, i, INT_MIN, INT_MAX);
}

function shift(m: Bounds, i: number, a: number, b: number, op: (x: number, count: number) => number): void {
  if (single(m, b)) int(m, i, op(m.lo[a], m.lo[b] & 31), op(m.hi[a], m.lo[b] & 31));
  else int(m, i, INT_MIN, INT_MAX);
}

const shiftLeft = (x: number, count: number): number => x * 2 ** count;
const shiftRight = (x: number, count: number): number => x >> count;

function load(m: Bounds, i: number, table: number, index: number): void {
  const ranges = m.ranges[table];
  const last = ranges.length - 1;
  if (last < 0) {
    float(m, i, 0, 0, 0);
    return;
  }
  ranges.query(Math.min(Math.max(m.lo[index], 0), last), Math.min(Math.max(m.hi[index], 0), last));
  m.lo[i] = ranges.min;
  m.hi[i] = ranges.max;
  m.nan[i] = 0;
  if (ranges.hasNaN) anyFloat(m, i);
}

const infinite = (m: Bounds, a: number): boolean => m.lo[a] === -Infinity || m.hi[a] === Infinity;
const hasZero = (m: Bounds, a: number): boolean => m.lo[a] <= 0 && m.hi[a] >= 0;
const either = (m: Bounds, a: number, b: number): number => m.nan[a] | m.nan[b];

function mulF(m: Bounds, i: number, a: number, b: number): void {
  if ((infinite(m, a) && hasZero(m, b)) || (infinite(m, b) && hasZero(m, a))) {
    anyFloat(m, i);
    return;
  }
  const p = m.lo[a] * m.lo[b];
  const q = m.lo[a] * m.hi[b];
  const r = m.hi[a] * m.lo[b];
  const s = m.hi[a] * m.hi[b];
  float(m, i, Math.min(p, q, r, s), Math.max(p, q, r, s), either(m, a, b));
}

function divF(m: Bounds, i: number, a: number, b: number): void {
  if (hasZero(m, b) || (infinite(m, a) && infinite(m, b))) {
    anyFloat(m, i);
    return;
  }
  const p = m.lo[a] / m.lo[b];
  const q = m.lo[a] / m.hi[b];
  const r = m.hi[a] / m.lo[b];
  const s = m.hi[a] / m.hi[b];
  float(m, i, Math.min(p, q, r, s), Math.max(p, q, r, s), either(m, a, b));
}

function remF(m: Bounds, i: number, a: number, b: number): void {
  if (hasZero(m, b) || infinite(m, a)) {
    anyFloat(m, i);
    return;
  }
  const most = Math.min(Math.max(Math.abs(m.lo[b]), Math.abs(m.hi[b])), Math.max(Math.abs(m.lo[a]), Math.abs(m.hi[a])));
  float(m, i, m.lo[a] >= 0 ? 0 : -most, m.hi[a] <= 0 ? 0 : most, either(m, a, b));
}

function absF(m: Bounds, i: number, a: number): void {
  const [lo, hi] = [m.lo[a], m.hi[a]];
  float(m, i, lo > 0 ? lo : hi < 0 ? -hi : 0, Math.max(-lo, hi), m.nan[a]);
}

function powF(m: Bounds, i: number, a: number, b: number): void {
  if (!(m.lo[a] > 0) || infinite(m, a) || infinite(m, b)) {
    anyFloat(m, i);
    return;
  }
  const p = m.lo[a] ** m.lo[b];
  const q = m.lo[a] ** m.hi[b];
  const r = m.hi[a] ** m.lo[b];
  const s = m.hi[a] ** m.hi[b];
  widened(m, i, Math.min(p, q, r, s), Math.max(p, q, r, s), either(m, a, b));
}

function wave(fn: (x: number) => number): Transfer {
  return (m, i, a) => {
    if (!single(m, a) || infinite(m, a)) float(m, i, -1, 1, m.nan[a] | (infinite(m, a) ? 1 : 0));
    else float(m, i, Math.max(-1, fn(m.lo[a]) - 1e-5), Math.min(1, fn(m.lo[a]) + 1e-5), m.nan[a]);
  };
}

/** A function that never decreases, computed alike everywhere. */
function monotone(fn: (x: number) => number): Transfer {
  return (m, i, a) => float(m, i, fn(m.lo[a]), fn(m.hi[a]), m.nan[a]);
}

function select(m: Bounds, i: number, a: number, b: number, c: number): void {
  if (m.lo[c] === 1 || m.hi[c] === 0) {
    const chosen = m.lo[c] === 1 ? a : b;
    m.lo[i] = m.lo[chosen];
    m.hi[i] = m.hi[chosen];
    m.nan[i] = m.nan[chosen];
    return;
  }
  m.lo[i] = Math.min(m.lo[a], m.lo[b]);
  m.hi[i] = Math.max(m.hi[a], m.hi[b]);
  m.nan[i] = m.nan[a] | m.nan[b];
}

function copy(m: Bounds, i: number, a: number): void {
  m.lo[i] = m.lo[a];
  m.hi[i] = m.hi[a];
  m.nan[i] = 0;
}

const saturate = (x: number): number => Math.min(Math.max(Math.trunc(x), INT_MIN), INT_MAX);

function floatToInt(m: Bounds, i: number, a: number): void {
  const [lo, hi] = [saturate(m.lo[a]), saturate(m.hi[a])];
  int(m, i, m.nan[a] ? Math.min(lo, 0) : lo, m.nan[a] ? Math.max(hi, 0) : hi);
}

function equal(m: Bounds, i: number, a: number, b: number): void {
  const same = a === b || (single(m, a) && single(m, b) && m.lo[a] === m.lo[b]);
  bool(m, i, same, m.lo[a] <= m.hi[b] && m.lo[b] <= m.hi[a]);
}

function flip(m: Bounds, i: number): void {
  const lo = 1 - m.hi[i];
  m.hi[i] = 1 - m.lo[i];
  m.lo[i] = lo;
}

const fuzzyNaN = (m: Bounds, i: number, a: number, b: number): void => {
  if (m.nan[a] | m.nan[b]) m.lo[i] = 0;
};

const notEqual: Transfer = (m, i, a, b) => {
  equal(m, i, a, b);
  flip(m, i);
};

const lessThan = (m: Bounds, i: number, a: number, b: number): void => bool(m, i, m.hi[a] < m.lo[b], m.lo[a] < m.hi[b]);
const lessOrEqual = (m: Bounds, i: number, a: number, b: number): void =>
  bool(m, i, m.hi[a] <= m.lo[b], m.lo[a] <= m.hi[b]);

const fullScore: Transfer = (m, i) => float(m, i, -Infinity, Infinity, 0);

const TABLE: Partial<Record<OpName, Transfer>> = {
  Score: fullScore,
  Upstream: fullScore,
  UniformI: (m, i, a) => int(m, i, m.uniforms[a], m.uniforms[a]),
  UniformF: (m, i, a) => float(m, i, m.uniforms[a], m.uniforms[a], 0),
  LoadI: load,
  LoadF: load,
  AddI: (m, i, a, b) => int(m, i, m.lo[a] + m.lo[b], m.hi[a] + m.hi[b]),
  SubI: (m, i, a, b) => int(m, i, m.lo[a] - m.hi[b], m.hi[a] - m.lo[b]),
  MulI: known('MulI', (m, i, a, b) => corners(m, i, a, b, multiply)),
  DivI: known('DivI', divI),
  RemI: known('RemI', remI),
  NegI: (m, i, a) => int(m, i, -m.hi[a], -m.lo[a]),
  AbsI: absI,
  MinI: (m, i, a, b) => int(m, i, Math.min(m.lo[a], m.lo[b]), Math.min(m.hi[a], m.hi[b])),
  MaxI: (m, i, a, b) => int(m, i, Math.max(m.lo[a], m.lo[b]), Math.max(m.hi[a], m.hi[b])),
  AndI: known('AndI', andI),
  OrI: known('OrI', orI),
  XorI: known('XorI', orI),
  NotI: (m, i, a) => int(m, i, ~m.hi[a], ~m.lo[a]),
  ShlI: known('ShlI', (m, i, a, b) => shift(m, i, a, b, shiftLeft)),
  ShrI: known('ShrI', (m, i, a, b) => shift(m, i, a, b, shiftRight)),
  ShrU: known('ShrU', (m, i, a, b) => {
    if (m.lo[a] >= 0) shift(m, i, a, b, shiftRight);
    else int(m, i, INT_MIN, INT_MAX);
  }),
  EqI: equal,
  NeI: notEqual,
  LtI: lessThan,
  LeI: lessOrEqual,
  AddF: (m, i, a, b) =>
    float(m, i, m.lo[a] + m.lo[b], m.hi[a] + m.hi[b], either(m, a, b) | opposite(m.lo[a], m.hi[a], m.lo[b], m.hi[b])),
  SubF: (m, i, a, b) =>
    float(m, i, m.lo[a] - m.hi[b], m.hi[a] - m.lo[b], either(m, a, b) | opposite(m.lo[a], m.hi[a], -m.hi[b], -m.lo[b])),
  MulF: mulF,
  DivF: divF,
  RemF: remF,
  NegF: (m, i, a) => float(m, i, -m.hi[a], -m.lo[a], m.nan[a]),
  AbsF: absF,
  MinF: (m, i, a, b) => float(m, i, Math.min(m.lo[a], m.lo[b]), Math.min(m.hi[a], m.hi[b]), either(m, a, b)),
  MaxF: (m, i, a, b) => float(m, i, Math.max(m.lo[a], m.lo[b]), Math.max(m.hi[a], m.hi[b]), either(m, a, b)),
  FloorF: monotone(Math.floor),
  CeilF: monotone(Math.ceil),
  TruncF: monotone(Math.trunc),
  RoundF: monotone((x) => (Number.isInteger(x) ? x : Math.round(x))),
  SqrtF: (m, i, a) =>
    float(m, i, Math.sqrt(Math.max(m.lo[a], 0)), Math.sqrt(m.hi[a]), m.nan[a] | (m.lo[a] < 0 ? 1 : 0)),
  ExpF: (m, i, a) => widened(m, i, Math.exp(m.lo[a]), Math.exp(m.hi[a]), m.nan[a]),
  LogF: (m, i, a) => {
    const [lo, hi] = [Math.log(Math.max(m.lo[a], 0)), Math.log(m.hi[a])];
    if (m.lo[a] < 0 || infinite(m, a)) anyFloat(m, i);
    else float(m, i, lo - 1e-5 * (1 + Math.abs(lo)), hi + 1e-5 * (1 + Math.abs(hi)), m.nan[a]);
  },
  TanhF: (m, i, a) =>
    float(m, i, Math.max(-1, Math.tanh(m.lo[a]) - 1e-5), Math.min(1, Math.tanh(m.hi[a]) + 1e-5), m.nan[a]),
  SinF: wave(Math.sin),
  CosF: wave(Math.cos),
  PowF: powF,
  SignF: monotone(Math.sign),
  EqF: (m, i, a, b) => {
    equal(m, i, a, b);
    fuzzyNaN(m, i, a, b);
  },
  NeF: (m, i, a, b) => {
    equal(m, i, a, b);
    fuzzyNaN(m, i, a, b);
    flip(m, i);
  },
  LtF: (m, i, a, b) => {
    lessThan(m, i, a, b);
    fuzzyNaN(m, i, a, b);
  },
  LeF: (m, i, a, b) => {
    lessOrEqual(m, i, a, b);
    fuzzyNaN(m, i, a, b);
  },
  AndB: (m, i, a, b) => bool(m, i, m.lo[a] === 1 && m.lo[b] === 1, m.hi[a] === 1 && m.hi[b] === 1),
  OrB: (m, i, a, b) => bool(m, i, m.lo[a] === 1 || m.lo[b] === 1, m.hi[a] === 1 || m.hi[b] === 1),
  NotB: (m, i, a) => bool(m, i, m.hi[a] === 0, m.lo[a] === 0),
  SelectI: select,
  SelectF: select,
  SelectB: select,
  IntToFloat: (m, i, a) => float(m, i, m.lo[a], m.hi[a], 0),
  FloatToInt: floatToInt,
  BoolToInt: copy,
  BoolToFloat: copy,
};

/** 1 where a sum may add infinities of opposite signs. */
function opposite(aLo: number, aHi: number, bLo: number, bHi: number): number {
  return (aHi === Infinity && bLo === -Infinity) || (aLo === -Infinity && bHi === Infinity) ? 1 : 0;
}

/** By opcode; undefined for coordinates and constants, whose bounds are given. */
export const TRANSFER: readonly (Transfer | undefined)[] = OPS.map((op) => TABLE[op]);
