import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * Every query sees `left` keys before its own position, its own, and `right` keys after it; both ends are inclusive.
 *
 * @param left keys kept before the query, at least 0
 * @param right keys kept after it; 0, the default, makes the window causal
 *
 * Source: Child et al., "Generating Long Sequences with Sparse Transformers", 2019; Beltagy et al., "Longformer", 2020, section 3.1.
 */
export function slidingWindow(left: number, right = 0): Mask {
  expectWhole('slidingWindow', { left, right });
  return mask(({ q, kv }, { left, right }) => kv >= q - left && kv <= q + right, { left, right });
}
