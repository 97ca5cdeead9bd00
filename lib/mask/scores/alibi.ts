import { expectNumbers } from '../../tensor/expect.ts';
import { score, type Score } from '../mask.ts';
import { seen, type FloatTable } from './table.ts';

/**
 * Attention with linear biases: each head lowers a logit by `slope[h]` per position between query and key, to either side.
 *
 * @param slopes one slope per query head: the paper's for a number of heads, see {@link alibiSlopes}, or values; a tensor is trained
 *
 * Source: Press et al., "Train Short, Test Long", 2022, section 3.
 */
export function alibi(slopes: number | FloatTable): Score {
  const slope = typeof slopes === 'number' ? alibiSlopes(slopes) : seen(slopes);
  return score(({ s, h, q, kv }, { slope }) => s - slope[h] * Math.abs(q - kv), { slope });
}

/**
 * The slopes of the paper: 2^(-8/n), 2^(-16/n), ... for n heads, n a power of two; for other numbers the next lower power's slopes,
 * followed by every other slope of the next higher power's.
 */
export function alibiSlopes(heads: number): Float32Array {
  expectNumbers('alibiSlopes', { heads }, 0);
  const power = 2 ** Math.floor(Math.log2(heads));
  const geometric = (n: number, i: number) => 2 ** ((-8 * (i + 1)) / n);
  return Float32Array.from({ length: heads }, (_, i) =>
    i < power ? geometric(power, i) : geometric(2 * power, 2 * (i - power)),
  );
}
