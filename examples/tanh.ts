/** Tanh attention: weights of both signs around a learned map. */
import { eye, tanhAttention } from '../lib/index.ts';
import { drawMap } from './draw.ts';

drawMap('tanh alone', 24, (q, k, v) => tanhAttention(q, k, v, { scale: 0.2 }));
drawMap('with M = the identity, alpha 0.2', 24, (q, k, v) =>
  tanhAttention(q, k, v, { alpha: 0.2, scale: 0.2, bias: eye(24) }),
);
