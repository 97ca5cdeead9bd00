/** Reversed attention: columns send, and each column's weights sum to its message strength. */
import { dependencyMask, reversedAttention, tensor } from '../lib/index.ts';
import { drawMap, tokens } from './draw.ts';

const length = 24;
const m = tensor(Array.from({ length }, (_, j) => (j % 6 === 0 ? 1 : 0.2)), [1, 1, length]); // prettier-ignore
drawMap('what receiver i takes from sender j (every sixth sends strongly)', length, (q, k, v) =>
  reversedAttention(q, k, v, { m }),
);
const { q, k } = tokens(length);
const sums = dependencyMask(q, k, { m }).sum(1).dataSync() as Float32Array;
console.log(`column sums: ${Array.from(sums, (x) => x.toFixed(2)).join(' ')}`);
