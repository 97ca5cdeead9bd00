/** What tests that build published blocks and models share: weights by their names, heads, convolutions as linear maps. */
import { add, chunk, layerNorm, linear, mul, pad, permute, reshape, slice, sub, type Activation, type Tensor } from '../lib/index.ts'; // prettier-ignore
import type { GoldenCase } from './golden_case.ts';

/** Models are deeper than an op: their tolerance is 2e-4. */
export const MODEL = { factor: 10 };

/** Weights under a prefix of their names. */
export class Layers {
  readonly #golden: GoldenCase;
  readonly #prefix: string;

  constructor(golden: GoldenCase, prefix = '') {
    this.#golden = golden;
    this.#prefix = prefix;
  }
  at(name: string): Layers {
    return new Layers(this.#golden, `${this.#prefix}${name}.`);
  }
  weight(name: string): Tensor {
    return this.#golden.weight(`${this.#prefix}${name}`);
  }
  linear(x: Tensor, name: string, activation: Activation = 'none'): Tensor {
    return linear(x, this.weight(`${name}.weight`), this.weight(`${name}.bias`), activation);
  }
  norm(x: Tensor, name: string, eps = 1e-5): Tensor {
    return layerNorm(x, this.weight(`${name}.weight`), this.weight(`${name}.bias`), { eps });
  }
  /** Batch normalisation in evaluation, channels last. */
  batchNorm(x: Tensor, name: string): Tensor {
    const part = (key: string): Tensor => this.weight(`${name}.${key}`);
    const normal = mul(sub(x, part('running_mean')), part('running_var').add(1e-5).rsqrt());
    return add(mul(normal, part('weight')), part('bias'));
  }
  mlp(x: Tensor, activation: Activation = 'gelu'): Tensor {
    return this.linear(this.linear(x, 'mlp.fc1', activation), 'mlp.fc2');
  }
  /** Convolution of images with channels last: a linear map for each place of the filter. */
  conv(x: Tensor, name: string, { stride = 1, padding = 0, bias = true } = {}): Tensor {
    const weight = this.weight(`${name}.weight`);
    const [, , high, wide] = weight.shape;
    const around = pad(x, [[0, 0], [padding, padding], [padding, padding], [0, 0]]); // prettier-ignore
    const [rows, columns] = [around.shape[1] - high, around.shape[2] - wide];
    let out: Tensor | null = null;
    for (let i = 0; i < high; i++)
      for (let j = 0; j < wide; j++) {
        const seen = slice(slice(around, 1, i, i + rows + 1, stride), 2, j, j + columns + 1, stride);
        const tap = reshape(slice(slice(weight, 2, i, i + 1), 3, j, j + 1), weight.shape.slice(0, 2));
        const term = linear(seen, tap);
        out = out ? add(out, term) : term;
      }
    return bias ? add(out as Tensor, this.weight(`${name}.bias`)) : (out as Tensor);
  }
}

export const setting = (g: GoldenCase, name: string): number => g.config[name] as number;

/** [batch, tokens, channels] to [batch, heads, tokens, dim], and back. */
export const toHeads = (x: Tensor, heads: number): Tensor =>
  permute(reshape(x, [x.shape[0], x.shape[1], heads, x.shape[2] / heads]), [0, 2, 1, 3]);
export const toTokens = (x: Tensor): Tensor =>
  reshape(permute(x, [0, 2, 1, 3]), [x.shape[0], x.shape[2], x.shape[1] * x.shape[3]]);

/** q, k, v of a joint projection. */
export function qkvOf(w: Layers, x: Tensor, heads: number, bias = true): [Tensor, Tensor, Tensor] {
  const joint = linear(x, w.weight('qkv.weight'), bias ? w.weight('qkv.bias') : null);
  return chunk(joint, 3, -1).map((t) => toHeads(t, heads)) as [Tensor, Tensor, Tensor];
}

/** [batch, channels, rows, columns] with channels last, and back. */
export const channelsLast = (x: Tensor): Tensor => permute(x, [0, 2, 3, 1]);
export const channelsFirst = (x: Tensor): Tensor => permute(x, [0, 3, 1, 2]);
