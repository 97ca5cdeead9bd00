/**
 * Dual triangle attention: each head is cut in two halves along its dimensions. One half attends to the past and itself, the other to itself
 * and the future, so a bidirectional layer knows order without positions and without a parameter more.
 *
 * Both triangles are analytic tile ranges of the engine over views of half the width: no mask, no copy of q, k, v, and together the work of
 * one dense head of half the pairs.
 *
 * Source: Hallee and Gleghorn, "Dual Triangle Attention", 2026. The released module sends sub-heads 0..H-1 of the flat list (head 0 first
 * half, head 0 second half, head 1 first half, ...) to the past and the others to the future: 'flat'. An earlier module has one softmax over
 * all keys, whose logits come from the second half for the past and from the first for the future: 'single'.
 */
import { FoveaError } from '../errors.ts';
import { mask } from '../mask/mask.ts';
import { concat } from '../ops/concat.ts';
import { reshape, slice } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectSelfAttention, expectValid } from './checks.ts';
import { causalPairs, fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { mergeAttentions } from './merge.ts';

export interface DualTriangleOptions {
  /** 'half': as the paper; 'flat': the released module's order of sub-heads; 'single': one softmax. Default 'half'. */
  readonly routing?: 'half' | 'flat' | 'single';
  /** bool [batch, length], true for real tokens. Others are not seen, and give 0. */
  readonly valid?: Tensor;
  /** Factor of q.k; default 1 / sqrt(dim / 2). */
  readonly scale?: number;
}

const DUAL_TRIANGLE_OPTIONS: OptionNames<DualTriangleOptions> = { routing: true, valid: true, scale: true };

const future = mask(({ q, kv }) => kv > q);

/**
 * q, k, v [batch, heads, length, dim] of one shape to the same shape. With routing 'half' the first half of each head sees keys j <= i and
 * the second j >= i, both with their own softmax. f32, bf16 or f16; differentiable in q, k, v. Rotary positions are applied before.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v, valid don't fit or dim is odd; ERR_ARGUMENT for an unknown routing
 */
export function dualTriangleAttention(q: Tensor, k: Tensor, v: Tensor, options: DualTriangleOptions = {}): Tensor {
  expectOptions('dualTriangleAttention', options, DUAL_TRIANGLE_OPTIONS);
  expectSelfAttention('dualTriangleAttention', q, k, v);
  const [batch, heads, length, dim] = q.shape;
  const { routing = 'half', valid, scale = 1 / Math.sqrt(dim / 2) } = options;
  if (dim % 2 !== 0 || v.shape[3] % 2 !== 0)
    throw new FoveaError(
      'ERR_SHAPE',
      `dualTriangleAttention: q ${shapeText(q.shape)}, v ${shapeText(v.shape)}; dims must be even`,
    );
  expectValid('dualTriangleAttention', valid, batch, length);
  const keys = valid ? { mask: reshape(valid, [batch, 1, 1, length]) } : {};
  const half = (t: Tensor, second: boolean): Tensor => {
    const middle = t.shape[3] / 2;
    return second ? slice(t, 3, middle) : slice(t, 3, 0, middle);
  };
  const past = (...operands: readonly Tensor[]): Tensor =>
    attention(operands[0], operands[1], operands[2], { ...keys, scale, causal: true });
  const ahead = (...operands: readonly Tensor[]): Tensor =>
    attention(operands[0], operands[1], operands[2], { ...keys, scale, window: [0, -1] });
  let out: Tensor;
  if (routing === 'half') {
    out = concat([past(...[q, k, v].map((t) => half(t, false))), ahead(...[q, k, v].map((t) => half(t, true)))], 3);
  } else if (routing === 'flat') {
    const halves = [false, true].map((second) => {
      // Sub-head 2 h + second looks back where it is below H.
      const back = second ? Math.floor(heads / 2) : Math.ceil(heads / 2);
      const parts = [q, k, v].map((t) => half(t, second));
      const backward = back > 0 ? [past(...parts.map((t) => slice(t, 1, 0, back)))] : [];
      const forward = back < heads ? [ahead(...parts.map((t) => slice(t, 1, back)))] : [];
      return concat([...backward, ...forward], 1);
    });
    out = concat(halves, 3);
  } else if (routing === 'single') {
    const common = { scale, returnLse: true } as const;
    const back = attention(half(q, true), half(k, true), v, { ...common, ...keys, causal: true });
    const forward = attention(half(q, false), half(k, false), v, {
      ...common,
      mask: valid ? [future, keys.mask as Tensor] : future,
    });
    out = mergeAttentions([back, forward]).out;
  } else throw new FoveaError('ERR_ARGUMENT', `dualTriangleAttention: unknown routing '${String(routing)}'`);
  return valid ? where(reshape(valid, [batch, 1, length, 1]), out, 0) : out;
}

/** Cost of dualTriangleAttention. */
export function dualTriangleCost(sizes: CostSizes, options: DualTriangleOptions = {}): Cost {
  expectOptions('dualTriangleCost', options, DUAL_TRIANGLE_OPTIONS);
  const { routing = 'half' } = options;
  const { length, dim, dimV } = fullSizes(sizes);
  if (routing === 'single') return pairsCost({ ...sizes, dim: dim / 2 }, length ** 2);
  const halves = pairsCost({ ...sizes, dim: dim / 2, dimV: dimV / 2 }, causalPairs(length));
  return { flops: 2 * halves.flops, bytes: 2 * halves.bytes };
}
