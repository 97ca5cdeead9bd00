/**
 * Masks and score changes from ordinary TypeScript functions.
 *
 *     const docs = mask(({ q, kv }, { doc }) => q >= kv && doc[q] === doc[kv], { doc: ids });
 *     const alibi = score(({ s, h, q, kv }, { slope }) => s - slope[h] * (q - kv), { slope: slopes });
 *
 * The function's text is compiled (docs/masks-language.md has the language) and checked against the function itself.
 */
import { resolveCaptures } from './captures.ts';
import { compileTerm, sourceTerm } from './term.ts';
import { verify } from './verify.ts';
import type { Captures, CaptureViews } from './captures.ts';
import type { Point } from './evaluate.ts';
import type { Program } from './program.ts';
import type { MaskKind, Term } from './term.ts';
import { FoveaError } from '../errors.ts';

/** Where a mask is asked: batch, query head, query and key position, all counted from 0. */
export interface Coordinates {
  /** Batch entry. */
  readonly b: number;
  /** Query head. */
  readonly h: number;
  /** Position of the query, from 0 in its sequence. */
  readonly q: number;
  /** Position of the key, from 0 in its sequence. */
  readonly kv: number;
}

/** A score function also gets `s`, the scaled logit. */
export interface ScoreCoordinates extends Coordinates {
  /** The logit so far: scaled and capped. */
  readonly s: number;
}

interface Compiled {
  /** For messages and pictures: the function's name, or how it was composed. */
  readonly name: string;
  readonly program: Program;
  /** Copies of the captured values, as the function sees them. */
  readonly captures: Readonly<Record<string, unknown>>;
}

/** Which keys a query attends to; immutable. */
export interface Mask extends Compiled {
  readonly kind: 'mask';
  /** The original function's value; coordinates left out are 0. */
  value(at: Point): boolean;
}

/** A change of the scaled logits; immutable. */
export interface Score extends Compiled {
  readonly kind: 'score';
  /** The original function's value, in double precision; coordinates left out are 0. */
  value(at: Point): number;
}

/** What a mask or score is made of, for composition. */
export interface Parts {
  readonly term: Term;
  /** The original function over full coordinates. */
  readonly oracle: (at: ScoreCoordinates) => unknown;
  /** Compositions around each other; 0 for what was compiled from a function. */
  readonly depth: number;
}

const parts = new WeakMap<object, Parts>();

/** The parts of a mask or score. Throws ERR_ARGUMENT for anything else. */
export function partsOf(value: Mask | Score, kind: MaskKind, who: string): Parts {
  const found = typeof value === 'object' && value !== null ? parts.get(value) : undefined;
  if (found && value.kind === kind) return found;
  throw new FoveaError(
    'ERR_ARGUMENT',
    `${who}: expected ${kind}s made by ${kind}(fn, captures), got ${found ? `a ${value.kind}` : typeof value}`,
  );
}

/** Compiles and verifies parts into a mask. */
export function makeMask(name: string, own: Parts, captures: Compiled['captures'], title = `mask "${name}"`): Mask {
  const program = verified(own, 'mask', title);
  const made: Mask = Object.freeze({
    kind: 'mask',
    name,
    program,
    captures,
    value: (at: Point) => Boolean(own.oracle(fill(at))),
  });
  parts.set(made, own);
  return made;
}

/** Compiles and verifies parts into a score. */
export function makeScore(name: string, own: Parts, captures: Compiled['captures'], title = `score "${name}"`): Score {
  const program = verified(own, 'score', title);
  const made: Score = Object.freeze({
    kind: 'score',
    name,
    program,
    captures,
    value: (at: Point) => Number(own.oracle(fill(at))),
  });
  parts.set(made, own);
  return made;
}

function verified(own: Parts, kind: MaskKind, title: string): Program {
  const program = compileTerm(own.term, kind, title);
  const exact = verify(program, own.oracle, title);
  if (exact.length === 0 || !program.checks) return program;
  return Object.freeze({ ...program, checks: { ...program.checks, exact } });
}

function fill({ b = 0, h = 0, q = 0, kv = 0, s = 0 }: Point): ScoreCoordinates {
  return { b, h, q, kv, s };
}

const sourceText = (fn: unknown): string => Function.prototype.toString.call(fn);

type AnyFunction = (coordinates: ScoreCoordinates, captures: never) => unknown;

function fromFunction(fn: AnyFunction, kind: MaskKind, captures: unknown): [string, Parts, Compiled['captures']] {
  if (typeof fn !== 'function') {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `${kind}: expected a function of ({ q, kv }, captured), got ${fn === null ? 'null' : typeof fn}`,
    );
  }
  const name = typeof fn.name === 'string' && fn.name !== '' ? fn.name : kind;
  const title = `${kind} "${name}"`;
  const resolved = resolveCaptures(captures, title);
  const term = sourceTerm(sourceText(fn), kind, resolved, title);
  return [name, { term, oracle: (at) => fn(at, resolved.views as never), depth: 0 }, resolved.views];
}

/**
 * A mask from a function: true where query `q` may see key `kv`.
 *
 * The function uses nothing but its two arguments: `({ b, h, q, kv }, captured) => boolean`. Captured values (numbers, booleans, typed or
 * nested arrays, tensors) are copied now; a later change of an array doesn't change the mask.
 *
 * @throws FoveaError ERR_MASK_SYNTAX where the text is outside the language or the program differs from the function; ERR_ARGUMENT for
 * values that can't be captured; ERR_MASK_INDEX where a table read is never in range
 */
export function mask<C extends Captures = Record<never, never>>(
  fn: (coordinates: Coordinates, captured: CaptureViews<C>) => boolean,
  captures?: C,
): Mask {
  return makeMask(...fromFunction(fn, 'mask', captures));
}

/**
 * A score change from a function: `({ s, b, h, q, kv }, captured) => number` gives the logit that the softmax sees instead of `s`.
 * `-Infinity` removes a key. Captured values as for `mask`; tensors with `requiresGrad` receive gradients.
 *
 * @throws FoveaError as `mask`
 */
export function score<C extends Captures = Record<never, never>>(
  fn: (coordinates: ScoreCoordinates, captured: CaptureViews<C>) => number,
  captures?: C,
): Score {
  return makeScore(...fromFunction(fn, 'score', captures));
}
