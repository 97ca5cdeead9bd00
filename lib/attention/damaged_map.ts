/**
 * The damaged attention maps P of perturbation guidance, applied to values: P v, without ever making P.
 *
 * The identity gives the value itself, the uniform map a mean, the mean query one row of attention for all, the largest weight a gathered value,
 * another temperature and hidden logits a call of the engine. Weights zeroed after the softmax are such a call times the share of the
 * denominator that was kept. A map blurred as an image, G A G^T, is G (A (G^T v)): a few shifted sums of rows on both sides of attention.
 *
 * Source: Ahn et al., "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", ECCV 2024 (identity, and the ablations drop, hide,
 * blur and noise of the released code); the rest as in "Fine-Grained Perturbation Guidance via Attention Head Selection", 2025.
 */
import { noGrad } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { mask, type Mask } from '../mask/mask.ts';
import { add, maximum, mul, sub } from '../ops/binary.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { eye, zeros } from '../ops/creation.ts';
import { gather, scatterAdd } from '../ops/gather.ts';
import { matmul } from '../ops/matmul.ts';
import { logicalOr } from '../ops/compare.ts';
import { indexSelect } from '../ops/embedding.ts';
import { pad } from '../ops/pad.ts';
import { bernoulli, randn, withRandomState } from '../ops/random.ts';
import { argMax, mean } from '../ops/reduce.ts';
import { exp } from '../ops/unary.ts';
import { expand, reshape, slice, transpose, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { tensor } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { AttentionMask } from './arguments.ts';
import { attention } from './attention.ts';

export const PAG_TARGETS = [
  'identity',
  'maskedIdentity',
  'uniform',
  'meanQuery',
  'max',
  'temperature',
  'drop',
  'hide',
  'blur',
  'noise',
] as const;

/**
 * identity: every token takes its own value (PAG). maskedIdentity: image tokens see themselves and the text, text everything. uniform: the mean
 * of the values. meanQuery: what the mean query takes (SEG). max: the value with the largest weight. temperature: logits divided by it. drop:
 * random weights become 0 after the softmax; hide: random logits leave it before (attention_drop and attention_mask of the released code). blur:
 * the map smoothed as an image, not normalised again. noise: Gaussian noise added to the map.
 */
export type PagTarget = (typeof PAG_TARGETS)[number];

export interface DamageOptions {
  /** The map that heads move to. Default 'identity'. */
  readonly target?: PagTarget;
  /** Where the image tokens are, for 'maskedIdentity': first in SD3, last in FLUX. Default all. */
  readonly imageTokens?: { readonly start: number; readonly count: number };
  /** tau of 'temperature': logits become logits / tau. Default 1. */
  readonly temperature?: number;
  /** Probability of 'drop' and 'hide', from 0 to 1, drawn for every query, key and head. Default 0.5. */
  readonly rate?: number;
  /** 'hide' leaves each token its own key. Default true. */
  readonly keepSelf?: boolean;
  /** Of 'blur', in tokens: a Gaussian of five by five weights, the map reflected at its borders. Default: the mean of three by three, zeros outside. */
  readonly sigma?: number;
  /** Standard deviation of 'noise'. Default 0.1. */
  readonly noise?: number;
  /** Makes 'drop', 'hide' and 'noise' reproducible on their own. Default: the thread's random stream. */
  readonly seed?: number;
  /** What each query sees, undamaged and damaged; every token must see itself. Not with 'max', 'blur' and 'noise'. */
  readonly mask?: AttentionMask | readonly AttentionMask[];
}

export const DAMAGE_OPTIONS: OptionNames<DamageOptions> = {
  target: true,
  imageTokens: true,
  temperature: true,
  rate: true,
  keepSelf: true,
  sigma: true,
  noise: true,
  seed: true,
  mask: true,
};

const bad = (what: string): FoveaError => new FoveaError('ERR_ARGUMENT', `softPag: ${what}`);

/** P v, for q, k [batch, heads, length, dim] and v [batch, heads, length, dimV]. Throws ERR_ARGUMENT for options, ERR_UNSUPPORTED for masks. */
export function damaged(q: Tensor, k: Tensor, v: Tensor, scale: number, options: DamageOptions): Tensor {
  const { target = 'identity', temperature = 1, imageTokens, seed } = options;
  if (imageTokens) expectOptions('softPag: imageTokens', imageTokens, { start: true, count: true });
  if (!PAG_TARGETS.includes(target))
    throw bad(`unknown target '${String(target)}', expected one of ${PAG_TARGETS.join(', ')}`);
  const masks = options.mask === undefined ? [] : ([options.mask].flat() as readonly AttentionMask[]);
  if (masks.length > 0 && ['max', 'blur', 'noise'].includes(target))
    throw new FoveaError('ERR_UNSUPPORTED', `softPag: target '${target}' takes no mask`);
  const seen = { scale, ...(masks.length > 0 && { mask: masks }) };
  switch (target) {
    case 'identity':
      return mul(v, 1);
    case 'maskedIdentity':
      return attention(q, k, v, { scale, mask: [identityOf(q.shape[2], imageTokens), ...masks] });
    case 'uniform':
      return masks.length > 0 ? attention(q, k, v, { ...seen, scale: 0 }) : expand(mean(v, 2, true), v.shape);
    case 'meanQuery': {
      const center = mean(q, 2, true);
      if (masks.length > 0) return attention(expand(center, q.shape), k, v, seen);
      return expand(attention(center, k, v, seen), v.shape);
    }
    case 'max':
      return gather(v, 2, strongest(q, k, scale));
    case 'temperature':
      if (!(temperature > 0)) throw bad(`temperature is ${temperature}, expected a positive number`);
      return attention(q, k, v, { ...seen, scale: scale / temperature });
    case 'drop': {
      const part = attention(q, k, v, { ...seen, mask: [kept(q, options), ...masks], returnLse: true });
      const { lse } = attention(q, k, v, { ...seen, returnLse: true });
      // A query that keeps nothing has lse -Infinity and out 0.
      const share = exp(sub(maximum(part.lse, LOWEST), maximum(lse, LOWEST)));
      return cast(mul(part.out, unsqueeze(share, 3)), v.dtype);
    }
    case 'hide': {
      const { keepSelf = true } = options;
      const random = kept(q, options);
      const self = (): Tensor => eye(q.shape[2], q.shape[2], { dtype: 'bool', device: q.device });
      return attention(q, k, v, { ...seen, mask: [keepSelf ? logicalOr(random, self()) : random, ...masks] });
    }
    case 'blur': {
      const { sigma } = options;
      if (sigma !== undefined && !(sigma > 0 && sigma < Infinity))
        throw bad(`sigma is ${sigma}, expected a positive number`);
      if (sigma !== undefined && q.shape[2] < 3)
        throw bad(`a Gaussian blur reflects two tokens, got a length of ${q.shape[2]}`);
      const taps = sigma === undefined ? [1 / 3, 1 / 3, 1 / 3] : gaussian(sigma);
      const smooth = sigma === undefined ? shiftedSum : reflectedSum;
      const blurred = attention(q, k, cast(smooth(v, taps, true), v.dtype), { scale });
      return cast(smooth(blurred, taps, false), v.dtype);
    }
    case 'noise': {
      const { noise = 0.1 } = options;
      if (!(noise >= 0 && noise < Infinity)) throw bad(`noise is ${noise}, expected a number of at least 0`);
      return cast(add(attention(q, k, v, { scale }), noiseTimes(v, noise, seed)), v.dtype);
    }
  }
}

const LOWEST = -1e30;

/** Image queries see themselves and the text, text queries everything. */
function identityOf(length: number, { start, count } = { start: 0, count: length }): Mask {
  const whole = Number.isInteger(start) && Number.isInteger(count);
  if (!(whole && start >= 0 && count >= 0 && start + count <= length))
    throw bad(`image tokens ${start} to ${start + count} are not within length ${length}`);
  return maskedIdentity(start, start + count);
}

const identityMasks = new Map<string, Mask>();

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

/** true for the pairs that stay, bool [batch, heads, length, length]: one byte a pair. */
function kept(q: Tensor, { rate = 0.5, seed }: DamageOptions): Tensor {
  if (!(rate >= 0 && rate <= 1)) throw bad(`rate is ${rate}, expected a number from 0 to 1`);
  const [batch, heads, length] = q.shape;
  return bernoulli(1 - rate, [batch, heads, length, length], { device: q.device, ...(seed !== undefined && { seed }) });
}

const ROWS = 128;

/** `band(from, to)` of all queries, some at a time, one under the other. */
function byRows(v: Tensor, band: (from: number, to: number) => Tensor, none: () => Tensor): Tensor {
  const bands: Tensor[] = [];
  for (let from = 0; from < v.shape[2]; from += ROWS) bands.push(band(from, Math.min(from + ROWS, v.shape[2])));
  return bands.length > 0 ? concat(bands, 2) : none();
}

/** The key with the largest logit of each query, [batch, heads, length, 1]. */
function strongest(q: Tensor, k: Tensor, scale: number): Tensor {
  return noGrad(() => {
    const keys = transpose(scale < 0 ? mul(k, -1) : k);
    return byRows(
      q,
      (from, to) => argMax(matmul(slice(q, 2, from, to), keys, { dtype: 'f32' }), -1, true),
      () => zeros([...q.shape.slice(0, 3), 1], { dtype: 'i32', device: q.device }),
    );
  });
}

/** N v, N of independent normal numbers. */
function noiseTimes(v: Tensor, std: number, seed?: number): Tensor {
  const [batch, heads, length] = v.shape;
  const options = { std, dtype: v.dtype, device: v.device };
  const bands = (): Tensor =>
    byRows(
      v,
      (from, to) => matmul(randn([batch, heads, to - from, length], options), v, { dtype: 'f32' }),
      () => v,
    );
  return seed === undefined ? bands() : withRandomState({ seed, offset: 0 }, bands);
}

function gaussian(sigma: number): number[] {
  const weights = [-2, -1, 0, 1, 2].map((x) => Math.exp(-0.5 * (x / sigma) ** 2));
  const total = weights.reduce((a, b) => a + b);
  return weights.map((w) => w / total);
}

/** sum_b taps[b] t[i + b - middle] over the tokens, zeros outside; its own transpose. f32. */
function shiftedSum(t: Tensor, taps: readonly number[]): Tensor {
  const by = (taps.length - 1) / 2;
  const wide = pad(cast(t, 'f32'), [[0, 0], [0, 0], [by, by], [0, 0]]); // prettier-ignore
  return taps.map((tap, b) => mul(slice(wide, 2, b, b + t.shape[2]), tap)).reduce((x, y) => add(x, y));
}

/** The same with tokens outside reflected at the borders, or its transpose. f32. */
function reflectedSum(t: Tensor, taps: readonly number[], transposed: boolean): Tensor {
  const by = (taps.length - 1) / 2;
  const length = t.shape[2];
  const wide = cast(t, 'f32');
  const places = (b: number): Tensor => {
    const at = Int32Array.from({ length }, (_, i) => {
      const inside = Math.abs(i + b - by);
      return inside < length ? inside : 2 * (length - 1) - inside;
    });
    return tensor(at, [length], { device: t.device });
  };
  if (!transposed) return taps.map((tap, b) => mul(indexSelect(wide, 2, places(b)), tap)).reduce((x, y) => add(x, y));
  const nothing = zeros(t.shape, { device: t.device });
  return taps.reduce(
    (sum, tap, b) => scatterAdd(sum, 2, reshape(places(b), [1, 1, length, 1]), mul(wide, tap)),
    nothing,
  );
}
