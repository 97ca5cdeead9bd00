/**
 * Masks from masks. A composition is lowered as one program, so shared parts are computed once, and its `value` is composed of the original
 * functions in the same way.
 */
import { FoveaError } from '../errors.ts';
import { expectOptions } from '../options.ts';
import { makeMask, makeScore, partsOf } from './mask.ts';
import type { Mask, Parts, Score, ScoreCoordinates } from './mask.ts';
import type { Uniform } from './program.ts';
import type { Builder } from './ir.ts';

/** Compositions in one another: each is lowered from its parts anew, so a thousand of them would take many seconds. */
const MAX_DEPTH = 256;

/** True where every mask is; `and()` is true everywhere. Later masks may rely on earlier ones: `and(inside, reads)` guards table reads. */
export function and(...masks: readonly Mask[]): Mask {
  return combine('and', masks);
}

/** True where some mask is; `or()` is false everywhere. */
export function or(...masks: readonly Mask[]): Mask {
  return combine('or', masks);
}

/** True where the mask isn't. */
export function not(mask: Mask): Mask {
  const part = partsOf(mask, 'mask', 'not');
  const { term, oracle } = part;
  const own: Parts = {
    term: (graph, at) => graph.not(term(graph, at)),
    oracle: (at) => !oracle(at),
    depth: depthOver('not', [part]),
  };
  return makeMask(`not(${mask.name})`, own, mask.captures);
}

/**
 * The mask seen from shifted positions: `value({ q, kv })` is `mask.value({ q: q + shift.q, kv: kv + shift.kv })`. A decode step at
 * position `n` of a cache uses `offset(mask, { q: n })`. The shifts are uniforms: every shift shares one compiled program.
 */
export function offset(mask: Mask, shift: { readonly q?: number; readonly kv?: number }): Mask {
  expectOptions('offset', shift, { q: true, kv: true });
  const part = partsOf(mask, 'mask', 'offset');
  const { term, oracle } = part;
  const q = shiftUniform('q', shift.q ?? 0);
  const kv = shiftUniform('kv', shift.kv ?? 0);
  const moved = (graph: Builder, value: number, by: Uniform | null): number =>
    by ? graph.emit('AddI', value, graph.uniform(by)) : value;
  const own: Parts = {
    term: (graph, at) => term(graph, { ...at, q: moved(graph, at.q, q), kv: moved(graph, at.kv, kv) }),
    oracle: (at) => oracle({ ...at, q: at.q + (q?.value ?? 0), kv: at.kv + (kv?.value ?? 0) }),
    depth: depthOver('offset', [part]),
  };
  const shifts = [q, kv].filter((uniform) => uniform !== null).map(({ name, value }) => `${name}: ${value}`);
  return makeMask(shifts.length ? `offset(${mask.name}, { ${shifts.join(', ')} })` : mask.name, own, mask.captures);
}

function shiftUniform(name: string, value: number): Uniform | null {
  if (!Number.isInteger(value) || Math.abs(value) > 2 ** 30) {
    throw new FoveaError('ERR_ARGUMENT', `offset: ${name} must be an integer of at most 2^30, got ${value}`);
  }
  return value === 0 ? null : Object.freeze({ name, type: 'i32', value });
}

/** The scores one after the other: each gets the previous one's result as its `s`. */
export function chain(...scores: readonly Score[]): Score {
  const all = scores.map((score) => partsOf(score, 'score', 'chain'));
  const own: Parts = {
    term: (graph, at) => {
      const s = at.s ?? graph.input('Score');
      return all.reduce((value, { term }) => term(graph, { ...at, s: value }), s);
    },
    oracle: (at) => all.reduce((s: number, { oracle }) => Number(oracle({ ...at, s })), at.s),
    depth: depthOver('chain', all),
  };
  return makeScore(`chain(${scores.map(({ name }) => name).join(', ')})`, own, merge(scores));
}

function combine(how: 'and' | 'or', masks: readonly Mask[]): Mask {
  const all = masks.map((mask) => partsOf(mask, 'mask', how));
  const isAnd = how === 'and';
  const own: Parts = {
    term: (graph, at) => {
      let result = graph.bool(isAnd);
      for (const { term } of all) {
        const previous = result;
        const next = graph.under(isAnd ? previous : graph.not(previous), () => term(graph, at));
        result = graph.emit(isAnd ? 'AndB' : 'OrB', previous, next);
      }
      return result;
    },
    oracle: (at: ScoreCoordinates) =>
      isAnd ? all.every(({ oracle }) => oracle(at)) : all.some(({ oracle }) => oracle(at)),
    depth: depthOver(how, all),
  };
  return makeMask(`${how}(${masks.map(({ name }) => name).join(', ')})`, own, merge(masks));
}

/** The depth of a composition of these. Throws ERR_ARGUMENT beyond MAX_DEPTH. */
function depthOver(how: string, all: readonly Parts[]): number {
  const depth = 1 + Math.max(0, ...all.map((part) => part.depth));
  if (depth <= MAX_DEPTH) return depth;
  throw new FoveaError(
    'ERR_ARGUMENT',
    `${how}: masks or scores are composed ${depth} times over each other, at most ${MAX_DEPTH} are supported; ` +
      'give and(), or() or chain() all of them at once',
  );
}

/** The captured values of all parts; where a name returns, it is numbered: `doc`, `doc_2`. */
function merge(all: readonly (Mask | Score)[]): Readonly<Record<string, unknown>> {
  const merged = Object.create(null) as Record<string, unknown>;
  for (const { captures } of all) {
    for (const [name, value] of Object.entries(captures)) {
      let unique = name;
      for (let i = 2; unique in merged && merged[unique] !== value; ++i) unique = `${name}_${i}`;
      merged[unique] = value;
    }
  }
  return Object.freeze(merged);
}
