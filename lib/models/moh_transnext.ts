/**
 * MoH-TransNeXt: the TransNeXt backbone with its attention as a mixture of heads. Three stages see the pixels around and a pooled image in one
 * softmax, the last all pixels; a router weights the heads of every token and leaves some out.
 *
 * Source: Jin et al., "MoH: Multi-Head Attention as Mixture-of-Head Attention", ICML 2025 (MoH-ViT); Shi, "TransNeXt: Robust Foveal Visual
 * Perception for Vision Transformers", CVPR 2024.
 */
import { aggregatedAttention } from '../attention/aggregated.ts';
import { constant } from '../attention/constant.ts';
import { headGates, mixtureOfHeads, type HeadGates } from '../attention/mixture_of_heads.ts';
import { FoveaError } from '../errors.ts';
import { Conv2d } from '../nn/conv.ts';
import { DropPath } from '../nn/drop_path.ts';
import { Linear } from '../nn/linear.ts';
import { Module, parameter } from '../nn/module.ts';
import { LayerNorm } from '../nn/norm.ts';
import { add, div, maximum, mul } from '../ops/binary.ts';
import { split } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { full } from '../ops/creation.ts';
import { indexSelect } from '../ops/embedding.ts';
import { pairOf, type Pair } from '../ops/image_windows.ts';
import { avgPool2d } from '../ops/pool2d.ts';
import { randn } from '../ops/random.ts';
import { mean, norm } from '../ops/reduce.ts';
import { gelu, relu, softplus } from '../ops/unary.ts';
import { permute, reshape, select, squeeze, transpose, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { DeviceName } from '../tensor/device.ts';
import { tensor } from '../tensor/create.ts';
import { keep } from '../tensor/scope.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { expectOnePerStage, InnerConv, pointwise, risingRates } from './parts.ts';

export interface MohTransNeXtOptions {
  /** Channels of each stage. */
  readonly dims: readonly number[];
  readonly heads: readonly number[];
  /** Blocks of each stage. */
  readonly depths: readonly number[];
  /** Heads of each stage that every token uses; all of them where no head is routed. */
  readonly shared: readonly number[];
  /** Heads a token picks of the others, in each stage. */
  readonly routed: readonly number[];
  /** Width of feed-forward nets before the factor 2/3 of gated ones. Default 8, 8, 4, 4. */
  readonly mlpRatios?: readonly number[];
  /** Rows and columns of a cell of the pooled image; a stage with 1 attends to all pixels. Default 8, 4, 2, 1. */
  readonly poolRatios?: readonly number[];
  /** Rows and columns of the local window, odd. Default 3. */
  readonly windows?: readonly (number | null)[];
  /** Rows and columns of the images, a multiple of all strides: positions are of one size. Default 224. */
  readonly imageSize?: Pair;
  /** The size that positions are measured in. Default `imageSize`. */
  readonly pretrainSize?: Pair;
  /** Stride of the first patches, which are 2 of it less 1 wide. Default 4. */
  readonly patchSize?: number;
  /** Default true. */
  readonly qkvBias?: boolean;
  /** Of the last block; those before have a share by their depth. Default 0. */
  readonly dropPath?: number;
  /** Default 1000. */
  readonly classes?: number;
  /** Default 3. */
  readonly inChannels?: number;
}

const MOH_TRANSNEXT_OPTIONS: OptionNames<MohTransNeXtOptions> = {
  dims: true,
  heads: true,
  depths: true,
  shared: true,
  routed: true,
  mlpRatios: true,
  poolRatios: true,
  windows: true,
  imageSize: true,
  pretrainSize: true,
  patchSize: true,
  qkvBias: true,
  dropPath: true,
  classes: true,
  inChannels: true,
};

/** Sizes a stage works with. */
interface StageSizes {
  readonly dim: number;
  readonly heads: number;
  readonly shared: number;
  readonly routed: number;
  readonly image: readonly [number, number];
  /** Of the pooled image, or of the image itself. */
  readonly keys: readonly [number, number];
  readonly pretrain: readonly [number, number];
  readonly window: number;
  readonly qkvBias: boolean;
}

/** A tensor that depends on sizes alone, made once for each device. */
class Constant {
  readonly #make: (device: DeviceName) => Tensor;
  readonly #made = new Map<DeviceName, Tensor>();

  constructor(make: (device: DeviceName) => Tensor) {
    this.#make = make;
  }

  on({ device }: Tensor): Tensor {
    let t = this.#made.get(device);
    if (!t) this.#made.set(device, (t = keep(this.#make(device))));
    return t;
  }
}

/** Places of a query, along one axis, from every key, each value once: `values`, and its number for each [query, key]. */
function distances(queries: number, keys: number, pretrain: number): { values: number[]; index: number[][] } {
  const values: number[] = [];
  const numberOf = new Map<number, number>();
  const centre = (j: number): number => {
    const [start, end] = [Math.floor((j * queries) / keys), Math.ceil(((j + 1) * queries) / keys)];
    return (start + end - 1) / 2;
  };
  const index = Array.from({ length: queries }, (_, i) =>
    Array.from({ length: keys }, (_, j) => {
      const distance = i - centre(j);
      let at = numberOf.get(distance);
      if (at === undefined) {
        numberOf.set(distance, (at = values.length));
        const r = (distance / Math.max(1, pretrain - 1)) * 8;
        values.push((Math.sign(r) * Math.log2(Math.abs(r) + 1)) / 3);
      }
      return at;
    }),
  );
  return { values, index };
}

/**
 * Positions of keys relative to queries: `coordinates` [n, 2] of each that occurs, on a logarithmic scale, and for each query and key, row by row,
 * which it is.
 */
class RelativePositions {
  readonly coordinates: Constant;
  readonly index: Constant;

  constructor({ image, keys, pretrain }: StageSizes) {
    const [down, across] = [0, 1].map((i) => distances(image[i], keys[i], pretrain[i]));
    const pairs = down.values.flatMap((y) => across.values.flatMap((x) => [y, x]));
    this.coordinates = new Constant((device) =>
      tensor(Float32Array.from(pairs), [pairs.length / 2, 2], { dtype: 'f32', device }),
    );
    const index = new Int32Array(image[0] * image[1] * keys[0] * keys[1]);
    let at = 0;
    for (const rows of down.index)
      for (const columns of across.index)
        for (const y of rows) for (const x of columns) index[at++] = y * across.values.length + x;
    this.index = new Constant((device) => constant(index, 'i32', device, [index.length]));
  }
}

const unit = (t: Tensor): Tensor => div(t, maximum(norm(t, -1, true), 1e-12));

/** The parts of both kinds of attention: cosine logits with a temperature, positions, the router. Keys as MohTransNeXt lists them. */
abstract class HeadMixture extends Module {
  readonly sizes: StageSizes;
  readonly positions: RelativePositions;
  temperature: Tensor;
  query_embedding: Tensor;
  proj: Linear;
  cpb_fc1: Linear;
  cpb_fc2: Linear;
  wg: Linear | null;
  wg_0: Linear | null;
  wg_1: Linear | null;

  constructor(sizes: StageSizes, positions: RelativePositions) {
    super();
    const { dim, heads, shared, routed } = sizes;
    if (dim % heads !== 0)
      throw new FoveaError('ERR_ARGUMENT', `MohTransNeXt: ${heads} heads do not divide ${dim} channels`);
    this.sizes = sizes;
    this.positions = positions;
    this.temperature = parameter(full([heads, 1, 1], Math.log(Math.exp(1 / 0.24) - 1)));
    this.query_embedding = parameter(randn([heads, 1, dim / heads], { std: 0.02 }));
    this.proj = new Linear(dim, dim);
    this.cpb_fc1 = new Linear(2, 512);
    this.cpb_fc2 = new Linear(512, heads);
    const router = (outputs: number): Linear => new Linear(dim, outputs, { bias: false });
    this.wg = routed > 0 ? router(heads - shared) : null;
    this.wg_0 = routed > 0 && shared > 0 ? router(2) : null;
    this.wg_1 = shared > 1 ? router(shared) : null;
  }

  /** x [batch, rows, columns, channels] to the same, and the loss of the router. */
  abstract override forward(x: Tensor): { out: Tensor; balanceLoss: Tensor };

  protected gates(tokens: Tensor): HeadGates {
    const { heads, shared, routed } = this.sizes;
    const weights = {
      ...(this.wg && { routed: this.wg.weight }),
      ...(this.wg_0 && { balance: this.wg_0.weight }),
      ...(this.wg_1 && { shared: this.wg_1.weight }),
    };
    return headGates(tokens, weights, { heads, shared, active: routed });
  }

  /** Bias of each head for all queries and keys, [heads, queries, keys]. */
  protected positionBias(): Tensor {
    const { heads, image } = this.sizes;
    const { weight } = this.cpb_fc1;
    const coordinates = cast(this.positions.coordinates.on(weight), weight.dtype);
    const table = transpose(this.cpb_fc2.forward(relu(this.cpb_fc1.forward(coordinates))), 0, 1);
    return reshape(indexSelect(table, 1, this.positions.index.on(weight)), [heads, image[0] * image[1], -1]);
  }
}

/** Attention to all pixels. Keys besides: qkv.*. */
class FullMixture extends HeadMixture {
  qkv: Linear;

  constructor(sizes: StageSizes, positions: RelativePositions) {
    super(sizes, positions);
    this.qkv = new Linear(sizes.dim, 3 * sizes.dim, { bias: sizes.qkvBias });
  }

  override forward(x: Tensor): { out: Tensor; balanceLoss: Tensor } {
    const { heads, dim } = this.sizes;
    const [batch, rows, columns] = x.shape;
    const count = rows * columns;
    const tokens = reshape(x, [batch, count, dim]);
    const { gates, balanceLoss } = this.gates(tokens);
    const joint = reshape(this.qkv.forward(tokens), [batch, count, 3, heads, dim / heads]);
    const [q, k, v] = [0, 1, 2].map((i) => permute(select(joint, 2, i), [0, 2, 1, 3]));
    const sharpness = mul(softplus(this.temperature), Math.log(count));
    const queries = mul(add(unit(q), this.query_embedding), sharpness);
    const mixed = mixtureOfHeads(queries, unit(k), v, gates, { bias: unsqueeze(this.positionBias(), 0), scale: 1 });
    return { out: this.proj.forward(reshape(permute(mixed, [0, 2, 1, 3]), x.shape)), balanceLoss };
  }
}

/** Attention to pixels around and to the pooled image. Keys besides: q.*, kv.*, sr.*, norm.*, relative_pos_bias_local, learnable_{tokens,bias}. */
class AggregatedMixture extends HeadMixture {
  readonly logKeys: Constant;
  q: Linear;
  kv: Linear;
  sr: Conv2d;
  norm: LayerNorm;
  relative_pos_bias_local: Tensor;
  learnable_tokens: Tensor;
  learnable_bias: Tensor;

  constructor(sizes: StageSizes, positions: RelativePositions) {
    super(sizes, positions);
    const { dim, heads, window, qkvBias } = sizes;
    const slots = window * window;
    this.logKeys = new Constant((device) => logKeys(sizes, device));
    this.q = new Linear(dim, dim, { bias: qkvBias });
    this.kv = new Linear(dim, 2 * dim, { bias: qkvBias });
    this.sr = pointwise(dim, dim);
    this.norm = new LayerNorm(dim);
    this.relative_pos_bias_local = parameter(randn([heads, slots], { std: 0.0004 }));
    this.learnable_tokens = parameter(randn([heads, dim / heads, slots], { std: 0.02 }));
    this.learnable_bias = parameter(full([heads, 1, slots], 0));
  }

  override forward(x: Tensor): { out: Tensor; balanceLoss: Tensor } {
    const { heads, dim, image, keys, window } = this.sizes;
    const [batch, rows, columns] = x.shape;
    const each = dim / heads;
    const byHead = (t: Tensor): Tensor => reshape(t, [batch, rows, columns, heads, each]);
    const ofHeads = (t: Tensor): Tensor => reshape(t, [1, 1, 1, heads, -1]);

    const cells = [image[0] / keys[0], image[1] / keys[1]] as const;
    const pooled = this.norm.forward(avgPool2d(gelu(this.sr.forward(x)), cells, { layout: 'nhwc' }));
    const [pooledK, pooledV] = split(this.kv.forward(pooled), dim, 3).map((t) =>
      permute(reshape(t, [batch, keys[0] * keys[1], heads, each]), [0, 2, 1, 3]),
    );
    const [k, v] = split(this.kv.forward(x), dim, 3).map(byHead);
    const queries = unit(byHead(this.q.forward(x)));
    const sharpness = mul(ofHeads(softplus(this.temperature)), cast(this.logKeys.on(x), x.dtype));
    const out = aggregatedAttention(mul(add(queries, ofHeads(this.query_embedding)), sharpness), unit(k), v, {
      pooledK: unit(pooledK),
      pooledV,
      window,
      localBias: this.relative_pos_bias_local,
      pooledBias: this.positionBias(),
      tokens: { queries, keys: this.learnable_tokens, bias: squeeze(this.learnable_bias, 1) },
      scale: 1,
    });
    const { gates, balanceLoss } = this.gates(reshape(x, [batch, rows * columns, dim]));
    const gated = mul(out, reshape(gates, [batch, rows, columns, heads, 1]));
    return { out: this.proj.forward(reshape(gated, x.shape)), balanceLoss };
  }
}

/** log of the number of keys a pixel sees, [1, rows, columns, 1, 1]. */
function logKeys({ image, keys, window }: StageSizes, device: DeviceName): Tensor {
  const side = (window - 1) / 2;
  const seen = (at: number, extent: number): number => Math.min(at, side) + 1 + Math.min(extent - 1 - at, side);
  const logs = Float32Array.from({ length: image[0] * image[1] }, (_, i) => {
    const local = seen(Math.floor(i / image[1]), image[0]) * seen(i % image[1], image[1]);
    return Math.log(local + keys[0] * keys[1]);
  });
  return tensor(logs, [1, image[0], image[1], 1, 1], { dtype: 'f32', device });
}

/** fc2(GELU(dwconv(a)) v) with a and v the halves of fc1. */
class ConvGlu extends Module {
  fc1: Linear;
  dwconv: InnerConv;
  fc2: Linear;

  constructor(dim: number, ratio: number) {
    super();
    const inside = Math.floor((2 * dim * ratio) / 3);
    this.fc1 = new Linear(dim, 2 * inside);
    this.dwconv = new InnerConv(inside);
    this.fc2 = new Linear(inside, dim);
  }

  override forward(x: Tensor): Tensor {
    const [a, v] = split(this.fc1.forward(x), this.fc2.weight.shape[1], 3);
    return this.fc2.forward(mul(gelu(this.dwconv.forward(a)), v));
  }
}

class Block extends Module {
  norm1: LayerNorm;
  attn: FullMixture | AggregatedMixture;
  norm2: LayerNorm;
  mlp: ConvGlu;
  readonly dropPath: DropPath;

  constructor(dim: number, attn: FullMixture | AggregatedMixture, ratio: number, dropPath: number) {
    super();
    this.norm1 = new LayerNorm(dim, { eps: 1e-6 });
    this.attn = attn;
    this.norm2 = new LayerNorm(dim, { eps: 1e-6 });
    this.mlp = new ConvGlu(dim, ratio);
    this.dropPath = new DropPath(dropPath);
  }

  override forward(x: Tensor): { out: Tensor; balanceLoss: Tensor } {
    const { out, balanceLoss } = this.attn.forward(this.norm1.forward(x));
    const attended = add(x, this.dropPath.forward(out));
    return { out: add(attended, this.dropPath.forward(this.mlp.forward(this.norm2.forward(attended)))), balanceLoss };
  }
}

/** Overlapping patches and a norm. */
class PatchEmbed extends Module {
  proj: Conv2d;
  norm: LayerNorm;

  constructor(from: number, dim: number, size: number, stride: number) {
    super();
    this.proj = new Conv2d(from, dim, size, { stride, padding: size >> 1, layout: 'nhwc' });
    this.norm = new LayerNorm(dim);
  }

  override forward(x: Tensor): Tensor {
    return this.norm.forward(this.proj.forward(x));
  }
}

/**
 * Images x [batch, 3, height, width] of `imageSize` to logits [batch, classes]; `withBalance` also gives the loss that keeps heads in use.
 *
 * Keys, s from 1: patch_embed<s>.{proj,norm}; block<s>.<b>.{norm1,norm2,mlp.{fc1,dwconv.dwconv,fc2}} and
 * .attn.{temperature,query_embedding,proj,cpb_fc1,cpb_fc2,wg,wg_0,wg_1} with attn.qkv, or attn.{q,kv,sr,norm,relative_pos_bias_local,
 * learnable_tokens,learnable_bias}; norm<s>; head.
 */
export class MohTransNeXt extends Module {
  head: Linear;
  readonly imageSize: readonly [number, number];
  readonly #stages: readonly { embed: PatchEmbed; blocks: readonly Block[]; norm: LayerNorm }[];

  constructor(options: MohTransNeXtOptions) {
    super();
    expectOptions('MohTransNeXt', options, MOH_TRANSNEXT_OPTIONS);
    const { dims, depths, heads, shared, routed, imageSize = 224, pretrainSize = imageSize, patchSize = 4 } = options;
    const { mlpRatios = [8, 8, 4, 4], poolRatios = [8, 4, 2, 1], windows = [], qkvBias = true } = options;
    const { dropPath = 0, classes = 1000, inChannels = 3 } = options;
    expectOnePerStage('MohTransNeXt', depths, { dims, heads, shared, routed, mlpRatios, poolRatios });
    this.imageSize = pairOf(imageSize);
    const rate = risingRates(dropPath, depths.reduce((sum, depth) => sum + depth, 0)); // prettier-ignore
    this.#stages = dims.map((dim, s) => {
      const stride = patchSize << s;
      const [ratio, window] = [poolRatios[s], windows[s] ?? 3];
      const cells = (size: Pair, cell: number): [number, number] =>
        pairOf(size).map((n) => n / cell) as [number, number];
      const [image, keys] = [cells(imageSize, stride), cells(imageSize, stride * ratio)];
      if (keys.some((n) => !Number.isInteger(n)))
        throw new FoveaError(
          'ERR_ARGUMENT',
          `MohTransNeXt: images of ${shapeText(this.imageSize)} pixels are not whole cells of ${stride * ratio} in stage ${s + 1}`,
        );
      const sizes: StageSizes = { dim, heads: heads[s], shared: shared[s], routed: routed[s], image, keys, pretrain: cells(pretrainSize, stride), window, qkvBias }; // prettier-ignore
      const positions = new RelativePositions(sizes);
      const blocks = Array.from({ length: depths[s] }, () => {
        const attn = ratio === 1 ? new FullMixture(sizes, positions) : new AggregatedMixture(sizes, positions);
        return new Block(dim, attn, mlpRatios[s], rate());
      });
      const embed = s === 0 ? new PatchEmbed(inChannels, dim, 2 * patchSize - 1, patchSize) : new PatchEmbed(dims[s - 1], dim, 3, 2); // prettier-ignore
      const norm = new LayerNorm(dim, { eps: 1e-6 });
      Object.assign(this, { [`patch_embed${s + 1}`]: embed, [`block${s + 1}`]: blocks, [`norm${s + 1}`]: norm });
      return { embed, blocks, norm };
    });
    this.head = new Linear(dims[dims.length - 1], classes);
  }

  override forward(x: Tensor): Tensor {
    return this.withBalance(x).logits;
  }

  /** Logits, and the mean of the routers' losses over the blocks that route (0 where none does); the paper weights it by 0.01. */
  withBalance(x: Tensor): { readonly logits: Tensor; readonly balanceLoss: Tensor } {
    if (x.rank !== 4 || x.shape[2] !== this.imageSize[0] || x.shape[3] !== this.imageSize[1])
      throw new FoveaError(
        'ERR_SHAPE',
        `MohTransNeXt: images have shape ${shapeText(x.shape)}, expected [batch, channels, ${this.imageSize.join(', ')}] as imageSize says`,
      );
    const losses: Tensor[] = [];
    let t = permute(x, [0, 2, 3, 1]);
    for (const { embed, blocks, norm } of this.#stages) {
      t = embed.forward(t);
      for (const block of blocks) {
        const { out, balanceLoss } = block.forward(t);
        if (block.attn.wg) losses.push(balanceLoss);
        t = out;
      }
      t = norm.forward(t);
    }
    const total = losses.length > 0 ? div(losses.reduce((a, b) => add(a, b)), losses.length) : full([], 0, { device: x.device }); // prettier-ignore
    return { logits: this.head.forward(mean(t, [1, 2])), balanceLoss: total };
  }
}

const BASE = { dims: [96, 192, 384, 768], heads: [4, 8, 16, 32], depths: [5, 5, 23, 5] } as const;
const SMALL = { dims: [72, 144, 288, 576], heads: [3, 6, 12, 24], depths: [5, 5, 22, 5] } as const;

/** The published networks; the number is the share of heads in use. */
export const MOH_TRANSNEXTS = {
  moh_transnext_base_75: { ...BASE, shared: [4, 8, 4, 5], routed: [0, 0, 8, 16] },
  moh_transnext_base_50: { ...BASE, shared: [2, 2, 2, 4], routed: [2, 4, 6, 8] },
  moh_transnext_small_80: { ...SMALL, shared: [3, 6, 3, 8], routed: [0, 0, 6, 12] },
  moh_transnext_small_75: { ...SMALL, shared: [3, 6, 3, 4], routed: [0, 0, 6, 12] },
} as const satisfies Readonly<Record<string, MohTransNeXtOptions>>;
