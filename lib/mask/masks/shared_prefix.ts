import { mask, type Mask } from '../mask.ts';

/**
 * Several continuations of one prompt, packed behind it: causal, and a token sees the prompt (segment 0) and its own continuation only.
 * Also the mask of one question with many answers.
 *
 * @param segments number of each position's segment; 0 is the prompt that all share
 *
 * Source: Bu et al., "Long-Context Attention Benchmark", 2026, mask SHARE QUESTION; Juravsky et al., "Hydragen", 2024.
 */
export function sharedPrefix(segments: Int32Array | readonly number[]): Mask {
  return mask(({ q, kv }, { segment }) => kv <= q && (segment[kv] === 0 || segment[kv] === segment[q]), {
    segment: segments,
  });
}
