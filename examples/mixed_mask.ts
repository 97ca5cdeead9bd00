/** The mixed mask: prompt and image bidirectional, the answer causal; and the paper's wording, image tokens only. */
import { blockMask, mixedAttentionMask, tensor } from '../lib/index.ts';

const length = 48;
const labels = tensor([Array.from({ length }, (_, i) => (i < 30 ? -100 : i))]);
const imageTokens = tensor([Array.from({ length }, (_, i) => Number(i >= 8 && i < 24))]);
for (const [name, mask] of [
  ['prefix', mixedAttentionMask({ labels })],
  ['visualOnly', mixedAttentionMask({ mode: 'visualOnly', imageTokens })],
] as const)
  console.log(`${name}\n${blockMask(mask, { q: length, kv: length, block: 16 }).show({ style: 'dots', width: 24 })}\n`);
