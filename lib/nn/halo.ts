import { expectCount } from '../attention/checks.ts';
import { haloAttention } from '../attention/halo.ts';
import { FoveaError } from '../errors.ts';
import { avgPool2d } from '../ops/pool2d.ts';
import { randn } from '../ops/random.ts';
import { reshape, slice } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Conv2d } from './conv.ts';
import { Module, parameter } from './module.ts';

export interface HaloLayerOptions {
  /** Rows and columns of a block; must divide the image. Default 8. */
  readonly blockSize?: number;
  /** Pixels around a block that its queries see. Default 3. */
  readonly haloSize?: number;
  /** Default 8. */
  readonly heads?: number;
  /** Width out, a multiple of `heads`. Default the width in. */
  readonly outDim?: number;
  /** Dimensions of a head's queries and keys. Default `qkRatio` times the width out, to a multiple of 8, over `heads`. */
  readonly headDim?: number;
  /** Default 1. */
  readonly qkRatio?: number;
  /** Default false. */
  readonly qkvBias?: boolean;
  /** 2 halves the image. Default 1. */
  readonly stride?: number;
  /** Whether a stride is a mean of the result and not of fewer queries. Blocks of an odd size always use the mean. Default false. */
  readonly averageDown?: boolean;
  /** Whether the relative logits are scaled too. Default false. */
  readonly scaleRelative?: boolean;
}

export const HALO_LAYER_OPTIONS: OptionNames<HaloLayerOptions> = {
  blockSize: true,
  haloSize: true,
  heads: true,
  outDim: true,
  headDim: true,
  qkRatio: true,
  qkvBias: true,
  stride: true,
  averageDown: true,
  scaleRelative: true,
};

/** The nearest multiple of 8, at least 8, and not below 0.9 of `width`. */
export function roundWidth(width: number): number {
  const nearest = Math.max(8, Math.floor((width + 4) / 8) * 8);
  return nearest < 0.9 * width ? nearest + 8 : nearest;
}

class RelativeTables extends Module {
  height_rel: Tensor;
  width_rel: Tensor;

  constructor(window: number, dim: number) {
    super();
    const table = (): Tensor => parameter(randn([2 * window - 1, dim], { std: 1 / Math.sqrt(dim) }));
    this.height_rel = table();
    this.width_rel = table();
  }

  override forward(): { height: Tensor; width: Tensor } {
    return { height: this.height_rel, width: this.width_rel };
  }
}

/**
 * Halo attention with its projections in, and none out, over images with channels last: x [batch, rows, columns, dim] to
 * [batch, rows / stride, columns / stride, outDim]. It is the layer of timm's HaloNet checkpoints.
 *
 * Keys: q.{weight,bias} [heads x headDim, dim, 1, 1]; kv.{weight,bias}, rows head by head, each its keys, then its values;
 * pos_embed.{height_rel,width_rel} [2 window - 1, headDim].
 *
 * Source: Vaswani et al., "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", 2021.
 */
export class HaloAttention extends Module {
  readonly heads: number;
  readonly options: { readonly blockSize: number; readonly haloSize: number; readonly scaleRelative: boolean };
  /** Side of the windows averaged after the attention. */
  readonly pool: number;
  q: Conv2d;
  kv: Conv2d;
  pos_embed: RelativeTables;

  constructor(dim: number, options: HaloLayerOptions = {}) {
    super();
    expectOptions('HaloAttention', options, HALO_LAYER_OPTIONS);
    const { blockSize = 8, haloSize = 3, heads = 8, outDim = dim, qkRatio = 1, qkvBias = false, stride = 1 } = options;
    for (const [name, value] of Object.entries({ dim, blockSize, heads, outDim }))
      expectCount('HaloAttention', name, value);
    expectCount('HaloAttention', 'haloSize', haloSize, 0);
    const {
      headDim = Math.floor(roundWidth(outDim * qkRatio) / heads),
      averageDown = false,
      scaleRelative = false,
    } = options;
    if (outDim % heads !== 0 || headDim < 1)
      throw new FoveaError(
        'ERR_ARGUMENT',
        `HaloAttention: outDim ${outDim}, headDim ${headDim}, heads ${heads}; expected heads that divide outDim, and dimensions for each`,
      );
    const averages = stride > 1 && (averageDown || blockSize % stride !== 0);
    this.heads = heads;
    this.options = { blockSize, haloSize, scaleRelative };
    this.pool = averages ? stride : 1;
    const layer = (out: number, step: number): Conv2d =>
      new Conv2d(dim, out, 1, { stride: step, bias: qkvBias, layout: 'nhwc' });
    this.q = layer(heads * headDim, averages ? 1 : stride);
    this.kv = layer(heads * headDim + outDim, 1);
    this.pos_embed = new RelativeTables(blockSize + 2 * haloSize, headDim);
  }

  override forward(x: Tensor): Tensor {
    const apart = (t: Tensor): Tensor => reshape(t, [...t.shape.slice(0, 3), this.heads, t.shape[3] / this.heads]);
    const [q, kv] = [apart(this.q.forward(x)), apart(this.kv.forward(x))];
    const dim = q.shape[4];
    const out = haloAttention(q, slice(kv, 4, 0, dim), slice(kv, 4, dim), {
      ...this.options,
      relative: this.pos_embed.forward(),
    });
    const joined = reshape(out, [...out.shape.slice(0, 3), this.heads * out.shape[4]]);
    return this.pool === 1 ? joined : avgPool2d(joined, this.pool, { layout: 'nhwc' });
  }
}
