/**
 * SoftPAG and its family: attention damaged in chosen heads by a chosen strength, for guidance of diffusion models.
 *
 *     out_h = (1 - u_h) A_h v_h + u_h P_h v_h
 *
 * P is the identity (PAG), the identity among image tokens with the text left visible (joint attention), the uniform map, the map of the mean
 * query, the one-hot map of the largest weight, or a map of another temperature. None of the maps is ever made: P v is the value itself, a
 * mean, a row of attention, a gathered value, or a masked call of the engine. The mix is in f32.
 *
 * Source: Ahn et al., "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", ECCV 2024; "Fine-Grained Perturbation Guidance
 * via Attention Head Selection", 2025 (HeadHunter and SoftPAG; no code published, joint attention as the public PAG implementation).
 */
import { FoveaError } from '../errors.ts';
import { mask, type Mask } from '../mask/mask.ts';
import { noGrad } from '../autograd/tape.ts';
import { add, mul, sub } from '../ops/binary.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { zeros } from '../ops/creation.ts';
import { gather } from '../ops/gather.ts';
import { matmul } from '../ops/matmul.ts';
import { argMax, mean } from '../ops/reduce.ts';
import { expand, slice, transpose } from '../ops/view.ts';
import { tensor } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectSelfAttention } from './checks.ts';
import { addCosts, denseCost, fullSizes, type Cost, type CostSizes } from './cost.ts';

export type PagTarget = 'identity' | 'maskedIdentity' | 'uniform' | 'meanQuery' | 'max' | 'temperature';

export interface SoftPagOptions {
  /** u: one for all heads or one for each, from 0 (plain attention) to 1. Default 1. */
  readonly strength?: number | readonly number[] | Float32Array;
  /** The map that heads move to. Default 'identity'. */
  readonly target?: PagTarget;
  /** Where the image tokens are, for 'maskedIdentity': first in SD3, last in FLUX. Default all. */
  readonly imageTokens?: { readonly start: number; readonly count: number };
  /** tau of 'temperature': logits become logits / tau. Default 1. */
  readonly temperature?: number;
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

/**
 * q, k [batch, heads, length, dim], v [batch, heads, length, dimV] to v's shape: before the output projection. f32, bf16 or f16;
 * differentiable in q, k, v (not through the choice of 'max'). Strength 0 everywhere is plain attention bit for bit.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v don't fit together; ERR_ARGUMENT for a strength outside 0..1 or not one for each head, an unknown
 * target, or image tokens out of range
 */
export function softPag(q: Tensor, k: Tensor, v: Tensor, options: SoftPagOptions = {}): Tensor {
  expectSelfAttention('softPag', q, k, v);
  const { scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const strengths = strengthsOf(options.strength ?? 1, q.shape[1]);
  if (strengths.every((u) => u === 0)) return attention(q, k, v, { scale });
  const target = perturbed(q, k, v, scale, options);
  if (strengths.every((u) => u === 1)) return target;
  const base = attention(q, k, v, { scale });
  const u = tensor(strengths, [1, strengths.length, 1, 1], { device: q.device });
  return cast(add(mul(base, sub(1, u)), mul(target, u)), v.dtype);
}

const bad = (what: string): FoveaError => new FoveaError('ERR_ARGUMENT', `softPag: ${what}`);

function strengthsOf(strength: NonNullable<SoftPagOptions['strength']>, heads: number): Float32Array {
  const list = typeof strength === 'number' ? new Float32Array(heads).fill(strength) : Float32Array.from(strength);
  if (list.length !== heads) throw bad(`${list.length} strengths for ${heads} heads`);
  if (!list.every((u) => u >= 0 && u <= 1)) throw bad(`strength ${String([...list])} must be from 0 to 1`);
  return list;
}

/** P v. */
function perturbed(q: Tensor, k: Tensor, v: Tensor, scale: number, options: SoftPagOptions): Tensor {
  const { target = 'identity', temperature = 1 } = options;
  switch (target) {
    case 'identity':
      return mul(v, 1);
    case 'maskedIdentity': {
      const { start, count } = options.imageTokens ?? { start: 0, count: q.shape[2] };
      if (!(
        Number.isInteger(start) &&
        Number.isInteger(count) &&
        start >= 0 &&
        count >= 0 &&
        start + count <= q.shape[2]
      ))
        throw bad(`image tokens ${start} to ${start + count} are not within length ${q.shape[2]}`);
      return attention(q, k, v, { scale, mask: maskedIdentity(start, start + count) });
    }
    case 'uniform':
      return expand(mean(v, 2, true), v.shape);
    case 'meanQuery':
      return expand(attention(mean(q, 2, true), k, v, { scale }), v.shape);
    case 'max':
      return gather(v, 2, strongest(q, k, scale));
    case 'temperature':
      if (!(temperature > 0)) throw bad(`temperature is ${temperature}, expected a positive number`);
      return attention(q, k, v, { scale: scale / temperature });
    default:
      throw bad(`unknown target '${String(target)}'`);
  }
}

const identityMasks = new Map<string, Mask>();

/** Image queries see themselves and the text, text queries everything. */
function maskedIdentity(start: number, end: number): Mask {
  const key = `${start},${end}`;
  let made = identityMasks.get(key);
  if (!made) {
    made = mask(({ q, kv }, { start, end }) => q === kv || q < start || q >= end || kv < start || kv >= end, { start, end }); // prettier-ignore
    if (identityMasks.size >= 32) identityMasks.clear();
    identityMasks.set(key, made);
  }
  return made;
}

const ROWS = 128;

/** The key with the largest logit of each query, [batch, heads, length, 1], a band of queries at a time. */
function strongest(q: Tensor, k: Tensor, scale: number): Tensor {
  return noGrad(() => {
    const keys = transpose(scale < 0 ? mul(k, -1) : k);
    const bands: Tensor[] = [];
    for (let from = 0; from < q.shape[2]; from += ROWS)
      bands.push(argMax(matmul(slice(q, 2, from, from + ROWS), keys, { dtype: 'f32' }), -1, true));
    return bands.length > 0 ? concat(bands, 2) : zeros([...q.shape.slice(0, 3), 1], { dtype: 'i32', device: q.device });
  });
}

export interface Guidance {
  /** Predictions of the model: with the prompt, with the prompt and damaged attention, without the prompt; one shape. */
  readonly cond: Tensor;
  readonly perturbed: Tensor;
  readonly uncond?: Tensor;
  /** Strength of the push away from the damaged prediction; 0 = none. */
  readonly w: number;
  /** Classifier-free guidance: 1 = none. Needs `uncond` when it is not 1. Default 1. */
  readonly cfg?: number;
}

/** cond + w (cond - perturbed), with classifier-free guidance uncond + cfg (cond - uncond) + w (cond - perturbed). Throws ERR_ARGUMENT. */
export function combineGuidance({ cond, perturbed, uncond, w, cfg = 1 }: Guidance): Tensor {
  if (cfg !== 1 && !uncond) throw new FoveaError('ERR_ARGUMENT', `combineGuidance: cfg ${cfg} needs uncond`);
  const base = uncond && cfg !== 1 ? add(uncond, mul(sub(cond, uncond), cfg)) : cond;
  return add(base, mul(sub(cond, perturbed), w));
}

/** Cost of softPag with some heads between 0 and 1: the attention, and the damaged one where it needs the engine. */
export function softPagCost(sizes: CostSizes, { target = 'identity' }: SoftPagOptions = {}): Cost {
  const { batch, heads, length, dimV, elementBytes } = fullSizes(sizes);
  const values = batch * heads * length * dimV;
  const lerp = { flops: 3 * values, bytes: 3 * values * elementBytes };
  const twice = target === 'maskedIdentity' || target === 'temperature' || target === 'max';
  return addCosts(denseCost(sizes), lerp, ...(twice ? [denseCost(sizes)] : []));
}
