import { expectCount } from '../attention/checks.ts';
import { NEIGHBORHOOD_WINDOW, neighborhoodAttention, type NeighborhoodWindow } from '../attention/neighborhood.ts';
import { FoveaError } from '../errors.ts';
import { mul } from '../ops/binary.ts';
import { pad } from '../ops/pad.ts';
import { randn } from '../ops/random.ts';
import { reshape, select, slice } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Linear } from './linear.ts';
import { Module, parameter } from './module.ts';

export interface NeighborhoodLayerOptions extends NeighborhoodWindow {
  heads: number;
  /** Bias of the projection in. Default true. */
  qkvBias?: boolean;
  /** Bias of the projection out. Default true. */
  projBias?: boolean;
  /** A relative position bias, trained; needs an odd kernel. Default false. */
  rpb?: boolean;
  /** Whether an axis shorter than kernel * dilation is padded, and not an error. Default as `rpb`. */
  pad?: boolean;
}

const LAYER_OPTIONS: OptionNames<NeighborhoodLayerOptions> = {
  ...NEIGHBORHOOD_WINDOW,
  heads: true,
  qkvBias: true,
  projBias: true,
  rpb: true,
  pad: true,
};

/**
 * Neighborhood attention with its projections over `axes` axes of space: x [batch, ...space, dim] to the same shape.
 *
 * With `rpb` it is the layer of the NAT and DiNAT checkpoints. An axis that is padded gets zeros at its end before the projection, so that
 * padding has the bias as query, key and value, and is cropped after.
 *
 * Keys: qkv.{weight,bias} [3 dim, dim], rows in the order q, k, v, each head by head; proj.{weight,bias}; rpb [heads, 2 kernel - 1, ...].
 */
class NeighborhoodAttention extends Module {
  readonly heads: number;
  readonly window: NeighborhoodWindow;
  readonly axes: number;
  qkv: Linear;
  proj: Linear;
  rpb: Tensor | null = null;
  readonly pad: boolean;

  constructor(axes: number, dim: number, options: NeighborhoodLayerOptions) {
    super();
    expectOptions('NeighborhoodAttention', options, LAYER_OPTIONS);
    const { heads, qkvBias = true, projBias = true, rpb = false, pad = rpb, ...window } = options;
    for (const [name, value] of Object.entries({ dim, heads })) expectCount('NeighborhoodAttention', name, value);
    if (!Number.isInteger(dim / heads))
      throw new FoveaError('ERR_ARGUMENT', `NeighborhoodAttention: ${heads} heads do not divide dim ${dim}`);
    this.heads = heads;
    this.window = window;
    this.axes = axes;
    this.pad = pad;
    this.qkv = new Linear(dim, 3 * dim, { bias: qkvBias });
    this.proj = new Linear(dim, dim, { bias: projBias });
    if (!rpb) return;
    const kernel = this.#each(window.kernelSize);
    if (kernel.some((n) => n % 2 === 0))
      throw new FoveaError('ERR_ARGUMENT', `NeighborhoodAttention: rpb needs odd kernels, got ${kernel.join(', ')}`);
    this.rpb = parameter(mul(randn([heads, ...kernel.map((n) => 2 * n - 1)]), 0.02));
  }

  override forward(x: Tensor): Tensor {
    if (x.rank !== this.axes + 2)
      throw new FoveaError(
        'ERR_SHAPE',
        `NeighborhoodAttention: got ${shapeText(x.shape)}, expected [batch, ...space, dim] with ${this.axes} axes of space`,
      );
    const space = x.shape.slice(1, -1);
    const dim = x.shape[x.rank - 1];
    const padded = this.pad ? this.#padded(x, space) : x;
    const split = [...padded.shape.slice(0, -1), 3, this.heads, dim / this.heads];
    const qkv = reshape(this.qkv.forward(padded), split);
    const [q, k, v] = [0, 1, 2].map((i) => select(qkv, this.axes + 1, i));
    const out = neighborhoodAttention(q, k, v, { ...this.window, ...(this.rpb && { rpb: this.rpb }) });
    const joined = reshape(out, padded.shape);
    return this.proj.forward(space.reduce((t, extent, axis) => slice(t, axis + 1, 0, extent), joined));
  }

  #each(value: number | readonly number[]): number[] {
    return typeof value === 'number' ? Array.from({ length: this.axes }, () => value) : [...value];
  }

  #padded(x: Tensor, space: readonly number[]): Tensor {
    const dilation = this.#each(this.window.dilation ?? 1);
    const missing = this.#each(this.window.kernelSize).map((n, i) => Math.max(n * dilation[i] - space[i], 0));
    if (missing.every((n) => n === 0)) return x;
    return pad(x, [[0, 0], ...missing.map((n) => [0, n] as const), [0, 0]]);
  }
}

/** Neighborhood attention over sequences, x [batch, length, dim]. */
export class NeighborhoodAttention1D extends NeighborhoodAttention {
  constructor(dim: number, options: NeighborhoodLayerOptions) {
    super(1, dim, options);
  }
}

/** Neighborhood attention over images, x [batch, rows, columns, dim]. */
export class NeighborhoodAttention2D extends NeighborhoodAttention {
  constructor(dim: number, options: NeighborhoodLayerOptions) {
    super(2, dim, options);
  }
}

/** Neighborhood attention over volumes, x [batch, planes, rows, columns, dim]. */
export class NeighborhoodAttention3D extends NeighborhoodAttention {
  constructor(dim: number, options: NeighborhoodLayerOptions) {
    super(3, dim, options);
  }
}
