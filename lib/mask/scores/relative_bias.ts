import { score, type Score } from '../mask.ts';
import { seen, type FloatTable2 } from './table.ts';

/**
 * A learned bias per head and relative position: `bias[h][kv - q + reach]`; positions further apart than `reach` share the end entries.
 *
 * @param bias [heads, 2 * reach + 1]; a tensor is trained
 * @param reach largest distance told apart
 *
 * Source: Shaw et al., "Self-Attention with Relative Position Representations", 2018; Liu et al., "Swin Transformer", 2021 (as a bias).
 */
export function relativeBias(bias: FloatTable2, reach: number): Score {
  return score(({ s, h, q, kv }, { bias, reach }) => s + bias[h][Math.min(Math.max(kv - q, -reach), reach) + reach], {
    bias: seen(bias),
    reach,
  });
}
