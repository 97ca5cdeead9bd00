/**
 * BiFormer: vision transformers whose regions choose the regions they attend to; the last stage attends to the whole image.
 *
 * BiFormer is the network of the published T, S and B checkpoints, whose attention pads its input; BiFormerStl the one with the layout of a Swin
 * transformer, written over the op that pads after the projections (`nchwBiFormerSTL`).
 *
 * Source: Zhu et al., "BiFormer: Vision Transformer with Bi-Level Routing Attention", CVPR 2023.
 */
import { attention } from '../attention/attention.ts';
import { biLevelRoutingAttention, padToRegions, type BiLevelRoutingOptions } from '../attention/bi_level_routing.ts';
import type { RegionPooling } from '../attention/region_pool.ts';
import { FoveaError } from '../errors.ts';
import { BatchNorm } from '../nn/batch_norm.ts';
import { Conv2d } from '../nn/conv.ts';
import { DropPath } from '../nn/drop_path.ts';
import { Linear } from '../nn/linear.ts';
import { Module, parameter } from '../nn/module.ts';
import { LayerNorm } from '../nn/norm.ts';
import { add, mul } from '../ops/binary.ts';
import { chunk, split } from '../ops/concat.ts';
import { full } from '../ops/creation.ts';
import { mean } from '../ops/reduce.ts';
import { gelu } from '../ops/unary.ts';
import { permute, reshape, slice } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { depthwise, expectOnePerStage, InnerConv, patches, pointwise, risingRates } from './parts.ts';

interface CommonOptions {
  /** Blocks of each stage. */
  readonly depths: readonly number[];
  /** Channels of each stage. */
  readonly dims: readonly number[];
  /**
   * Regions that a region attends to, in each stage; or -1 for attention over the whole image, -2 for the same with a convolution of its input
   * added, 0 for convolutions alone. Default 1, 4, 16, -2 (-1 in BiFormerStl, which has neither -2 nor 0).
   */
  readonly topK?: readonly number[];
  /** Default 32. */
  readonly headDim?: number;
  /** Width inside feed-forward nets over that outside. Default 3; 4 in BiFormerStl. */
  readonly mlpRatios?: readonly number[];
  /** Rows and columns of the local enhancement, odd; 0 for none. Default 5. */
  readonly lepe?: number;
  /** Of the last block; those before have a share by their depth. Default 0. */
  readonly dropPath?: number;
  /** Default 1000. */
  readonly classes?: number;
  /** Default 3. */
  readonly inChannels?: number;
}

const COMMON_OPTIONS: OptionNames<CommonOptions> = {
  depths: true,
  dims: true,
  topK: true,
  headDim: true,
  mlpRatios: true,
  lepe: true,
  dropPath: true,
  classes: true,
  inChannels: true,
};

export interface BiFormerOptions extends CommonOptions {
  /** Regions along each side of the image. Default 7. */
  readonly regions?: number;
  /** Channels of queries and keys of each stage. Default `dims`. */
  readonly qkDims?: readonly number[];
  /** Rows and columns of the position convolution, odd; 0 for none. Default 3. */
  readonly positionConv?: number;
  /** Whether images are padded to whole regions, and not an error. Default false. */
  readonly autoPad?: boolean;
  /** Keys and values made fewer in each stage. */
  readonly pooling?: readonly (RegionPooling | null)[];
  /** Multiplies routed keys and values by the weight of their region. Default false. */
  readonly softRouting?: boolean;
  /** Gradients through those weights. Default false. */
  readonly diffRouting?: boolean;
  /** A linear layer before regions are compared. Default false. */
  readonly routingProjection?: boolean;
  /** Whether attention has a projection out. Default true. */
  readonly outProjection?: boolean;
  /** Factors of both branches, a channel each, at first this. Default none. */
  readonly layerScale?: number;
  /** Whether norms come before their branch, and not after the sum. Default true. */
  readonly preNorm?: boolean;
  /** A convolution of 3 x 3 inside feed-forward nets. Default false. */
  readonly mlpConv?: boolean;
}

const BIFORMER_OPTIONS: OptionNames<BiFormerOptions> = {
  ...COMMON_OPTIONS,
  regions: true,
  qkDims: true,
  positionConv: true,
  autoPad: true,
  pooling: true,
  softRouting: true,
  diffRouting: true,
  routingProjection: true,
  outProjection: true,
  layerScale: true,
  preNorm: true,
  mlpConv: true,
};

export interface BiFormerStlOptions extends CommonOptions {
  /** Regions along each side of the image, of each stage. Default 7. */
  readonly regions?: readonly number[];
}

const STL_OPTIONS: OptionNames<BiFormerStlOptions> = { ...COMMON_OPTIONS, regions: true };

const HEADS_OF_FULL_ATTENTION = 8;

/** A linear layer over channels, kept as a matrix or as a convolution of one pixel. */
const overChannels = (asConv: boolean, from: number, to: number, bias = true): Linear | Conv2d =>
  asConv ? pointwise(from, to, bias) : new Linear(from, to, { bias });

/** Attention of all pixels, 8 heads. Keys: qkv.weight, proj.*, lepe.*. */
class FullAttention extends Module {
  readonly lepeOf: 'input' | 'values';
  qkv: Linear | Conv2d;
  proj: Linear | Conv2d;
  lepe: Conv2d | null;

  constructor(dim: number, lepe: number, asConv: boolean, lepeOf: 'input' | 'values') {
    super();
    if (dim % HEADS_OF_FULL_ATTENTION !== 0)
      throw new FoveaError('ERR_ARGUMENT', `BiFormer: ${dim} channels are not a multiple of ${HEADS_OF_FULL_ATTENTION} heads`); // prettier-ignore
    this.lepeOf = lepeOf;
    this.qkv = overChannels(asConv, dim, 3 * dim, false);
    this.proj = overChannels(asConv, dim, dim);
    this.lepe = lepe > 0 ? depthwise(dim, lepe) : null;
  }

  override forward(x: Tensor): Tensor {
    const [batch, rows, columns, dim] = x.shape;
    const parts = chunk(this.qkv.forward(x), 3, 3);
    const [q, k, v] = parts.map((t) =>
      permute(
        reshape(t, [batch, rows * columns, HEADS_OF_FULL_ATTENTION, dim / HEADS_OF_FULL_ATTENTION]),
        [0, 2, 1, 3],
      ),
    );
    const out = reshape(permute(attention(q, k, v), [0, 2, 1, 3]), x.shape);
    return this.proj.forward(this.lepe ? add(out, this.lepe.forward(this.lepeOf === 'input' ? x : parts[2])) : out);
  }
}

/** One module under a name of its own. */
class Joint extends Module {
  qkv: Linear;

  constructor(from: number, to: number) {
    super();
    this.qkv = new Linear(from, to);
  }

  override forward(x: Tensor): Tensor {
    return this.qkv.forward(x);
  }
}

class Router extends Module {
  emb: Linear;

  constructor(dim: number) {
    super();
    this.emb = new Linear(dim, dim);
  }

  override forward(x: Tensor): Tensor {
    return this.emb.forward(x);
  }
}

/** The published NHWC module. Keys: qkv.qkv.*, wo.*, lepe.*, router.emb.*. */
class RoutedAttention extends Module {
  readonly widths: readonly [number, number, number];
  readonly settings: BiLevelRoutingOptions;
  readonly autoPad: boolean;
  qkv: Joint;
  wo: Linear | null;
  lepe: Conv2d | null;
  router: Router | null;

  constructor(dim: number, topK: number, stage: number, options: BiFormerOptions) {
    super();
    const { headDim = 32, regions = 7, qkDims, lepe = 5, outProjection = true, routingProjection = false } = options;
    const pooling = options.pooling?.[stage];
    const qkDim = qkDims?.[stage] ?? dim;
    this.widths = [qkDim, qkDim, dim];
    this.settings = {
      heads: Math.floor(dim / headDim),
      regions,
      topK,
      soft: options.softRouting ?? false,
      diffRouting: options.diffRouting ?? false,
      ...(pooling && { pooling }),
    };
    this.autoPad = options.autoPad ?? false;
    this.qkv = new Joint(dim, 2 * qkDim + dim);
    this.wo = outProjection ? new Linear(dim, dim) : null;
    this.lepe = lepe > 0 ? depthwise(dim, lepe) : null;
    this.router = routingProjection ? new Router(qkDim) : null;
  }

  override forward(x: Tensor): Tensor {
    const { regions } = this.settings;
    const [, rows, columns] = x.shape;
    if (!this.autoPad && (rows % regions !== 0 || columns % regions !== 0))
      throw new FoveaError(
        'ERR_SHAPE',
        `BiFormer: an image of ${rows} x ${columns} pixels in a stage of ${regions} x ${regions} regions; pass { autoPad: true } or resize it`,
      );
    const [q, k, v] = split(this.qkv.forward(this.autoPad ? padToRegions(x, regions) : x), this.widths, 3);
    const out = biLevelRoutingAttention(q, k, v, {
      ...this.settings,
      ...(this.lepe && { lepe: this.lepe }),
      ...(this.router && { routingProjection: this.router.emb }),
    });
    const y = this.wo ? this.wo.forward(out) : out;
    return this.autoPad ? slice(slice(y, 1, 0, rows), 2, 0, columns) : y;
  }
}

/** The published NCHW op. Keys: qkv_linear.*, output_linear.*, lepe.*. */
class PointwiseRoutedAttention extends Module {
  readonly settings: BiLevelRoutingOptions;
  qkv_linear: Conv2d;
  output_linear: Conv2d;
  lepe: Conv2d | null;

  constructor(dim: number, headDim: number, regions: number, topK: number, lepe: number) {
    super();
    this.settings = { heads: Math.floor(dim / headDim), regions, topK };
    this.qkv_linear = pointwise(dim, 3 * dim);
    this.output_linear = pointwise(dim, dim);
    this.lepe = lepe > 0 ? depthwise(dim, lepe) : null;
  }

  override forward(x: Tensor): Tensor {
    const [q, k, v] = chunk(this.qkv_linear.forward(x), 3, 3);
    return this.output_linear.forward(
      biLevelRoutingAttention(q, k, v, { ...this.settings, ...(this.lepe && { lepe: this.lepe }) }),
    );
  }
}

/** Modules one after the other, under their places; null is a place without any. */
type Chain = readonly (Chained | null)[];
type Chained = Module & { forward(x: Tensor): Tensor };

const run = (layers: Chain, x: Tensor): Tensor => layers.reduce((t, layer) => layer?.forward(t) ?? t, x);

class Block extends Module {
  pos_embed: Conv2d | null;
  norm1: LayerNorm;
  attn: Chained | Chain;
  norm2: LayerNorm;
  mlp: Chain;
  gamma1: Tensor | null = null;
  gamma2: Tensor | null = null;
  readonly preNorm: boolean;
  readonly dropPath: DropPath;

  constructor(dim: number, topK: number, stage: number, options: BiFormerOptions, dropPath: number) {
    super();
    const { positionConv = 3, lepe = 5, layerScale, preNorm = true, mlpConv = false, mlpRatios } = options;
    const norm = (): LayerNorm => new LayerNorm(dim, { eps: 1e-6 });
    const inside = Math.floor(dim * (mlpRatios?.[stage] ?? 3));
    this.pos_embed = positionConv > 0 ? depthwise(dim, positionConv) : null;
    this.norm1 = norm();
    this.attn = attentionOf(dim, topK, stage, options, lepe);
    this.norm2 = norm();
    this.mlp = [new Linear(dim, inside), mlpConv ? new InnerConv(inside) : null, new Gelu(), new Linear(inside, dim)];
    if (layerScale !== undefined) {
      this.gamma1 = parameter(full([dim], layerScale));
      this.gamma2 = parameter(full([dim], layerScale));
    }
    this.preNorm = preNorm;
    this.dropPath = new DropPath(dropPath);
  }

  override forward(x: Tensor): Tensor {
    const attend = (t: Tensor): Tensor => (this.attn instanceof Module ? this.attn.forward(t) : run(this.attn, t));
    const placed = this.pos_embed ? add(x, this.pos_embed.forward(x)) : x;
    const attended = this.#branch(placed, this.norm1, this.gamma1, attend);
    return this.#branch(attended, this.norm2, this.gamma2, (t) => run(this.mlp, t));
  }

  #branch(x: Tensor, norm: LayerNorm, gamma: Tensor | null, f: (t: Tensor) => Tensor): Tensor {
    const out = f(this.preNorm ? norm.forward(x) : x);
    const sum = add(x, this.dropPath.forward(gamma ? mul(out, gamma) : out));
    return this.preNorm ? sum : norm.forward(sum);
  }
}

function attentionOf(
  dim: number,
  topK: number,
  stage: number,
  options: BiFormerOptions,
  lepe: number,
): Chained | Chain {
  if (topK > 0) return new RoutedAttention(dim, topK, stage, options);
  if (topK === -1) return new FullAttention(dim, 0, false, 'input');
  if (topK === -2) return new FullAttention(dim, lepe, false, 'input');
  if (topK !== 0) throw new FoveaError('ERR_ARGUMENT', `BiFormer: topK is ${topK}, expected at least -2`);
  return [null, pointwise(dim, dim), depthwise(dim, 5), pointwise(dim, dim), null];
}

class Gelu extends Module {
  override forward(x: Tensor): Tensor {
    return gelu(x);
  }
}

class StlBlock extends Module {
  norm1: LayerNorm;
  attn: FullAttention | PointwiseRoutedAttention;
  norm2: LayerNorm;
  mlp: Chain;
  readonly dropPath: DropPath;

  constructor(dim: number, topK: number, stage: number, options: BiFormerStlOptions, dropPath: number) {
    super();
    const { headDim = 32, regions, lepe = 5, mlpRatios } = options;
    if (topK < 1 && topK !== -1)
      throw new FoveaError('ERR_ARGUMENT', `BiFormerStl: topK is ${topK}, expected -1 or at least 1`);
    const inside = Math.floor(dim * (mlpRatios?.[stage] ?? 4));
    this.norm1 = new LayerNorm(dim, { eps: 1e-6 });
    this.attn =
      topK === -1
        ? new FullAttention(dim, lepe, true, 'values')
        : new PointwiseRoutedAttention(dim, headDim, regions?.[stage] ?? 7, topK, lepe);
    this.norm2 = new LayerNorm(dim, { eps: 1e-6 });
    this.mlp = [pointwise(dim, inside), new Gelu(), pointwise(inside, dim)];
    this.dropPath = new DropPath(dropPath);
  }

  override forward(x: Tensor): Tensor {
    const attended = add(x, this.dropPath.forward(this.attn.forward(this.norm1.forward(x))));
    return add(attended, this.dropPath.forward(run(this.mlp, this.norm2.forward(attended))));
  }
}

class StlStage extends Module {
  blocks: StlBlock[];

  constructor(blocks: StlBlock[]) {
    super();
    this.blocks = blocks;
  }

  override forward(x: Tensor): Tensor {
    return run(this.blocks, x);
  }
}

/** What both networks do with an image. Keys: downsample_layers.<s>.<place>.*, norm.*, head.*. */
abstract class Backbone extends Module {
  abstract downsample_layers: Chain[];
  norm: BatchNorm;
  head: Linear;

  constructor(
    model: string,
    { dims, depths, classes = 1000 }: CommonOptions,
    lists: Record<string, readonly unknown[] | undefined>,
  ) {
    super();
    expectOnePerStage(model, depths, { dims, ...lists });
    const dim = dims[dims.length - 1];
    this.norm = new BatchNorm(dim, { axis: -1 });
    this.head = new Linear(dim, classes);
  }

  protected abstract stage(index: number, x: Tensor): Tensor;

  /** What each stage gives, as [batch, channels, rows, columns]. */
  stageOutputs(x: Tensor): Tensor[] {
    let t = permute(x, [0, 2, 3, 1]);
    return this.downsample_layers.map((down, s) => permute((t = this.stage(s, run(down, t))), [0, 3, 1, 2]));
  }

  override forward(x: Tensor): Tensor {
    const last = this.stageOutputs(x).at(-1) as Tensor;
    return this.classify(last);
  }

  /** Logits of what the last stage gives. */
  classify(features: Tensor): Tensor {
    return this.head.forward(mean(this.norm.forward(permute(features, [0, 2, 3, 1])), [1, 2]));
  }
}

/** The blocks of each stage, with their rates of stochastic depth. */
function stagesOf<B>({ depths, dropPath = 0 }: CommonOptions, block: (stage: number, rate: number) => B): B[][] {
  const rate = risingRates(dropPath, depths.reduce((sum, depth) => sum + depth, 0)); // prettier-ignore
  return depths.map((depth, s) => Array.from({ length: depth }, () => block(s, rate())));
}

/**
 * Images x [batch, 3, height, width] to logits [batch, classes]; the image of a stage that routes must be whole regions, or `autoPad` set.
 *
 * Keys: downsample_layers.0.{0,1,3,4}, downsample_layers.<s>.{0,1};
 * stages.<s>.<b>.{pos_embed,norm1,attn.{qkv.qkv,wo,lepe,router.emb} or attn.{qkv,proj,lepe} or attn.{1,2,3},norm2,mlp.{0,1.dwconv,3},gamma1,gamma2};
 * norm; head.
 */
export class BiFormer extends Backbone {
  override downsample_layers: Chain[];
  stages: Block[][];

  constructor(options: BiFormerOptions) {
    expectOptions('BiFormer', options, BIFORMER_OPTIONS);
    const { dims, inChannels = 3, topK = [1, 4, 16, -2], mlpRatios, qkDims, pooling } = options;
    super('BiFormer', options, { topK, mlpRatios, qkDims, pooling });
    const halved = (from: number, to: number): Chained[] => [
      new Conv2d(from, to, 3, { stride: 2, padding: 1, layout: 'nhwc' }),
      new BatchNorm(to, { axis: -1 }),
    ];
    const half = Math.floor(dims[0] / 2);
    this.downsample_layers = dims.map((dim, s) =>
      s === 0 ? [...halved(inChannels, half), new Gelu(), ...halved(half, dim)] : halved(dims[s - 1], dim),
    );
    this.stages = stagesOf(options, (s, rate) => new Block(dims[s], topK[s], s, options, rate));
  }

  protected override stage(index: number, x: Tensor): Tensor {
    return run(this.stages[index], x);
  }
}

/**
 * Images x [batch, 3, height, width] to logits [batch, classes].
 *
 * Keys: downsample_layers.<s>.{0,1};
 * stages.<s>.blocks.<b>.{norm1,attn.{qkv_linear,output_linear,lepe} or attn.{qkv,proj,lepe},norm2,mlp.{0,2}}; norm; head.
 */
export class BiFormerStl extends Backbone {
  override downsample_layers: Chain[];
  stages: StlStage[];

  constructor(options: BiFormerStlOptions) {
    expectOptions('BiFormerStl', options, STL_OPTIONS);
    const { dims, inChannels = 3, topK = [1, 4, 16, -1], mlpRatios, regions } = options;
    super('BiFormerStl', options, { topK, mlpRatios, regions });
    this.downsample_layers = dims.map((dim, s) =>
      s === 0
        ? [patches(inChannels, dim, 4), new BatchNorm(dim, { axis: -1 })]
        : [new BatchNorm(dims[s - 1], { axis: -1 }), patches(dims[s - 1], dim, 2)],
    );
    const blocks = stagesOf(options, (s, rate) => new StlBlock(dims[s], topK[s], s, options, rate));
    this.stages = blocks.map((list) => new StlStage(list));
  }

  protected override stage(index: number, x: Tensor): Tensor {
    return this.stages[index].forward(x);
  }
}

/** The published networks of BiFormer. */
export const BIFORMERS = {
  biformer_tiny: { depths: [2, 2, 8, 2], dims: [64, 128, 256, 512] },
  biformer_small: { depths: [4, 4, 18, 4], dims: [64, 128, 256, 512] },
  biformer_base: { depths: [4, 4, 18, 4], dims: [96, 192, 384, 768] },
} as const satisfies Readonly<Record<string, BiFormerOptions>>;

/** The published network of BiFormerStl. */
export const BIFORMER_STL = { depths: [2, 2, 6, 2], dims: [96, 192, 384, 768] } as const satisfies BiFormerStlOptions;
