/**
 * Routed mechanisms: bi-level routing, k-means routing, superlinear attention (and how its time grows), mixture of heads. Each against the
 * dense engine in the same run, and the share of time that routing takes of the attention it feeds.
 */
import {
  attention,
  biLevelRoutingAttention,
  biLevelRoutingCost,
  getNumThreads,
  headGates,
  kmeansUpdate,
  manualSeed,
  mixtureOfHeads,
  noGrad,
  rand,
  randn,
  routingAttention,
  routingCost,
  spanAttention,
  spanSearch,
  superlinearAttention,
  superlinearCost,
  type SpanSearchOptions,
  type Tensor,
} from '../lib/index.ts';
import { measure, round, save, type Row } from './report.ts';

const rows: Row[] = [];
manualSeed(1);
const threadCounts = [...new Set([1, getNumThreads()])];
type Three = [Tensor, Tensor, Tensor];
const three = (shape: readonly number[]): Three => [0, 1, 2].map(() => randn(shape)) as Three;

async function time(name: string, threads: number, fn: () => Disposable, flops?: number, more = {}): Promise<Row> {
  const row = await measure(name, () => noGrad(fn), { threads, flops, ...more });
  rows.push(row);
  return row;
}

/** Stage 1 of BiFormer-T. */
async function biLevel(threads: number): Promise<void> {
  const [size, channels, heads, regions, topK] = [56, 64, 2, 7, 4];
  const image = three([1, size, size, channels]);
  const pixels = size * size;
  const options = { heads, regions, topK };
  const dense = three([1, heads, pixels, channels / heads]);
  const full = await time('dense, the same image', threads, () => attention(...dense), 4 * pixels * pixels * channels);
  const pairs = (pixels * topK * pixels) / (regions * regions);
  const row = await time('bi-level routing 56x56, 7x7 regions, top 4', threads, () => biLevelRoutingAttention(...image, options), 4 * pairs * channels); // prettier-ignore
  row.ofDenseRate = round((row.gflops ?? 0) / (full.gflops ?? 1));
  row.speedupOverDense = round(full.ms / row.ms);
  row.costFlops = biLevelRoutingCost({ ...options, height: size, width: size, channels }).flops;
}

async function kmeans(threads: number): Promise<void> {
  const [heads, length, dim, clusters, window] = [4, 8192, 64, 64, 256];
  const [q, k, v] = three([1, heads, length, dim]);
  let centroids = randn([heads, clusters, dim]);
  for (let i = 0; i < 3; i++) centroids = kmeansUpdate(q, centroids, { decay: 0 });
  const flops = 4 * heads * clusters * window * window * dim;
  const full = await time('dense causal H4 L8192', threads, () => attention(q, k, v, { causal: true }), 2 * heads * length * length * dim); // prettier-ignore
  // The attention alone: as many sequences of as many tokens, one after the other.
  const packed = three([clusters, heads, window, dim]);
  const alone = await time('its attention alone, tokens in cluster order', threads, () => attention(...packed), flops);
  for (const causal of [false, true]) {
    const options = { centroids, window, causal };
    const row = await time(`k-means routing L8192, 64 clusters, window 256${causal ? ', causal' : ''}`, threads, () => routingAttention(q, k, v, options), causal ? flops / 2 : flops); // prettier-ignore
    row.speedupOverDense = round(full.ms / row.ms);
    if (!causal) row.routingShare = round(row.ms / alone.ms - 1);
  }
  const shared = await time('k-means routing, queries are keys, causal', threads, () => routingAttention(q, null, v, { centroids, window, causal: true }), flops / 2); // prettier-ignore
  shared.costFlops = routingCost({ heads, length, dim, clusters, window }).flops;
}

/** p = 1/2 throughout, so that the exponent of the whole is 3/2. */
const SPANS: SpanSearchOptions = { searchPower: 0.5, spanPower: 0.5, backwardFactor: 2, forwardFactor: 0, swIndex: 8 };
const lengths = [4096, 8192, 16384, 32768, 65536, 131072, 262144];

async function superlinear(threads: number): Promise<void> {
  const points: [number, number][] = [];
  for (const length of lengths) {
    const search = randn([1, 1, length, 64]);
    const [q, k, v] = three([1, 1, length, 64]);
    const { flops } = superlinearCost({ length, dim: 64, ...SPANS });
    const once = { repeat: 2, seconds: 0 };
    const row = await time(`superlinear L${length}`, threads, () => superlinearAttention(search, q, k, v, SPANS), flops, once); // prettier-ignore
    points.push([Math.log(length), Math.log(row.ms)]);
    if (length <= 32768) {
      const full = await time(`dense causal L${length}`, threads, () => attention(q, k, v, { causal: true }), 2 * length * length * 64, once); // prettier-ignore
      row.speedupOverDense = round(full.ms / row.ms);
    }
    if (length !== 65536) continue;
    const { ranges } = noGrad(() => spanSearch(search, k, SPANS));
    const find = await time('its search L65536', threads, () => spanSearch(search, k, SPANS).anchors, undefined, once);
    const attend = await time('its spans L65536', threads, () => spanAttention(q, k, v, ranges).out, undefined, once);
    find.ofTheSpans = round(find.ms / attend.ms);
    const token = [search, q].map((t) => t.slice(2, length - 1, length)) as [Tensor, Tensor];
    await time('superlinear, one token against 65536', threads, () => superlinearAttention(...token, k, v, SPANS));
  }
  rows.push({ name: 'superlinear: exponent of time, 4k to 256k', threads, ms: 0, exponent: round(slope(points)) });
}

/** Slope of the least-squares line. */
function slope(points: readonly (readonly [number, number])[]): number {
  const mean = (i: 0 | 1): number => points.reduce((sum, p) => sum + p[i], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  const over = points.reduce((sum, p) => sum + (p[0] - x) * (p[1] - y), 0);
  return over / points.reduce((sum, p) => sum + (p[0] - x) ** 2, 0);
}

async function heads(threads: number): Promise<void> {
  const [count, length, dim] = [32, 512, 64];
  const [q, k, v] = three([1, count, length, dim]);
  const x = randn([1, length, count * dim]);
  const full = await time(
    'all of 32 heads, N512',
    threads,
    () => attention(q, k, v),
    4 * count * length * length * dim,
  );
  for (const part of [0.5, 0.75]) {
    const shared = count / 4;
    const active = part * count - shared;
    const weights = { routed: rand([count - shared, count * dim], { low: -0.02, high: 0.02 }), shared: randn([shared, count * dim]), balance: randn([2, count * dim]) }; // prettier-ignore
    const { gates } = noGrad(() => headGates(x, weights, { heads: count, shared, active }));
    const row = await time(`mixture of heads, ${100 * part} % active, N512`, threads, () => mixtureOfHeads(q, k, v, gates), 4 * part * count * length * length * dim); // prettier-ignore
    row.ofAllHeads = round(row.ms / full.ms);
  }
}

for (const threads of threadCounts) {
  await biLevel(threads);
  await kmeans(threads);
  await heads(threads);
}
await superlinear(getNumThreads());
save('routed', rows);
