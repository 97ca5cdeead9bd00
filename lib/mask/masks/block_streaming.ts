import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * Sink and window counted in blocks: causal, and a query sees the first `sinkBlocks` blocks of keys and the last `localBlocks` up to the
 * block it lies in. Its window is between `(localBlocks - 1) * block + 1` and `localBlocks * block` keys long.
 *
 * @param block tokens of a block
 *
 * Source: Qiu et al., "Flux Attention", 2026; Guo et al., "Block Sparse Attention", 2024.
 */
export function blockStreaming(sinkBlocks: number, localBlocks: number, block: number): Mask {
  expectWhole('blockStreaming', { sinkBlocks, localBlocks });
  expectWhole('blockStreaming', { block }, 1);
  return mask(
    ({ q, kv }, { sinkBlocks, localBlocks, block }) =>
      kv <= q && (Math.floor(kv / block) < sinkBlocks || Math.floor(q / block) - Math.floor(kv / block) < localBlocks),
    { sinkBlocks, localBlocks, block },
  );
}
