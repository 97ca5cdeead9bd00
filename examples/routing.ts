/** k-means routing: tokens find their cluster by content, however far apart they are; centroids are learnt as the sequence is seen. */
import {
  denseCost,
  eye,
  indexSelect,
  kmeansStep,
  manualSeed,
  randn,
  reshape,
  routingAttention,
  routingCost,
  tensor,
} from '../lib/index.ts';
import { shade } from './draw.ts';

const LENGTH = 40;
const TOPICS = 4;
manualSeed(3);
// Tokens of four topics, in turns of changing length.
const topic = Array.from({ length: LENGTH }, (_, i) => Math.floor(i / 3 + i / 7) % TOPICS);
const rows = topic.flatMap((t) => Array.from({ length: 8 }, (_, d) => (d % TOPICS === t ? 2 : 0)));
const x = tensor(rows, [1, 1, LENGTH, 8], { dtype: 'f32' }).add(randn([1, 1, LENGTH, 8]).mul(0.3));
// One token of each topic to begin with.
let centroids = indexSelect(x, 2, tensor([0, 3, 5, 7], [4], { dtype: 'i32' })).reshape([1, 4, 8]);
for (let i = 0; i < 10; i++) centroids = kmeansStep(x, centroids);
const values = reshape(eye(LENGTH), [1, 1, LENGTH, LENGTH]);
const { out, queries, commitment } = routingAttention(x, null, values, {
  centroids,
  window: LENGTH / TOPICS,
  causal: true,
  returnRouting: true,
});
console.log(`topics    ${topic.join('')}`);
const members = queries.dataSync() as Int32Array;
for (let c = 0; c < TOPICS; c++) {
  const mine = new Set(members.slice((c * LENGTH) / TOPICS, ((c + 1) * LENGTH) / TOPICS));
  console.log(`cluster ${c} ${topic.map((t, i) => (mine.has(i) ? t : '.')).join('')}`);
}
console.log(`commitment ${(commitment.dataSync() as Float32Array)[0].toFixed(4)}\n`);
console.log(`rows are queries, columns keys\n${shade(out.dataSync() as Float32Array, LENGTH, LENGTH)}\n`);
for (const length of [4096, 65536]) {
  const clusters = Math.sqrt(length);
  const dense = denseCost({ length, dim: 64 }, { causal: true }).flops;
  const { flops } = routingCost({ length, dim: 64, clusters, window: clusters });
  console.log(`length ${length}: ${(dense / flops).toFixed(1)} x fewer operations than dense causal attention`);
}
