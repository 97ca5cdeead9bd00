/**
 * Attention forward: dense, causal, bf16, a score program, softcap, mask and bias tensors, windows, documents, decoding; and
 * onnxruntime-node on the same shapes.
 *
 * Fractions of peak count the two products over visible pairs (causal: half of all). Sparse rows also give the ratio to what their visited
 * tiles would take at the speed of the dense row.
 */
import {
  attention,
  blockMask,
  cast,
  explain,
  getNumThreads,
  gt,
  manualSeed,
  masks,
  and,
  noGrad,
  randn,
  scores,
  type AttentionOptions,
  type Tensor,
} from '../lib/index.ts';
import { native } from '../lib/native.ts';
import { contribModel } from './onnx_model.ts';
import { measure, peer, round, save, type Row } from './report.ts';

const HEADS = 8;
const DIM = 64;
const LENGTH = 4096;
const LONG = 16384;
const threadCounts = [...new Set([1, getNumThreads()])];
const rows: Row[] = [];

manualSeed(1);
const inputs = (length: number): [Tensor, Tensor, Tensor] => [0, 1, 2].map(() => randn([1, HEADS, length, DIM])) as [Tensor, Tensor, Tensor]; // prettier-ignore
const flopsOf = (pairs: number): number => 4 * DIM * HEADS * pairs;

async function forward(
  name: string,
  [q, k, v]: [Tensor, Tensor, Tensor],
  options: AttentionOptions,
  threads: number,
  flops: number,
  extra: Row | Record<string, number> = {},
): Promise<Row> {
  const row = await measure(name, () => noGrad(() => attention(q, k, v, options)), { threads, flops, extra });
  rows.push(row);
  return row;
}

const dense = inputs(LENGTH);
const half = dense.map((t) => cast(t, 'bf16')) as [Tensor, Tensor, Tensor];
const all = flopsOf(LENGTH * LENGTH);
const decorated: [string, AttentionOptions][] = [
  ['ALiBi score program f32', { score: scores.alibi(HEADS) }],
  ['softcap f32', { softcap: 30 }],
  ['bool mask tensor f32', { mask: gt(randn([LENGTH, LENGTH]), -1) }],
  ['bias tensor f32', { bias: randn([LENGTH, LENGTH]) }],
];
const denseRate = new Map<number, number>();
for (const threads of threadCounts) {
  const plain = await forward('dense f32 H8 D64 L4096', dense, {}, threads, all);
  denseRate.set(threads, (plain.gflops ?? 0) * 1e6);
  await forward('causal f32', dense, { causal: true }, threads, all / 2);
  const bf16 = await measure('dense bf16', () => noGrad(() => attention(...half)), { threads, flops: all });
  rows.push({ ...bf16, speedupOverF32: round(plain.ms / bf16.ms) });
  for (const [name, options] of decorated) {
    const row = await forward(name, dense, options, threads, all);
    rows[rows.length - 1] = { ...row, timeOverDense: round(row.ms / plain.ms) };
  }
}

// Documents of equal length such that a tenth of all blocks is visited.
const long = inputs(LONG);
const documents = masks.documentIds(Array.from({ length: 5 }, () => Math.ceil(LONG / 5)));
const packed = blockMask(and(masks.causal(), masks.document(documents)), { q: LONG, kv: LONG });
const sparse: [string, AttentionOptions][] = [
  ['window 256 f32 L16384', { window: [256, 256] }],
  ['causal documents f32 L16384', { mask: packed }],
];
for (const threads of threadCounts)
  for (const [name, options] of sparse) {
    const plan = explain(...long, options);
    const { full, partial, skipped } = plan.tiles;
    const row = await forward(name, long, options, threads, plan.flops);
    const ideal = plan.flops / (denseRate.get(threads) ?? 1);
    rows[rows.length - 1] = {
      ...row,
      liveTiles: round((full + partial) / (full + partial + skipped)),
      timeOverLiveTiles: round(row.ms / ideal),
    };
  }

// Decoding one token: 8 sequences, 32 query heads on 8 key heads, 8192 cached keys.
const cache = { batch: 8, heads: 32, kvHeads: 8, keys: 8192, dim: 128 };
const query = cast(randn([cache.batch, cache.heads, 1, cache.dim]), 'bf16');
const [keys, values] = [0, 1].map(() => cast(randn([cache.batch, cache.kvHeads, cache.keys, cache.dim]), 'bf16')) as [Tensor, Tensor]; // prettier-ignore
const cacheBytes = 4 * cache.batch * cache.kvHeads * cache.keys * cache.dim;
for (const threads of threadCounts) {
  const row = await measure('decode bf16 B8 Hq32 Hkv8 D128 KV8192', () => noGrad(() => attention(query, keys, values)), { threads }); // prettier-ignore
  const bandwidth = native().readBandwidth(0.3, threads);
  const rate = cacheBytes / (row.ms / 1000);
  rows.push({ ...row, gbPerSecond: round(rate / 1e9), ofReadBandwidth: round(rate / bandwidth / (bandwidth < 1e6 ? 1e9 : 1)) }); // prettier-ignore
}

interface Ort {
  InferenceSession: {
    create(model: Uint8Array, options: object): Promise<{ run(feeds: Record<string, unknown>): Promise<unknown> }>;
  };
  Tensor: new (type: string, data: Float32Array | Int32Array, shape: number[]) => unknown;
}
const ort = await peer<Ort>('onnxruntime-node');
if (ort) {
  const width = HEADS * DIM;
  const feed = (): unknown =>
    new ort.Tensor(
      'float32',
      Float32Array.from({ length: LENGTH * width }, () => Math.random() - 0.5),
      [1, LENGTH, width],
    );
  const empty = (): unknown => new ort.Tensor('float32', new Float32Array(0), [1, HEADS, 0, DIM]);
  const qkv = { query: feed(), key: feed(), value: feed() };
  const mha = (unidirectional: number): Uint8Array =>
    contribModel({
      op: 'MultiHeadAttention',
      inputs: ['query', 'key', 'value'],
      outputs: ['out'],
      attributes: { num_heads: HEADS, unidirectional },
    });
  const gqa = contribModel({
    op: 'GroupQueryAttention',
    inputs: ['query', 'key', 'value', 'past_key', 'past_value', 'seqlens_k', 'total_sequence_length'],
    outputs: ['out', 'present_key', 'present_value'],
    integers: ['seqlens_k', 'total_sequence_length'],
    attributes: { num_heads: HEADS, kv_num_heads: HEADS },
  });
  const lengths = {
    past_key: empty(),
    past_value: empty(),
    seqlens_k: new ort.Tensor('int32', Int32Array.of(LENGTH - 1), [1]),
    total_sequence_length: new ort.Tensor('int32', Int32Array.of(LENGTH), [1]),
  };
  const models: [string, Uint8Array, Record<string, unknown>, number][] = [
    ['onnxruntime MultiHeadAttention', mha(0), qkv, all],
    ['onnxruntime MultiHeadAttention causal', mha(1), qkv, all / 2],
    ['onnxruntime GroupQueryAttention causal', gqa, { ...qkv, ...lengths }, all / 2],
  ];
  for (const threads of threadCounts)
    for (const [name, model, feeds, flops] of models) {
      const session = await ort.InferenceSession.create(model, { intraOpNumThreads: threads, interOpNumThreads: 1 });
      rows.push(await measure(name, async () => void (await session.run(feeds)), { threads, flops }));
    }
}

save('attention', rows);
