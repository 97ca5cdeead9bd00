/** The variants of "Deconstructing Attention": Taylor weights, a map without positions, and a map from another stream. */
import { attention, positionlessAttention, taylorAttention } from '../lib/index.ts';
import { drawMap } from './draw.ts';

drawMap('softmax', 28, (q, k, v) => attention(q, k, v, { causal: true }));
drawMap('second-order Taylor', 28, (q, k, v) => taylorAttention(q, k, v));
drawMap('positionless: one running weighting for all rows', 28, (q, k, v) => positionlessAttention(q, k, v));
