/**
 * HeadHunter: which attention heads to damage for guidance, by greedy search in rounds.
 *
 * A round scores every candidate that is left together with those already chosen, and adds the k best. So a head that does little alone but
 * helps in company is found, which choosing all at once would miss. What a score means (images generated, an objective averaged over fixed
 * prompts and seeds) is the caller's. The state is plain data, complete after every score: a search of hours goes on where it stopped.
 *
 * Source: "Fine-Grained Perturbation Guidance via Attention Head Selection", 2025 (no code published).
 */
import { FoveaError } from '../errors.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectFunction, kindText } from '../tensor/expect.ts';
import { expectCount } from './checks.ts';

/** Plain data: JSON keeps it. Candidates are named by their place in the list. */
export interface HeadHunterState {
  /** Finished rounds: every candidate's score (null where it was already chosen) and those added, best first. */
  readonly rounds: readonly { readonly scores: readonly (number | null)[]; readonly added: readonly number[] }[];
  /** Scores of the round that was not finished, null where not yet known; empty between rounds. */
  readonly current: readonly (number | null)[];
}

export interface HeadHunterOptions<C> {
  /** For instance every [layer, head]. */
  readonly candidates: readonly C[];
  /** The objective with these damaged, larger is better: the chosen ones, then the candidate. */
  readonly evaluate: (damaged: readonly C[]) => number | Promise<number>;
  /** Candidates added a round. */
  readonly k: number;
  readonly rounds: number;
  /** Called after every score with the state so far. */
  readonly onScore?: (state: HeadHunterState) => void;
  /** Goes on from a state of a search with the same candidates and k. */
  readonly resume?: HeadHunterState;
  readonly signal?: AbortSignal;
}

const HEAD_HUNTER_OPTIONS: OptionNames<HeadHunterOptions<unknown>> = {
  candidates: true,
  evaluate: true,
  k: true,
  rounds: true,
  onScore: true,
  resume: true,
  signal: true,
};

export interface HeadHunterResult<C> {
  /** In the order of their choice. */
  readonly selected: readonly C[];
  readonly state: HeadHunterState;
}

/**
 * Searches; costs about rounds x candidates evaluations, one at a time. Equal scores go to the earlier candidate.
 *
 * @throws (rejects) FoveaError ERR_ARGUMENT for counts below 1, fewer candidates than rounds x k, a score that is not a number, or a state of
 * another search; ERR_ABORTED when the signal was aborted; whatever `evaluate` throws
 */
export async function headHunter<C>(options: HeadHunterOptions<C>): Promise<HeadHunterResult<C>> {
  expectOptions('headHunter', options, HEAD_HUNTER_OPTIONS);
  const { candidates, evaluate, k, rounds: count, onScore, resume, signal } = options;
  if (!Array.isArray(candidates)) throw bad(`candidates are ${kindText(candidates)}, expected an array`);
  expectFunction('headHunter', 'evaluate', evaluate);
  if (onScore !== undefined) expectFunction('headHunter', 'onScore', onScore);
  expectCount('headHunter', 'k', k);
  expectCount('headHunter', 'rounds', count);
  if (candidates.length < k * count)
    throw bad(`${candidates.length} candidates for ${count} rounds of ${k}; expected at least ${k * count}`);
  const rounds = [...(resume?.rounds ?? [])];
  let current = [...(resume?.current ?? [])];
  if (
    rounds.some(({ scores, added }) => scores.length !== candidates.length || added.length !== k) ||
    ![0, candidates.length].includes(current.length)
  )
    throw bad(`the state to resume is of other candidates or another k`);

  while (rounds.length < count) {
    const chosen = rounds.flatMap(({ added }) => added);
    if (current.length === 0) current = candidates.map(() => null);
    for (let i = 0; i < candidates.length; i++) {
      if (current[i] !== null || chosen.includes(i)) continue;
      if (signal?.aborted)
        throw new FoveaError('ERR_ABORTED', 'headHunter: the signal was aborted', { cause: signal.reason });
      const score = await evaluate([...chosen, i].map((at) => candidates[at]));
      if (typeof score !== 'number' || Number.isNaN(score))
        throw bad(`evaluate gave ${String(score)} for candidate ${i}, expected a number`);
      current[i] = score;
      onScore?.({ rounds: [...rounds], current: [...current] });
    }
    const scores = current;
    const left = scores.flatMap((score, at) => (score === null ? [] : [{ score, at }]));
    const best = left.toSorted((a, b) => b.score - a.score || a.at - b.at).slice(0, k);
    rounds.push({ scores, added: best.map(({ at }) => at) });
    current = [];
  }
  const selected = rounds.slice(0, count).flatMap(({ added }) => added.map((at) => candidates[at]));
  return { selected, state: { rounds, current } };
}

const bad = (what: string): FoveaError => new FoveaError('ERR_ARGUMENT', `headHunter: ${what}`);
