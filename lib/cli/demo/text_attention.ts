/** Part one: chapters packed as documents, a mask written as an arrow function, attention next to dense. */
import { attention } from '../../attention/attention.ts';
import { blockMask } from '../../ops/block_mask.ts';
import { mask } from '../../mask/mask.ts';
import type { BlockMask } from '../../mask/block_mask.ts';
import { show } from '../../mask/show.ts';
import { contiguous } from '../../ops/copy.ts';
import { mul } from '../../ops/binary.ts';
import { embedding } from '../../ops/embedding.ts';
import { randn } from '../../ops/random.ts';
import { matmul } from '../../ops/matmul.ts';
import { permute, reshape } from '../../ops/view.ts';
import { scope } from '../../tensor/scope.ts';
import { tensor } from '../../tensor/create.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { note, table, timeText } from '../output.ts';
import { pack } from './corpus.ts';

const HEADS = 4;
const DIM = 64;
const WINDOW = 256;

export interface AttentionRow {
  tokens: number;
  maskMs: number;
  maskedMs: number;
  denseMs: number;
  speedup: number;
  skippedTiles: number;
  tiles: number;
  /** Largest difference to the double-precision reference, over sampled rows. */
  maxError: number;
}

async function timed(fn: () => Tensor): Promise<{ out: Float32Array; ms: number }> {
  const start = performance.now();
  using result = fn();
  const out = (await result.data()) as Float32Array;
  return { out, ms: performance.now() - start };
}

/** softmax(q k / sqrt(D)) v of one row in double precision, over the keys `visible` admits. */
function referenceRow(
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  length: number,
  head: number,
  row: number,
  visible: (kv: number) => boolean,
): Float64Array {
  const at = (head * length + row) * DIM;
  const scores: { kv: number; s: number }[] = [];
  for (let kv = 0; kv < length; kv++) {
    if (!visible(kv)) continue;
    let s = 0;
    for (let d = 0; d < DIM; d++) s += q[at + d] * k[(head * length + kv) * DIM + d];
    scores.push({ kv, s: s / Math.sqrt(DIM) });
  }
  const top = Math.max(...scores.map(({ s }) => s));
  const out = new Float64Array(DIM);
  let total = 0;
  for (const { kv, s } of scores) {
    const p = Math.exp(s - top);
    total += p;
    for (let d = 0; d < DIM; d++) out[d] += p * v[(head * length + kv) * DIM + d];
  }
  return out.map((x) => x / total);
}

export async function textAttention(
  documents: readonly Uint8Array[],
  lengths: readonly number[],
): Promise<AttentionRow[]> {
  const rows: AttentionRow[] = [];
  for (const tokens of lengths) {
    const { text, ids } = pack(documents, tokens);
    // Causal, same chapter, at most WINDOW tokens back: an ordinary function.
    const docs = mask(({ q, kv }, { doc, window }) => q >= kv && q - kv < window && doc[q] === doc[kv], {
      doc: ids,
      window: WINDOW,
    });

    const start = performance.now();
    const tiles: BlockMask = blockMask(docs, { q: tokens, kv: tokens });
    const maskMs = performance.now() - start;
    if (tokens === lengths[Math.min(1, lengths.length - 1)]) note(show(tiles));

    // Real tokens through random projections: byte embeddings to queries, keys and values.
    const [q, k, v] = scope(() => {
      const x = embedding(randn([256, HEADS * DIM], { seed: 1 }), tensor(text));
      return [2, 3, 4].map((seed) => {
        const weight = mul(randn([HEADS * DIM, HEADS * DIM], { seed }), 1 / Math.sqrt(HEADS * DIM));
        const projected = matmul(x, weight);
        return contiguous(permute(reshape(projected, [1, tokens, HEADS, DIM]), [0, 2, 1, 3]));
      });
    });
    await timed(() => attention(q, k, v, { mask: tiles }));
    const masked = await timed(() => attention(q, k, v, { mask: tiles }));
    const dense = await timed(() => attention(q, k, v));

    const [qs, ks, vs] = (await Promise.all([q.data(), k.data(), v.data()])) as Float32Array[];
    let maxError = 0;
    for (let sample = 0; sample < 32; sample++) {
      const head = sample % HEADS;
      const row = Math.floor(((sample * 0.6180339887) % 1) * tokens);
      const expected = referenceRow(qs, ks, vs, tokens, head, row, (kv) => docs.value({ b: 0, h: head, q: row, kv }));
      for (let d = 0; d < DIM; d++)
        maxError = Math.max(maxError, Math.abs(expected[d] - masked.out[(head * tokens + row) * DIM + d]));
    }
    const { full, partial, skipped } = tiles.stats;
    for (const t of [q, k, v]) t.dispose();
    rows.push({
      tokens,
      maskMs,
      maskedMs: masked.ms,
      denseMs: dense.ms,
      speedup: dense.ms / masked.ms,
      skippedTiles: skipped,
      tiles: full + partial + skipped,
      maxError,
    });
    note(`  ${tokens} tokens: ${timeText(masked.ms)} against ${timeText(dense.ms)} dense`);
  }
  return rows;
}

export function textAttentionTable(rows: readonly AttentionRow[]): string {
  return table([
    ['tokens', 'mask', 'masked', 'dense', 'speed-up', 'tiles skipped', 'max error'],
    ...rows.map((r) => [
      r.tokens,
      timeText(r.maskMs),
      timeText(r.maskedMs),
      timeText(r.denseMs),
      `${r.speedup.toFixed(1)}x`,
      `${r.skippedTiles} of ${r.tiles} (${((100 * r.skippedTiles) / r.tiles).toFixed(1)} %)`,
      r.maxError.toExponential(1),
    ]),
  ]);
}
