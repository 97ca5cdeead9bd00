/**
 * A mask or score before it is compiled: something that builds its value in any graph, for any coordinates.
 *
 * Composition works on terms, so a composed mask is lowered as one function: shared parts are computed once, coordinates can be replaced by
 * other values (`offset`), and a guard in one part protects table reads of the next.
 */
import { FoveaError } from '../errors.ts';
import { Builder } from './ir.ts';
import { Lowering } from './lower.ts';
import { resolveCaptures } from './captures.ts';
import { schedule } from './schedule.ts';
import { parseFunction, syntaxError } from './source.ts';
import type { CaptureSet } from './captures.ts';
import type { CoordinateValues } from './lower_base.ts';
import type { Program } from './program.ts';

export type MaskKind = 'mask' | 'score';

/** Builds the term's value: bool for a mask, f32 for a score. */
export type Term = (graph: Builder, coordinates: CoordinateValues) => number;

/** The term of one function, from its text. Throws ERR_MASK_SYNTAX when it is first built. */
export function sourceTerm(text: string, kind: MaskKind, captures: CaptureSet, title: string): Term {
  const source = parseFunction(text, title);
  return (graph, coordinates) => {
    try {
      return new Lowering(graph, source, kind, captures, coordinates).root();
    } catch (error) {
      if (error instanceof RangeError) throw syntaxError(source, null, 'the function is nested too deeply');
      throw error;
    }
  };
}

/** Builds and encodes a term over the plain coordinates. */
export function compileTerm(term: Term, kind: MaskKind, title: string): Program {
  const graph = new Builder();
  const plain = { b: graph.input('Batch'), h: graph.input('Head'), q: graph.input('Query'), kv: graph.input('Key') };
  try {
    const result = term(graph, kind === 'score' ? { ...plain, s: graph.input('Score') } : plain);
    return schedule(graph, { kind, result });
  } catch (error) {
    if (!(error instanceof FoveaError) || error.message.startsWith(title)) throw error;
    throw new FoveaError(error.code, `${title}: ${error.message}`, { cause: error });
  }
}

/**
 * Compiles the text of a function, which is never run; nothing verifies that the text means what some function does.
 *
 * @param captures the values of the second argument, as for `mask` and `score`
 * @throws FoveaError ERR_MASK_SYNTAX for text outside the language, ERR_ARGUMENT for values that can't be captured
 */
export function compileSource(text: string, kind: MaskKind, captures?: unknown): Program {
  return compileTerm(sourceTerm(text, kind, resolveCaptures(captures, kind), kind), kind, kind);
}
