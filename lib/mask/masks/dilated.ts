import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * A window with gaps: every query sees itself, `left` keys before it and `right` after it, `dilation` positions apart.
 *
 * @param dilation distance of neighbouring keys, at least 1
 * @param left keys kept before the query
 * @param right keys kept after it; 0, the default, is causal
 *
 * Source: Beltagy et al., "Longformer", 2020, section 3.1; Hassani and Shi, "Dilated Neighborhood Attention", 2022.
 */
export function dilated(dilation: number, left: number, right = 0): Mask {
  expectWhole('dilated', { dilation }, 1);
  expectWhole('dilated', { left, right });
  return mask(
    ({ q, kv }, { dilation, left, right }) =>
      (q - kv) % dilation === 0 && kv >= q - left * dilation && kv <= q + right * dilation,
    { dilation, left, right },
  );
}
