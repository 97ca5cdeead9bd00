/** Superlinear attention: a window, and spans found by search. A needle far back is found by the queries that look for it. */
import { denseCost, eye, reshape, spanSearch, superlinearAttention, superlinearCost } from '../lib/index.ts';
import { drawMap, shade, tokens } from './draw.ts';

const options = { swIndex: 1, numSpans: 2, searchPower: 0.5, spanPower: 0.5, backwardFactor: 2, forwardFactor: 0 };
drawMap('two steps: window and two spans a query', 48, (q, k, v) => superlinearAttention(q, q, k, v, options));

const length = 120;
const { q, k } = tokens(length);
const values = reshape(eye(length), [1, 1, length, length]);
const last = q.slice(2, length - 1, length);
for (const steps of [2, 3]) {
  const more = { swIndex: 1, numSpans: 3, steps, searchPower: 1 / steps, spanPower: 1 / steps, backwardFactor: 2 };
  const { anchors, ranges } = spanSearch(last, k, more);
  const [found, spans] = [anchors, ranges].map((t) => Array.from(t.dataSync() as Int32Array));
  const seen = superlinearAttention(last, last, k, values, more).dataSync() as Float32Array;
  console.log(`${steps} steps, the last query: anchors ${found.join(', ')}`);
  console.log(`spans ${found.map((_, t) => `[${spans[2 * t]}, ${spans[2 * t + 1]})`).join(' ')}`);
  console.log(`${shade(seen, 1, length).replace(/(.)\1/g, '$1')}|\n`);
}
for (const size of [4096, 65536, 262144]) {
  const dense = denseCost({ length: size, dim: 64 }, { causal: true }).flops;
  console.log(`length ${size}: ${(dense / superlinearCost({ length: size, dim: 64 }).flops).toFixed(1)} x fewer operations than dense causal attention`); // prettier-ignore
}
