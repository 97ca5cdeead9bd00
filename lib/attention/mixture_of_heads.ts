/**
 * Mixture of heads (Jin et al., arXiv 2410.11842, ICML 2025): a router gives every token weights for the heads; shared heads always take
 * part, of the routed ones only the `active` best.
 *
 * A head that a token did not choose is not computed for it: each head attends with the list of its own tokens (`qRows`), and queries that
 * no list names cost nothing. (The published code computes all heads and multiplies by zero.)
 */
import { noGrad } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { add, div, maximum, mul } from '../ops/binary.ts';
import { ne } from '../ops/compare.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { ones, zeros } from '../ops/creation.ts';
import { gather, scatter } from '../ops/gather.ts';
import { linear } from '../ops/linear.ts';
import { mean, norm, std, sum } from '../ops/reduce.ts';
import { softmax } from '../ops/softmax.ts';
import { selectTop } from '../ops/sort.ts';
import { expand, permute, reshape, slice, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { expectCount, expectRank } from './checks.ts';
import { addCosts, COST_SIZES, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { planAttention } from './plan.ts';

export interface HeadRouterWeights {
  /** W_g [routed heads, channels]: which of the routed heads a token takes. Absent with no routed heads in use. */
  readonly routed?: Tensor;
  /** W_1 [shared heads, channels]: weights of the shared heads; needed with more than one. */
  readonly shared?: Tensor;
  /** W_0 [2, channels]: the shared heads against the routed; needed where there are both. */
  readonly balance?: Tensor;
}

export interface HeadRouterOptions {
  readonly heads: number;
  /** The first `shared` heads take part for every token. */
  readonly shared: number;
  /** Routed heads a token takes. */
  readonly active: number;
}

const HEAD_ROUTER_OPTIONS: OptionNames<HeadRouterOptions> = { heads: true, shared: true, active: true };

export interface HeadGates {
  /** Weight of each head for each token [batch, tokens, heads]; 0 where the head does not take part. */
  readonly gates: Tensor;
  /** Routed heads taken, rising, 0 = the first after the shared ones: i32 [batch, tokens, active]. */
  readonly indices: Tensor;
  /** E^2 mean_e(mean probability x mean choice) over the E routed heads: `active` when they are used evenly. */
  readonly balanceLoss: Tensor;
}

export interface MixtureOptions {
  /** Keys at the query's position and before it. */
  readonly causal?: boolean;
  /** Added to the logits; broadcasts to [batch, heads, tokens, keys]. Differentiable. */
  readonly bias?: Tensor;
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
  /** bool [batch, tokens, heads]: which heads take part; default: those whose gate is not 0. */
  readonly active?: Tensor;
  /** As in attention(). */
  readonly signal?: AbortSignal;
}

const MIXTURE_OPTIONS: OptionNames<MixtureOptions> = {
  causal: true,
  bias: true,
  scale: true,
  active: true,
  signal: true,
};

const OP = 'mixtureOfHeads';
const EPSILON = 2 ** -23;

/**
 * Attention of q [batch, heads, tokens, dim] over k, v [batch, kv heads, keys, dim], each result times its gate [batch, tokens, heads];
 * heads with gate 0 are skipped and give 0. f32, bf16 or f16. Differentiable in q, k, v, bias and gates.
 *
 * @returns [batch, heads, tokens, dim of v], to be joined and projected
 * @throws FoveaError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function mixtureOfHeads(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, options: MixtureOptions = {}): Tensor {
  expectOptions(OP, options, MIXTURE_OPTIONS);
  expectRank(OP, '[batch, heads, length, dim]', 4, { q, k, v });
  expectTensors(OP, { gates });
  const [batch, heads, tokens] = q.shape;
  const expected = [batch, tokens, heads];
  const { active = noGrad(() => ne(gates.detach(), 0)), causal, bias, scale, signal } = options;
  for (const [name, t] of Object.entries({ gates, active }))
    if (String(t.shape) !== String(expected))
      throw new FoveaError(
        'ERR_SHAPE',
        `${OP}: ${name} has shape ${shapeText(t.shape)}, expected ${shapeText(expected)}`,
      );
  const qRows = noGrad(() => tokensOf(active));
  const plan = causal ? { qRows, keyRanges: noGrad(() => prefixes(qRows)) } : { qRows };
  const moved = bias ? rowsOfBias(bias, qRows, k.shape[2]) : undefined;
  const { out } = planAttention(q, k, v, plan, { scale, bias: moved, signal });
  return mul(out, cast(unsqueeze(permute(gates, [0, 2, 1]), 3), out.dtype));
}

/** What a forward call costs when a token takes `active` of `heads` heads. */
export function mixtureCost(sizes: CostSizes & { readonly heads: number; readonly active: number }): Cost {
  expectOptions('mixtureCost', sizes, { ...COST_SIZES, active: true });
  const { batch = 1, heads, active, length, keys = length, dim, dimV = dim, elementBytes = 4 } = sizes;
  const idle = { flops: 0, bytes: batch * (heads - active) * (keys * (dim + dimV) + length * dimV) * elementBytes };
  const computed = { batch, heads: active, length, keys, dim, dimV, elementBytes };
  return addCosts(pairsCost(computed, length * keys), idle);
}

/** The tokens of each head in rising order, then -1: i32 [batch, heads, tokens]. */
const tokensOf = (active: Tensor): Tensor => new Tensor(native().headRows(active.handle));

/** Keys up to the position of each listed token: i32 [batch, heads, tokens, 2]. */
function prefixes(rows: Tensor): Tensor {
  const end = unsqueeze(add(rows, 1), 3);
  return concat([mul(end, 0), end], 3);
}

/** A bias in the order of the lists. */
function rowsOfBias(bias: Tensor, rows: Tensor, keys: number): Tensor {
  const [batch, heads, tokens] = rows.shape;
  const wide = expand(bias, [batch, heads, tokens, keys]);
  return gather(wide, 2, unsqueeze(maximum(rows, 0), 3));
}

/**
 * The published router of tokens x [batch, tokens, channels]: routed heads by softmax of W_g x, the best `active` kept and scaled to a mean
 * of 1; shared heads by softmax of W_1 x, scaled likewise; both halves balanced by 2 softmax(W_0 x). Differentiable in x and the weights;
 * the choice itself has no gradient.
 *
 * @throws FoveaError ERR_ARGUMENT where numbers of heads do not fit or a weight is missing, ERR_SHAPE
 */
export function headGates(x: Tensor, weights: HeadRouterWeights, options: HeadRouterOptions): HeadGates {
  expectOptions('headGates', options, HEAD_ROUTER_OPTIONS);
  expectRank('headGates', '[batch, tokens, channels]', 3, { x });
  const { heads, shared, active } = options;
  checkHeads(heads, shared, active);
  const [batch, tokens] = x.shape;
  const need = (name: keyof HeadRouterWeights, rows: number): Tensor => {
    const weight = weights[name];
    if (!weight)
      throw new FoveaError(
        'ERR_ARGUMENT',
        `headGates: ${shared} shared and ${active} routed heads need the weight '${name}'`,
      );
    if (weight.rank !== 2 || weight.shape[0] !== rows)
      throw new FoveaError(
        'ERR_SHAPE',
        `headGates: weight '${name}' has shape ${shapeText(weight.shape)}, expected [${rows}, channels]`,
      );
    return softmax(linear(x, weight), -1);
  };
  const sharedGates = (): Tensor =>
    shared === 1 ? ones([batch, tokens, 1], { dtype: x.dtype, device: x.device }) : mul(need('shared', shared), shared);
  if (active === 0) {
    const indices = zeros([batch, tokens, 0], { dtype: 'i32', device: x.device });
    return { gates: sharedGates(), indices, balanceLoss: zeros([], { device: x.device }) };
  }
  const routedHeads = heads - shared;
  const p = need('routed', routedHeads);
  const { indices, mask } = choose(p, active);
  const kept = mul(p, mask);
  const routed = mul(div(kept, maximum(sum(kept, -1, true), EPSILON)), active);
  const used = mul(mean(p, [0, 1]), mean(mask, [0, 1]));
  const balanceLoss = mul(mean(used), routedHeads * routedHeads);
  if (shared === 0) return { gates: routed, indices, balanceLoss };
  const halves = mul(need('balance', 2), 2);
  const gates = concat([mul(slice(halves, 2, 0, 1), sharedGates()), mul(slice(halves, 2, 1, 2), routed)], 2);
  return { gates, indices, balanceLoss };
}

/**
 * The router without parameters (MoH-LLaMA3): of the heads behind the first `shared`, a token takes those whose query, before rotary
 * positions, is longest, measured in the standard deviations of that token. Gates are 1 and 0, without gradient; no balance loss.
 * q [batch, heads, tokens, dim].
 */
export function headGatesByNorm(q: Tensor, options: Omit<HeadRouterOptions, 'heads'>): Omit<HeadGates, 'balanceLoss'> {
  expectOptions('headGatesByNorm', options, { shared: true, active: true });
  const { shared, active } = options;
  expectRank('headGatesByNorm', '[batch, heads, length, dim]', 4, { q });
  const [batch, heads, tokens] = q.shape;
  checkHeads(heads, shared, active);
  return noGrad(() => {
    const lengths = permute(norm(slice(q.detach(), 1, shared), -1), [0, 2, 1]);
    const spread = heads - shared > 1 ? div(lengths, std(lengths, -1, true)) : lengths;
    const { indices, mask } = choose(spread, active);
    return { gates: concat([ones([batch, tokens, shared], { dtype: q.dtype, device: q.device }), mask], 2), indices };
  });
}

function checkHeads(heads: number, shared: number, active: number): void {
  for (const [name, value] of Object.entries({ heads, shared, active })) expectCount('headGates', name, value, 0);
  if (shared + active < 1 || shared + active > heads || (active === 0 && shared !== heads))
    throw new FoveaError(
      'ERR_ARGUMENT',
      `headGates: ${shared} shared and ${active} active of ${heads} heads; without routed heads all are shared`,
    );
}

/** The best `count` along the last axis: their places, rising, and 1 there, 0 elsewhere. */
function choose(p: Tensor, count: number): { indices: Tensor; mask: Tensor } {
  return noGrad(() => {
    const indices = selectTop(p, count);
    const one = ones(p.shape.map(() => 1), { dtype: p.dtype, device: p.device }); // prettier-ignore
    const mask = scatter(zeros(p.shape, { dtype: p.dtype, device: p.device }), -1, indices, one);
    return { indices, mask: reshape(mask, p.shape) };
  });
}
