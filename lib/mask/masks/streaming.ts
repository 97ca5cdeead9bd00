import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * Causal, and a query sees the first `sink` keys and the last `local` keys up to its own.
 *
 * @param sink keys at the start that stay visible
 * @param local keys of the window, the query's own counted
 *
 * Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2024.
 */
export function streaming(sink: number, local: number): Mask {
  expectWhole('streaming', { sink, local });
  return mask(({ q, kv }, { sink, local }) => kv <= q && (kv < sink || q - kv < local), { sink, local });
}
