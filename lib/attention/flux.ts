/**
 * Layer-wise hybrid attention: a router decides once for a prompt whether a layer runs full or sparse attention.
 *
 * Full is causal; sparse is streaming (sink and local window), counted in blocks so that every visited tile is whole, with an option for
 * dense last rows (triangle). In training both branches run and are mixed by the router's straight-through decision; in inference only the
 * chosen one does, and a sparse layer needs keys and values of sink and window alone when decoding.
 *
 * Source: Qiu et al., "Flux Attention", 2026; the router itself is FluxRouter (lib/nn/flux_router.ts).
 */
import { FoveaError } from '../errors.ts';
import { or } from '../mask/compose.ts';
import type { Mask } from '../mask/mask.ts';
import { blockStreaming, streaming, triangle } from '../mask/masks/index.ts';
import { add, mul, sub } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { reshape } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectCount, expectRank } from './checks.ts';
import { causalPairs, fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';

export interface FluxSparsity {
  /** Tokens at the start that stay visible. Default 128. */
  readonly sink?: number;
  /** Tokens of the local window. Default 1024. */
  readonly local?: number;
  /** Tokens of a block that sink and local are rounded up to; 1 counts tokens exactly. Default 128. */
  readonly block?: number;
  /** Last rows that stay dense (TriangleMix). Default 0. */
  readonly last?: number;
}

const FLUX_SPARSITY: OptionNames<FluxSparsity> = { sink: true, local: true, block: true, last: true };

const made = new Map<string, Mask>();

/** The mask of the sparse branch for `length` queries; kept, so that its blocks are built once a length. Throws ERR_ARGUMENT. */
export function fluxSparseMask(length: number, options: FluxSparsity = {}): Mask {
  expectOptions('fluxSparseMask', options, FLUX_SPARSITY);
  return sparseMask(length, options);
}

function sparseMask(length: number, { sink = 128, local = 1024, block = 128, last = 0 }: FluxSparsity): Mask {
  for (const [name, value, least] of [
    ['length', length, 0],
    ['sink', sink, 0],
    ['local', local, 1],
    ['block', block, 1],
    ['last', last, 0],
  ] as const)
    // prettier-ignore
    expectCount('fluxSparseMask', name, value, least);
  const key = [sink, local, block, last, last > 0 ? length : 0].join();
  let mask = made.get(key);
  if (!mask) {
    const [sinkBlocks, localBlocks] = [Math.ceil(sink / block), Math.ceil(local / block)];
    const base = block === 1 ? streaming(sink, local) : blockStreaming(sinkBlocks, localBlocks, block);
    mask = last > 0 ? or(base, triangle(0, 1, last, length)) : base;
    if (made.size >= 64) made.clear();
    made.set(key, mask);
  }
  return mask;
}

export interface FluxOptions extends FluxSparsity {
  /** true: full attention, false: sparse; or the router's z [batch, 1] in training: both run, mixed as z full + (1 - z) sparse. */
  readonly full: boolean | Tensor;
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const FLUX_OPTIONS: OptionNames<FluxOptions> = { ...FLUX_SPARSITY, full: true, scale: true };

/**
 * q [batch, heads, length, dim], k, v [batch, heads_kv, length, dim] to [batch, heads, length, dim]; f32, bf16 or f16; differentiable in q, k,
 * v and z.
 *
 * @throws FoveaError ERR_SHAPE as attention() and where z is not one number for each batch entry; ERR_ARGUMENT for bad sizes
 */
export function fluxAttention(q: Tensor, k: Tensor, v: Tensor, options: FluxOptions): Tensor {
  expectOptions('fluxAttention', options, FLUX_OPTIONS);
  expectRank('fluxAttention', '[batch, heads, length, dim]', 4, { q, k, v });
  const { full, scale } = options;
  const common = scale === undefined ? {} : { scale };
  const dense = (): Tensor => attention(q, k, v, { ...common, causal: true });
  const sparse = (): Tensor => attention(q, k, v, { ...common, mask: sparseMask(q.shape[2], options) });
  if (typeof full === 'boolean') return full ? dense() : sparse();
  expectTensors('fluxAttention', { full });
  if (full.size !== q.shape[0])
    throw new FoveaError('ERR_SHAPE', `fluxAttention: z has ${full.size} elements for a batch of ${q.shape[0]}`);
  const z = reshape(full, [q.shape[0], 1, 1, 1]);
  return cast(add(mul(dense(), z), mul(sparse(), sub(1, z))), q.dtype);
}

/** Cost of the sparse branch (default) or the full one. */
export function fluxCost(sizes: CostSizes, options: FluxSparsity & { readonly full?: boolean } = {}): Cost {
  expectOptions('fluxCost', options, { ...FLUX_SPARSITY, full: true });
  const { length } = fullSizes(sizes);
  const { sink = 128, local = 1024, block = 128, last = 0, full = false } = options;
  if (full) return pairsCost(sizes, causalPairs(length));
  const seen = Math.ceil(sink / block) * block + Math.ceil(local / block) * block - block / 2;
  const rows = Math.max(0, length - last);
  const streamed = seen >= length ? causalPairs(rows) : causalPairs(seen) + Math.max(0, rows - seen) * seen;
  return pairsCost(sizes, Math.min(causalPairs(length), streamed + last * (length - last / 2)));
}
