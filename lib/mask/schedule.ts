/**
 * From the graph to the encoded program: live values only, ordered by what they depend on.
 *
 * The order within a group is the order of construction, so operands come first; tables and uniforms are numbered by first use, so two
 * programs that differ only in captured values get the same code.
 */
import { FoveaError } from '../errors.ts';
import { CONST_B } from './ir.ts';
import { MAX_PROGRAM_SIZE, OP, OPS, operandFields } from './program.ts';
import type { Builder } from './ir.ts';
import type { IndexChecks, Program, Scatter, Table, Uniform } from './program.ts';

const MIXED = 8;

export interface Roots {
  readonly kind: Program['kind'];
  readonly result: number;
  readonly scatters?: readonly Scatter[];
  /** Keeps the numbering of these, for a derivative that is bound to the tables of its score. */
  readonly bound?: Pick<Program, 'tables' | 'uniforms'>;
  readonly checks?: IndexChecks;
}

interface Numbering {
  readonly tables: Table[];
  readonly uniforms: Uniform[];
}

interface Code {
  readonly code: Int32Array;
  readonly ends: readonly [number, number, number];
  /** Instruction of each graph value. */
  readonly place: ReadonlyMap<number, number>;
}

/** The program that computes the roots. Throws ERR_MASK_SYNTAX beyond MAX_PROGRAM_SIZE instructions. */
export function schedule(graph: Builder, roots: Roots): Program {
  const numbering: Numbering = {
    tables: [...(roots.bound?.tables ?? [])],
    uniforms: [...(roots.bound?.uniforms ?? [])],
  };
  const scatters = roots.scatters ?? [];
  const main = order(graph, [roots.result, ...scatters.flatMap(({ index, grad }) => [index, grad])], numbering);
  const at = (value: number): number => main.place.get(value) ?? -1;
  const [batchHeadEnd, queryEnd, keyEnd] = main.ends;
  const checks = roots.checks ?? indexChecks(graph, numbering);
  return Object.freeze({
    kind: roots.kind,
    code: main.code,
    batchHeadEnd,
    queryEnd,
    keyEnd,
    result: at(roots.result),
    scatters: scatters.map(({ table, index, grad }) => ({ table, index: at(index), grad: at(grad) })),
    tables: Object.freeze(numbering.tables),
    uniforms: Object.freeze(numbering.uniforms),
    checks,
  });
}

function indexChecks(graph: Builder, numbering: Numbering): IndexChecks {
  const { reads } = graph;
  const { code, place } = order(graph, reads.flatMap(({ indices, path }) => [...indices, ...path]), numbering); // prettier-ignore
  const at = (value: number): number => place.get(value) ?? -1;
  return {
    code,
    reads: reads.map(({ table, indices, path, text }) => ({
      table: number(numbering.tables, graph.tables[table]),
      indices: indices.map(at),
      path: path.map(at),
      text,
    })),
  };
}

function order(graph: Builder, roots: readonly number[], numbering: Numbering): Code {
  const zero = graph.int(0);
  const live = markLive(graph, roots, zero);
  const groups: number[][] = [[], [], [], []];
  const depends = new Uint8Array(live.length);
  for (let value = 0; value < live.length; ++value) {
    if (!live[value]) continue;
    depends[value] = dependence(graph, value, depends);
    // Bool constants are comparisons of zero, which may have been made after them.
    if (value === zero) groups[0].unshift(value);
    else groups[groupOf(depends[value])].push(value);
  }
  const sequence = groups.flat();
  if (sequence.length > MAX_PROGRAM_SIZE) {
    const what = `the function needs ${sequence.length} instructions, at most ${MAX_PROGRAM_SIZE} are supported`;
    throw new FoveaError('ERR_MASK_SYNTAX', what);
  }
  const place = new Map(sequence.map((value, i) => [value, i]));
  const code = new Int32Array(4 * sequence.length);
  sequence.forEach((value, i) => code.set(encode(graph, value, place, numbering, zero), 4 * i));
  const [first, second, third] = groups.map((group) => group.length);
  return { code, ends: [first, first + second, first + second + third], place };
}

function markLive(graph: Builder, roots: readonly number[], zero: number): Uint8Array {
  const live = new Uint8Array(graph.ops.length);
  const stack = [...roots];
  for (let value = stack.pop(); value !== undefined; value = stack.pop()) {
    if (live[value]) continue;
    live[value] = 1;
    if (graph.ops[value] === CONST_B) stack.push(zero);
    else for (const field of operandFields(OPS[graph.ops[value]])) stack.push(graph[field][value]);
  }
  return live;
}

/** Bits: 2 query, 4 key, 8 score or upstream. */
function dependence(graph: Builder, value: number, depends: Uint8Array): number {
  const op = graph.ops[value];
  if (op === OP.Query) return 2;
  if (op === OP.Key) return 4;
  if (op === OP.Score || op === OP.Upstream) return MIXED;
  if (op === CONST_B) return 0;
  return operandFields(OPS[op]).reduce((bits, field) => bits | depends[graph[field][value]], 0);
}

function groupOf(bits: number): number {
  return bits === 0 ? 0 : bits === 2 ? 1 : bits === 4 ? 2 : 3;
}

function encode(
  graph: Builder,
  value: number,
  place: ReadonlyMap<number, number>,
  numbering: Numbering,
  zero: number,
): number[] {
  const op = graph.ops[value];
  const [a, b, c] = [graph.a[value], graph.b[value], graph.c[value]];
  const at = (operand: number): number => place.get(operand) ?? -1;
  if (op === CONST_B) return [a ? OP.LeI : OP.LtI, at(zero), at(zero), 0];
  if (op === OP.ConstI || op === OP.ConstF) return [op, a, 0, 0];
  if (op === OP.UniformI || op === OP.UniformF) return [op, number(numbering.uniforms, graph.uniforms[a]), 0, 0];
  if (op === OP.LoadI || op === OP.LoadF) return [op, number(numbering.tables, graph.tables[a]), at(b), 0];
  const count = operandFields(OPS[op]).length;
  return [op, count > 0 ? at(a) : 0, count > 1 ? at(b) : 0, count > 2 ? at(c) : 0];
}

function number<T>(list: T[], item: T): number {
  const at = list.indexOf(item);
  return at >= 0 ? at : list.push(item) - 1;
}
