/**
 * Aggregated attention: each pixel sees the pixels around it and a pooled copy of the whole image, in one softmax.
 *
 * The window stays centred, what lies outside the image is hidden: on an image padded by half a window no window of an inner pixel is ever
 * shifted, so the pair neighborhoodQK / neighborhoodAV serves it as it is. Learned tokens add query-dependent weights to the local part
 * after the softmax, which is why the map of slots (pixels x window) is held; nothing of pixels x pixels is.
 *
 * Source: Shi, "TransNeXt: Robust Foveal Visual Perception for Vision Transformers", CVPR 2024, section 3.1; stages 1 to 3 of MoH-ViT (Jin et
 * al., ICML 2025).
 */
import { FoveaError } from '../errors.ts';
import { add, mul } from '../ops/binary.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { ones } from '../ops/creation.ts';
import { matmul } from '../ops/matmul.ts';
import { pad } from '../ops/pad.ts';
import { softmax } from '../ops/softmax.ts';
import { permute, reshape, slice, unsqueeze } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectOptionalTensors, expectTensors } from '../tensor/expect.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { expectRank } from './checks.ts';
import { fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { neighborhoodAV, neighborhoodQK } from './neighborhood_pair.ts';

export interface AggregatedOptions {
  /** Keys and values of the pooled image, [batch, heads, pooled, dim] and [batch, heads, pooled, dimV]. */
  readonly pooledK: Tensor;
  readonly pooledV: Tensor;
  /** Rows and columns of the local window, odd. Default 3. */
  readonly window?: number;
  /** Added to the local logits, [heads, window^2]. */
  readonly localBias?: Tensor;
  /** Added to the pooled logits, [heads, rows columns, pooled]. */
  readonly pooledBias?: Tensor;
  /** Weights added to the local ones after the softmax: queries . keys + bias, of q's shape, [heads, dim, window^2] and [heads, window^2]. */
  readonly tokens?: { readonly queries: Tensor; readonly keys: Tensor; readonly bias: Tensor };
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const AGGREGATED_OPTIONS: OptionNames<AggregatedOptions> = {
  pooledK: true,
  pooledV: true,
  window: true,
  localBias: true,
  pooledBias: true,
  tokens: true,
  scale: true,
};

const OP = 'aggregatedAttention';

/**
 * q, k [batch, rows, columns, heads, dim], v [..., dimV] to v's shape; f32, bf16 or f16, f32 arithmetic; differentiable in every tensor.
 *
 * @throws FoveaError ERR_SHAPE where shapes don't fit together, ERR_ARGUMENT for a window that is not odd
 */
export function aggregatedAttention(q: Tensor, k: Tensor, v: Tensor, options: AggregatedOptions): Tensor {
  expectOptions(OP, options, AGGREGATED_OPTIONS);
  expectRank(OP, '[batch, rows, columns, heads, dim]', 5, { q, k, v });
  expectTensors(OP, { pooledK: options.pooledK, pooledV: options.pooledV });
  const { pooledK, pooledV, window = 3, localBias, pooledBias, tokens, scale = 1 / Math.sqrt(q.shape[4]) } = options;
  expectOptionalTensors(OP, { localBias, pooledBias });
  if (tokens) {
    expectOptions(`${OP}: tokens`, tokens, { queries: true, keys: true, bias: true });
    expectTensors(OP, { 'tokens.queries': tokens.queries, 'tokens.keys': tokens.keys, 'tokens.bias': tokens.bias });
  }
  checkOperands(q, k, v, options, window);
  const [batch, rows, columns, heads, dim] = q.shape;
  const side = (window - 1) / 2;
  const border = [[0, 0], [side, side], [side, side], [0, 0], [0, 0]] as const; // prettier-ignore
  const inner = (t: Tensor): Tensor => slice(slice(t, 1, side, side + rows), 2, side, side + columns);

  const slots = inner(neighborhoodQK(pad(q, border), pad(k, border), { kernelSize: window, scale }));
  const biased = localBias ? add(slots, reshape(localBias, [1, 1, 1, heads, window * window])) : slots;
  const local = where(insideImage(rows, columns, window, q), biased, -Infinity);

  const flat = reshape(permute(q, [0, 3, 1, 2, 4]), [batch, heads, rows * columns, dim]);
  const products = mul(matmul(flat, permute(pooledK, [0, 1, 3, 2]), { dtype: 'f32' }), scale);
  const far = toImage(pooledBias ? add(products, unsqueeze(pooledBias, 0)) : products, rows, columns);
  const weights = softmax(concat([local, far], 4));

  const near = slice(weights, 4, 0, window * window);
  const learned = tokens && toImage(tokenWeights(tokens, q), rows, columns);
  const padded = pad(learned ? add(near, learned) : near, border);
  const fromNear = inner(neighborhoodAV(padded, pad(v, border), { kernelSize: window }));
  const pooledWeights = reshape(permute(slice(weights, 4, window * window), [0, 3, 1, 2, 4]), [batch, heads, rows * columns, -1]); // prettier-ignore
  const fromFar = toImage(matmul(pooledWeights, cast(pooledV, 'f32')), rows, columns);
  return cast(add(fromNear, fromFar), v.dtype);
}

/** [batch, heads, rows columns, n] to [batch, rows, columns, heads, n]. */
function toImage(t: Tensor, rows: number, columns: number): Tensor {
  const [batch, heads, , n] = t.shape;
  return permute(reshape(t, [batch, heads, rows, columns, n]), [0, 2, 3, 1, 4]);
}

/** Which slots of a pixel lie inside the image: bool [1, rows, columns, 1, window^2]. */
function insideImage(rows: number, columns: number, window: number, like: Tensor): Tensor {
  const side = (window - 1) / 2;
  const image = pad(ones([1, rows, columns, 1, 1], { dtype: 'bool', device: like.device }), [[0, 0], [side, side], [side, side], [0, 0], [0, 0]]); // prettier-ignore
  const shifted = Array.from({ length: window * window }, (_, slot) => {
    const [down, across] = [Math.floor(slot / window), slot % window];
    return slice(slice(image, 1, down, down + rows), 2, across, across + columns);
  });
  return concat(shifted, 4);
}

/** [batch, heads, rows columns, window^2]. */
function tokenWeights({ queries, keys, bias }: NonNullable<AggregatedOptions['tokens']>, q: Tensor): Tensor {
  const [batch, rows, columns, heads, dim] = q.shape;
  const flat = reshape(permute(queries, [0, 3, 1, 2, 4]), [batch, heads, rows * columns, dim]);
  return add(matmul(flat, unsqueeze(keys, 0), { dtype: 'f32' }), reshape(bias, [1, heads, 1, -1]));
}

function checkOperands(q: Tensor, k: Tensor, v: Tensor, options: AggregatedOptions, window: number): void {
  const { pooledK, pooledV, localBias, pooledBias, tokens } = options;
  expectRank(OP, '[batch, rows, columns, heads, dim]', 5, { q, k, v });
  expectRank(OP, '[batch, heads, pooled, dim]', 4, { pooledK, pooledV });
  if (!Number.isSafeInteger(window) || window < 1 || window % 2 === 0)
    throw new FoveaError('ERR_ARGUMENT', `${OP}: window is ${window}, expected an odd whole number`);
  const [batch, rows, columns, heads, dim] = q.shape;
  const pooled = pooledK.shape[2];
  const expected: readonly [string, Tensor | undefined, readonly number[]][] = [
    ['k', k, q.shape],
    ['v', v, [...q.shape.slice(0, 4), v.shape[4]]],
    ['pooledK', pooledK, [batch, heads, pooled, dim]],
    ['pooledV', pooledV, [batch, heads, pooled, v.shape[4]]],
    ['localBias', localBias, [heads, window * window]],
    ['pooledBias', pooledBias, [heads, rows * columns, pooled]],
    ['tokens.queries', tokens?.queries, q.shape],
    ['tokens.keys', tokens?.keys, [heads, dim, window * window]],
    ['tokens.bias', tokens?.bias, [heads, window * window]],
  ];
  for (const [name, t, shape] of expected)
    if (t && !sameShape(t.shape, shape))
      throw new FoveaError('ERR_SHAPE', `${OP}: ${name} has shape ${shapeText(t.shape)}, expected ${shapeText(shape)}`);
}

/** Cost of aggregatedAttention; the slots of the window are held as f32. */
export function aggregatedCost(
  sizes: CostSizes,
  options: { readonly window?: number; readonly pooled?: number } = {},
): Cost {
  expectOptions('aggregatedCost', options, { window: true, pooled: true });
  const { window = 3, pooled = 49 } = options;
  const { length, dim, dimV, elementBytes } = fullSizes(sizes);
  const slots = (2 * length * (window * window + pooled) * 4) / elementBytes;
  return pairsCost(sizes, length * (window * window + pooled), pooled * (dim + dimV) + slots);
}
