/** Sink and window, in tokens and in blocks, and with dense last rows; then the branches of Flux attention with them. */
import { blockMask, fluxAttention, fluxSparseMask, masks, type Mask } from '../lib/index.ts';
import { drawMap } from './draw.ts';

const length = 512;
const shown: readonly [string, Mask][] = [
  ['streaming(32, 96)', masks.streaming(32, 96)],
  ['blockStreaming(1, 3, 32)', masks.blockStreaming(1, 3, 32)],
  ['triangle(32, 96, 64, 512)', masks.triangle(32, 96, 64, length)],
  ['fluxSparseMask: sink 20, local 100, blocks of 32', fluxSparseMask(length, { sink: 20, local: 100, block: 32 })],
];
for (const [name, mask] of shown)
  console.log(`${name}\n${blockMask(mask, { q: length, kv: length, block: 32 }).show()}\n`);
drawMap('sparse branch', 32, (q, k, v) => fluxAttention(q, k, v, { full: false, sink: 3, local: 8, block: 1 }));
