/** The score library. Every entry is written in the mask language, as a user would write it. */
export { alibi, alibiSlopes } from './alibi.ts';
export { graphormer } from './graphormer.ts';
export { relativeBias } from './relative_bias.ts';
export { sandwich } from './sandwich.ts';
export { softcap } from './softcap.ts';
export { t5Bias, t5Buckets } from './t5_bias.ts';
