/**
 * Statements: declarations, `if`, `return`. Every path of a function must return.
 *
 * A block lowers to a flow: under which condition it has returned, and what. Statements after a partial return are built under the negated
 * condition and joined by a select, so work is linear in the text however returns are nested.
 */
import type * as estree from 'acorn';
import type { Lowering } from './lower.ts';
import { Scope } from './scope.ts';
import type { Operand } from './scope.ts';

/** `done`: bool value, whether the code has returned; `result`: what, where it has; null if it never does. */
interface Flow {
  readonly done: number;
  readonly result: number | null;
}

/** How a returned expression becomes the function's value. */
export type Returns = (node: estree.Node, scope: Scope) => number;

type AnyFunction = estree.ArrowFunctionExpression | estree.FunctionExpression | estree.FunctionDeclaration;

/** The value that a function returns, its parameters bound in `scope` already. */
export function lowerBody(lowering: Lowering, fn: AnyFunction, scope: Scope, returns: Returns): number {
  if (fn.body.type !== 'BlockStatement') return returns(fn.body, scope);
  const flow = block(lowering, fn.body.body, scope, returns);
  if (flow.result === null || lowering.graph.valueOf(flow.done) !== 1) {
    throw lowering.error(fn.body, 'not every path returns a value', 'end with a return statement');
  }
  return flow.result;
}

function block(lowering: Lowering, statements: readonly estree.Node[], scope: Scope, returns: Returns): Flow {
  const { graph } = lowering;
  let flow: Flow = { done: graph.bool(false), result: null };
  const outer = graph.path.length;
  hoist(lowering, statements, scope);
  for (const node of statements) {
    if (graph.valueOf(flow.done) === 1) break;
    const next = statement(lowering, node as estree.Statement, scope, returns);
    if (next.result === null) continue;
    flow = join(lowering, node, flow, next);
    graph.path.push(graph.not(flow.done));
  }
  graph.path.length = outer;
  return flow;
}

function join(lowering: Lowering, node: estree.Node, first: Flow, then: Flow): Flow {
  const { graph } = lowering;
  const done = graph.emit('OrB', first.done, then.done);
  if (first.result === null || then.result === null) return { done, result: first.result ?? then.result };
  return { done, result: graph.select(first.done, ...lowering.unify(node, first.result, then.result)) };
}

function hoist(lowering: Lowering, statements: readonly estree.Node[], scope: Scope): void {
  for (const node of statements as estree.Statement[]) {
    if (node.type !== 'FunctionDeclaration') continue;
    if (node.async || node.generator) throw lowering.error(node, 'async and generator functions are not supported');
    scope.define(node.id.name, { kind: 'function', node, scope });
  }
}

function statement(lowering: Lowering, node: estree.Statement, scope: Scope, returns: Returns): Flow {
  const nothing: Flow = { done: lowering.graph.bool(false), result: null };
  switch (node.type) {
    case 'ReturnStatement':
      if (!node.argument) throw lowering.error(node, 'return without a value', 'return a value on every path');
      return { done: lowering.graph.bool(true), result: returns(node.argument, scope) };
    case 'IfStatement':
      return lowering.nested(node, () => conditional(lowering, node, scope, returns));
    case 'BlockStatement':
      return lowering.nested(node, () => block(lowering, node.body, new Scope(scope), returns));
    case 'VariableDeclaration':
      declare(lowering, node, scope);
      return nothing;
    case 'FunctionDeclaration':
    case 'EmptyStatement':
      return nothing;
    case 'ExpressionStatement':
      if ('directive' in node && node.directive !== undefined) return nothing;
      lowering.operand(node.expression, scope);
      throw lowering.error(node, 'a statement without effect', 'return the value, or name it with const');
    default:
      throw lowering.unsupported(node);
  }
}

function conditional(lowering: Lowering, node: estree.IfStatement, scope: Scope, returns: Returns): Flow {
  const { graph } = lowering;
  const test = lowering.condition(node.test, scope);
  const branch = (body: estree.Statement): Flow => statement(lowering, body, new Scope(scope), returns);
  const yes = graph.under(test, () => branch(node.consequent));
  const alternate = node.alternate;
  const no = alternate
    ? graph.under(graph.not(test), () => branch(alternate))
    : { done: graph.bool(false), result: null };
  const done = graph.select(test, yes.done, no.done);
  if (yes.result === null || no.result === null) return { done, result: yes.result ?? no.result };
  return { done, result: graph.select(test, ...lowering.unify(node, yes.result, no.result)) };
}

function declare(lowering: Lowering, node: estree.VariableDeclaration, scope: Scope): void {
  for (const { id, init } of node.declarations) {
    if (!init)
      throw lowering.error(id, 'a variable without a value', 'values are computed once: give it its value here');
    if (id.type === 'Identifier' && scope.has(id.name)) throw lowering.error(id, `"${id.name}" is declared twice`);
    const operand: Operand = lowering.operand(init, scope);
    lowering.bind(id, operand, scope);
  }
}
