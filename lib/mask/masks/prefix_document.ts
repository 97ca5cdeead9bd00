import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * Packed documents, each a prefix LM: its first `prefix` tokens see each other in both directions, the rest is causal.
 * A document shorter than the prefix is bidirectional throughout.
 *
 * @param ids document number of each position, equal numbers adjacent
 * @param prefix tokens at the start of each document that see each other
 *
 * Source: Bu et al., "Long-Context Attention Benchmark", 2026, mask PREFIX LM DOCUMENT.
 */
export function prefixDocument(ids: Int32Array | readonly number[], prefix: number): Mask {
  expectWhole('prefixDocument', { prefix });
  const start = new Int32Array(ids.length);
  for (let i = 1; i < ids.length; ++i) start[i] = ids[i] === ids[i - 1] ? start[i - 1] : i;
  return mask(({ q, kv }, { doc, start, prefix }) => doc[q] === doc[kv] && (kv <= q || kv - start[kv] < prefix), {
    doc: ids,
    start,
    prefix,
  });
}
