/**
 * CARE transformer: linear attention for phones. Channels are split into a memory, a part that attends and two that convolve; each learns in its
 * own space, then two modules of convolutions mix them.
 *
 * Source: Zhou et al., "CARE Transformer: Mobile-Friendly Linear Visual Transformer via Decoupled Dual Interaction", CVPR 2025.
 */
import { linearAttention } from '../attention/linear.ts';
import { FoveaError } from '../errors.ts';
import { BatchNorm } from '../nn/batch_norm.ts';
import type { Conv2d } from '../nn/conv.ts';
import { DropPath } from '../nn/drop_path.ts';
import { Linear } from '../nn/linear.ts';
import { Module, parameter } from '../nn/module.ts';
import { LayerNorm } from '../nn/norm.ts';
import { add, mul } from '../ops/binary.ts';
import { concat, split } from '../ops/concat.ts';
import { full } from '../ops/creation.ts';
import { mean } from '../ops/reduce.ts';
import { gelu } from '../ops/unary.ts';
import { permute, reshape } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { depthwise, expectOnePerStage, patches, pointwise, risingRates } from './parts.ts';

export interface CareOptions {
  /** Blocks of each stage. */
  readonly depths: readonly number[];
  /** Channels of each stage that learn: three equal parts. */
  readonly featDims: readonly number[];
  /** Channels of each stage that are memory. */
  readonly memDims: readonly number[];
  /** Width inside the two interactions of each stage, over that of features and of all channels. */
  readonly ratios: readonly (readonly [number, number])[];
  /** Dimensions of a head of each stage; those before `attentionFrom` convolve and have none. Default 1, 1, 16, 32. */
  readonly headDims?: readonly number[];
  /** The first stage that attends. Default 2. */
  readonly attentionFrom?: number;
  /** At first, of each block's factor. Default 1e-6. */
  readonly layerScale?: number;
  /** Of the last block; those before have a share by their depth. Default 0. */
  readonly dropPath?: number;
  /** Default 1000. */
  readonly classes?: number;
  /** Default 3. */
  readonly inChannels?: number;
}

const CARE_OPTIONS: OptionNames<CareOptions> = {
  depths: true,
  featDims: true,
  memDims: true,
  ratios: true,
  headDims: true,
  attentionFrom: true,
  layerScale: true,
  dropPath: true,
  classes: true,
  inChannels: true,
};

/**
 * [batch, rows, columns, channels] to memory, unchanged, and what attention and convolutions make of three parts of the others. `headDim` null:
 * convolutions of 11 x 1 and 1 x 11 instead of attention. Keys: qk.* or dwconvatt_{1,2}.*; dwconv1.*, dwconv2.*.
 */
class TokenMixer extends Module {
  readonly widths: readonly [memory: number, attention: number, near: number, wide: number];
  readonly headDim: number | null;
  qk: Conv2d | null = null;
  dwconvatt_1: Conv2d | null = null;
  dwconvatt_2: Conv2d | null = null;
  dwconv1: Conv2d;
  dwconv2: Conv2d;

  constructor(featDim: number, memDim: number, headDim: number | null) {
    super();
    const part = featDim / 3;
    if (!Number.isInteger(part) || (headDim !== null && part % headDim !== 0))
      throw new FoveaError(
        'ERR_ARGUMENT',
        `CareTransformer: ${featDim} channels of features with heads of ${headDim ?? 'none'}; expected three equal parts of whole heads`,
      );
    this.widths = [memDim, part, part, part];
    this.headDim = headDim;
    if (headDim === null) {
      this.dwconvatt_1 = depthwise(part, 11, 1);
      this.dwconvatt_2 = depthwise(part, 1, 11);
    } else this.qk = pointwise(part, 2 * part);
    this.dwconv1 = depthwise(part, 3);
    this.dwconv2 = depthwise(part, 7);
  }

  override forward(x: Tensor): [memory: Tensor, features: Tensor] {
    const [memory, att, near, wide] = split(x, this.widths, 3);
    return [memory, concat([this.#attend(att), this.dwconv1.forward(near), this.dwconv2.forward(wide)], 3)];
  }

  #attend(x: Tensor): Tensor {
    const { qk, headDim, dwconvatt_1, dwconvatt_2 } = this;
    if (dwconvatt_1 && dwconvatt_2) return add(dwconvatt_1.forward(x), dwconvatt_2.forward(x));
    if (!qk || headDim === null) return x;
    const [batch, rows, columns, width] = x.shape;
    const heads = (t: Tensor): Tensor =>
      permute(reshape(t, [batch, rows * columns, width / headDim, headDim]), [0, 2, 1, 3]);
    const [q, k] = split(qk.forward(x), width, 3);
    return reshape(permute(linearAttention(heads(q), heads(k), heads(x)), [0, 2, 1, 3]), x.shape);
  }
}

/**
 * Memory and features mixed to [batch, rows, columns, channels]; the last of a network ends inside, [..., ratio x channels].
 * Keys: inter{1,2}_{norm,fc1,conv,fc2}.*.
 */
class Interaction extends Module {
  inter1_norm: BatchNorm;
  inter1_fc1: Conv2d;
  inter1_conv: Conv2d;
  inter1_fc2: Conv2d;
  inter2_norm: BatchNorm;
  inter2_fc1: Conv2d;
  inter2_conv: Conv2d;
  inter2_fc2: Conv2d | null;

  constructor(featDim: number, memDim: number, [first, second]: readonly [number, number], last: boolean) {
    super();
    const dim = featDim + memDim;
    const [inside, wide] = [Math.floor(first * featDim), Math.floor(second * dim)];
    this.inter1_norm = new BatchNorm(featDim, { axis: -1 });
    this.inter1_fc1 = pointwise(featDim, inside);
    this.inter1_conv = depthwise(inside, 3);
    this.inter1_fc2 = pointwise(inside, featDim);
    this.inter2_norm = new BatchNorm(dim, { axis: -1 });
    this.inter2_fc1 = pointwise(dim, wide);
    this.inter2_conv = depthwise(wide, 3);
    this.inter2_fc2 = last ? null : pointwise(wide, dim);
  }

  override forward(memory: Tensor, features: Tensor): Tensor {
    const wide = gelu(this.inter1_fc1.forward(this.inter1_norm.forward(features)));
    const mixed = add(features, this.inter1_fc2.forward(this.inter1_conv.forward(wide)));
    const joined = concat([memory, mixed], 3);
    const inside = this.inter2_conv.forward(gelu(this.inter2_fc1.forward(this.inter2_norm.forward(joined))));
    return this.inter2_fc2 ? add(joined, this.inter2_fc2.forward(inside)) : inside;
  }
}

/** x + gamma f(x), or f(x) in the last block of a network. Keys: gamma, token_mixer.*, inter_layer.*. */
class Block extends Module {
  gamma: Tensor | null;
  token_mixer: TokenMixer;
  inter_layer: Interaction;
  readonly dropPath: DropPath;

  constructor(stage: number, last: boolean, options: CareOptions, dropPath: number) {
    super();
    const { featDims, memDims, ratios, headDims = [1, 1, 16, 32], attentionFrom = 2, layerScale = 1e-6 } = options;
    const [featDim, memDim] = [featDims[stage], memDims[stage]];
    this.gamma = last ? null : parameter(full([featDim + memDim], layerScale));
    this.token_mixer = new TokenMixer(featDim, memDim, stage < attentionFrom ? null : headDims[stage]);
    this.inter_layer = new Interaction(featDim, memDim, ratios[stage], last);
    this.dropPath = new DropPath(dropPath);
  }

  override forward(x: Tensor): Tensor {
    const y = this.inter_layer.forward(...this.token_mixer.forward(x));
    return this.gamma ? add(x, this.dropPath.forward(mul(y, this.gamma))) : y;
  }
}

/** Keys: downsample.{0,1}.*, blocks.<b>.*. */
class Stage extends Module {
  downsample: readonly [BatchNorm, Conv2d] | null;
  blocks: Block[];

  constructor(downsample: readonly [BatchNorm, Conv2d] | null, blocks: Block[]) {
    super();
    this.downsample = downsample;
    this.blocks = blocks;
  }

  override forward(x: Tensor): Tensor {
    const start = this.downsample ? this.downsample[1].forward(this.downsample[0].forward(x)) : x;
    return this.blocks.reduce((t, block) => block.forward(t), start);
  }
}

class Head extends Module {
  norm: LayerNorm;
  fc: Linear;

  constructor(dim: number, classes: number) {
    super();
    this.norm = new LayerNorm(dim, { eps: 1e-6 });
    this.fc = new Linear(dim, classes);
  }

  /** x [batch, dim]. */
  override forward(x: Tensor): Tensor {
    return this.fc.forward(this.norm.forward(gelu(x)));
  }
}

/**
 * Images x [batch, 3, height, width] to logits [batch, classes], the mean of both heads; `heads` gives them apart, as distillation needs them.
 *
 * Keys: stem.{0,1}; stages.<s>.downsample.{0,1};
 * stages.<s>.blocks.<b>.{gamma,token_mixer.{qk,dwconvatt_1,dwconvatt_2,dwconv1,dwconv2},inter_layer.inter{1,2}_{norm,fc1,conv,fc2}};
 * head.{norm,fc}; dist_head.{norm,fc}.
 */
export class CareTransformer extends Module {
  stem: readonly [Conv2d, BatchNorm];
  stages: Stage[];
  head: Head;
  dist_head: Head;

  constructor(options: CareOptions) {
    super();
    expectOptions('CareTransformer', options, CARE_OPTIONS);
    const { depths, featDims, memDims, ratios, dropPath = 0, classes = 1000, inChannels = 3 } = options;
    expectOnePerStage('CareTransformer', depths, { featDims, memDims, ratios });
    const dims = featDims.map((dim, s) => dim + memDims[s]);
    this.stem = [patches(inChannels, dims[0], 4), new BatchNorm(dims[0], { axis: -1 })];
    const count = depths.reduce((sum, depth) => sum + depth, 0);
    const rate = risingRates(dropPath, count);
    let made = 0;
    this.stages = depths.map((depth, s) => {
      const from = dims[s - 1];
      const downsample = s === 0 ? null : ([new BatchNorm(from, { axis: -1 }), patches(from, dims[s], 2)] as const);
      const blocks = Array.from({ length: depth }, () => {
        made++;
        return new Block(s, made === count, options, rate());
      });
      return new Stage(downsample, blocks);
    });
    const width = Math.floor(ratios[depths.length - 1][1] * dims[depths.length - 1]);
    this.head = new Head(width, classes);
    this.dist_head = new Head(width, classes);
  }

  /** Logits of the head that learns from labels and of the one that learns from a teacher, [batch, classes] each. */
  heads(x: Tensor): { readonly head: Tensor; readonly distHead: Tensor } {
    const [conv, norm] = this.stem;
    const stem = norm.forward(conv.forward(permute(x, [0, 2, 3, 1])));
    const pooled = mean(this.stages.reduce((t, stage) => stage.forward(t), stem), [1, 2]); // prettier-ignore
    return { head: this.head.forward(pooled), distHead: this.dist_head.forward(pooled) };
  }

  override forward(x: Tensor): Tensor {
    const { head, distHead } = this.heads(x);
    return mul(add(head, distHead), 0.5);
  }
}

/** The published networks. */
export const CARE_TRANSFORMERS = {
  care_s0: {
    depths: [2, 4, 8, 4],
    featDims: [24, 48, 96, 192],
    memDims: [8, 16, 32, 64],
    ratios: [[2, 2], [2, 4], [4, 4], [4, 4]],
  },
  care_s1: {
    depths: [3, 6, 10, 6],
    featDims: [24, 48, 96, 192],
    memDims: [8, 16, 32, 64],
    ratios: [[2, 4], [2, 4], [4, 4], [4, 4]],
  },
  care_s2: {
    depths: [3, 6, 10, 6],
    featDims: [24, 48, 144, 288],
    memDims: [8, 16, 48, 96],
    ratios: [[4, 4], [4, 4], [4, 4], [4, 4]],
  },
} as const satisfies Readonly<Record<string, CareOptions>>; // prettier-ignore
