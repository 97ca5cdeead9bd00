/**
 * From a function's text to its syntax tree, and from a place in the text to a readable error.
 *
 * The text is only ever parsed, never run. It may be what a bundler, minifier or test runner made of the user's function, so methods,
 * function expressions and arrow functions are all accepted; length and nesting are limited before anything recursive sees it.
 */
import { parse } from 'acorn';
import type { ArrowFunctionExpression, Expression, FunctionExpression, Node, Program as Script } from 'acorn';
import { FoveaError } from '../errors.ts';

/** Longest accepted function text in UTF-16 units. */
export const MAX_SOURCE_LENGTH = 65536;
/** Deepest accepted nesting of brackets, and of the syntax tree. */
export const MAX_DEPTH = 256;

export type FunctionNode = ArrowFunctionExpression | FunctionExpression;

export interface Source {
  /** `mask "name"` or `score "name"`, for messages. */
  readonly title: string;
  readonly text: string;
  /** Offset of `text` in what acorn parsed: node positions are ahead of it by this much. */
  readonly prefix: number;
  readonly root: FunctionNode;
}

type Located = Pick<Source, 'title' | 'text' | 'prefix'>;

/** The error for a place in a function: message, a code frame with line and caret, and a hint. */
export function syntaxError(
  source: Located,
  at: Pick<Node, 'start'> | null,
  message: string,
  hint?: string,
): FoveaError {
  const frame = at === null ? '' : `\n\n${codeFrame(source.text, at.start - source.prefix)}`;
  return new FoveaError('ERR_MASK_SYNTAX', `${source.title}: ${message}${frame}${hint ? `\n\nHint: ${hint}` : ''}`);
}

/** The text of a node, shortened to one line of at most 60 characters. */
export function snippet(source: Located, node: Node): string {
  const text = source.text.slice(node.start - source.prefix, node.end - source.prefix).replace(/\s+/g, ' ');
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Parses the text of one function. Throws ERR_MASK_SYNTAX where it isn't one, is too long or too deep. */
export function parseFunction(text: string, title: string): Source {
  const located = { title, text: text.slice(0, MAX_SOURCE_LENGTH), prefix: 1 };
  if (text.length > MAX_SOURCE_LENGTH) {
    throw syntaxError(
      located,
      null,
      `the function is ${text.length} characters long, at most ${MAX_SOURCE_LENGTH} are accepted`,
    );
  }
  if (/\{\s*\[native code\]\s*\}\s*$/.test(text)) {
    const hint = 'bound functions, proxies and built-ins have no readable text: pass the arrow function itself';
    throw syntaxError(located, null, 'the text of this function is not available', hint);
  }
  const deep = deepBracket(text);
  if (deep >= 0) {
    throw syntaxError(
      located,
      { start: deep + 1 },
      `brackets are nested deeper than ${MAX_DEPTH}`,
      'name parts with const',
    );
  }
  const asExpression = parseWrapped(located, '(', ')');
  if (asExpression instanceof FoveaError) {
    const asMethod = parseWrapped({ ...located, prefix: 2 }, '({', '})');
    if (asMethod instanceof FoveaError) throw asExpression;
    const property =
      asMethod.type === 'ObjectExpression' && asMethod.properties.length === 1 ? asMethod.properties[0] : null;
    if (property?.type !== 'Property' || !property.method) throw asExpression;
    return checkFunction({ ...located, prefix: 2 }, property.value);
  }
  return checkFunction(located, asExpression);
}

function checkFunction(located: Located, node: Expression): Source {
  if (node.type === 'ParenthesizedExpression') return checkFunction(located, node.expression);
  if (node.type !== 'ArrowFunctionExpression' && node.type !== 'FunctionExpression') {
    const what = node.type === 'ClassExpression' ? 'a class' : 'not a function';
    throw syntaxError(located, node, `this is ${what}`, 'write ({ q, kv }) => q >= kv');
  }
  if (node.async || node.generator) {
    const what = node.async ? 'async' : 'generator';
    throw syntaxError(
      located,
      node,
      `${what} functions are not supported`,
      'a mask or score is a plain function of numbers',
    );
  }
  return { ...located, root: node };
}

function parseWrapped(located: Located, open: string, close: string): Expression | FoveaError {
  let script: Script;
  try {
    script = parse(open + located.text + close, { ecmaVersion: 'latest', sourceType: 'script' });
  } catch (error) {
    if (error instanceof RangeError) return syntaxError(located, null, 'the function is nested too deeply to parse');
    if (!(error instanceof SyntaxError)) throw error;
    const pos = 'pos' in error && typeof error.pos === 'number' ? error.pos : 0;
    return syntaxError(located, { start: pos }, error.message.replace(/ \(\d+:\d+\)$/, ''));
  }
  const [statement] = script.body;
  if (script.body.length !== 1 || statement.type !== 'ExpressionStatement') {
    return syntaxError(located, null, 'expected the text of exactly one function');
  }
  return statement.expression as Expression;
}

/** Offset of the first bracket nested deeper than allowed, or -1. Brackets in strings count too: a bound, not a parse. */
function deepBracket(text: string): number {
  let depth = 0;
  for (let i = 0; i < text.length; ++i) {
    const c = text[i];
    if (c === '(' || c === '[' || c === '{') {
      if (++depth > MAX_DEPTH) return i;
    } else if (c === ')' || c === ']' || c === '}') --depth;
  }
  return -1;
}

const FRAME_WIDTH = 96;

function codeFrame(text: string, offset: number): string {
  const at = Math.min(Math.max(offset, 0), text.length);
  const lineStart = text.lastIndexOf('\n', at - 1) + 1;
  const newline = text.indexOf('\n', at);
  const line = text.slice(lineStart, newline < 0 ? text.length : newline).replace(/\t/g, ' ');
  const number = text.slice(0, lineStart).split('\n').length;
  const column = at - lineStart;
  const from = Math.max(0, Math.min(column - FRAME_WIDTH / 2, line.length - FRAME_WIDTH));
  const shown = `${from > 0 ? '...' : ''}${line.slice(from, from + FRAME_WIDTH)}${from + FRAME_WIDTH < line.length ? '...' : ''}`;
  const label = `${number}:${column + 1}`;
  const caret = ' '.repeat(column - from + (from > 0 ? 3 : 0));
  return `  ${label} | ${shown}\n  ${' '.repeat(label.length)} | ${caret}^`;
}
