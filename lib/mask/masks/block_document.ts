import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * Packed documents, causal by blocks: each document is cut in blocks of `block` tokens, and a token sees all tokens of its document up to
 * the end of its own block.
 *
 * @param ids document number of each position, equal numbers adjacent
 * @param block tokens of a block, counted from the start of the document
 *
 * Source: Bu et al., "Long-Context Attention Benchmark", 2026, mask BLOCK CAUSAL DOCUMENT.
 */
export function blockDocument(ids: Int32Array | readonly number[], block: number): Mask {
  expectWhole('blockDocument', { block }, 1);
  const blockOf = new Int32Array(ids.length);
  for (let i = 0, start = 0; i < ids.length; ++i) {
    if (i > 0 && ids[i] !== ids[i - 1]) start = i;
    blockOf[i] = Math.floor((i - start) / block);
  }
  return mask(({ q, kv }, { doc, blockOf }) => doc[q] === doc[kv] && blockOf[kv] <= blockOf[q], { doc: ids, blockOf });
}
