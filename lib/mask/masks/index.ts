/** The mask library. Every entry is written in the mask language, as a user would write it. */
export { blockDiffusion } from './block_diffusion.ts';
export { blockDocument } from './block_document.ts';
export { blockStreaming } from './block_streaming.ts';
export { causal } from './causal.ts';
export { causalBlockwise } from './causal_blockwise.ts';
export { dilated } from './dilated.ts';
export { document, documentIds } from './document.ts';
export { flamingo } from './flamingo.ts';
export { globalWindow } from './global_window.ts';
export { natten } from './natten.ts';
export { prefixDocument } from './prefix_document.ts';
export { prefixLM } from './prefix_lm.ts';
export { sharedPrefix } from './shared_prefix.ts';
export { slidingWindow } from './sliding_window.ts';
export { streaming } from './streaming.ts';
export { tile } from './tile.ts';
export { triangle } from './triangle.ts';
