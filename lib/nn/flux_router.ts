import { expectCount } from '../attention/checks.ts';
import { FoveaError } from '../errors.ts';
import { add, div, sub } from '../ops/binary.ts';
import { gt } from '../ops/compare.ts';
import { cast, copyFrom } from '../ops/copy.ts';
import { matmul } from '../ops/matmul.ts';
import { rand } from '../ops/random.ts';
import { mean } from '../ops/reduce.ts';
import { softmax } from '../ops/softmax.ts';
import { log, neg, sigmoid } from '../ops/unary.ts';
import { slice, squeeze } from '../ops/view.ts';
import { noGrad } from '../autograd/tape.ts';
import { tensor } from '../tensor/create.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { full } from '../ops/creation.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { Linear } from './linear.ts';
import { Module } from './module.ts';

export interface FluxRouterOptions {
  /** Tokens pooled at each end of the range. Default 100. */
  readonly poolSize?: number;
  /** Two classes and a softmax, or one and a sigmoid. Default true. */
  readonly useSoftmax?: boolean;
}

const ROUTER_OPTIONS: OptionNames<FluxRouterOptions> = { poolSize: true, useSoftmax: true };

/** What the router says of each batch entry. */
export interface FluxDecision {
  /** [batch, 2] or [batch, 1]. */
  readonly logits: Tensor;
  /** Of full attention, [batch, 1]; through the temperature, and in training the noise. */
  readonly probability: Tensor;
  /** probability > 0.5 as 0 or 1, with the gradient of the probability. */
  readonly z: Tensor;
}

/**
 * The layer router of Flux Attention: mean of the queries at both ends of the prompt, over heads too, to the choice of full attention.
 * Starts as full everywhere (last weight 0, bias 4.5 on that class).
 *
 * Keys: cls_feat_extractor.{0,2}, cls_router_head_agnostic.{0,2,4}, each {weight,bias}.
 *
 * Source: Qiu et al., "Flux Attention", 2026.
 */
export class FluxRouter extends Module {
  readonly poolSize: number;
  readonly useSoftmax: boolean;
  /** Linear layers at even places: the odd ones are activations, fused into the layer before. */
  cls_feat_extractor: readonly (Linear | null)[];
  cls_router_head_agnostic: readonly (Linear | null)[];

  constructor(headDim: number, options: FluxRouterOptions = {}) {
    super();
    expectOptions('FluxRouter', options, ROUTER_OPTIONS);
    const { poolSize = 100, useSoftmax = true } = options;
    expectCount('FluxRouter', 'headDim', headDim);
    expectCount('FluxRouter', 'poolSize', poolSize);
    this.poolSize = poolSize;
    this.useSoftmax = useSoftmax;
    const d = headDim;
    const last = new Linear(d, useSoftmax ? 2 : 1);
    copyFrom(last.weight, full(last.weight.shape, 0));
    copyFrom(last.bias as Tensor, useSoftmax ? tensor([0, 4.5]) : full([1], 4.5));
    const layer = (from: number, to: number): Linear => new Linear(from, to, { activation: 'silu' });
    this.cls_feat_extractor = [layer(d, 8 * d), null, new Linear(8 * d, 2 * d)];
    this.cls_router_head_agnostic = [layer(2 * d, 4 * d), null, layer(4 * d, d), null, last];
  }

  /**
   * q [batch, length, heads, headDim], before rotary positions; `ranges` the first and last token pooled for each batch entry (default all).
   * `tau` is the temperature. In training Gumbel noise is added to the logits.
   *
   * @throws FoveaError ERR_SHAPE where q or ranges don't fit, ERR_ARGUMENT for a tau that is not positive
   */
  override forward(
    q: Tensor,
    options: { readonly ranges?: readonly (readonly [number, number])[]; readonly tau?: number } = {},
  ): FluxDecision {
    expectOptions('FluxRouter.forward', options, { ranges: true, tau: true });
    const { ranges, tau = 1 } = options;
    if (!(tau > 0)) throw new FoveaError('ERR_ARGUMENT', `FluxRouter: tau is ${tau}, expected a positive number`);
    const pooled = this.#pool(q, ranges ?? Array.from({ length: q.shape[0] }, () => [0, q.shape[1] - 1] as const));
    const layers = [...this.cls_feat_extractor, ...this.cls_router_head_agnostic];
    const logits = layers.reduce((x, layer) => layer?.forward(x) ?? x, pooled);
    const noisy = this.training ? add(logits, gumbel(logits)) : logits;
    const scaled = div(noisy, tau);
    const probability = this.useSoftmax ? slice(softmax(scaled), 1, 1) : sigmoid(scaled);
    const hard = noGrad(() => cast(gt(probability, 0.5), probability.dtype));
    return { logits, probability, z: add(hard, sub(probability, probability.detach())) };
  }

  /** Mean over tokens of both ends, as one row of weights a batch entry; tokens in both count twice. */
  #pool(q: Tensor, ranges: readonly (readonly [number, number])[]): Tensor {
    if (q.rank !== 4 || ranges.length !== q.shape[0])
      throw new FoveaError(
        'ERR_SHAPE',
        `FluxRouter: q ${shapeText(q.shape)} with ${ranges.length} ranges; expected [batch, length, heads, dim] and a range each`,
      );
    const [batch, length] = q.shape;
    const weights = new Float32Array(batch * length);
    ranges.forEach(([start, end], b) => {
      if (end < start) return;
      const chosen: number[] = [];
      for (let i = Math.max(0, start); i < Math.min(length, start + this.poolSize); i++) chosen.push(i);
      for (let i = Math.max(0, end - this.poolSize + 1); i <= Math.min(length - 1, end); i++) chosen.push(i);
      for (const i of chosen) weights[b * length + i] += 1 / chosen.length;
    });
    return squeeze(matmul(cast(tensor(weights, [batch, 1, length], { device: q.device }), q.dtype), mean(q, 2)), 1);
  }
}

function gumbel({ shape, device }: Tensor): Tensor {
  return neg(log(neg(log(rand(shape, { low: 1e-7, high: 1, device })))));
}
