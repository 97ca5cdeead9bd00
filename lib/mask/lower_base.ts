/** What lowering shares: limits, errors with hints, binding of patterns, and the properties of the two arguments. */
import type * as estree from 'acorn';
import { MAX_DEPTH, syntaxError } from './source.ts';
import type { FoveaError } from '../errors.ts';
import type { CaptureSet, ResolvedCapture } from './captures.ts';
import type { Builder } from './ir.ts';
import type { Source } from './source.ts';
import type { Operand, Scope } from './scope.ts';
import { MATH_CONSTANTS, MATH_FUNCTIONS } from './lower_math.ts';

/** Values of the coordinates, as the graph knows them; `s` is absent in a mask. */
export interface CoordinateValues {
  readonly b: number;
  readonly h: number;
  readonly q: number;
  readonly kv: number;
  readonly s?: number;
}

const MAX_STEPS = 50_000;
const MAX_INLINED_CALLS = 32;

const UNSUPPORTED: Readonly<Record<string, string>> = {
  ForStatement: 'loops are not supported: write the terms out, or precompute a table and capture it',
  ForOfStatement: 'loops are not supported: write the terms out, or precompute a table and capture it',
  ForInStatement: 'loops are not supported: write the terms out, or precompute a table and capture it',
  WhileStatement: 'loops are not supported: write the terms out, or precompute a table and capture it',
  DoWhileStatement: 'loops are not supported: write the terms out, or precompute a table and capture it',
  SwitchStatement: 'use if and return, or a captured table indexed by the value',
  AssignmentExpression: 'values are computed once: use a new const, or a ternary',
  UpdateExpression: 'values are computed once: use a new const',
  ThisExpression: 'pass what you need in the second argument',
  NewExpression: 'masks and scores compute with numbers and booleans',
  ObjectExpression: 'masks and scores compute with numbers and booleans',
  ArrayExpression: 'capture the array in the second argument and index it',
  TemplateLiteral: 'masks and scores compute with numbers and booleans',
  TaggedTemplateExpression: 'masks and scores compute with numbers and booleans',
  ImportExpression: 'pass what you need in the second argument',
  AwaitExpression: 'a mask or score is a plain function of numbers',
  ThrowStatement: 'return a value on every path',
  TryStatement: 'return a value on every path',
};

export class LoweringBase {
  readonly graph: Builder;
  readonly source: Source;
  readonly kind: 'mask' | 'score';
  private readonly captures: CaptureSet;
  private readonly coordinates: CoordinateValues;
  private readonly active: estree.Node[] = [];
  private depth = 0;
  private steps = 0;

  constructor(
    graph: Builder,
    source: Source,
    kind: 'mask' | 'score',
    captures: CaptureSet,
    coordinates: CoordinateValues,
  ) {
    this.graph = graph;
    this.source = source;
    this.kind = kind;
    this.captures = captures;
    this.coordinates = coordinates;
  }

  error(node: estree.Node, message: string, hint?: string): FoveaError {
    return syntaxError(this.source, node, message, hint);
  }

  unsupported(node: estree.Node, what?: string): FoveaError {
    const words = node.type.replace(/([a-z])([A-Z])/g, '$1 $2').toLowerCase();
    return this.error(node, `${what ?? words} is not supported`, UNSUPPORTED[node.type] ?? this.languageHint());
  }

  /** Counts a visit of a node and its depth, so that neither a deep nor an exploding function takes long to refuse. */
  nested<T>(node: estree.Node, visit: () => T): T {
    if (++this.steps > MAX_STEPS)
      throw this.error(node, 'the function is too large', 'precompute a table and capture it');
    if (this.depth >= MAX_DEPTH)
      throw this.error(node, `expressions are nested deeper than ${MAX_DEPTH}`, 'name parts with const');
    ++this.depth;
    try {
      return visit();
    } finally {
      --this.depth;
    }
  }

  /** Runs the inlining of one helper call. */
  calling<T>(at: estree.Node, helper: estree.Node, visit: () => T): T {
    if (this.active.includes(helper)) throw this.error(at, 'helper functions cannot call themselves');
    if (this.active.length >= MAX_INLINED_CALLS)
      throw this.error(at, `helpers call each other deeper than ${MAX_INLINED_CALLS}`);
    this.active.push(helper);
    try {
      return this.nested(at, visit);
    } finally {
      this.active.pop();
    }
  }

  /** Gives the names of a parameter or declaration their operands. */
  bind(pattern: estree.Node, operand: Operand, scope: Scope): void {
    const node = pattern as estree.Pattern;
    if (node.type === 'Identifier') {
      scope.define(node.name, operand);
      return;
    }
    if (node.type === 'AssignmentPattern') throw this.error(node, 'default values are not supported', 'pass the value');
    if (node.type !== 'ObjectPattern') throw this.unsupported(node);
    if (operand.kind !== 'coordinates' && operand.kind !== 'captures') {
      throw this.error(node, 'only the two arguments can be destructured');
    }
    for (const property of node.properties) {
      const name = property.type === 'Property' ? this.keyName(property) : undefined;
      if (property.type !== 'Property' || name === undefined)
        throw this.error(property, 'rest and computed names are not supported');
      this.bind(property.value, this.property(property, operand.kind, name), scope);
    }
  }

  /** A coordinate or captured value by name. */
  property(node: estree.Node, of: 'coordinates' | 'captures', name: string): Operand {
    if (of === 'captures') {
      const entry = this.captures.entries.get(name);
      if (entry) return this.captured(entry);
      const names = [...this.captures.entries.keys()].join(', ') || 'none';
      const hint = `captured values: ${names}. Add it: ${this.kind}(fn, { ${name} })`;
      throw this.error(node, `"${name}" is not among the captured values`, hint);
    }
    const id = Object.hasOwn(this.coordinates, name) ? this.coordinates[name as keyof CoordinateValues] : undefined;
    if (id !== undefined) return { kind: 'value', id };
    const names = this.kind === 'mask' ? 'b, h, q, kv' : 's, b, h, q, kv';
    const hint = `coordinates: ${names}${this.captures.entries.has(name) ? '; captured values come in the second argument' : ''}`;
    throw this.error(node, `"${name}" is not a coordinate of a ${this.kind}`, hint);
  }

  private captured(entry: ResolvedCapture): Operand {
    const { graph } = this;
    if (entry.kind === 'table') return { kind: 'table', capture: entry, indices: [] };
    const id = graph.uniform(entry.uniform);
    return { kind: 'value', id: entry.boolean ? graph.truthy(id) : id };
  }

  /** The name in `.name` or `["name"]`; undefined where it is computed. */
  propertyName(node: estree.MemberExpression): string | undefined {
    if (!node.computed && node.property.type === 'Identifier') return node.property.name;
    return node.property.type === 'Literal' && typeof node.property.value === 'string'
      ? node.property.value
      : undefined;
  }

  private keyName(node: estree.AssignmentProperty): string | undefined {
    if (node.computed) return undefined;
    if (node.key.type === 'Identifier') return node.key.name;
    return node.key.type === 'Literal' && typeof node.key.value === 'string' ? node.key.value : undefined;
  }

  /** Two values of one type: numbers meet in f32 where one is; a boolean and a number don't. */
  unify(node: estree.Node, x: number, y: number): [number, number] {
    const { graph } = this;
    const [tx, ty] = [graph.type(x), graph.type(y)];
    if (tx === ty) return [x, y];
    if (tx === 'bool' || ty === 'bool') {
      throw this.error(
        node,
        'one side is a boolean, the other a number',
        'compare the number (x !== 0), or convert with Number(...)',
      );
    }
    return [graph.toFloat(x), graph.toFloat(y)];
  }

  /** The error for a name that the text doesn't define; `member` is `name.x` where that was wanted, `called` as a function. */
  unknownName(node: estree.Identifier, scope: Scope, member?: estree.MemberExpression, called = false): FoveaError {
    const { name } = node;
    if (/^(cov_|__cov|__coverage)/.test(name)) {
      return this.error(node, 'the text is instrumented for coverage', 'exclude this file from coverage');
    }
    if (/^__vite_ssr_|^import_|_import_\d+__$/.test(name)) {
      const imported = member && this.propertyName(member);
      const hint = called
        ? this.callHint()
        : `pass it in the second argument: ${this.kind}(fn, { ${imported ?? 'name'} })`;
      return this.error(
        member ?? node,
        `"${imported ?? name}" is imported, and imports can't be seen in the text`,
        hint,
      );
    }
    if (called) return this.error(member ?? node, `${name} is not known here`, this.callHint());
    if (this.captures.entries.has(name)) {
      return this.error(
        node,
        `"${name}" is captured but not taken from the second argument`,
        `write (c, { ${name} }) => ...`,
      );
    }
    const argument = /^(b|h|q|kv|s)$/.test(name) && !scope.has(name) ? 'take it from the first argument, or ' : '';
    return this.error(
      node,
      `"${name}" is not defined in the function`,
      `closures can't be seen in the text: ${argument}pass it in the second argument, ${this.kind}(fn, { ${name} })`,
    );
  }

  notAValue(operand: Operand): [string, string?] {
    switch (operand.kind) {
      case 'table': {
        const { table } = operand.capture;
        const axes = table.shape.length;
        return [
          `"${table.name}" has ${axes} axes, ${operand.indices.length} of them are indexed`,
          'index every axis: table[i][j]',
        ];
      }
      case 'function':
        return ['a function is used as a value', 'call it'];
      case 'undefined':
        return ['undefined is used as a value', 'masks and scores compute with numbers and booleans'];
      default:
        return ['an argument object is used as a value', 'use one of its properties'];
    }
  }

  mathHint(): string {
    return `supported: Math.{${[...MATH_FUNCTIONS.keys(), ...MATH_CONSTANTS.keys()].join(', ')}}`;
  }

  callHint(): string {
    return 'only Math.* and helper functions defined inside the function can be called; write the helper inside';
  }

  private languageHint(): string {
    return 'supported: arithmetic, comparisons, && || !, bit operations, ?:, const, if/return, Math.*, indexing of captured tables';
  }
}
