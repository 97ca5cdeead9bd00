/** The run time itself: cost of a small op, timer lag while a kernel runs, building a block mask. */
import { add, attention, blockMask, mask, randn, scope, setNumThreads, synchronize } from '../lib/index.ts';
import { print, round, save, type Row } from './report.ts';

const rows: Row[] = [];
const keepRow = (row: Row): void => {
  rows.push(row);
  print(row);
};

async function smallOps(): Promise<void> {
  const a = randn([16], { seed: 1 });
  const b = randn([16], { seed: 2 });
  const count = 100_000;
  let best = Infinity;
  for (let repeat = 0; repeat < 8; repeat++) {
    const start = performance.now();
    for (let i = 0; i < count / 100; i++) {
      scope(() => {
        for (let j = 0; j < 100; j++) add(a, b);
      });
    }
    best = Math.min(best, performance.now() - start);
    await synchronize();
  }
  keepRow({ name: 'add of 16 floats, enqueued', threads: 1, ms: round(best), perSecond: round((count / best) * 1000) });
}

async function timerLag(): Promise<void> {
  setNumThreads(1);
  const x = randn([1, 8, 8192, 64], { seed: 3 });
  const lags: number[] = [];
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    lags.push(Math.max(0, now - last - 5));
    last = now;
  }, 5);
  const start = performance.now();
  while (performance.now() - start < 2000) {
    using out = attention(x, x, x);
    await out.data();
  }
  clearInterval(timer);
  lags.sort((p, q) => p - q);
  const p99Ms = round(lags[Math.floor(lags.length * 0.99)]);
  keepRow({
    name: 'timer lag during attention',
    threads: 1,
    ms: round(performance.now() - start),
    p99Ms,
    maxMs: round(lags[lags.length - 1]),
  });
}

function maskBuilding(): void {
  setNumThreads(1);
  const length = 65536;
  const doc = Int32Array.from({ length }, (_, i) => Math.floor(i / 6553.6));
  const docs = mask(({ q, kv }, { doc }) => q >= kv && doc[q] === doc[kv], { doc });
  let best = Infinity;
  let tiles = blockMask(docs, { q: length, kv: length, block: 128 });
  for (let i = 0; i < 10; i++) {
    const start = performance.now();
    tiles = blockMask(docs, { q: length, kv: length, block: 128 });
    best = Math.min(best, performance.now() - start);
  }
  keepRow({ name: 'BlockMask causal+document, L 65536, block 128', threads: 1, ms: round(best), ...tiles.stats });
}

await smallOps();
await timerLag();
maskBuilding();
save('runtime', rows);
