/**
 * Simplifications applied as a node is built: constants, identities, and the rewrites that keep integers exact.
 *
 * `/` is written as a float division of converted integers; where its result is floored, truncated, rounded or converted, it becomes an
 * integer division here, whichever way the text said it (Math.floor, | 0, ~~, >> 1). Comparisons of converted integers become integer
 * comparisons. Float rules are only those that hold for NaN, infinities and signed zeros.
 */
import { OP, OPS, resultType } from './program.ts';
import { SCALAR } from './scalar.ts';
import { operandFields } from './program.ts';
import type { Builder } from './ir.ts';

type Rule = (graph: Builder, a: number, b: number, c: number) => number | undefined;

const COMMUTATIVE = new Set(
  (
    [
      'AddI',
      'MulI',
      'MinI',
      'MaxI',
      'AndI',
      'OrI',
      'XorI',
      'EqI',
      'NeI',
      'AddF',
      'MulF',
      'EqF',
      'NeF',
      'AndB',
      'OrB',
    ] as const
  ).map((op) => OP[op]),
);

const arity = OPS.map((op) => operandFields(op).length);
const types = OPS.map(resultType);

/** The simpler value that an instruction equals, or undefined where it has to be built as it is. */
export function fold(graph: Builder, op: number, a: number, b: number, c: number): number | undefined {
  const x = graph.valueOf(a);
  const y = arity[op] > 1 ? graph.valueOf(b) : 0;
  const z = arity[op] > 2 ? graph.valueOf(c) : 0;
  const scalar = SCALAR[op];
  if (scalar && x !== undefined && y !== undefined && z !== undefined)
    return graph.constant(scalar(x, y, z), types[op]);
  if (COMMUTATIVE.has(op) && (x !== undefined ? y === undefined : y === undefined && a > b)) {
    return graph.emit(OPS[op], b, a);
  }
  return RULES[op]?.(graph, a, b, c);
}

/** The i32 value that an f32 value was converted from, or undefined. */
export function asInt(graph: Builder, value: number): number | undefined {
  if (graph.is(value, 'IntToFloat')) return graph.a[value];
  if (graph.is(value, 'BoolToFloat')) return graph.emit('BoolToInt', graph.a[value]);
  const constant = graph.is(value, 'ConstF') ? graph.valueOf(value) : undefined;
  return constant !== undefined && Object.is(constant | 0, constant) ? graph.int(constant) : undefined;
}

/** Numerator and denominator where the value is a quotient of two integers. */
function quotient(graph: Builder, value: number): readonly [number, number] | undefined {
  if (!graph.is(value, 'DivF')) return undefined;
  const numerator = asInt(graph, graph.a[value]);
  const denominator = asInt(graph, graph.b[value]);
  return numerator === undefined || denominator === undefined ? undefined : [numerator, denominator];
}

const log2Exact = (x: number | undefined): number =>
  x !== undefined && x > 0 && (x & (x - 1)) === 0 ? 31 - Math.clz32(x) : -1;

function floorDivide(graph: Builder, x: number, y: number): number {
  const shift = log2Exact(graph.valueOf(y));
  if (shift >= 0) return graph.emit('ShrI', x, graph.int(shift));
  const truncated = graph.emit('DivI', x, y);
  if (graph.lo[x] >= 0 && graph.lo[y] >= 0) return truncated;
  const rest = graph.emit('RemI', x, y);
  const zero = graph.int(0);
  const below = graph.emit('LtI', graph.emit('XorI', rest, y), zero);
  return graph.emit('SubI', truncated, graph.toInt(graph.emit('AndB', graph.emit('NeI', rest, zero), below)));
}

function ceilDivide(graph: Builder, x: number, y: number): number {
  return graph.emit('NegI', floorDivide(graph, graph.emit('NegI', x), y));
}

function roundDivide(graph: Builder, x: number, y: number): number {
  const two = graph.int(2);
  return floorDivide(graph, graph.emit('AddI', graph.emit('MulI', two, x), y), graph.emit('MulI', two, y));
}

const rounding =
  (divide: (graph: Builder, x: number, y: number) => number): Rule =>
  (graph, a) => {
    if (asInt(graph, a) !== undefined) return a;
    const parts = quotient(graph, a);
    return parts && graph.emit('IntToFloat', divide(graph, ...parts));
  };

const truncDivide = (graph: Builder, x: number, y: number): number => graph.emit('DivI', x, y);

/** A comparison of a converted integer with an integer or a fraction, done in integers. */
function compareInts(graph: Builder, op: 'EqI' | 'NeI' | 'LtI' | 'LeI', a: number, b: number): number | undefined {
  const x = asInt(graph, a);
  const y = asInt(graph, b);
  if (x !== undefined && y !== undefined) return graph.emit(op, x, y);
  const left = graph.valueOf(a);
  const right = graph.valueOf(b);
  const fraction = x !== undefined ? right : y !== undefined ? left : undefined;
  if (fraction === undefined || !(Math.abs(fraction) < 2 ** 30)) return undefined;
  if (op === 'EqI' || op === 'NeI') return Number.isInteger(fraction) ? undefined : graph.bool(op === 'NeI');
  if (Number.isInteger(fraction)) return undefined;
  const floor = graph.int(Math.floor(fraction));
  return x !== undefined ? graph.emit('LeI', x, floor) : y !== undefined ? graph.emit('LtI', floor, y) : undefined;
}

const disjoint = (g: Builder, a: number, b: number): boolean => g.hi[a] < g.lo[b] || g.hi[b] < g.lo[a];

function selectRule(
  graph: Builder,
  op: 'SelectI' | 'SelectF' | 'SelectB',
  a: number,
  b: number,
  c: number,
): number | undefined {
  const condition = graph.valueOf(c);
  if (condition !== undefined) return condition ? a : b;
  if (a === b) return a;
  return graph.is(c, 'NotB') ? graph.emit(op, b, a, graph.a[c]) : undefined;
}

const integerRules: Record<string, Rule> = {
  AddI: (g, a, b) => {
    const y = g.valueOf(b);
    if (y === 0) return a;
    if (y !== undefined && g.is(a, 'AddI') && g.is(g.b[a], 'ConstI'))
      return g.emit('AddI', g.a[a], g.int(y + g.a[g.b[a]]));
    if (g.is(b, 'NegI')) return g.emit('SubI', a, g.a[b]);
    return g.is(a, 'NegI') ? g.emit('SubI', b, g.a[a]) : undefined;
  },
  SubI: (g, a, b) => {
    if (a === b) return g.int(0);
    const y = g.valueOf(b);
    if (y !== undefined) return g.emit('AddI', a, g.int(-y));
    if (g.valueOf(a) === 0) return g.emit('NegI', b);
    if (g.is(b, 'NegI')) return g.emit('AddI', a, g.a[b]);
    return g.is(b, 'RemI') && g.a[b] === a ? g.emit('MulI', g.emit('DivI', a, g.b[b]), g.b[b]) : undefined;
  },
  MulI: (g, a, b) => {
    const y = g.valueOf(b);
    if (y === 0) return b;
    return y === 1 ? a : y === -1 ? g.emit('NegI', a) : undefined;
  },
  DivI: (g, a, b) => {
    const y = g.valueOf(b);
    if (y === 0) return b;
    const shift = log2Exact(y);
    return shift === 0 ? a : shift > 0 && g.lo[a] >= 0 ? g.emit('ShrI', a, g.int(shift)) : undefined;
  },
  RemI: (g, a, b) => {
    const y = g.valueOf(b);
    if (y === 0 || y === 1 || y === -1) return g.int(0);
    if (y === undefined || g.lo[a] < 0) return undefined;
    if (g.hi[a] < y) return a;
    return log2Exact(y) > 0 ? g.emit('AndI', a, g.int(y - 1)) : undefined;
  },
  NegI: (g, a) => (g.is(a, 'NegI') ? g.a[a] : g.is(a, 'SubI') ? g.emit('SubI', g.b[a], g.a[a]) : undefined),
  AbsI: (g, a) => (g.lo[a] >= 0 ? a : g.is(a, 'NegI') ? g.emit('AbsI', g.a[a]) : undefined),
  MinI: (g, a, b) => (a === b || g.hi[a] <= g.lo[b] ? a : g.hi[b] <= g.lo[a] ? b : undefined),
  MaxI: (g, a, b) => (a === b || g.lo[a] >= g.hi[b] ? a : g.lo[b] >= g.hi[a] ? b : undefined),
  AndI: (g, a, b) => {
    const y = g.valueOf(b);
    if (a === b || y === -1) return a;
    if (y === 0) return b;
    return bothBools(g, 'AndB', a, b);
  },
  OrI: (g, a, b) => {
    const y = g.valueOf(b);
    if (a === b || y === 0) return a;
    return y === -1 ? b : bothBools(g, 'OrB', a, b);
  },
  XorI: (g, a, b) =>
    a === b ? g.int(0) : g.valueOf(b) === 0 ? a : g.valueOf(b) === -1 ? g.emit('NotI', a) : undefined,
  NotI: (g, a) => (g.is(a, 'NotI') ? g.a[a] : undefined),
  ShlI: (g, a, b) => (g.valueOf(b) === 0 ? a : undefined),
  ShrI: (g, a, b) => (g.valueOf(b) === 0 ? a : undefined),
  ShrU: (g, a, b) => (g.valueOf(b) === 0 ? a : undefined),
  EqI: (g, a, b) => {
    if (a === b) return g.bool(true);
    if (disjoint(g, a, b)) return g.bool(false);
    if (g.is(a, 'BoolToInt') && g.valueOf(b) !== undefined) return g.valueOf(b) === 1 ? g.a[a] : g.not(g.a[a]);
    return undefined;
  },
  NeI: (g, a, b) => {
    if (a === b) return g.bool(false);
    if (disjoint(g, a, b)) return g.bool(true);
    if (g.is(a, 'BoolToInt') && g.valueOf(b) !== undefined) return g.valueOf(b) === 0 ? g.a[a] : g.not(g.a[a]);
    return undefined;
  },
  LtI: (g, a, b) => (a === b || g.lo[a] >= g.hi[b] ? g.bool(false) : g.hi[a] < g.lo[b] ? g.bool(true) : undefined),
  LeI: (g, a, b) => (a === b || g.hi[a] <= g.lo[b] ? g.bool(true) : g.lo[a] > g.hi[b] ? g.bool(false) : undefined),
  SelectI: (g, a, b, c) => {
    if (g.valueOf(a) === 1 && g.valueOf(b) === 0) return g.toInt(c);
    if (g.valueOf(a) === 0 && g.valueOf(b) === 1) return g.toInt(g.not(c));
    return selectRule(g, 'SelectI', a, b, c);
  },
};

function bothBools(graph: Builder, op: 'AndB' | 'OrB', a: number, b: number): number | undefined {
  const bools = graph.is(a, 'BoolToInt') && graph.is(b, 'BoolToInt');
  return bools ? graph.toInt(graph.emit(op, graph.a[a], graph.a[b])) : undefined;
}

function minMaxInts(op: 'MinI' | 'MaxI'): Rule {
  return (g, a, b) => {
    if (a === b) return a;
    const x = asInt(g, a);
    const y = asInt(g, b);
    return x !== undefined && y !== undefined ? g.emit('IntToFloat', g.emit(op, x, y)) : undefined;
  };
}

const floatRules: Record<string, Rule> = {
  SubF: (g, a, b) => (Object.is(g.valueOf(b), 0) ? a : undefined),
  MulF: (g, a, b) => (g.valueOf(b) === 1 ? a : g.valueOf(b) === -1 ? g.emit('NegF', a) : undefined),
  DivF: (g, a, b) => (g.valueOf(b) === 1 ? a : undefined),
  NegF: (g, a) => (g.is(a, 'NegF') ? g.a[a] : undefined),
  AbsF: (g, a) => (g.is(a, 'AbsF') ? a : g.is(a, 'NegF') ? g.emit('AbsF', g.a[a]) : undefined),
  MinF: minMaxInts('MinI'),
  MaxF: minMaxInts('MaxI'),
  FloorF: rounding(floorDivide),
  CeilF: rounding(ceilDivide),
  TruncF: rounding(truncDivide),
  RoundF: rounding(roundDivide),
  EqF: (g, a, b) => compareInts(g, 'EqI', a, b),
  NeF: (g, a, b) => compareInts(g, 'NeI', a, b),
  LtF: (g, a, b) => compareInts(g, 'LtI', a, b),
  LeF: (g, a, b) => compareInts(g, 'LeI', a, b),
  SelectF: (g, a, b, c) => selectRule(g, 'SelectF', a, b, c),
  IntToFloat: (g, a) => (g.is(a, 'BoolToInt') ? g.emit('BoolToFloat', g.a[a]) : undefined),
  FloatToInt: (g, a) => {
    if (g.is(a, 'TruncF')) return g.emit('FloatToInt', g.a[a]);
    const parts = quotient(g, a);
    return parts ? truncDivide(g, ...parts) : asInt(g, a);
  },
};

const NEGATED = { LtI: 'LeI', LeI: 'LtI' } as const;
const OPPOSITE = { EqI: 'NeI', NeI: 'EqI', EqF: 'NeF', NeF: 'EqF' } as const;

const boolRules: Record<string, Rule> = {
  NotB: (g, a) => {
    if (g.is(a, 'NotB')) return g.a[a];
    for (const op of ['LtI', 'LeI'] as const) if (g.is(a, op)) return g.emit(NEGATED[op], g.b[a], g.a[a]);
    for (const op of ['EqI', 'NeI', 'EqF', 'NeF'] as const)
      if (g.is(a, op)) return g.emit(OPPOSITE[op], g.a[a], g.b[a]);
    return undefined;
  },
  AndB: (g, a, b) => {
    const y = g.valueOf(b);
    if (y !== undefined) return y ? a : b;
    if (a === b) return a;
    return g.not(a) === b ? g.bool(false) : undefined;
  },
  OrB: (g, a, b) => {
    const y = g.valueOf(b);
    if (y !== undefined) return y ? b : a;
    if (a === b) return a;
    return g.not(a) === b ? g.bool(true) : undefined;
  },
  SelectB: (g, a, b, c) => {
    const simple = selectRule(g, 'SelectB', a, b, c);
    if (simple !== undefined) return simple;
    const x = g.valueOf(a);
    if (x !== undefined) return x ? g.emit('OrB', c, b) : g.emit('AndB', g.not(c), b);
    const y = g.valueOf(b);
    if (y !== undefined) return y ? g.emit('OrB', g.not(c), a) : g.emit('AndB', c, a);
    return undefined;
  },
};

const RULES: readonly (Rule | undefined)[] = OPS.map((op) => integerRules[op] ?? floatRules[op] ?? boolRules[op]);
