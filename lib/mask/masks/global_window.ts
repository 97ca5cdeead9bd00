import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * The first `global` tokens see and are seen by everything; all others see `window` keys on each side of themselves, inclusive.
 *
 * @param global tokens at the start that attend everywhere and are attended by all
 * @param window keys kept on each side of a query, its own not counted
 *
 * Source: Beltagy et al., "Longformer", 2020, section 3.1; Zaheer et al., "Big Bird", 2020.
 */
export function globalWindow(global: number, window: number): Mask {
  expectWhole('globalWindow', { global, window });
  return mask(({ q, kv }, { global, window }) => kv < global || q < global || Math.abs(q - kv) <= window, {
    global,
    window,
  });
}
