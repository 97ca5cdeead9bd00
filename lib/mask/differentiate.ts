/**
 * Reverse-mode differentiation of a score program, on its own instructions.
 *
 * Given dL/d(result) as Upstream, the derivative program computes dL/ds, and for every trainable table the gradient of each element that the
 * score loads. One rule per float instruction, read off the table below; integers and booleans carry no gradient.
 *
 * Subgradients: |x| has 0 at 0; min and max pass the gradient to their first operand on a tie; floor, ceil, trunc, round, sign and
 * comparisons pass none; a select passes it to the chosen side only. Factors that may be infinite where the gradient is 0 (1 / x, log x,
 * 1 / sqrt x, powers) are taken behind a select, so a side that wasn't chosen never turns a gradient into NaN.
 */
import { FoveaError } from '../errors.ts';
import { Builder } from './ir.ts';
import { OP, OPS, operandFields } from './program.ts';
import { schedule } from './schedule.ts';
import type { OpName, Program, Scatter } from './program.ts';

/**
 * The derivative program of a score.
 *
 * @param wrt numbers in `program.tables` of the f32 tables that want gradients; by default those whose tensor has `requiresGrad`
 * @returns a program of kind 'derivative' with the same tables and uniforms: its result is dL/ds, its scatters the tables' gradients
 * @throws FoveaError ERR_ARGUMENT where the program isn't a score or `wrt` names no f32 table of it
 */
export function differentiate(program: Program, wrt: readonly number[] = trainableTables(program)): Program {
  if (program.kind !== 'score')
    throw new FoveaError('ERR_ARGUMENT', `differentiate: expected a score program, got a ${program.kind}`);
  for (const table of wrt) {
    if (program.tables[table]?.dtype === 'f32') continue;
    const { name, dtype } = program.tables[table] ?? { name: `#${table}`, dtype: 'none' };
    throw new FoveaError('ERR_ARGUMENT', `differentiate: table "${name}" is ${dtype}, only f32 tables have gradients`);
  }
  return new Differentiation(program, wrt).derivative();
}

/** Numbers of the tables whose captured tensor has `requiresGrad`. */
export function trainableTables(program: Program): number[] {
  return program.tables.flatMap(({ source, dtype }, i) => (source?.requiresGrad && dtype === 'f32' ? [i] : []));
}

/** Builds an existing program's values in a graph; gives the value of each instruction. */
export function replay(graph: Builder, program: Pick<Program, 'code' | 'tables' | 'uniforms'>): number[] {
  const values: number[] = [];
  const { code, tables, uniforms } = program;
  for (let i = 0; i < code.length; i += 4) {
    const [op, a, b, c] = code.subarray(i, i + 4);
    const name = OPS[op];
    if (op <= OP.Upstream) values.push(graph.input(name as Parameters<Builder['input']>[0]));
    else if (op === OP.ConstI || op === OP.ConstF) values.push(op === OP.ConstI ? graph.int(a) : graph.constantBits(a));
    else if (op === OP.UniformI || op === OP.UniformF) values.push(graph.uniform(uniforms[a]));
    else if (op === OP.LoadI || op === OP.LoadF) values.push(graph.load(graph.table(tables[a]), values[b]));
    else values.push(graph.emit(name, values[a], values[b], values[c]));
  }
  return values;
}

class Differentiation {
  private readonly graph = new Builder();
  private readonly program: Program;
  private readonly wrt: ReadonlySet<number>;
  private readonly result: number;
  private readonly wanted: Uint8Array;
  private readonly gradients = new Map<number, number>();

  constructor(program: Program, wrt: readonly number[]) {
    this.program = program;
    this.wrt = new Set(wrt);
    this.result = replay(this.graph, program)[program.result];
    this.wanted = this.markWanted();
  }

  derivative(): Program {
    const { graph, program } = this;
    const scatters: Scatter[] = [];
    let ds = graph.float(0);
    this.gradients.set(this.result, graph.input('Upstream'));
    for (let value = this.result; value >= 0; --value) {
      const gradient = this.gradients.get(value);
      if (gradient === undefined || !this.wanted[value]) continue;
      const op = graph.ops[value];
      if (op === OP.Score) ds = gradient;
      else if (op === OP.LoadF) scatters.push({ table: this.tableOf(value), index: graph.b[value], grad: gradient });
      else RULES[OPS[op]]?.(this, value, gradient);
    }
    const checks = program.checks && { code: program.checks.code, reads: program.checks.reads };
    const bound = { tables: program.tables, uniforms: program.uniforms };
    return schedule(graph, {
      kind: 'derivative',
      result: ds,
      scatters: scatters.reverse(),
      bound,
      checks,
    });
  }

  /** Operand `field` of a value. */
  operand(value: number, field: 'a' | 'b' | 'c'): number {
    return this.graph[field][value];
  }

  emit(op: OpName, a: number, b = 0, c = 0): number {
    return this.graph.emit(op, a, b, c);
  }

  constant(value: number): number {
    return this.graph.float(value);
  }

  needs(value: number): boolean {
    return this.wanted[value] === 1;
  }

  /** Adds a contribution to the gradient of `value`; `gradient` is only built where it is wanted. */
  add(value: number, gradient: () => number): void {
    if (!this.needs(value)) return;
    const present = this.gradients.get(value);
    const more = gradient();
    this.gradients.set(value, present === undefined ? more : this.sum(present, more));
  }

  /** `gradient` times `factor`, inside the select if the gradient is one, so that a side not chosen gives 0 and not 0 * Infinity. */
  scale(gradient: number, factor: number, op: 'MulF' | 'DivF' = 'MulF'): number {
    const { graph } = this;
    if (graph.is(gradient, 'SelectF')) {
      const [a, b, c] = [graph.a[gradient], graph.b[gradient], graph.c[gradient]];
      if (graph.valueOf(b) === 0) return graph.select(c, this.scale(a, factor, op), b);
      if (graph.valueOf(a) === 0) return graph.select(c, a, this.scale(b, factor, op));
    }
    return graph.emit(op, gradient, factor);
  }

  /** As `scale`, for a factor that may be infinite: a gradient of 0 stays 0. */
  scaleSafely(gradient: number, factor: number, op: 'MulF' | 'DivF' = 'MulF'): number {
    const { graph } = this;
    if (graph.is(gradient, 'Upstream')) return graph.emit(op, gradient, factor);
    const zero = graph.float(0);
    return graph.select(graph.emit('EqF', gradient, zero), zero, this.scale(gradient, factor, op));
  }

  /** Two contributions; selects by one condition are added side by side. */
  private sum(x: number, y: number): number {
    const { graph } = this;
    if (graph.is(x, 'SelectF') && graph.is(y, 'SelectF') && graph.c[x] === graph.c[y]) {
      return graph.select(graph.c[x], this.sum(graph.a[x], graph.a[y]), this.sum(graph.b[x], graph.b[y]));
    }
    if (graph.valueOf(x) === 0) return y;
    return graph.valueOf(y) === 0 ? x : graph.emit('AddF', x, y);
  }

  /** Values through which a gradient can reach the score or a wanted table. */
  private markWanted(): Uint8Array {
    const { graph } = this;
    const wanted = new Uint8Array(this.result + 1);
    for (let value = 0; value <= this.result; ++value) {
      const op = graph.ops[value];
      if (op === OP.Score || (op === OP.LoadF && this.wrt.has(this.tableOf(value)))) wanted[value] = 1;
      else if (
        op < OPS.length &&
        graph.type(value) === 'f32' &&
        op !== OP.LoadF &&
        op !== OP.IntToFloat &&
        op !== OP.BoolToFloat
      ) {
        wanted[value] = operandFields(OPS[op]).some((field) => wanted[graph[field][value]]) ? 1 : 0;
      }
    }
    return wanted;
  }

  private tableOf(load: number): number {
    return this.program.tables.indexOf(this.graph.tables[this.graph.a[load]]);
  }
}

type Rule = (d: Differentiation, value: number, gradient: number) => void;

/** The rule of a function of one operand: the factor from the operand x and the result y. */
function unary(
  factor: (d: Differentiation, x: number, y: number) => number,
  safely = false,
  op: 'MulF' | 'DivF' = 'MulF',
): Rule {
  return (d, value, g) => {
    const x = d.operand(value, 'a');
    d.add(x, () => (safely ? d.scaleSafely(g, factor(d, x, value), op) : d.scale(g, factor(d, x, value), op)));
  };
}

function choose(first: (d: Differentiation, x: number, y: number) => number): Rule {
  return (d, value, g) => {
    const [x, y] = [d.operand(value, 'a'), d.operand(value, 'b')];
    const zero = d.constant(0);
    d.add(x, () => d.emit('SelectF', g, zero, first(d, x, y)));
    d.add(y, () => d.emit('SelectF', zero, g, first(d, x, y)));
  };
}

const RULES: Partial<Record<OpName, Rule>> = {
  AddF: (d, value, g) => {
    d.add(d.operand(value, 'a'), () => g);
    d.add(d.operand(value, 'b'), () => g);
  },
  SubF: (d, value, g) => {
    d.add(d.operand(value, 'a'), () => g);
    d.add(d.operand(value, 'b'), () => d.scale(g, d.constant(-1)));
  },
  MulF: (d, value, g) => {
    const [x, y] = [d.operand(value, 'a'), d.operand(value, 'b')];
    d.add(x, () => d.scale(g, y));
    d.add(y, () => d.scale(g, x));
  },
  DivF: (d, value, g) => {
    const [x, y] = [d.operand(value, 'a'), d.operand(value, 'b')];
    d.add(x, () => d.scaleSafely(g, y, 'DivF'));
    d.add(y, () => d.scaleSafely(g, d.emit('NegF', d.emit('DivF', value, y))));
  },
  RemF: (d, value, g) => {
    const [x, y] = [d.operand(value, 'a'), d.operand(value, 'b')];
    d.add(x, () => g);
    d.add(y, () => d.scaleSafely(g, d.emit('NegF', d.emit('TruncF', d.emit('DivF', x, y)))));
  },
  NegF: unary((d) => d.constant(-1)),
  AbsF: unary((d, x) => d.emit('SignF', x)),
  MinF: choose((d, x, y) => d.emit('LeF', x, y)),
  MaxF: choose((d, x, y) => d.emit('LeF', y, x)),
  SqrtF: unary((d, _, y) => d.emit('MulF', y, d.constant(2)), true, 'DivF'),
  ExpF: unary((_d, _x, y) => y, true),
  LogF: unary((_d, x) => x, true, 'DivF'),
  TanhF: unary((d, _, y) => d.emit('SubF', d.constant(1), d.emit('MulF', y, y))),
  SinF: unary((d, x) => d.emit('CosF', x)),
  CosF: unary((d, x) => d.emit('NegF', d.emit('SinF', x))),
  PowF: (d, value, g) => {
    const [x, y] = [d.operand(value, 'a'), d.operand(value, 'b')];
    d.add(x, () => d.scaleSafely(g, d.emit('MulF', y, d.emit('PowF', x, d.emit('SubF', y, d.constant(1))))));
    d.add(y, () => {
      const positive = d.emit('LtF', d.constant(0), x);
      const factor = d.emit('MulF', value, d.emit('LogF', x));
      return d.scaleSafely(g, d.emit('SelectF', factor, d.constant(0), positive));
    });
  },
  SelectF: (d, value, g) => {
    const [x, y, condition] = [d.operand(value, 'a'), d.operand(value, 'b'), d.operand(value, 'c')];
    const zero = d.constant(0);
    d.add(x, () => d.emit('SelectF', g, zero, condition));
    d.add(y, () => d.emit('SelectF', zero, g, condition));
  },
};
