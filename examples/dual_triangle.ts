/** The two halves of a head: one sees the past, the other the future. */
import { concat, dualTriangleAttention, zerosLike } from '../lib/index.ts';
import { drawMap } from './draw.ts';

drawMap('first half of the head', 24, (q, k, v) =>
  dualTriangleAttention(q, k, concat([v, zerosLike(v)], 3)).slice(3, 0, 24),
);
drawMap('second half of the head', 24, (q, k, v) =>
  dualTriangleAttention(q, k, concat([zerosLike(v), v], 3)).slice(3, 24),
);
