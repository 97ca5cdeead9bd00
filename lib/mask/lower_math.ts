/**
 * `Math.*` as instructions. Integer arguments stay integers where the result is one; functions without an instruction of their own are
 * composed (log2 = log / ln 2, hypot = sqrt of the sum of squares).
 */
import type { Builder } from './ir.ts';
import type { OpName } from './program.ts';

interface MathFunction {
  /** Fewest and most arguments. */
  readonly arity: readonly [number, number];
  readonly lower: (graph: Builder, args: readonly number[]) => number;
}

export const MATH_CONSTANTS: ReadonlyMap<string, number> = new Map(
  (['E', 'LN2', 'LN10', 'LOG2E', 'LOG10E', 'PI', 'SQRT1_2', 'SQRT2'] as const).map((name) => [name, Math[name]]),
);

function float(op: OpName): MathFunction {
  return { arity: [1, 1], lower: (g, [x]) => g.emit(op, g.toFloat(x)) };
}

function composed(lower: (graph: Builder, x: number) => number): MathFunction {
  return { arity: [1, 1], lower: (g, [x]) => lower(g, g.toFloat(x)) };
}

/** floor and its kin: integers are left alone, and a rounded quotient of integers is an integer again. */
function rounding(op: OpName): MathFunction {
  const lower = (g: Builder, [x]: readonly number[]): number => {
    if (g.type(x) !== 'f32') return g.toInt(x);
    const rounded = g.emit(op, x);
    return g.is(rounded, 'IntToFloat') ? g.a[rounded] : rounded;
  };
  return { arity: [1, 1], lower };
}

function extremum(int: 'MinI' | 'MaxI', float: 'MinF' | 'MaxF'): MathFunction {
  const pair = (g: Builder, x: number, y: number): number =>
    g.type(x) === 'f32' || g.type(y) === 'f32'
      ? g.emit(float, g.toFloat(x), g.toFloat(y))
      : g.emit(int, g.toInt(x), g.toInt(y));
  return { arity: [1, 64], lower: (g, args) => args.slice(1).reduce((x, y) => pair(g, x, y), numeric(g, args[0])) };
}

const numeric = (g: Builder, x: number): number => (g.type(x) === 'bool' ? g.toInt(x) : x);

function sign(g: Builder, x: number): number {
  if (g.type(x) === 'f32') return g.emit('SignF', x);
  const value = g.toInt(x);
  const zero = g.int(0);
  return g.emit('SubI', g.toInt(g.emit('LtI', zero, value)), g.toInt(g.emit('LtI', value, zero)));
}

const MAX_UNROLLED_POWER = 8;

/** `x ** y`: small constant integer powers are products, exact for integers; anything else is a float power. */
export function power(g: Builder, x: number, y: number): number {
  const exponent = g.valueOf(y);
  if (exponent !== undefined && Number.isInteger(exponent) && exponent >= 1 && exponent <= MAX_UNROLLED_POWER) {
    const base = numeric(g, x);
    const op = g.type(base) === 'f32' ? 'MulF' : 'MulI';
    let product = base;
    for (let i = 1; i < exponent; ++i) product = g.emit(op, product, base);
    return product;
  }
  return g.emit('PowF', g.toFloat(x), g.toFloat(y));
}

const square = (g: Builder, x: number): number => g.emit('MulF', x, x);

export const MATH_FUNCTIONS: ReadonlyMap<string, MathFunction> = new Map<string, MathFunction>([
  ['abs', { arity: [1, 1], lower: (g, [x]) => (g.type(x) === 'f32' ? g.emit('AbsF', x) : g.emit('AbsI', g.toInt(x))) }],
  ['min', extremum('MinI', 'MinF')],
  ['max', extremum('MaxI', 'MaxF')],
  ['floor', rounding('FloorF')],
  ['ceil', rounding('CeilF')],
  ['trunc', rounding('TruncF')],
  ['round', rounding('RoundF')],
  ['sign', { arity: [1, 1], lower: (g, [x]) => sign(g, x) }],
  ['pow', { arity: [2, 2], lower: (g, [x, y]) => power(g, x, y) }],
  ['imul', { arity: [2, 2], lower: (g, [x, y]) => g.emit('MulI', g.toInt(x), g.toInt(y)) }],
  ['sqrt', float('SqrtF')],
  ['exp', float('ExpF')],
  ['log', float('LogF')],
  ['tanh', float('TanhF')],
  ['sin', float('SinF')],
  ['cos', float('CosF')],
  ['fround', composed((_, x) => x)],
  ['log2', composed((g, x) => g.emit('MulF', g.emit('LogF', x), g.float(Math.LOG2E)))],
  ['log10', composed((g, x) => g.emit('MulF', g.emit('LogF', x), g.float(Math.LOG10E)))],
  ['tan', composed((g, x) => g.emit('DivF', g.emit('SinF', x), g.emit('CosF', x)))],
  ['hypot', {
    arity: [1, 16],
    lower: (g, args) => g.emit('SqrtF', args.map((x) => square(g, g.toFloat(x))).reduce((x, y) => g.emit('AddF', x, y))),
  }],
]); // prettier-ignore
