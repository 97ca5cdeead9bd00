import { FoveaError } from '../../errors.ts';
import { expectList } from '../../tensor/expect.ts';
import { mask, type Mask } from '../mask.ts';

/**
 * Packed documents: tokens see the tokens of their own document, in both directions. `and(causal(), document(ids))` for language models.
 *
 * @param ids document number of each position, see {@link documentIds}; the sequence can't be longer than this
 *
 * Source: Krell et al., "Efficient Sequence Packing without Cross-contamination", 2021.
 */
export function document(ids: Int32Array | readonly number[]): Mask {
  return mask(({ q, kv }, { doc }) => doc[q] === doc[kv], { doc: ids });
}

/** Document number of each position, 0, 1, ..., for documents of these lengths one after the other. */
export function documentIds(lengths: readonly number[]): Int32Array {
  expectList('documentIds', 'lengths', lengths);
  for (const length of lengths)
    if (!Number.isInteger(length) || length < 0)
      throw new FoveaError('ERR_ARGUMENT', `documentIds: lengths must be integers of at least 0, got ${length}`);
  const ids = new Int32Array(lengths.reduce((sum, length) => sum + length, 0));
  let at = 0;
  lengths.forEach((length, id) => {
    ids.fill(id, at, at + length);
    at += length;
  });
  return ids;
}
