/**
 * HaloNet: a ResNet whose bottlenecks attend to blocks and a halo around them instead of convolving.
 *
 * There is no official code; the networks, their names and keys are those of timm (ByobNet with `self_attn_layer='halo'`), which has the only
 * public checkpoints.
 *
 * Source: Vaswani et al., "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", CVPR 2021.
 */
import { FoveaError } from '../errors.ts';
import { BatchNorm } from '../nn/batch_norm.ts';
import { Conv2d, type Conv2dLayerOptions } from '../nn/conv.ts';
import { DropPath } from '../nn/drop_path.ts';
import { HALO_LAYER_OPTIONS, HaloAttention, roundWidth, type HaloLayerOptions } from '../nn/halo.ts';
import { Linear } from '../nn/linear.ts';
import { Module, parameter } from '../nn/module.ts';
import { add, mul } from '../ops/binary.ts';
import { conv2d } from '../ops/conv2d.ts';
import { cast } from '../ops/copy.ts';
import { maxPool2d } from '../ops/pool2d.ts';
import { rand } from '../ops/random.ts';
import { mean } from '../ops/reduce.ts';
import { relu, sigmoid, silu } from '../ops/unary.ts';
import { permute, reshape } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { pointwise, risingRates } from './parts.ts';

/** The stride of an attention is that of its block. */
export type HaloNetAttention = Omit<HaloLayerOptions, 'stride'>;

const { stride: _, ...ATTENTION_OPTIONS } = HALO_LAYER_OPTIONS;

export interface HaloNetBlock {
  /** A convolution of 3 x 3, or halo attention, between two of 1 x 1. */
  readonly type: 'bottle' | 'self_attn';
  /** Channels out. */
  readonly width: number;
  /** Channels inside, as a share of the width (or of that coming in, with `bottleIn`). */
  readonly bottleRatio: number;
  /** Default 1. */
  readonly stride?: number;
  /** Channels of a group of the 3 x 3 convolution; 0 (default) for one group. */
  readonly groupSize?: number;
  /** Over those of the network. */
  readonly attention?: HaloNetAttention;
}

const BLOCK_OPTIONS: OptionNames<HaloNetBlock> = {
  type: true,
  width: true,
  bottleRatio: true,
  stride: true,
  groupSize: true,
  attention: true,
};

export interface HaloNetOptions {
  readonly stages: readonly (readonly HaloNetBlock[])[];
  readonly stem: {
    /** Three convolutions of 3 x 3, or one of 7 x 7 or 3 x 3. */
    readonly type: 'tiered' | '7x7' | '3x3';
    readonly width: number;
    /** Maximum of 3 x 3, stride 2, at the end. Without it the last of several convolutions has stride 2. */
    readonly pool: boolean;
  };
  readonly attention?: HaloNetAttention;
  /** Default 'relu'. */
  readonly activation?: 'relu' | 'silu';
  /** Squeeze and excitation, or efficient channel attention, in 'bottle' blocks. Default none. */
  readonly channelGate?: 'se' | 'eca';
  /** Width inside 'se', as a share of its channels. Default 1/16. */
  readonly seRatio?: number;
  /** Whether blocks whose shape changes have a projected shortcut, and not none. Default true. */
  readonly projectedShortcut?: boolean;
  /** Whether `bottleRatio` is of the channels coming in. Default false. */
  readonly bottleIn?: boolean;
  /** Whether blocks end without an activation. Default false. */
  readonly linearOut?: boolean;
  /** Channels of a last 1 x 1 convolution. Default none. */
  readonly features?: number;
  /** Of the last block; those before have a share by their depth. Default 0. */
  readonly dropPath?: number;
  /** Default 1000. */
  readonly classes?: number;
  /** Default 3. */
  readonly inChannels?: number;
}

const HALONET_OPTIONS: OptionNames<HaloNetOptions> = {
  stages: true,
  stem: true,
  attention: true,
  activation: true,
  channelGate: true,
  seRatio: true,
  projectedShortcut: true,
  bottleIn: true,
  linearOut: true,
  features: true,
  dropPath: true,
  classes: true,
  inChannels: true,
};

type Act = (t: Tensor) => Tensor;

/** Convolution without bias, padded by half its filter, batch normalisation, activation. Keys: conv.weight, bn.*. */
class ConvNorm extends Module {
  conv: Conv2d;
  bn: BatchNorm;
  readonly activation: Act | null;

  constructor(from: number, to: number, kernel: number, activation: Act | null, options: Conv2dLayerOptions = {}) {
    super();
    this.conv = new Conv2d(from, to, kernel, { ...options, padding: kernel >> 1, bias: false, layout: 'nhwc' });
    this.bn = new BatchNorm(to, { axis: -1 });
    this.activation = activation;
  }

  override forward(x: Tensor): Tensor {
    const y = this.bn.training ? this.bn.forward(this.conv.forward(x)) : this.#folded(x);
    return this.activation ? this.activation(y) : y;
  }

  /** In evaluation the norm is a factor of the filters and a bias. */
  #folded(x: Tensor): Tensor {
    const { weight, options } = this.conv;
    const { gain, shift } = this.bn.affine();
    const filters = mul(cast(weight, gain.dtype), reshape(gain, [-1, 1, 1, 1]));
    return conv2d(x, cast(filters, weight.dtype), cast(shift, weight.dtype), options);
  }
}

/** Channels times sigmoid(fc2(relu(fc1(their means)))). Keys: fc1.*, fc2.*. */
class SqueezeExcite extends Module {
  fc1: Conv2d;
  fc2: Conv2d;

  constructor(channels: number, ratio: number) {
    super();
    const inside = Math.max(8, Math.floor((channels * ratio + 4) / 8) * 8);
    this.fc1 = pointwise(channels, inside);
    this.fc2 = pointwise(inside, channels);
  }

  override forward(x: Tensor): Tensor {
    return mul(x, sigmoid(this.fc2.forward(relu(this.fc1.forward(mean(x, [1, 2], true))))));
  }
}

/** A convolution along the channels. Key: weight [1, 1, taps]. */
class ChannelConv extends Module {
  weight: Tensor;

  constructor(taps: number) {
    super();
    const high = 1 / Math.sqrt(taps);
    this.weight = parameter(rand([1, 1, taps], { low: -high, high }));
  }

  /** x [batch, channels]. */
  override forward(x: Tensor): Tensor {
    const taps = this.weight.shape[2];
    const line = reshape(x, [x.shape[0], 1, 1, x.shape[1]]);
    return reshape(conv2d(line, reshape(this.weight, [1, 1, 1, taps]), null, { padding: [0, taps >> 1] }), x.shape);
  }
}

/** Channels times the sigmoid of their means, convolved along the channels. Key: conv.weight. */
class EfficientChannelAttention extends Module {
  conv: ChannelConv;

  constructor(channels: number) {
    super();
    const size = Math.trunc(Math.abs(Math.log2(channels) + 1) / 2);
    this.conv = new ChannelConv(Math.max(size % 2 === 1 ? size : size + 1, 3));
  }

  override forward(x: Tensor): Tensor {
    const gate = sigmoid(this.conv.forward(mean(x, [1, 2])));
    return mul(x, reshape(gate, [x.shape[0], 1, 1, x.shape[3]]));
  }
}

class Block extends Module {
  shortcut: ConvNorm | null = null;
  conv1_1x1: ConvNorm;
  conv2_kxk: ConvNorm | null = null;
  attn: SqueezeExcite | EfficientChannelAttention | null = null;
  self_attn: HaloAttention | null = null;
  post_attn: BatchNorm | null = null;
  conv3_1x1: ConvNorm;
  readonly dropPath: DropPath;
  readonly act: Act;
  readonly linearOut: boolean;
  readonly adds: boolean;

  constructor(from: number, block: HaloNetBlock, options: HaloNetOptions, act: Act, dropPath: number) {
    super();
    const { width, stride = 1, groupSize = 0, bottleRatio } = block;
    const { projectedShortcut = true, bottleIn = false, linearOut = false, channelGate, seRatio = 1 / 16 } = options;
    const inside = roundWidth((bottleIn ? from : width) * bottleRatio);
    const changes = from !== width || stride !== 1;
    if (changes && projectedShortcut) this.shortcut = new ConvNorm(from, width, 1, null, { stride });
    this.adds = !changes || projectedShortcut;
    this.conv1_1x1 = new ConvNorm(from, inside, 1, act);
    if (block.type === 'self_attn') {
      this.self_attn = new HaloAttention(inside, { ...options.attention, ...block.attention, stride });
      this.post_attn = new BatchNorm(inside, { axis: -1 });
    } else {
      this.conv2_kxk = new ConvNorm(inside, inside, 3, act, { stride, groups: groupSize ? inside / groupSize : 1 });
      if (channelGate === 'se') this.attn = new SqueezeExcite(inside, seRatio);
      if (channelGate === 'eca') this.attn = new EfficientChannelAttention(inside);
    }
    this.conv3_1x1 = new ConvNorm(inside, width, 1, null);
    this.dropPath = new DropPath(dropPath);
    this.act = act;
    this.linearOut = linearOut;
  }

  override forward(x: Tensor): Tensor {
    let y = this.conv1_1x1.forward(x);
    if (this.conv2_kxk) y = this.conv2_kxk.forward(y);
    if (this.attn) y = this.attn.forward(y);
    if (this.self_attn && this.post_attn) y = this.act(this.post_attn.forward(this.self_attn.forward(y)));
    y = this.dropPath.forward(this.conv3_1x1.forward(y));
    if (this.adds) y = add(y, this.shortcut ? this.shortcut.forward(x) : x);
    return this.linearOut ? y : this.act(y);
  }
}

/** Convolutions conv1, conv2, ...; the first halves the image. */
class Stem extends Module {
  readonly pool: boolean;
  conv1: ConvNorm;
  conv2: ConvNorm | null = null;
  conv3: ConvNorm | null = null;

  constructor(from: number, { type, width, pool }: HaloNetOptions['stem'], act: Act) {
    super();
    this.pool = pool;
    if (type !== 'tiered') {
      this.conv1 = new ConvNorm(from, width, type === '7x7' ? 7 : 3, act, { stride: 2 });
      return;
    }
    const [first, second] = [Math.floor((3 * width) / 8), Math.floor(width / 2)];
    this.conv1 = new ConvNorm(from, first, 3, act, { stride: 2 });
    this.conv2 = new ConvNorm(first, second, 3, act);
    this.conv3 = new ConvNorm(second, width, 3, act, { stride: pool ? 1 : 2 });
  }

  override forward(x: Tensor): Tensor {
    const y = [this.conv1, this.conv2, this.conv3].reduce((t, layer) => layer?.forward(t) ?? t, x);
    return this.pool ? maxPool2d(y, 3, { stride: 2, padding: 1, layout: 'nhwc' }) : y;
  }
}

class Head extends Module {
  fc: Linear;

  constructor(width: number, classes: number) {
    super();
    this.fc = new Linear(width, classes);
  }

  override forward(x: Tensor): Tensor {
    return this.fc.forward(mean(x, [1, 2]));
  }
}

/**
 * Images x [batch, 3, height, width] to logits [batch, classes]. Where a stage attends its image must be whole blocks, and even with a stride.
 *
 * Keys (timm): stem.conv{1,2,3}.{conv,bn} (stem.{conv,bn} for one convolution without pooling),
 * stages.<s>.<b>.{shortcut,conv1_1x1,conv2_kxk,conv3_1x1}.{conv,bn}, .self_attn.{q,kv,pos_embed.*}, .post_attn, .attn.{fc1,fc2,conv};
 * final_conv.{conv,bn}; head.fc.
 */
export class HaloNet extends Module {
  stem: Stem | ConvNorm;
  stages: Block[][];
  final_conv: ConvNorm | null = null;
  head: Head;

  constructor(options: HaloNetOptions) {
    super();
    expectOptions('HaloNet', options, HALONET_OPTIONS);
    const { stem, activation = 'relu', features, classes = 1000, inChannels = 3, dropPath = 0 } = options;
    expectOptions('HaloNet: stem', stem, { type: true, width: true, pool: true });
    for (const block of options.stages.flat()) expectOptions('HaloNet: stages', block, BLOCK_OPTIONS);
    for (const { attention } of [options, ...options.stages.flat()])
      if (attention) expectOptions('HaloNet: attention', attention, ATTENTION_OPTIONS);
    const act = { relu, silu }[activation];
    if (!act)
      throw new FoveaError('ERR_ARGUMENT', `HaloNet: activation is '${String(activation)}', expected 'relu' or 'silu'`);
    const alone = stem.type !== 'tiered' && !stem.pool;
    this.stem = alone
      ? new ConvNorm(inChannels, stem.width, stem.type === '7x7' ? 7 : 3, act, { stride: 2 })
      : new Stem(inChannels, stem, act);
    const rate = risingRates(dropPath, options.stages.flat().length);
    let { width } = stem;
    this.stages = options.stages.map((blocks) =>
      blocks.map((block) => {
        const made = new Block(width, block, options, act, rate());
        width = block.width;
        return made;
      }),
    );
    if (features) this.final_conv = new ConvNorm(width, features, 1, act);
    this.head = new Head(features ?? width, classes);
  }

  override forward(x: Tensor): Tensor {
    const stem = this.stem.forward(permute(x, [0, 2, 3, 1]));
    const y = this.stages.flat().reduce((t, block) => block.forward(t), stem);
    return this.head.forward(this.final_conv ? this.final_conv.forward(y) : y);
  }
}

interface StageSettings extends Omit<HaloNetBlock, 'type'> {
  readonly depth: number;
  /** Blocks that attend: all, none, or those of these places. */
  readonly attends: 'all' | 'none' | readonly number[];
}

/** A stage whose first block has the stride. */
function stage({ depth, attends, stride = 1, ...block }: StageSettings): HaloNetBlock[] {
  return Array.from({ length: depth }, (_, i) => ({
    ...block,
    stride: i === 0 ? stride : 1,
    type: attends === 'all' || (attends !== 'none' && attends.includes(i)) ? 'self_attn' : 'bottle',
  }));
}

/** The stages of a ResNet of bottlenecks: widths 256 to 2048, strides 1, 2, 2, 2. */
function resnetStages(
  depths: readonly number[],
  attends: readonly StageSettings['attends'][],
  groupSize = 0,
): HaloNetBlock[][] {
  return depths.map((depth, i) =>
    stage({ depth, attends: attends[i], width: 256 << i, stride: i === 0 ? 1 : 2, bottleRatio: 0.25, groupSize }),
  );
}

const TIERED = { type: 'tiered', width: 64, pool: true } as const;

/** The networks of timm, by their names there. */
export const HALONETS = {
  halonet26t: {
    stages: resnetStages([2, 2, 2, 2], ['none', 'none', [1], 'all']),
    stem: TIERED,
    attention: { blockSize: 8, haloSize: 2 },
  },
  sehalonet33ts: {
    stages: [
      stage({ depth: 2, attends: 'none', width: 256, bottleRatio: 0.25 }),
      stage({ depth: 3, attends: [2], width: 512, stride: 2, bottleRatio: 0.25 }),
      stage({ depth: 3, attends: [2], width: 1024, stride: 2, bottleRatio: 0.25 }),
      stage({ depth: 2, attends: 'all', width: 1536, stride: 2, bottleRatio: 0.333 }),
    ],
    stem: { ...TIERED, pool: false },
    activation: 'silu',
    channelGate: 'se',
    features: 1280,
    attention: { blockSize: 8, haloSize: 3 },
  },
  halonet50ts: {
    stages: resnetStages([3, 4, 6, 3], ['none', [3], [1, 3, 5], [1]]).map((blocks, s) =>
      s === 1 ? blocks.map((block) => ({ ...block, attention: { heads: 4 } })) : blocks,
    ),
    stem: TIERED,
    activation: 'silu',
    attention: { blockSize: 8, haloSize: 3 },
  },
  eca_halonext26ts: {
    stages: resnetStages([2, 2, 2, 2], ['none', 'none', [1], 'all'], 16),
    stem: TIERED,
    activation: 'silu',
    channelGate: 'eca',
    attention: { blockSize: 8, haloSize: 2, headDim: 16 },
  },
  haloregnetz_b: {
    stages: [
      stage({ depth: 2, attends: 'none', width: 48, stride: 2, bottleRatio: 3, groupSize: 16 }),
      stage({ depth: 6, attends: 'none', width: 96, stride: 2, bottleRatio: 3, groupSize: 16 }),
      stage({ depth: 12, attends: [3, 7, 11], width: 192, stride: 2, bottleRatio: 3, groupSize: 16 }),
      stage({ depth: 2, attends: 'all', width: 288, stride: 2, bottleRatio: 3 }),
    ],
    stem: { type: '3x3', width: 32, pool: false },
    activation: 'silu',
    channelGate: 'se',
    seRatio: 0.25,
    features: 1536,
    projectedShortcut: false,
    bottleIn: true,
    linearOut: true,
    attention: { blockSize: 7, haloSize: 2, qkRatio: 0.33 },
  },
  halonet_h1: {
    stages: [3, 3, 10, 3].map((depth, i) =>
      stage({ depth, attends: 'all', width: 64 << i, stride: i === 0 ? 1 : 2, bottleRatio: 1 }),
    ),
    stem: { type: '7x7', width: 64, pool: true },
    attention: { blockSize: 8, haloSize: 3 },
  },
} as const satisfies Readonly<Record<string, HaloNetOptions>>;
