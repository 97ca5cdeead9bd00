/**
 * Random work for ten minutes (or --minutes=N), watching memory: after every round and a collection (block masks live as long as the mask they
 * were made from) live bytes must be where they were, and resident memory must stay flat once warmed up. Exit code 1 when it is not.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as fovea from '../lib/index.ts';

const option = (name: string, fallback: number): number =>
  Number(process.argv.find((a) => a.startsWith(`--${name}=`))?.split('=')[1] ?? fallback);
const minutes = option('minutes', 10);
const seed = option('seed', 1);

let state = seed;
const random = (n: number): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
};

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const { attention, masks, grad, matmul, randn, scope, tensor } = fovea;

/** Each makes something, uses it, and returns nothing that lives on. */
const work: (() => void)[] = [
  () => {
    const [m, k, n] = [1 + random(200), 1 + random(200), 1 + random(200)];
    matmul(randn([m, k]), randn([k, n]))
      .relu()
      .sum();
  },
  () => {
    const length = 1 + random(300);
    const x = randn([1, 2, length, 8 * (1 + random(8))], { requiresGrad: true });
    grad(attention(x, x, x, { causal: random(2) === 0 ? true : undefined }).sum(), [x]);
  },
  () => {
    const length = 16 + random(500);
    const x = randn([1, 1, length, 32]);
    attention(x, x, x, { mask: masks.slidingWindow(1 + random(100)) });
  },
  () => {
    const x = randn([1 + random(50), 1 + random(50)], { requiresGrad: true });
    grad(x.softmax(-1).mul(x).exp().sum(), [x]);
  },
  () => {
    const x = tensor(new Float32Array(1 + random(1 << 18)));
    x.add(1).to('bf16').to('f32').sum();
  },
  () => {
    const controller = new AbortController();
    const x = randn([1, 4, 512, 64]);
    attention(x, x, x, { signal: controller.signal });
    if (random(2)) controller.abort();
  },
  () => {
    try {
      matmul(randn([2, 3]), randn([4, 5]));
    } catch (error) {
      if (!(error instanceof fovea.FoveaError)) throw error;
    }
  },
];

const megabytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
await fovea.synchronize();
const baseline = fovea.memory();
const end = performance.now() + minutes * 60_000;
const warmUntil = performance.now() + Math.min(60_000, minutes * 15_000);
let warmRss = 0;
let worstRss = 0;
let rounds = 0;
let calls = 0;
while (performance.now() < end) {
  for (let i = 0; i < 200; i++, calls++) scope(() => work[random(work.length)]());
  await fovea.synchronize().catch(() => undefined);
  // Finalizers run in turns of the event loop after the collection.
  for (let turn = 0; turn < 20 && fovea.memory().tensors !== baseline.tensors; turn++) {
    collect();
    await sleep(5);
  }
  rounds++;
  const now = fovea.memory();
  if (now.liveBytes !== baseline.liveBytes || now.tensors !== baseline.tensors) {
    console.error(
      `leak after ${calls} calls: ${now.liveBytes - baseline.liveBytes} bytes, ${now.tensors - baseline.tensors} tensors`,
    );
    process.exit(1);
  }
  const { rss } = process.memoryUsage();
  if (performance.now() < warmUntil) warmRss = Math.max(warmRss, rss);
  else worstRss = Math.max(worstRss, rss);
  if (rounds % 50 === 0)
    console.error(`${rounds} rounds, ${calls} calls, rss ${megabytes(rss)}, cached ${megabytes(now.cachedBytes)}`);
}
console.log(
  `${calls} calls in ${minutes} minutes; rss ${megabytes(warmRss)} warm, ${megabytes(worstRss)} at most after`,
);
process.exit(worstRss > warmRss * 1.25 + 64 * 2 ** 20 ? 1 : 0);
