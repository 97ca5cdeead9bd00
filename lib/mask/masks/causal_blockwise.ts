import { expectList } from '../../tensor/expect.ts';
import { mask, type Mask } from '../mask.ts';

/**
 * Packed documents, causal inside each, whose last document sees everything before it: in-context examples that don't see each other,
 * followed by the question.
 *
 * @param ids document number of each position
 *
 * Source: Bu et al., "Long-Context Attention Benchmark", 2026, mask CAUSAL BLOCKWISE; Ratner et al., "Parallel Context Windows", 2023.
 */
export function causalBlockwise(ids: Int32Array | readonly number[]): Mask {
  expectList('causalBlockwise', 'ids', ids);
  const last = ids.length === 0 ? 0 : ids[ids.length - 1];
  return mask(({ q, kv }, { doc, last }) => kv <= q && (doc[q] === doc[kv] || doc[q] === last), { doc: ids, last });
}
