/**
 * From the syntax tree of a mask or score function to values of the graph.
 *
 * The tree is walked once. Names stand for operands: values, the two argument objects, captured tables (whole, or with some axes already
 * indexed) and local helper functions, which are inlined where they are called. `if` and early returns become selects; the conditions
 * under which code is reached are kept on the graph's path. Typing: integers are i32, everything a fraction touches is f32, `/` is f32
 * (see fold.ts for how it becomes an integer division). Anything not listed here is an error that points at the text.
 */
import type * as estree from 'acorn';
import { LoweringBase } from './lower_base.ts';
import { MATH_CONSTANTS, MATH_FUNCTIONS, power } from './lower_math.ts';
import { snippet } from './source.ts';
import { Scope } from './scope.ts';
import { lowerBody } from './lower_statements.ts';
import type { Operand, TableOperand } from './scope.ts';
import type { OpName } from './program.ts';

const value = (id: number): Operand => ({ kind: 'value', id });

const COMPARISONS: Readonly<Record<string, readonly ['Lt' | 'Le' | 'Eq' | 'Ne', boolean]>> = {
  '<': ['Lt', false], '<=': ['Le', false], '>': ['Lt', true], '>=': ['Le', true],
  '===': ['Eq', false], '!==': ['Ne', false], '==': ['Eq', false], '!=': ['Ne', false],
}; // prettier-ignore

const ARITHMETIC: Readonly<Record<string, readonly [OpName, OpName]>> = {
  '+': ['AddI', 'AddF'], '-': ['SubI', 'SubF'], '*': ['MulI', 'MulF'], '%': ['RemI', 'RemF'],
}; // prettier-ignore

const BITWISE: Readonly<Record<string, OpName>> = {
  '&': 'AndI', '|': 'OrI', '^': 'XorI', '<<': 'ShlI', '>>': 'ShrI', '>>>': 'ShrU',
}; // prettier-ignore

export class Lowering extends LoweringBase {
  /** The value of the whole function: bool for a mask, f32 for a score. */
  root(): number {
    const { root } = this.source;
    const scope = new Scope(null);
    if (root.params.length > 2)
      throw this.error(root.params[2], `a ${this.kind} has two arguments: coordinates and captured values`);
    root.params.forEach((param, i) => this.bind(param, { kind: i === 0 ? 'coordinates' : 'captures' }, scope));
    const returns = (node: estree.Node, names: Scope): number => {
      if (this.kind === 'mask') return this.condition(node, names);
      const result = this.expression(node, names);
      if (this.graph.type(result) !== 'bool') return this.graph.widest(this.graph.toFloat(result));
      throw this.error(node, 'a score returns a number, this is a boolean', 'use a ternary: keep ? s : -Infinity');
    };
    return this.calling(root, root, () => lowerBody(this, root, scope, returns));
  }

  /** The value of an expression: a number or bool of the graph. */
  expression(node: estree.Node, scope: Scope): number {
    const operand = this.operand(node, scope);
    if (operand.kind === 'value') return operand.id;
    throw this.error(node, ...this.notAValue(operand));
  }

  /** An expression as a condition: JavaScript's truth of it. */
  condition(node: estree.Node, scope: Scope): number {
    const { graph } = this;
    return this.nested(node, () => {
      const expr = node as estree.Expression;
      if (expr.type === 'UnaryExpression' && expr.operator === '!')
        return graph.not(this.condition(expr.argument, scope));
      if (expr.type === 'LogicalExpression' && expr.operator !== '??') {
        const left = this.condition(expr.left, scope);
        const and = expr.operator === '&&';
        const right = graph.under(and ? left : graph.not(left), () => this.condition(expr.right, scope));
        return graph.emit(and ? 'AndB' : 'OrB', left, right);
      }
      if (expr.type === 'ConditionalExpression') {
        const test = this.condition(expr.test, scope);
        const yes = graph.under(test, () => this.condition(expr.consequent, scope));
        const no = graph.under(graph.not(test), () => this.condition(expr.alternate, scope));
        return graph.select(test, yes, no);
      }
      return graph.truthy(this.expression(node, scope));
    });
  }

  /** What an expression stands for. */
  operand(node: estree.Node, scope: Scope): Operand {
    return this.nested(node, () => this.dispatch(node as estree.Expression, scope));
  }

  private dispatch(node: estree.Expression, scope: Scope): Operand {
    switch (node.type) {
      case 'Literal':
        return value(this.literal(node));
      case 'Identifier':
        return this.identifier(node, scope);
      case 'MemberExpression':
        return this.member(node, scope);
      case 'UnaryExpression':
        return this.unary(node, scope);
      case 'BinaryExpression':
        return value(this.binary(node, scope));
      case 'LogicalExpression':
        return value(this.logical(node, scope));
      case 'ConditionalExpression':
        return value(this.conditional(node, scope));
      case 'CallExpression':
        return this.call(node, scope);
      case 'SequenceExpression':
        node.expressions.slice(0, -1).forEach((part) => this.operand(part, scope));
        return this.operand(node.expressions[node.expressions.length - 1], scope);
      case 'ParenthesizedExpression':
        return this.operand(node.expression, scope);
      case 'ArrowFunctionExpression':
      case 'FunctionExpression':
        return this.helper(node, scope);
      default:
        throw this.unsupported(node);
    }
  }

  private literal(node: estree.Literal): number {
    if (typeof node.value === 'number') {
      const int = (node.value | 0) === node.value;
      return int ? this.graph.int(node.value) : this.graph.float(node.value);
    }
    if (typeof node.value === 'boolean') return this.graph.bool(node.value);
    throw this.error(
      node,
      `${snippet(this.source, node)} is not a number`,
      'masks and scores compute with numbers and booleans',
    );
  }

  private identifier(node: estree.Identifier, scope: Scope): Operand {
    const known = scope.find(node.name);
    if (known) return known;
    if (node.name === 'Infinity') return value(this.graph.float(Infinity));
    if (node.name === 'NaN') return value(this.graph.float(NaN));
    if (node.name === 'undefined') return { kind: 'undefined' };
    throw this.unknownName(node, scope);
  }

  private member(node: estree.MemberExpression, scope: Scope): Operand {
    if (node.optional)
      throw this.error(node, 'optional chaining is not supported', 'captured values are never missing: use . or [ ]');
    const global = this.globalMember(node, scope);
    if (global !== undefined) return value(this.graph.float(global));
    if (node.object.type === 'Identifier' && !scope.find(node.object.name))
      throw this.unknownName(node.object, scope, node);
    const object = this.operand(node.object, scope);
    if (object.kind === 'table') return this.index(node, object, scope);
    const name = this.propertyName(node);
    if (name !== undefined && (object.kind === 'coordinates' || object.kind === 'captures'))
      return this.property(node, object.kind, name);
    throw this.error(
      node,
      'this has no properties here',
      'only the two arguments and captured tables can be accessed with . or [ ]',
    );
  }

  /** `Math.PI`, `Number.POSITIVE_INFINITY` and the like, where Math isn't a local name. */
  private globalMember(node: estree.MemberExpression, scope: Scope): number | undefined {
    const name = this.propertyName(node);
    if (node.object.type !== 'Identifier' || name === undefined || scope.find(node.object.name)) return undefined;
    if (node.object.name === 'Math') {
      const constant = MATH_CONSTANTS.get(name);
      if (constant === undefined) throw this.error(node, `Math.${name} is not a number here`, this.mathHint());
      return constant;
    }
    if (node.object.name !== 'Number') return undefined;
    if (name === 'POSITIVE_INFINITY') return Infinity;
    if (name === 'NEGATIVE_INFINITY') return -Infinity;
    throw this.error(node, `Number.${name} is not supported`);
  }

  private index(node: estree.MemberExpression, operand: TableOperand, scope: Scope): Operand {
    const { graph } = this;
    const { capture, indices } = operand;
    if (!node.computed) {
      if (this.propertyName(node) === 'length') return value(graph.uniform(capture.lengths[indices.length]));
      const hint = 'a captured table has only [index] and .length';
      throw this.error(node, `.${this.propertyName(node)} of a captured table is not supported`, hint);
    }
    const at = this.expression(node.property, scope);
    if (graph.type(at) === 'bool')
      throw this.error(node.property, 'a table is indexed with a boolean', 'use an integer');
    const all = [...indices, graph.toInt(at)];
    if (all.length < capture.table.shape.length) return { ...operand, indices: all };
    const table = graph.table(capture.table);
    graph.read(table, all, snippet(this.source, node));
    let flat = all[0];
    for (let axis = 1; axis < all.length; ++axis) {
      flat = graph.emit('AddI', graph.emit('MulI', flat, graph.uniform(capture.lengths[axis])), all[axis]);
    }
    const loaded = graph.load(table, flat);
    return value(capture.boolean ? graph.truthy(loaded) : loaded);
  }

  private unary(node: estree.UnaryExpression, scope: Scope): Operand {
    const { graph } = this;
    if (node.operator === '!') return value(graph.not(this.condition(node.argument, scope)));
    if (node.operator === 'void') {
      this.operand(node.argument, scope);
      return { kind: 'undefined' };
    }
    if (node.operator === '-' && node.argument.type === 'Literal' && typeof node.argument.value === 'number') {
      const negative = -node.argument.value;
      return value((negative | 0) === negative ? graph.int(negative) : graph.float(negative));
    }
    if (node.operator !== '-' && node.operator !== '+' && node.operator !== '~')
      throw this.unsupported(node, node.operator);
    const x = this.expression(node.argument, scope);
    const number = graph.type(x) === 'bool' ? graph.toInt(x) : x;
    if (node.operator === '+') return value(number);
    if (node.operator === '~') return value(graph.emit('NotI', graph.toInt(number)));
    return value(graph.type(number) === 'f32' ? graph.emit('NegF', number) : graph.emit('NegI', number));
  }

  private binary(node: estree.BinaryExpression, scope: Scope): number {
    const { graph } = this;
    const { operator } = node;
    if (operator === 'in' || operator === 'instanceof') throw this.unsupported(node, operator);
    const x = this.expression(node.left, scope);
    const y = this.expression(node.right, scope);
    if (Object.hasOwn(COMPARISONS, operator)) return this.compare(node, x, y);
    if (Object.hasOwn(BITWISE, operator)) return graph.emit(BITWISE[operator], graph.toInt(x), graph.toInt(y));
    if (operator === '/') return graph.emit('DivF', graph.toFloat(x), graph.toFloat(y));
    if (operator === '**') return power(graph, x, y);
    if (!Object.hasOwn(ARITHMETIC, operator)) throw this.unsupported(node, operator);
    const [int, float] = ARITHMETIC[operator];
    if (graph.type(x) === 'f32' || graph.type(y) === 'f32')
      return graph.emit(float, graph.toFloat(x), graph.toFloat(y));
    return graph.emit(int, graph.toInt(x), graph.toInt(y));
  }

  private compare(node: estree.BinaryExpression, x: number, y: number): number {
    const { graph } = this;
    const [op, swapped] = COMPARISONS[node.operator];
    const mixed = (graph.type(x) === 'bool') !== (graph.type(y) === 'bool');
    if (mixed && node.operator.length === 3) {
      throw this.error(
        node,
        `${node.operator} of a boolean and a number is always ${op === 'Ne'}`,
        'compare numbers with numbers',
      );
    }
    const [left, right] = swapped ? [y, x] : [x, y];
    if (graph.type(left) === 'f32' || graph.type(right) === 'f32') {
      return graph.emit(`${op}F`, graph.toFloat(left), graph.toFloat(right));
    }
    return graph.emit(`${op}I`, graph.toInt(left), graph.toInt(right));
  }

  /** `&&` and `||` where their value is wanted: of two booleans a boolean, of two numbers the operand that JavaScript gives. */
  private logical(node: estree.LogicalExpression, scope: Scope): number {
    const { graph } = this;
    if (node.operator === '??') throw this.unsupported(node, '??');
    const left = this.expression(node.left, scope);
    const and = node.operator === '&&';
    const test = graph.truthy(left);
    const right = graph.under(and ? test : graph.not(test), () => this.expression(node.right, scope));
    if (graph.type(left) === 'bool' && graph.type(right) === 'bool')
      return graph.emit(and ? 'AndB' : 'OrB', left, right);
    const [x, y] = this.unify(node, left, right);
    return and ? graph.select(test, y, x) : graph.select(test, x, y);
  }

  private conditional(node: estree.ConditionalExpression, scope: Scope): number {
    const { graph } = this;
    const test = this.condition(node.test, scope);
    const yes = graph.under(test, () => this.expression(node.consequent, scope));
    const no = graph.under(graph.not(test), () => this.expression(node.alternate, scope));
    return graph.select(test, ...this.unify(node, yes, no));
  }

  private call(node: estree.CallExpression, scope: Scope): Operand {
    if (node.optional) throw this.error(node, 'optional calls are not supported');
    const callee = unwrap(node.callee);
    const builtin = this.builtinCall(node, callee, scope);
    if (builtin !== undefined) return value(builtin);
    if (callee.type === 'Identifier' && !scope.find(callee.name) && isNameWrapper(node))
      return this.operand(node.arguments[0], scope);
    if (callee.type === 'MemberExpression' && callee.object.type === 'Identifier' && !scope.find(callee.object.name)) {
      throw this.unknownName(callee.object, scope, callee, true);
    }
    if (callee.type === 'Identifier' && !scope.find(callee.name))
      throw this.unknownName(callee, scope, undefined, true);
    const target = this.operand(callee, scope);
    if (target.kind !== 'function') throw this.error(node, 'this is not a function', this.callHint());
    return this.inline(node, target, scope);
  }

  /** `Math.f(...)`, `Number(x)` and `Boolean(x)`. */
  private builtinCall(node: estree.CallExpression, callee: estree.Node, scope: Scope): number | undefined {
    const { graph } = this;
    if (callee.type === 'Identifier' && !scope.find((callee as estree.Identifier).name)) {
      const { name } = callee as estree.Identifier;
      if ((name !== 'Number' && name !== 'Boolean') || node.arguments.length !== 1) return undefined;
      if (name === 'Boolean') return this.condition(node.arguments[0], scope);
      const x = this.expression(node.arguments[0], scope);
      return graph.type(x) === 'bool' ? graph.toInt(x) : x;
    }
    if (callee.type !== 'MemberExpression') return undefined;
    const { object } = callee as estree.MemberExpression;
    if (object.type !== 'Identifier' || object.name !== 'Math' || scope.find('Math')) return undefined;
    const name = this.propertyName(callee as estree.MemberExpression) ?? '';
    const known = MATH_FUNCTIONS.get(name);
    if (!known) throw this.error(callee, `Math.${name || '[...]'} is not supported`, this.mathHint());
    const [least, most] = known.arity;
    const count = node.arguments.length;
    if (count < least || count > most) {
      throw this.error(
        node,
        `Math.${name} takes ${least === most ? least : `${least} to ${most}`} arguments, not ${count}`,
      );
    }
    return known.lower(graph, node.arguments.map((argument) => this.expression(argument, scope))); // prettier-ignore
  }

  private helper(node: estree.ArrowFunctionExpression | estree.FunctionExpression, scope: Scope): Operand {
    if (node.async || node.generator) throw this.error(node, 'async and generator functions are not supported');
    return { kind: 'function', node, scope };
  }

  private inline(node: estree.CallExpression, target: Extract<Operand, { kind: 'function' }>, scope: Scope): Operand {
    const inner = new Scope(target.scope);
    const { params } = target.node;
    if (params.length !== node.arguments.length) {
      throw this.error(node, `this helper takes ${params.length} arguments, not ${node.arguments.length}`);
    }
    const operands = node.arguments.map((argument) => this.operand(argument, scope));
    params.forEach((param, i) => this.bind(param, operands[i], inner));
    return value(
      this.calling(node, target.node, () =>
        lowerBody(this, target.node, inner, (at, names) => this.expression(at, names)),
      ),
    );
  }
}

/** `(0, x)` as bundlers write it to call an import without `this`. */
function unwrap(node: estree.Node): estree.Expression {
  const expression = node as estree.Expression;
  if (expression.type === 'ParenthesizedExpression') return unwrap(expression.expression);
  if (expression.type !== 'SequenceExpression') return expression;
  const { expressions } = expression;
  return expressions.length === 2 && expressions[0].type === 'Literal' ? unwrap(expressions[1]) : expression;
}

/** esbuild's `__name(fn, "name")`, whatever it was renamed to. */
function isNameWrapper({ arguments: [fn, name, ...rest] }: estree.CallExpression): boolean {
  const isFunction = fn?.type === 'ArrowFunctionExpression' || fn?.type === 'FunctionExpression';
  return isFunction && rest.length === 0 && name?.type === 'Literal' && typeof name.value === 'string';
}
