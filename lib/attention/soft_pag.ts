/**
 * SoftPAG and its family: attention damaged in chosen heads by a chosen strength, for guidance of diffusion models.
 *
 *     out_h = (1 - u_h) A_h v_h + u_h P_h v_h
 *
 * damaged_map.ts has the maps P; the mix is in f32.
 *
 * Source: Ahn et al., "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", ECCV 2024; "Fine-Grained Perturbation Guidance
 * via Attention Head Selection", 2025 (HeadHunter and SoftPAG; no code published, joint attention as the public PAG implementation).
 */
import { FoveaError } from '../errors.ts';
import { add, mul, sub } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { tensor } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectSelfAttention } from './checks.ts';
import { addCosts, denseCost, fullSizes, type Cost, type CostSizes } from './cost.ts';
import { DAMAGE_OPTIONS, damaged, type DamageOptions, type PagTarget } from './damaged_map.ts';

export interface SoftPagOptions extends DamageOptions {
  /** u: one for all heads or one for each, from 0 (plain attention) to 1. Default 1. */
  readonly strength?: number | readonly number[] | Float32Array;
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const SOFT_PAG_OPTIONS: OptionNames<SoftPagOptions> = { ...DAMAGE_OPTIONS, strength: true, scale: true };

/**
 * q, k [batch, heads, length, dim], v [batch, heads, length, dimV] to v's shape: before the output projection. f32, bf16 or f16;
 * differentiable in q, k, v (not through the choice of 'max', nor the random numbers). Strength 0 everywhere is plain attention bit for bit.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v don't fit together; ERR_ARGUMENT for a strength outside 0..1 or not one for each head, an unknown
 * target, numbers out of range; ERR_UNSUPPORTED for a mask with a target that takes none
 */
export function softPag(q: Tensor, k: Tensor, v: Tensor, options: SoftPagOptions = {}): Tensor {
  expectOptions('softPag', options, SOFT_PAG_OPTIONS);
  expectSelfAttention('softPag', q, k, v);
  const { scale = 1 / Math.sqrt(q.shape[3]), mask } = options;
  const seen = { scale, ...(mask !== undefined && { mask }) };
  const strengths = strengthsOf(options.strength ?? 1, q.shape[1]);
  if (strengths.every((u) => u === 0)) return attention(q, k, v, seen);
  const target = damaged(q, k, v, scale, options);
  if (strengths.every((u) => u === 1)) return target;
  const base = attention(q, k, v, seen);
  const u = tensor(strengths, [1, strengths.length, 1, 1], { device: q.device });
  return cast(add(mul(base, sub(1, u)), mul(target, u)), v.dtype);
}

function strengthsOf(strength: NonNullable<SoftPagOptions['strength']>, heads: number): Float32Array {
  const list = typeof strength === 'number' ? new Array<number>(heads).fill(strength) : Array.from(strength);
  if (list.length !== heads) throw bad(`${list.length} strengths for ${heads} heads`);
  if (!list.every((u) => typeof u === 'number' && u >= 0 && u <= 1))
    throw bad(`strength ${list.map(String).join()} must be numbers from 0 to 1`);
  return Float32Array.from(list);
}

const bad = (what: string): FoveaError => new FoveaError('ERR_ARGUMENT', `softPag: ${what}`);

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

const GUIDANCE: OptionNames<Guidance> = { cond: true, perturbed: true, uncond: true, w: true, cfg: true };

/** cond + w (cond - perturbed), with classifier-free guidance uncond + cfg (cond - uncond) + w (cond - perturbed). Throws ERR_ARGUMENT. */
export function combineGuidance(guidance: Guidance): Tensor {
  expectOptions('combineGuidance', guidance, GUIDANCE);
  const { cond, perturbed, uncond, w, cfg = 1 } = guidance;
  if (cfg !== 1 && !uncond) throw new FoveaError('ERR_ARGUMENT', `combineGuidance: cfg ${cfg} needs uncond`);
  const base = uncond && cfg !== 1 ? add(uncond, mul(sub(cond, uncond), cfg)) : cond;
  return add(base, mul(sub(cond, perturbed), w));
}

export interface GuidanceRange {
  /** Strength where guidance is on. */
  readonly w: number;
  /** Timesteps with guidance, start >= t >= end. Default all. */
  readonly start?: number;
  readonly end?: number;
  /** What a step below `steps` takes off: max(0, w - fall (steps - t)). Default 0. */
  readonly fall?: number;
  /** Timesteps in all. Default 1000. */
  readonly steps?: number;
}

const GUIDANCE_RANGE: OptionNames<GuidanceRange> = { w: true, start: true, end: true, fall: true, steps: true };

/**
 * w for combineGuidance at timestep t, which counts down from `steps`. (The released code writes 1 + w where this has w.) Throws
 * ERR_ARGUMENT for what is no number.
 */
export function guidanceAt(t: number, range: GuidanceRange): number {
  expectOptions('guidanceAt', range, GUIDANCE_RANGE);
  const { w, start = Infinity, end = 0, fall = 0, steps = 1000 } = range;
  for (const [name, value] of Object.entries({ t, w, start, end, fall, steps }))
    if (typeof value !== 'number' || Number.isNaN(value))
      throw new FoveaError('ERR_ARGUMENT', `guidanceAt: ${name} is ${String(value)}, expected a number`);
  return t > start || t < end ? 0 : Math.max(0, w - fall * (steps - t));
}

/** Targets that need a call of the engine beside the undamaged one. */
const CALLS: readonly PagTarget[] = ['maskedIdentity', 'temperature', 'max', 'drop', 'hide', 'blur', 'noise'];

/** Cost of softPag with some heads between 0 and 1: the attention, and the damaged one where it needs the engine. */
export function softPagCost(sizes: CostSizes, options: SoftPagOptions = {}): Cost {
  expectOptions('softPagCost', options, SOFT_PAG_OPTIONS);
  const { target = 'identity' } = options;
  const { batch, heads, length, dimV, elementBytes } = fullSizes(sizes);
  const values = batch * heads * length * dimV;
  const lerp = { flops: 3 * values, bytes: 3 * values * elementBytes };
  const pairs = batch * heads * length ** 2;
  const parts = [denseCost(sizes), lerp, ...(CALLS.includes(target) ? [denseCost(sizes)] : [])];
  if (target === 'drop') parts.push(denseCost(sizes));
  if (target === 'drop' || target === 'hide') parts.push({ flops: 0, bytes: pairs });
  if (target === 'noise') parts.push({ flops: 2 * pairs * dimV, bytes: 2 * pairs * elementBytes });
  return addCosts(...parts);
}
