/**
 * The reverse of interval arithmetic: from the bounds of a result to tighter bounds of its operands.
 *
 * Used to prove guarded table reads: the guard is assumed true, its bounds are pushed back to the coordinates, and forward to the index.
 * A rule never widens, and works on i32 and bool only; arithmetic that may wrap isn't inverted.
 */
import { OPS } from './program.ts';
import type { OpName } from './program.ts';
import type { Bounds } from './transfer.ts';

type Backward = (n: Narrowing, i: number, a: number, b: number, c: number) => void;

/** Bounds under an assumption; `empty` once nothing satisfies it. */
export class Narrowing {
  readonly m: Bounds;
  changed = false;
  empty = false;

  constructor(bounds: Bounds) {
    this.m = bounds;
  }

  /** Intersects the bounds of a value with [lo, hi]. */
  within(value: number, lo: number, hi: number): void {
    const { m } = this;
    if (lo > m.lo[value]) {
      m.lo[value] = lo;
      this.changed = true;
    }
    if (hi < m.hi[value]) {
      m.hi[value] = hi;
      this.changed = true;
    }
    if (m.lo[value] > m.hi[value]) this.empty = true;
  }

  atLeast(value: number, lo: number): void {
    this.within(value, lo, Infinity);
  }

  atMost(value: number, hi: number): void {
    this.within(value, -Infinity, hi);
  }

  is(value: number, truth: 0 | 1): void {
    this.within(value, truth, truth);
  }

  /** Tightens the operands of value i. */
  back(op: number, i: number, a: number, b: number, c: number): void {
    BACKWARD[op]?.(this, i, a, b, c);
  }
}

/** a < b + slack, slack 0 or 1. */
function ordered(n: Narrowing, a: number, b: number, slack: 0 | 1): void {
  n.atMost(a, n.m.hi[b] - 1 + slack);
  n.atLeast(b, n.m.lo[a] + 1 - slack);
}

function comparison(whenTrue: (n: Narrowing, a: number, b: number) => void, whenFalse: typeof whenTrue): Backward {
  return (n, i, a, b) => {
    if (n.m.lo[i] === 1) whenTrue(n, a, b);
    else if (n.m.hi[i] === 0) whenFalse(n, a, b);
  };
}

function same(n: Narrowing, a: number, b: number): void {
  n.within(a, n.m.lo[b], n.m.hi[b]);
  n.within(b, n.m.lo[a], n.m.hi[a]);
}

function different(n: Narrowing, a: number, b: number): void {
  for (const [x, y] of [[a, b], [b, a]]) {
    if (n.m.lo[y] !== n.m.hi[y]) continue;
    if (n.m.lo[x] === n.m.lo[y]) n.atLeast(x, n.m.lo[x] + 1);
    if (n.m.hi[x] === n.m.lo[y]) n.atMost(x, n.m.hi[x] - 1);
  }
} // prettier-ignore

/** For arithmetic: not where the result may have wrapped. */
function exact(rule: Backward): Backward {
  return (n, i, a, b, c) => {
    if (!n.m.wrapped[i]) rule(n, i, a, b, c);
  };
}

function multiplied(n: Narrowing, i: number, a: number, b: number): void {
  for (const [x, y] of [[a, b], [b, a]]) {
    const factor = n.m.lo[y];
    if (factor !== n.m.hi[y] || factor <= 0) continue;
    n.within(x, Math.ceil(n.m.lo[i] / factor), Math.floor(n.m.hi[i] / factor));
  }
} // prettier-ignore

const RULES: Partial<Record<OpName, Backward>> = {
  AddI: exact((n, i, a, b) => {
    n.within(a, n.m.lo[i] - n.m.hi[b], n.m.hi[i] - n.m.lo[b]);
    n.within(b, n.m.lo[i] - n.m.hi[a], n.m.hi[i] - n.m.lo[a]);
  }),
  SubI: exact((n, i, a, b) => {
    n.within(a, n.m.lo[i] + n.m.lo[b], n.m.hi[i] + n.m.hi[b]);
    n.within(b, n.m.lo[a] - n.m.hi[i], n.m.hi[a] - n.m.lo[i]);
  }),
  NegI: exact((n, i, a) => n.within(a, -n.m.hi[i], -n.m.lo[i])),
  MulI: exact(multiplied),
  AbsI: exact((n, i, a) => {
    n.within(a, -n.m.hi[i], n.m.hi[i]);
    if (n.m.lo[a] > -n.m.lo[i]) n.atLeast(a, n.m.lo[i]);
    else if (n.m.hi[a] < n.m.lo[i]) n.atMost(a, -n.m.lo[i]);
  }),
  MinI: (n, i, a, b) => {
    n.atLeast(a, n.m.lo[i]);
    n.atLeast(b, n.m.lo[i]);
    if (n.m.lo[b] > n.m.hi[i]) n.atMost(a, n.m.hi[i]);
    if (n.m.lo[a] > n.m.hi[i]) n.atMost(b, n.m.hi[i]);
  },
  MaxI: (n, i, a, b) => {
    n.atMost(a, n.m.hi[i]);
    n.atMost(b, n.m.hi[i]);
    if (n.m.hi[b] < n.m.lo[i]) n.atLeast(a, n.m.lo[i]);
    if (n.m.hi[a] < n.m.lo[i]) n.atLeast(b, n.m.lo[i]);
  },
  ShrI: (n, i, a, b) => {
    if (n.m.lo[b] !== n.m.hi[b]) return;
    const step = 2 ** (n.m.lo[b] & 31);
    n.within(a, n.m.lo[i] * step, n.m.hi[i] * step + step - 1);
  },
  DivI: (n, i, a, b) => {
    const divisor = n.m.lo[b];
    if (divisor !== n.m.hi[b] || divisor <= 0 || n.m.lo[a] < 0) return;
    n.within(a, n.m.lo[i] * divisor, n.m.hi[i] * divisor + divisor - 1);
  },
  BoolToInt: (n, i, a) => n.within(a, n.m.lo[i], n.m.hi[i]),
  EqI: comparison(same, different),
  NeI: comparison(different, same),
  LtI: comparison((n, a, b) => ordered(n, a, b, 0), (n, a, b) => ordered(n, b, a, 1)), // prettier-ignore
  LeI: comparison((n, a, b) => ordered(n, a, b, 1), (n, a, b) => ordered(n, b, a, 0)), // prettier-ignore
  NotB: (n, i, a) => n.within(a, 1 - n.m.hi[i], 1 - n.m.lo[i]),
  AndB: (n, i, a, b) => {
    if (n.m.lo[i] === 1) {
      n.is(a, 1);
      n.is(b, 1);
    } else if (n.m.hi[i] === 0) {
      if (n.m.lo[a] === 1) n.is(b, 0);
      if (n.m.lo[b] === 1) n.is(a, 0);
    }
  },
  OrB: (n, i, a, b) => {
    if (n.m.hi[i] === 0) {
      n.is(a, 0);
      n.is(b, 0);
    } else if (n.m.lo[i] === 1) {
      if (n.m.hi[a] === 0) n.is(b, 1);
      if (n.m.hi[b] === 0) n.is(a, 1);
    }
  },
  SelectB: selected,
  SelectI: selected,
};

function selected(n: Narrowing, i: number, a: number, b: number, c: number): void {
  if (n.m.lo[c] === 1) n.within(a, n.m.lo[i], n.m.hi[i]);
  else if (n.m.hi[c] === 0) n.within(b, n.m.lo[i], n.m.hi[i]);
  else if (n.m.lo[a] > n.m.hi[i] || n.m.hi[a] < n.m.lo[i]) n.is(c, 0);
  else if (n.m.lo[b] > n.m.hi[i] || n.m.hi[b] < n.m.lo[i]) n.is(c, 1);
}

const BACKWARD: readonly (Backward | undefined)[] = OPS.map((op) => RULES[op]);
