import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * The first `prefix` tokens see each other in both directions, the rest is causal and sees the whole prefix.
 *
 * @param prefix length of the prefix, one for all batches or one per batch
 *
 * Source: Raffel et al., "Exploring the Limits of Transfer Learning", 2020, section 3.2.1.
 */
export function prefixLM(prefix: number | readonly number[] | Int32Array): Mask {
  if (typeof prefix === 'number') {
    expectWhole('prefixLM', { prefix });
    return mask(({ q, kv }, { prefix }) => kv < prefix || kv <= q, { prefix });
  }
  return mask(({ b, q, kv }, { prefix }) => kv < prefix[b] || kv <= q, { prefix });
}
