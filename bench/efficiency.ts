/**
 * From which length on each mechanism of less than quadratic cost is faster than the dense causal engine: measured, and by the fit of CAB
 * (Zhang et al., ICML 2023, section 5): a parabola through the dense times, a line through the others', over lengths from 256 to 8192.
 *
 * Two heads of 64 dimensions, f32, one thread; processor time of the kernel thread. Images are squares of as many pixels.
 */
import {
  abcAttention,
  aggregatedAttention,
  attention,
  biLevelRoutingAttention,
  causalLongShortAttention,
  channelAttention,
  chunkProjection,
  combinerAttention,
  cosformerAttention,
  dynamicProjection,
  haloAttention,
  laraAttention,
  linearAttention,
  longShortAttention,
  masks,
  neighborhoodAttention,
  noGrad,
  nystromAttention,
  orthogonalProjection,
  performerAttention,
  positionlessAttention,
  probSparseAttention,
  randn,
  routingAttention,
  s4d,
  scope,
  superlinearAttention,
  taylorAttention,
  type Tensor,
} from '../lib/index.ts';
import { crossing, efficiencyLength, exponent, type Point } from './fit.ts';
import { print, processorTime, round, type Row } from './report.ts';

const [HEADS, DIM] = [2, 64];
const CAB_LENGTHS = [256, 512, 1024, 2048, 4096, 8192];
const LONGER = [16384];
const IMAGES = [256, 1024, 4096, 16384];

type Three = readonly [q: Tensor, k: Tensor, v: Tensor];
type Call = () => Tensor;

interface Contender {
  readonly name: string;
  /** Prepares a call at this length. */
  readonly make: (length: number) => Call;
  readonly lengths?: readonly number[];
}

const three = (shape: readonly number[]): Three => [randn(shape), randn(shape), randn(shape)];
const tokens = (length: number): Three => three([1, HEADS, length, DIM]);

/** A mechanism of tokens, with what it needs beside them made by `extra`. */
function sequence<T>(
  name: string,
  extra: (length: number, qkv: Three) => T,
  call: (qkv: Three, extra: T) => Tensor,
): Contender {
  // prettier-ignore
  return {
    name,
    make: (length) => {
      const qkv = tokens(length);
      const made = extra(length, qkv);
      return () => call(qkv, made);
    },
  };
}
const plain = (name: string, call: (q: Tensor, k: Tensor, v: Tensor) => Tensor): Contender =>
  sequence(name, () => null, ([q, k, v]) => call(q, k, v)); // prettier-ignore
/** A mechanism of images. */
function pixels(name: string, call: (q: Tensor, k: Tensor, v: Tensor, side: number) => Tensor): Contender {
  return {
    name,
    lengths: IMAGES,
    make: (length) => {
      const side = Math.sqrt(length);
      const [q, k, v] = three([1, side, side, HEADS, DIM]);
      return () => call(q, k, v, side);
    },
  };
}

const dense = plain('dense causal', (q, k, v) => attention(q, k, v, { causal: true }));
const compress = { compressK: randn([DIM, 16]), compressV: randn([DIM, 16]) };
const projection = orthogonalProjection(HEADS, 64, DIM);
const [pooledK, pooledV] = three([1, HEADS, 49, DIM]);
const streaming = masks.streaming(4, 252);

const contenders: readonly Contender[] = [
  plain('linear, causal', (q, k, v) => linearAttention(q, k, v, { causal: true })),
  plain('linear', (q, k, v) => linearAttention(q, k, v)),
  plain('Performer, 64 features, causal', (q, k, v) => performerAttention(q, k, v, { projection, causal: true })),
  plain('Performer, 64 features', (q, k, v) => performerAttention(q, k, v, { projection })),
  plain('cosFormer, causal', (q, k, v) => cosformerAttention(q, k, v, { causal: true })),
  plain('cosFormer', (q, k, v) => cosformerAttention(q, k, v)),
  plain('Taylor by features, causal', (q, k, v) => taylorAttention(q, k, v, { method: 'features' })),
  plain('positionless, causal', (q, k, v) => positionlessAttention(q, k, v)),
  plain('Nystrom, 16 landmarks', (q, k, v) => nystromAttention(q, k, v)),
  plain('LARA, 16 landmarks', (q, k, v) => laraAttention(q, k, v)),
  plain('ABC, 16 slots', (q, k, v) => abcAttention(q, k, v, compress)),
  plain('ABC, 16 slots, causal', (q, k, v) => abcAttention(q, k, v, { ...compress, causal: true })),
  plain('ProbSparse, factor 5', (q, k, v) => probSparseAttention(q, k, v)),
  plain('ProbSparse, factor 5, causal', (q, k, v) => probSparseAttention(q, k, v, { causal: true })),
  sequence(
    'long-short, 16 landmarks, window 15',
    (length, [, k, v]) => [k, v].map((t) => dynamicProjection(t, randn([1, length, HEADS * 16]))),
    ([q, k, v], [landmarkK, landmarkV]) => longShortAttention(q, k, v, { landmarkK, landmarkV, window: 15 }),
  ),
  sequence(
    'long-short, chunks of 32, window 128, causal',
    (length, [, k, v]) => [k, v].map((t) => chunkProjection(t, randn([1, length, HEADS]), 32)),
    ([q, k, v], [landmarkK, landmarkV]) =>
      causalLongShortAttention(q, k, v, { landmarkK, landmarkV, chunk: 32, window: 128 }),
  ),
  plain('streaming, sink 4, local 252, causal', (q, k, v) => attention(q, k, v, { mask: streaming })),
  plain('window 256, causal', (q, k, v) => attention(q, k, v, { causal: true, window: [255, 0] })),
  plain('Combiner, fixed, causal', (q, k, v) => combinerAttention(q, k, v)),
  plain('Combiner, log, causal', (q, k, v) => combinerAttention(q, k, v, { pattern: 'log' })),
  plain('Combiner, axial mixture, causal', (q, k, v) => combinerAttention(q, k, v, { pattern: 'axialMixture' })),
  sequence(
    'k-means routing, sqrt(length) clusters, causal',
    (length) => {
      const clusters = 2 ** Math.round(Math.log2(length) / 2);
      return { centroids: randn([HEADS, clusters, DIM]), window: length / clusters };
    },
    ([q, k, v], { centroids, window }) => routingAttention(q, k, v, { centroids, window, causal: true }),
  ),
  sequence(
    'superlinear, p 1/2, causal',
    (length) => randn([1, HEADS, length, DIM]),
    ([q, k, v], search) =>
      superlinearAttention(search, q, k, v, { searchPower: 0.5, spanPower: 0.5, backwardFactor: 2, forwardFactor: 0, swIndex: 8 }), // prettier-ignore
  ),
  {
    name: 'S4D, 8 states',
    make: (length) => {
      const features = HEADS * DIM;
      const [u, parameters] = [randn([1, features, length]), { c: randn([1, features, 8, 2]), logDt: randn([features]), logWReal: randn([features, 8]), wImag: randn([features, 8]), d: randn([1, features]) }]; // prettier-ignore
      return () => s4d(u, parameters);
    },
  },
  plain('channel', (q, k, v) => channelAttention(q, k, v)),
  {
    name: 'neighborhood 1-D, kernel 255',
    make: (length) => {
      const [q, k, v] = three([1, length, HEADS, DIM]);
      return () => neighborhoodAttention(q, k, v, { kernelSize: Math.min(255, length) });
    },
  },
  pixels('neighborhood 2-D, kernel 7', (q, k, v) => neighborhoodAttention(q, k, v, { kernelSize: 7 })),
  pixels('halo, blocks of 8, halo 3', (q, k, v) => haloAttention(q, k, v, { blockSize: 8, haloSize: 3 })),
  pixels('aggregated, window 3, 49 pooled', (q, k, v) => aggregatedAttention(q, k, v, { pooledK, pooledV })),
  pixels('bi-level routing, regions of 8x8, top 4', (q, k, v, side) => {
    const [x, y, z] = [q, k, v].map((t) => t.reshape([1, side, side, HEADS * DIM]));
    return biLevelRoutingAttention(x, y, z, { heads: HEADS, regions: side / 8, topK: 4 });
  }),
];

async function timesOf({ make }: Contender, lengths: readonly number[]): Promise<Point[]> {
  const points: Point[] = [];
  for (const length of lengths) {
    const call = noGrad(() => make(length));
    points.push([length, await processorTime(() => noGrad(() => scope(call)))]);
  }
  return points;
}

/** A row for each mechanism: `from`, the length it wins from, or a note; `byFit`, that of CAB's fit. */
export async function efficiency(threads: number): Promise<Row[]> {
  const base = new Map<number, Point>();
  const rows: Row[] = [];
  const compare = async (contender: Contender, lengths: readonly number[], points: Point[]): Promise<Point[]> => {
    points.push(...(await timesOf(contender, lengths)));
    for (const length of lengths.filter((n) => !base.has(n))) base.set(length, (await timesOf(dense, [length]))[0]);
    return points.map(([length]) => base.get(length) as Point);
  };
  for (const contender of contenders) {
    const lengths = contender.lengths ?? [...CAB_LENGTHS, ...LONGER];
    const points: Point[] = [];
    let against = await compare(contender, lengths, points);
    let from = crossing(points, against);
    if (from === null && !contender.lengths && points[points.length - 1][1] < 1000) {
      against = await compare(contender, [2 * lengths[lengths.length - 1]], points);
      from = crossing(points, against);
    }
    const [longest, ms] = points[points.length - 1];
    const fitted = (all: readonly Point[]): Point[] => all.filter(([length]) => CAB_LENGTHS.includes(length));
    const byFit = contender.lengths ? NaN : efficiencyLength(fitted(against), fitted(points));
    const row: Row = {
      name: `${contender.name}, L${longest}`,
      threads,
      ms: round(ms),
      cpuMs: round(ms),
      from: from === null ? `beyond ${longest}` : from === lengths[0] ? `at most ${from}` : Math.round(from),
      byFit: byFit > 0 ? Math.round(byFit) : undefined,
      exponent: round(exponent(points.slice(-3))),
    };
    print(row);
    rows.push(row);
  }
  return rows;
}
