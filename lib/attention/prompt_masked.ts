/**
 * Prompt-coordinated attention: keys that a query may not use still take part in its softmax.
 *
 *     out_i = sum over allowed j of e^{s_ij} v_j / sum over all j of e^{s_ij}
 *
 * That is a mask applied after the softmax without renormalising. Two calls of the engine: over the allowed keys, and over all keys for the
 * denominator alone; the quotient of denominators scales the first.
 *
 * Source: Liu et al., "Token Coordinated Prompt Attention is Needed for Visual Prompting", ICML 2025 (TCPA), section 3.
 */
import { FoveaError } from '../errors.ts';
import { mul, sub } from '../ops/binary.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { full } from '../ops/creation.ts';
import { gather, oneHot } from '../ops/gather.ts';
import { matmul } from '../ops/matmul.ts';
import { mean, norm, sum } from '../ops/reduce.ts';
import { repeatInterleave } from '../ops/rearrange.ts';
import { topK } from '../ops/sort.ts';
import { exp } from '../ops/unary.ts';
import { expand, reshape, slice, transpose, unsqueeze } from '../ops/view.ts';
import { div, maximum } from '../ops/binary.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectObject, expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { AttentionMask } from './arguments.ts';
import { attention } from './attention.ts';
import { expectCount, expectCrossAttention, expectRank } from './checks.ts';
import { addCosts, fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';

export interface PromptMaskedOptions {
  /** Which keys a query may use. */
  readonly allowed: AttentionMask;
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const PROMPT_MASKED_OPTIONS: OptionNames<PromptMaskedOptions> = { allowed: true, scale: true };

/**
 * q [batch, heads, lq, dim], k [batch, heads, lk, dim], v [batch, heads, lk, dimV] to [batch, heads, lq, dimV]. f32, bf16 or f16;
 * differentiable in q, k, v. A query without allowed keys gives 0.
 *
 * @throws FoveaError ERR_SHAPE, ERR_ARGUMENT, ERR_DTYPE as attention()
 */
export function promptMaskedAttention(q: Tensor, k: Tensor, v: Tensor, options: PromptMaskedOptions): Tensor {
  expectOptions('promptMaskedAttention', options, PROMPT_MASKED_OPTIONS);
  expectCrossAttention('promptMaskedAttention', q, k, v);
  const { allowed, scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const used = attention(q, k, v, { scale, mask: allowed, returnLse: true });
  const { lse } = attention(q, k, slice(v, 3, 0, 1), { scale, returnLse: true });
  return cast(mul(used.out, unsqueeze(exp(sub(used.lse, lse)), -1)), v.dtype);
}

/** What promptPool chose. */
export interface PoolMatch {
  /** The k most similar entries of each token, most similar first; i32 [..., k]. */
  readonly index: Tensor;
  /** Mean of 1 - similarity over tokens and chosen entries, [1]; differentiable. */
  readonly distance: Tensor;
}

/**
 * The `k` keys of a pool [entries, dim] most similar (by cosine) to each token of x [..., dim].
 *
 * @throws FoveaError ERR_SHAPE where dims differ, ERR_ARGUMENT for a k outside 1..entries
 */
export function promptPool(x: Tensor, keys: Tensor, k: number): PoolMatch {
  expectRank('promptPool', '[entries, dim]', 2, { keys });
  expectTensors('promptPool', { x });
  if (x.shape.at(-1) !== keys.shape[1])
    throw new FoveaError(
      'ERR_SHAPE',
      `promptPool: x ${shapeText(x.shape)} and keys ${shapeText(keys.shape)} differ in dim`,
    );
  expectCount('promptPool', 'k', k);
  const unit = (t: Tensor): Tensor => div(t, maximum(norm(t, -1, true), 1e-12));
  const similarity = matmul(unit(x), transpose(unit(keys)));
  const { indices } = topK(similarity.detach(), k);
  return { index: indices, distance: reshape(sub(1, mean(gather(similarity, similarity.rank - 1, indices))), [1]) };
}

export interface PromptRoles {
  /** Chosen entries of the class token's pool, i32 [batch, kc], and that pool's size and tokens an entry. */
  readonly cls: { readonly index: Tensor; readonly entries: number; readonly tokens: number };
  /** Chosen entries of each image token, i32 [batch, n, ki], and its pool's size and tokens an entry. */
  readonly image: { readonly index: Tensor; readonly entries: number; readonly tokens: number };
}

/**
 * The mask of TCPA for promptMaskedAttention: queries are the class token and n image tokens; keys the class token, the prompts of the class
 * pool, those of the image pool, and the image tokens. Everyone sees class and image tokens; prompts only where their entry was chosen.
 * bool [batch, 1, 1 + n, 1 + prompts + n].
 *
 * @throws FoveaError ERR_SHAPE where the indices don't fit together
 */
export function promptMask(roles: PromptRoles): Tensor {
  expectObject('promptMask', 'roles', roles);
  const { cls, image } = roles;
  expectObject('promptMask', 'cls', cls);
  expectObject('promptMask', 'image', image);
  expectRank('promptMask', '[batch, kc]', 2, { 'cls.index': cls.index });
  expectRank('promptMask', '[batch, n, ki]', 3, { 'image.index': image.index });
  const [batch, n] = image.index.shape;
  if (cls.index.shape[0] !== batch)
    throw new FoveaError(
      'ERR_SHAPE',
      `promptMask: ${shapeText(cls.index.shape)} and ${shapeText(image.index.shape)} differ in batch`,
    );
  const chosen = (index: Tensor, entries: number, tokens: number): Tensor =>
    repeatInterleave(sum(oneHot(index, entries), -2), tokens, index.rank - 1);
  const prompts = [cls.entries * cls.tokens, image.entries * image.tokens];
  const like = { device: image.index.device };
  const none = (rows: number, columns: number): Tensor => full([batch, rows, columns], 0, like);
  const seen = (rows: number, columns: number): Tensor => full([batch, rows, columns], 1, like);
  const forCls = concat([unsqueeze(chosen(cls.index, cls.entries, cls.tokens), 1), none(1, prompts[1])], 2);
  const forImage = concat([none(n, prompts[0]), chosen(image.index, image.entries, image.tokens)], 2);
  const rows = concat([seen(n + 1, 1), concat([forCls, forImage], 1), seen(n + 1, n)], 2);
  return cast(expand(unsqueeze(rows, 1), [batch, 1, ...rows.shape.slice(1)]), 'bool');
}

/** Cost of promptMaskedAttention: logits twice, values of the allowed `pairs` (default all) once. */
export function promptMaskedCost(sizes: CostSizes, options: { readonly pairs?: number } = {}): Cost {
  expectOptions('promptMaskedCost', options, { pairs: true });
  const { pairs } = options;
  const { length, keys } = fullSizes(sizes);
  return addCosts(pairsCost(sizes, pairs ?? length * keys), pairsCost({ ...sizes, dimV: 1 }, length * keys));
}
