/**
 * DaViT: blocks of window attention, local, and of channel attention, global, in turn.
 *
 * Modules have the names of timm's port. loadStateDict() takes the names of the official checkpoints as well.
 *
 * Source: Ding et al., "DaViT: Dual Attention Vision Transformers", ECCV 2022.
 */
import { attention } from '../attention/attention.ts';
import { channelAttention, type ChannelOptions } from '../attention/channel.ts';
import { FoveaError } from '../errors.ts';
import { Conv2d } from '../nn/conv.ts';
import { DropPath } from '../nn/drop_path.ts';
import { Linear } from '../nn/linear.ts';
import { Module, type LoadOptions } from '../nn/module.ts';
import { LayerNorm } from '../nn/norm.ts';
import { Mlp } from '../nn/transformer.ts';
import { add } from '../ops/binary.ts';
import { pad } from '../ops/pad.ts';
import { mean } from '../ops/reduce.ts';
import { gelu } from '../ops/unary.ts';
import { permute, reshape, select, slice } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { depthwise, expectOnePerStage, risingRates } from './parts.ts';

export interface DaViTOptions {
  /** Pairs of a spatial and a channel block in each stage. */
  readonly depths: readonly number[];
  /** Channels of each stage. */
  readonly dims: readonly number[];
  /** Heads of window attention and groups of channel attention, of each stage. */
  readonly heads: readonly number[];
  /** Rows and columns of a window. Default 7. */
  readonly window?: number;
  /** Default 4. */
  readonly mlpRatio?: number;
  /** Default true. */
  readonly qkvBias?: boolean;
  /** Blocks of a pair, in order. Default spatial, then channel. */
  readonly attention?: readonly ('spatial' | 'channel')[];
  /** 'florence' as in the checkpoints of Florence-2. Default 'davit'. */
  readonly channelForm?: ChannelOptions['form'];
  /** Whether stages begin with overlapping patches, 3 x 3 instead of 2 x 2. Default false. */
  readonly overlappedPatch?: boolean;
  /** Whether blocks have a feed-forward net. Default true. */
  readonly feedForward?: boolean;
  /** Whether position convolutions are followed by GELU. Default false. */
  readonly positionGelu?: boolean;
  /** Of the last block; those before have a share by their depth. Default 0. */
  readonly dropPath?: number;
  /** Default 1000. */
  readonly classes?: number;
  /** Default 3. */
  readonly inChannels?: number;
}

const DAVIT_OPTIONS: OptionNames<DaViTOptions> = {
  depths: true,
  dims: true,
  heads: true,
  window: true,
  mlpRatio: true,
  qkvBias: true,
  attention: true,
  channelForm: true,
  overlappedPatch: true,
  feedForward: true,
  positionGelu: true,
  dropPath: true,
  classes: true,
  inChannels: true,
};

/** x + a depth-wise convolution of 3 x 3. Keys: proj.*. */
class PositionConv extends Module {
  proj: Conv2d;
  readonly gelu: boolean;

  constructor(dim: number, activated: boolean) {
    super();
    this.proj = depthwise(dim, 3);
    this.gelu = activated;
  }

  override forward(x: Tensor): Tensor {
    const y = this.proj.forward(x);
    return add(x, this.gelu ? gelu(y) : y);
  }
}

/** [n, tokens, channels] to [n, tokens, channels] through `attend` of q, k, v [n, heads, tokens, dim]. Keys: qkv.*, proj.*. */
class ProjectedAttention extends Module {
  readonly heads: number;
  readonly attend: (q: Tensor, k: Tensor, v: Tensor) => Tensor;
  qkv: Linear;
  proj: Linear;

  constructor(dim: number, heads: number, qkvBias: boolean, attend: ProjectedAttention['attend']) {
    super();
    if (dim % heads !== 0) throw new FoveaError('ERR_ARGUMENT', `DaViT: ${heads} heads do not divide ${dim} channels`);
    this.heads = heads;
    this.attend = attend;
    this.qkv = new Linear(dim, 3 * dim, { bias: qkvBias });
    this.proj = new Linear(dim, dim);
  }

  override forward(x: Tensor): Tensor {
    const [n, tokens, dim] = x.shape;
    const joint = reshape(this.qkv.forward(x), [n, tokens, 3, this.heads, dim / this.heads]);
    const [q, k, v] = [0, 1, 2].map((i) => permute(select(joint, 2, i), [0, 2, 1, 3]));
    return this.proj.forward(reshape(permute(this.attend(q, k, v), [0, 2, 1, 3]), x.shape));
  }
}

/** `x` with zeros to the right and below, to sides that are multiples of `side`. */
function padTo(x: Tensor, side: number): Tensor {
  const missing = [x.shape[1], x.shape[2]].map((extent) => (side - (extent % side)) % side);
  return missing[0] + missing[1] === 0 ? x : pad(x, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]]); // prettier-ignore
}

class Block extends Module {
  readonly window: number | null;
  cpe1: PositionConv;
  norm1: LayerNorm;
  attn: ProjectedAttention;
  cpe2: PositionConv;
  norm2: LayerNorm | null = null;
  mlp: Mlp | null = null;
  readonly dropPath: DropPath;

  constructor(kind: 'spatial' | 'channel', dim: number, heads: number, options: DaViTOptions, dropPath: number) {
    super();
    const { window = 7, mlpRatio = 4, qkvBias = true, channelForm, feedForward = true, positionGelu = false } = options;
    this.window = kind === 'spatial' ? window : null;
    this.cpe1 = new PositionConv(dim, positionGelu);
    this.norm1 = new LayerNorm(dim);
    const overChannels: ProjectedAttention['attend'] = (q, k, v) =>
      channelAttention(q, k, v, channelForm ? { form: channelForm } : {});
    this.attn = new ProjectedAttention(dim, heads, qkvBias, kind === 'spatial' ? attention : overChannels);
    this.cpe2 = new PositionConv(dim, positionGelu);
    if (feedForward) {
      this.norm2 = new LayerNorm(dim);
      this.mlp = new Mlp(dim, { hidden: Math.floor(dim * mlpRatio) });
    }
    this.dropPath = new DropPath(dropPath);
  }

  override forward(x: Tensor): Tensor {
    const first = this.cpe1.forward(x);
    const attended = this.#attend(this.norm1.forward(first));
    const second = this.cpe2.forward(add(first, this.dropPath.forward(attended)));
    if (!this.norm2 || !this.mlp) return second;
    return add(second, this.dropPath.forward(this.mlp.forward(this.norm2.forward(second))));
  }

  /** Over all pixels; or within windows of the image, filled up with zeros to whole ones. */
  #attend(x: Tensor): Tensor {
    const { window } = this;
    const [batch, rows, columns, channels] = x.shape;
    if (window === null) return reshape(this.attn.forward(reshape(x, [batch, rows * columns, channels])), x.shape);
    const whole = padTo(x, window);
    const [down, across] = [whole.shape[1] / window, whole.shape[2] / window];
    const cut = permute(reshape(whole, [batch, down, window, across, window, channels]), [0, 1, 3, 2, 4, 5]);
    const out = this.attn.forward(reshape(cut, [batch * down * across, window * window, channels]));
    const back = permute(reshape(out, [batch, down, across, window, window, channels]), [0, 1, 3, 2, 4, 5]);
    return slice(slice(reshape(back, whole.shape), 1, 0, rows), 2, 0, columns);
  }
}

/** 7 x 7 patches, stride 4, then a norm. */
class Stem extends Module {
  conv: Conv2d;
  norm: LayerNorm;

  constructor(from: number, dim: number) {
    super();
    this.conv = new Conv2d(from, dim, 7, { stride: 4, padding: 3, layout: 'nhwc' });
    this.norm = new LayerNorm(dim);
  }

  override forward(x: Tensor): Tensor {
    return this.norm.forward(this.conv.forward(padTo(x, 4)));
  }
}

/** A norm, then patches, stride 2. */
class Downsample extends Module {
  norm: LayerNorm;
  conv: Conv2d;

  constructor(from: number, dim: number, overlapped: boolean) {
    super();
    this.norm = new LayerNorm(from);
    const [kernel, padding] = overlapped ? [3, 1] : [2, 0];
    this.conv = new Conv2d(from, dim, kernel, { stride: 2, padding, layout: 'nhwc' });
  }

  override forward(x: Tensor): Tensor {
    return this.conv.forward(padTo(this.norm.forward(x), 2));
  }
}

class Stage extends Module {
  downsample: Downsample | null;
  blocks: Block[][];

  constructor(downsample: Downsample | null, blocks: Block[][]) {
    super();
    this.downsample = downsample;
    this.blocks = blocks;
  }

  override forward(x: Tensor): Tensor {
    return this.blocks.flat().reduce((t, block) => block.forward(t), this.downsample?.forward(x) ?? x);
  }
}

class Head extends Module {
  norm: LayerNorm;
  fc: Linear;

  constructor(dim: number, classes: number) {
    super();
    this.norm = new LayerNorm(dim);
    this.fc = new Linear(dim, classes);
  }

  override forward(x: Tensor): Tensor {
    return this.fc.forward(this.norm.forward(mean(x, [1, 2])));
  }
}

/** A name of the official checkpoints as that of the module; others stay. */
function moduleName(name: string): string {
  return name
    .replace(/^patch_embeds\.0\.proj\./, 'stem.conv.')
    .replace(/^patch_embeds\.0\.norm\./, 'stem.norm.')
    .replace(/^patch_embeds\.(\d+)\.proj\./, 'stages.$1.downsample.conv.')
    .replace(/^patch_embeds\.(\d+)\.norm\./, 'stages.$1.downsample.norm.')
    .replace(/^main_blocks\.(\d+)\./, 'stages.$1.blocks.')
    .replace(/\.cpe\.([01])\./, (_, i: string) => `.cpe${Number(i) + 1}.`)
    .replace(/^norms\./, 'head.norm.')
    .replace(/^head\.(weight|bias)$/, 'head.fc.$1');
}

/**
 * Images x [batch, 3, height, width] of any size to logits [batch, classes].
 *
 * Keys (timm): stem.{conv,norm}; stages.<s>.downsample.{norm,conv};
 * stages.<s>.blocks.<b>.<0 spatial, 1 channel>.{cpe1.proj,norm1,attn.qkv,attn.proj,cpe2.proj,norm2,mlp.fc1,mlp.fc2}; head.{norm,fc}.
 */
export class DaViT extends Module {
  stem: Stem;
  stages: Stage[];
  head: Head;

  constructor(options: DaViTOptions) {
    super();
    expectOptions('DaViT', options, DAVIT_OPTIONS);
    const { depths, dims, heads, attention: kinds = ['spatial', 'channel'], overlappedPatch = false } = options;
    const { dropPath = 0, classes = 1000, inChannels = 3 } = options;
    expectOnePerStage('DaViT', depths, { dims, heads });
    this.stem = new Stem(inChannels, dims[0]);
    const count = kinds.length * depths.reduce((sum, depth) => sum + depth, 0);
    const rate = risingRates(dropPath, count);
    this.stages = depths.map((depth, s) => {
      const downsample = s === 0 ? null : new Downsample(dims[s - 1], dims[s], overlappedPatch);
      const block = (kind: 'spatial' | 'channel'): Block => new Block(kind, dims[s], heads[s], options, rate());
      return new Stage(downsample, Array.from({ length: depth }, () => kinds.map(block))); // prettier-ignore
    });
    this.head = new Head(dims[dims.length - 1], classes);
  }

  override forward(x: Tensor): Tensor {
    const stem = this.stem.forward(permute(x, [0, 2, 3, 1]));
    return this.head.forward(this.stages.reduce((t, stage) => stage.forward(t), stem));
  }

  /** As Module.loadStateDict; names may be timm's or those of the official checkpoints. */
  override loadStateDict(
    record: Readonly<Record<string, Tensor>>,
    options: LoadOptions = {},
  ): { missing: string[]; unexpected: string[] } {
    return super.loadStateDict(
      Object.fromEntries(Object.entries(record).map(([name, t]) => [moduleName(name), t])),
      options,
    );
  }
}

/** The published networks. */
export const DAVITS = {
  davit_tiny: { depths: [1, 1, 3, 1], dims: [96, 192, 384, 768], heads: [3, 6, 12, 24] },
  davit_small: { depths: [1, 1, 9, 1], dims: [96, 192, 384, 768], heads: [3, 6, 12, 24] },
  davit_base: { depths: [1, 1, 9, 1], dims: [128, 256, 512, 1024], heads: [4, 8, 16, 32] },
  davit_large: { depths: [1, 1, 9, 1], dims: [192, 384, 768, 1536], heads: [6, 12, 24, 48], window: 12 },
  davit_huge: { depths: [1, 1, 9, 1], dims: [256, 512, 1024, 2048], heads: [8, 16, 32, 64] },
  davit_giant: { depths: [1, 1, 12, 3], dims: [384, 768, 1536, 3072], heads: [12, 24, 48, 96] },
} as const satisfies Readonly<Record<string, DaViTOptions>>;
