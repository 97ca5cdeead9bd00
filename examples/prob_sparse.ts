/** ProbSparse: the queries that stand out attend, the others average. */
import { manualSeed, probSparseAttention, randint } from '../lib/index.ts';
import { drawMap } from './draw.ts';

manualSeed(2);
const length = 28;
const sample = randint(0, length, [length, 8]);
drawMap('factor 2', length, (q, k, v) => probSparseAttention(q, k, v, { factor: 2, sample }));
