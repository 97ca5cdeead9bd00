import { FoveaError } from '../../errors.ts';
import { score, type Score } from '../mask.ts';

/**
 * Bounds every logit smoothly to (-cap, cap). The `softcap` option of `attention` does the same before the score function is applied.
 *
 * @param cap the bound, greater than 0
 *
 * Source: Gemma Team, "Gemma 2", 2024, section 2.
 */
export function softcap(cap: number): Score {
  if (!(cap > 0 && cap < Infinity))
    throw new FoveaError('ERR_ARGUMENT', `softcap: cap is ${cap}, expected a positive number`);
  return score(({ s }, { cap }) => cap * Math.tanh(s / cap), { cap });
}
