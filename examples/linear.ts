/** Linear attention and its relatives on the same tokens: how close each map comes to the softmax's. */
import { attention, cosformerAttention, laraAttention, linearAttention, manualSeed, nystromAttention, orthogonalProjection, performerAttention } from '../lib/index.ts'; // prettier-ignore
import { drawMap } from './draw.ts';

manualSeed(7);
const length = 28;
const projection = orthogonalProjection(1, 64, 16);
drawMap('softmax attention', length, (q, k, v) => attention(q, k, v));
drawMap('linear attention, elu + 1', length, (q, k, v) => linearAttention(q, k, v));
drawMap('linear attention, causal', length, (q, k, v) => linearAttention(q, k, v, { causal: true }));
drawMap('Performer, 64 features', length, (q, k, v) => performerAttention(q, k, v, { projection }));
drawMap('cosFormer', length, (q, k, v) => cosformerAttention(q, k, v));
drawMap('Nystrom, 7 landmarks', length, (q, k, v) => nystromAttention(q, k, v, { landmarks: 7, scale: 0.25 }));
drawMap('LARA, 7 proposals', length, (q, k, v) => laraAttention(q, k, v, { landmarks: 7 }));
