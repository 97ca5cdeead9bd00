import { mask, type Mask } from '../mask.ts';

/**
 * Every query sees itself and all earlier keys (top-left aligned, as PyTorch's `is_causal`). A decode step at position n is
 * `offset(causal(), { q: n })`.
 *
 * Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.2.3.
 */
export function causal(): Mask {
  return mask(({ q, kv }) => q >= kv);
}
