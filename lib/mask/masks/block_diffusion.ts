import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * Training mask of block diffusion: the sequence is the noisy tokens followed by the clean tokens, `length` each, both cut in blocks.
 * A noisy token sees its own noisy block and the clean blocks before it; a clean token sees clean blocks up to its own.
 *
 * @param length tokens of one half; the mask is for 2 * length queries and keys
 * @param block tokens that are denoised together
 *
 * Source: Arriola et al., "Block Diffusion", 2025, section 3 and figure of the attention mask.
 */
export function blockDiffusion(length: number, block: number): Mask {
  expectWhole('blockDiffusion', { length, block }, 1);
  return mask(
    ({ q, kv }, { length, block }) => {
      const cleanQ = q >= length;
      const cleanKv = kv >= length;
      const blockQ = Math.floor((cleanQ ? q - length : q) / block);
      const blockKv = Math.floor((cleanKv ? kv - length : kv) / block);
      if (cleanQ) return cleanKv && blockKv <= blockQ;
      return cleanKv ? blockKv < blockQ : blockKv === blockQ;
    },
    { length, block },
  );
}
