/**
 * Routed mechanisms: bi-level routing, k-means routing, mixture of heads and superlinear attention, each against the dense engine in the same
 * run, with the share of time that routing takes of the attention it feeds and how the time of superlinear attention grows. `--only=kmeans,heads`
 * runs some of the parts.
 *
 * Ratios of rows on one thread are of the kernel thread's processor time, which other work on the machine changes little; with more threads
 * they are of time.
 */
import {
  arange,
  attention,
  add,
  biLevelRoutingAttention,
  biLevelRoutingCost,
  embedding,
  getNumThreads,
  headGates,
  kmeansUpdate,
  manualSeed,
  mixtureOfHeads,
  noGrad,
  rand,
  randn,
  reshape,
  routingAttention,
  routingCost,
  scope,
  spanSearch,
  superlinearAttention,
  superlinearCost,
  type SpanSearchOptions,
} from '../lib/index.ts';
import { clusterTop } from '../lib/attention/kmeans.ts';
import { planAttention } from '../lib/attention/plan.ts';
import { equalSequences } from '../lib/attention/region_rows.ts';
import { native } from '../lib/native.ts';
import { Tensor } from '../lib/tensor/tensor.ts';
import { attendSorted } from '../lib/attention/span_attention.ts';
import { efficiency } from './efficiency.ts';
import { exponent } from './fit.ts';
import { measure, parts, print, round, save, type MeasureOptions, type Row } from './report.ts';

type Three = [Tensor, Tensor, Tensor];
const three = (shape: readonly number[]): Three => [0, 1, 2].map(() => randn(shape)) as Three;

type Measured = Row & { cpuMs: number };
const rows: Row[] = [];
async function time(
  name: string,
  threads: number,
  fn: () => Tensor | readonly Tensor[],
  flops?: number,
  options: MeasureOptions = {},
): Promise<Measured> {
  const row = await measure(name, () => noGrad(() => scope(fn)), { ...options, threads, flops });
  rows.push(row);
  return row;
}

/** Adds what is only known from several rows. */
function note(row: Row, extra: Record<string, number>): void {
  Object.assign(row, extra);
  process.stdout.write(`    ${Object.entries(extra).map((entry) => entry.join(' ')).join(', ')}\n`); // prettier-ignore
}

/** Time of a over that of b; see the header. */
function ratio(a: Measured, b: Measured): number {
  return round(a.threads === 1 ? a.cpuMs / b.cpuMs : a.ms / b.ms);
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
  const name = 'bi-level routing 56x56, 7x7 regions, top 4';
  const row = await time(name, threads, () => biLevelRoutingAttention(...image, options), 4 * pairs * channels);
  note(row, {
    ofDenseRate: round(pairs / pixels ** 2 / ratio(row, full)),
    speedupOverDense: ratio(full, row),
    costFlops: biLevelRoutingCost({ ...options, height: size, width: size, channels }).flops,
  });
  const weight = randn([channels, 1, 5, 5]);
  const lepe = await time(`${name}, LePE 5x5`, threads, () => biLevelRoutingAttention(...image, { ...options, lepe: { weight } })); // prettier-ignore
  note(lepe, { ofPlain: ratio(lepe, row) });
}

/** Lists and causal ranges as routingAttention makes them, and queries gathered by theirs; what is left is its attention. */
function clustersOf(
  q: Tensor,
  k: Tensor,
  centroids: Tensor,
  window: number,
): { picked: Tensor; kvRows: Tensor; keyRanges: Tensor; cu: Tensor } {
  const [, heads, length, dim] = q.shape;
  const clusters = centroids.shape[1];
  const queries = clusterTop(q, centroids, window);
  const keys = clusterTop(k, centroids, window);
  const first = reshape(arange(0, heads * length, length, { dtype: 'i32' }), [1, heads, 1, 1]);
  const rowsOf = reshape(add(queries, first), [queries.size]);
  return {
    picked: reshape(embedding(reshape(q, [heads * length, dim]), rowsOf), [1, heads, clusters * window, dim]),
    kvRows: reshape(keys, [1, heads, clusters * window]),
    keyRanges: reshape(new Tensor(native().causalRanges(queries.handle, keys.handle)), [
      1,
      heads,
      clusters * window,
      2,
    ]),
    cu: equalSequences(clusters, window, q.device),
  };
}

async function kmeans(threads: number): Promise<void> {
  const [heads, length, dim, clusters, window] = [4, 8192, 64, 64, 256];
  const [q, k, v] = three([1, heads, length, dim]);
  const centroids = noGrad(() => scope(() => Array.from({ length: 3 }).reduce<Tensor>((c) => kmeansUpdate(q, c, { decay: 0 }), randn([heads, clusters, dim])))); // prettier-ignore
  const flops = 4 * heads * clusters * window * window * dim;
  const full = await time('dense causal H4 L8192', threads, () => attention(q, k, v, { causal: true }), 2 * heads * length * length * dim); // prettier-ignore
  const { picked, kvRows, keyRanges, cu } = noGrad(() => scope(() => clustersOf(q, k, centroids, window)));
  const packed = three([clusters, heads, window, dim]);
  const find = await time('k-means: tokens of 64 clusters', threads, () => clusterTop(q, centroids, window));
  for (const causal of [false, true]) {
    const [kind, pairs] = causal ? [', causal', flops / 2] : ['', flops];
    const dense = await time(`as many sequences of 256 tokens${kind}`, threads, () => attention(...packed, { causal }), pairs); // prettier-ignore
    const plan = causal ? { kvRows, keyRanges } : { kvRows };
    const attend = await time(`k-means: attention of its lists${kind}`, threads, () => planAttention(picked, k, v, plan, { cuSeqlens: { q: cu, kv: cu } }).out, pairs); // prettier-ignore
    const row = await time(`k-means routing L8192, 64 clusters, window 256${kind}`, threads, () => routingAttention(q, k, v, { centroids, window, causal }), pairs); // prettier-ignore
    note(row, {
      speedupOverDense: ratio(full, row),
      routingShare: round(ratio(row, attend) - 1),
      routingShareOfPacked: round(ratio(row, dense) - 1),
      selectionShare: round(2 * ratio(find, attend)),
      costFlops: routingCost({ heads, length, dim, clusters, window }).flops,
    });
  }
  await time('k-means routing, queries are keys, causal', threads, () => routingAttention(q, null, v, { centroids, window, causal: true }), flops / 2); // prettier-ignore
}

/** p = 1/2 throughout, so that the exponent of the whole is 3/2; window 80. */
const SPANS: SpanSearchOptions = { searchPower: 0.5, spanPower: 0.5, backwardFactor: 2, forwardFactor: 0, swIndex: 8 };
const WINDOW = 80;
const LENGTHS = [4096, 8192, 16384, 32768, 65536, 131072, 262144];

async function superlinear(threads: number): Promise<void> {
  const measured: Measured[] = [];
  const costs: number[] = [];
  for (const length of LENGTHS) {
    const [q, k, v] = three([1, 1, length, 64]);
    const search = randn([1, 1, length, 64]);
    const { flops } = superlinearCost({ length, dim: 64, ...SPANS });
    const few = { repeat: 2 };
    const row = await time(`superlinear L${length}`, threads, () => superlinearAttention(search, q, k, v, SPANS), flops, few); // prettier-ignore
    measured.push(row);
    costs.push(flops);
    if (length <= 16384) {
      const full = await time(`dense causal L${length}`, threads, () => attention(q, k, v, { causal: true }), 2 * length * length * 64, few); // prettier-ignore
      note(row, { speedupOverDense: ratio(full, row) });
    }
    if (length !== 65536) continue;
    const { ranges } = noGrad(() => spanSearch(search, k, SPANS));
    const find = await time('its search', threads, () => spanSearch(search, k, SPANS).anchors, undefined, few);
    const spans = await time('its spans', threads, () => attendSorted(q, k, v, ranges, {}).out, undefined, few);
    const near = await time('its window', threads, () => attention(q, k, v, { causal: true, window: [WINDOW - 1, 0] }), undefined, few); // prettier-ignore
    note(row, {
      searchShare: round(1 / (ratio(spans, find) + ratio(near, find))),
      overheadShare: round(1 / (ratio(spans, row) + ratio(near, row)) - 1),
    });
    const token = [search, q].map((t) => t.slice(2, length - 1, length)) as [Tensor, Tensor];
    await time('superlinear, one token against 65536', threads, () => superlinearAttention(...token, k, v, SPANS));
  }
  const points = (y: (i: number) => number): [number, number][] => LENGTHS.map((length, i) => [length, y(i)]);
  const of = (row: Measured): number => (threads === 1 ? row.cpuMs : row.ms);
  rows.push({
    name: 'superlinear, exponent of the length from 4096 to 262144',
    threads,
    ms: 0,
    exponentOfTime: round(exponent(points((i) => of(measured[i])))),
    exponentOfOperations: round(exponent(points((i) => costs[i]))),
  });
  print(rows[rows.length - 1]);
}

async function heads(threads: number): Promise<void> {
  const [count, length, dim] = [32, 512, 64];
  const [q, k, v] = three([1, count, length, dim]);
  const x = randn([1, length, count * dim]);
  const flops = 4 * count * length * length * dim;
  const full = await time('all of 32 heads, N512', threads, () => attention(q, k, v), flops);
  for (const part of [0.5, 0.75]) {
    const shared = count / 4;
    const active = part * count - shared;
    const weights = { routed: rand([count - shared, count * dim], { low: -0.02, high: 0.02 }), shared: randn([shared, count * dim]), balance: randn([2, count * dim]) }; // prettier-ignore
    const { gates } = noGrad(() => headGates(x, weights, { heads: count, shared, active }));
    const row = await time(`mixture of heads, ${100 * part} % active, N512`, threads, () => mixtureOfHeads(q, k, v, gates), part * flops); // prettier-ignore
    note(row, { ofAllHeads: ratio(row, full) });
    const router = await time('its router', threads, () => headGates(x, weights, { heads: count, shared, active }).gates); // prettier-ignore
    row.routerOfAllHeads = ratio(router, full);
  }
}

const sections = { biLevel, kmeans, heads, superlinear, efficiency: async (threads: number): Promise<void> => void rows.push(...(await efficiency(threads))) }; // prettier-ignore
const only = parts(Object.keys(sections));
manualSeed(1);
for (const threads of [...new Set([1, getNumThreads()])])
  for (const [name, run] of Object.entries(sections))
    // The long parts run once: on one thread.
    if (only.includes(name) && (threads === 1 || !['superlinear', 'efficiency'].includes(name))) await run(threads);
if (only.length === Object.keys(sections).length) save('routed', rows);
