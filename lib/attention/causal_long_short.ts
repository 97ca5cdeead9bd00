/**
 * Causal long-short attention: one softmax over the last `window` tokens and the landmarks of every finished chunk before the query's own.
 *
 * Windows are computed in tiles of `window` queries, each with two tiles of keys, folded into the batch; landmarks are one call with a mask
 * of chunks; both merge by their log-sum-exp. Relative positions are logits by distance: shifting them to keys is a change of stride (a
 * row is padded by one shift, and the rows are cut again), so no index is built. Logits of landmark positions have length x landmarks
 * elements, as any position-dependent logit has.
 *
 * Source: Zhu et al., "Long-Short Transformer", NeurIPS 2021, section 3.3; Zhang et al., CAB, ICML 2023 (the module CausalLS).
 */
import { FoveaError } from '../errors.ts';
import { mask, type Mask } from '../mask/mask.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { matmul } from '../ops/matmul.ts';
import { pad } from '../ops/pad.ts';
import { flip } from '../ops/rearrange.ts';
import { softmax } from '../ops/softmax.ts';
import { expand, permute, reshape, slice, transpose } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { tensor } from '../tensor/create.ts';
import type { DeviceName } from '../tensor/device.ts';
import { expectTensors } from '../tensor/expect.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention, type AttentionResult } from './attention.ts';
import { expectCount, expectCrossAttention, expectRank } from './checks.ts';
import { fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { mergeAttentions } from './merge.ts';

export interface CausalLongShortOptions {
  /** Landmarks of all chunks in order, the unfinished last one too: [batch, heads, ceil(keys / chunk) rank, dim] and dimV; `chunkProjection`. */
  readonly landmarkK: Tensor;
  readonly landmarkV: Tensor;
  /** Tokens of a chunk; divides the memory, the keys before the first query. */
  readonly chunk: number;
  /** Tokens a query sees exactly, itself the last. */
  readonly window: number;
  /** Queries of the windows where they differ from q (Transformer-XL's content bias). Default q. */
  readonly windowQ?: Tensor;
  /** Added to the logit of the key `d` tokens back: [batch, heads, length, window], broadcast over batch. */
  readonly windowPositions?: Tensor;
  /** Added to the logit of the landmark `d` places before the newest finished one: [batch, heads, length, landmarks], broadcast over batch. */
  readonly landmarkPositions?: Tensor;
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const CAUSAL_LONG_SHORT_OPTIONS: OptionNames<CausalLongShortOptions> = {
  landmarkK: true,
  landmarkV: true,
  chunk: true,
  window: true,
  windowQ: true,
  windowPositions: true,
  landmarkPositions: true,
  scale: true,
};

/**
 * q [batch, heads, length, dim], k [batch, heads, memory + length, dim], v [..., dimV] to [batch, heads, length, dimV]: the queries are the
 * last tokens, keys before them are memory. f32, bf16 or f16; differentiable in every tensor.
 *
 * @throws FoveaError ERR_SHAPE where shapes don't fit together; ERR_ARGUMENT for a window or chunk below 1 or a memory that is not whole chunks
 */
export function causalLongShortAttention(q: Tensor, k: Tensor, v: Tensor, options: CausalLongShortOptions): Tensor {
  expectOptions('causalLongShortAttention', options, CAUSAL_LONG_SHORT_OPTIONS);
  const { landmarkK, landmarkV, chunk, window, windowQ = q } = options;
  expectTensors('causalLongShortAttention', { windowQ });
  expectCrossAttention('causalLongShortAttention', q, k, v);
  expectCrossAttention('causalLongShortAttention', q, landmarkK, landmarkV);
  expectCount('causalLongShortAttention', 'chunk', chunk);
  expectCount('causalLongShortAttention', 'window', window);
  const { scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const [length, keys, landmarks] = [q.shape[2], k.shape[2], landmarkK.shape[2]];
  const memory = keys - length;
  if (memory < 0 || memory % chunk !== 0)
    throw new FoveaError(
      'ERR_ARGUMENT',
      `causalLongShortAttention: ${keys} keys for ${length} queries; expected a memory of whole chunks of ${chunk} before the queries`,
    );
  const rank = landmarks / Math.max(1, Math.ceil(keys / chunk));
  if (!Number.isInteger(rank) || !sameShape(windowQ.shape, q.shape))
    throw new FoveaError(
      'ERR_SHAPE',
      `causalLongShortAttention: q ${shapeText(q.shape)}, windowQ ${shapeText(windowQ.shape)}, ${landmarks} landmarks for ` +
        `${Math.ceil(keys / chunk)} chunks; expected as many for each chunk and windowQ shaped as q`,
    );
  const [nearBias, farBias] = [options.windowPositions, options.landmarkPositions];
  expectPositions('windowPositions', nearBias, q, window);
  expectPositions('landmarkPositions', farBias, q, landmarks);

  const bias = farBias && landmarkBias(farBias, chunk, rank);
  const far = attention(q, landmarkK, landmarkV, {
    scale,
    mask: finishedChunks(chunk, memory, rank),
    ...(bias && { bias }),
    returnLse: true,
  });
  return mergeAttentions([far, windowAttention(windowQ, k, v, window, scale, nearBias)]).out;
}

function expectPositions(name: string, t: Tensor | undefined, q: Tensor, columns: number): void {
  if (!t) return;
  const [batch, heads, length] = q.shape;
  if (t.rank !== 4 || ![1, batch].includes(t.shape[0]) || !sameShape(t.shape.slice(1), [heads, length, columns]))
    throw new FoveaError(
      'ERR_SHAPE',
      `causalLongShortAttention: ${name} has shape ${shapeText(t.shape)}, expected [${batch} or 1, ${heads}, ${length}, ${columns}]`,
    );
}

const chunkMasks = new Map<string, Mask>();

/** Landmarks of the chunks before the query's own. */
function finishedChunks(chunk: number, memory: number, rank: number): Mask {
  const key = [chunk, memory, rank].join();
  let made = chunkMasks.get(key);
  if (!made) {
    made = mask(({ q, kv }, { chunk, memory, rank }) => Math.floor(kv / rank) < Math.floor((q + memory) / chunk), { chunk, memory, rank }); // prettier-ignore
    if (chunkMasks.size >= 32) chunkMasks.clear();
    chunkMasks.set(key, made);
  }
  return made;
}

/** The last `window` keys of each query, in tiles of `window` queries and 2 `window` keys. */
function windowAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  window: number,
  scale: number,
  positions?: Tensor,
): AttentionResult {
  const [batch, heads, length] = q.shape;
  const memory = k.shape[2] - length;
  const tiles = Math.ceil(length / window);
  const extra = tiles * window - length;
  const missing = Math.max(0, window - memory);
  const rows = (t: Tensor, before: number): Tensor => pad(t, [[0, 0], [0, 0], [before, extra], [0, 0]]); // prettier-ignore
  const fold = (t: Tensor, width: number): Tensor =>
    reshape(permute(reshape(t, [batch, heads, tiles, width, -1]), [0, 2, 1, 3, 4]), [batch * tiles, heads, width, t.shape[t.rank - 1]]); // prettier-ignore
  const pairsOfTiles = (t: Tensor): Tensor => {
    const all = rows(slice(t, 2, Math.max(0, memory - window)), missing);
    const cut = reshape(all, [batch, heads, tiles + 1, window, t.shape[3]]);
    return fold(concat([slice(cut, 2, 0, tiles), slice(cut, 2, 1)], 3), 2 * window);
  };
  const bias = positions && fold(rows(expand(windowBias(positions, window), [batch, heads, length, 2 * window]), 0), window); // prettier-ignore
  const { out, lse } = attention(fold(rows(q, 0), window), pairsOfTiles(k), pairsOfTiles(v), {
    scale,
    causal: 'bottom-right',
    window: [window - 1, 0],
    ...(bias && { bias }),
    ...(missing > 0 && { mask: existingKeys(batch, tiles, window, missing, q.device) }),
    returnLse: true,
  });
  const unfold = (t: Tensor): Tensor => {
    const apart = permute(reshape(t, [batch, tiles, heads, window, -1]), [0, 2, 1, 3, 4]);
    return slice(reshape(apart, [batch, heads, tiles * window, apart.shape[4]]), 2, 0, length);
  };
  return { out: unfold(out), lse: reshape(unfold(lse), [batch, heads, length]) };
}

/** false for the keys that the first tile of each sequence lacks, [batch tiles, 1, 1, 2 window]. */
function existingKeys(batch: number, tiles: number, window: number, missing: number, device: DeviceName): Tensor {
  const exists = new Uint8Array(tiles * 2 * window).fill(1).fill(0, 0, missing);
  const one = tensor(exists, [1, tiles, 1, 1, 2 * window], { dtype: 'bool', device });
  return reshape(expand(one, [batch, tiles, 1, 1, 2 * window]), [batch * tiles, 1, 1, 2 * window]);
}

/** Logits by distance to logits by key of the tile, [..., length, window] to [..., length, 2 window]: row r of a tile moves right by r + 1. */
function windowBias(positions: Tensor, window: number): Tensor {
  const [batch, heads, length] = positions.shape;
  const tiles = Math.ceil(length / window);
  const wide = pad(flip(positions, 3), [[0, 0], [0, 0], [0, tiles * window - length], [1, window]]); // prettier-ignore
  const rows = slice(reshape(wide, [batch, heads, tiles, -1]), 3, 0, 2 * window * window);
  return slice(reshape(rows, [batch, heads, tiles * window, 2 * window]), 2, 0, length);
}

/** Logits by distance to logits by landmark, same shape: rows of chunk c move so that the last landmark before c has distance 0. */
function landmarkBias(positions: Tensor, chunk: number, rank: number): Tensor {
  const [batch, heads, length, landmarks] = positions.shape;
  const chunks = Math.ceil(length / chunk);
  const filled = pad(flip(positions, 3), [[0, 0], [0, 0], [0, chunks * chunk - length], [0, rank]]); // prettier-ignore
  const byPlace = transpose(reshape(filled, [batch, heads, chunks, chunk, landmarks + rank]), 2, 3);
  const flat = slice(reshape(byPlace, [batch, heads, chunk, -1]), 3, chunks * rank);
  const shifted = transpose(reshape(flat, [batch, heads, chunk, chunks, landmarks]), 2, 3);
  return slice(reshape(shifted, [batch, heads, chunks * chunk, landmarks]), 2, 0, length);
}

/**
 * Landmarks of chunks of tokens t [batch, heads, length, dim]: means weighted by the softmax within each chunk of `scores`
 * [batch, length, heads rank], [batch, heads, ceil(length / chunk) rank, dim]. A last chunk that is not full is a mean of what it has.
 */
export function chunkProjection(t: Tensor, scores: Tensor, chunk: number): Tensor {
  expectCount('chunkProjection', 'chunk', chunk);
  expectRank('chunkProjection', '[batch, heads, length, dim]', 4, { t });
  expectTensors('chunkProjection', { scores });
  const [batch, heads, length, dim] = t.shape;
  if (scores.rank !== 3 || !sameShape(scores.shape.slice(0, 2), [batch, length]) || scores.shape[2] % heads !== 0)
    throw new FoveaError(
      'ERR_SHAPE',
      `chunkProjection: scores ${shapeText(scores.shape)}, expected [${batch}, ${length}, ${heads} x rank]`,
    );
  const chunks = Math.ceil(length / chunk);
  const extra = chunks * chunk - length;
  const rank = scores.shape[2] / heads;
  const whole = pad(scores, [[0, 0], [0, extra], [0, 0]], { value: -Infinity }); // prettier-ignore
  const weights = softmax(permute(reshape(whole, [batch, chunks, chunk, heads, rank]), [0, 3, 1, 4, 2]));
  const tokens = reshape(pad(t, [[0, 0], [0, 0], [0, extra], [0, 0]]), [batch, heads, chunks, chunk, dim]); // prettier-ignore
  return reshape(matmul(cast(weights, t.dtype), tokens), [batch, heads, chunks * rank, dim]);
}

/** Cost of causalLongShortAttention without memory. */
export function causalLongShortCost(
  sizes: CostSizes,
  options: { readonly chunk?: number; readonly rank?: number; readonly window?: number } = {},
): Cost {
  expectOptions('causalLongShortCost', options, { chunk: true, rank: true, window: true });
  const { chunk = 32, rank = 1, window = 256 } = options;
  const { length, dim, dimV } = fullSizes(sizes);
  const landmarks = Math.ceil(length / chunk) * rank;
  return pairsCost(sizes, length * (Math.min(length, window) + landmarks / 2 + rank), landmarks * (dim + dimV));
}
