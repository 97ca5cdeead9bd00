import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * Cross attention of interleaved text and images: a text token sees the tokens of the last image before it and nothing else. Keys are
 * the images' tokens, one image after the other; text before the first image sees nothing, so its output is 0.
 *
 * @param image number of the last image before each text position, -1 before the first
 * @param tokens tokens of one image
 *
 * Source: Alayrac et al., "Flamingo", 2022, section 3.1 (per-image masking).
 */
export function flamingo(image: Int32Array | readonly number[], tokens: number): Mask {
  expectWhole('flamingo', { tokens }, 1);
  return mask(({ q, kv }, { image, tokens }) => Math.floor(kv / tokens) === image[q], { image, tokens });
}
