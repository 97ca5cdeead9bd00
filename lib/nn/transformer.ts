import { add, mul } from '../ops/binary.ts';
import { split } from '../ops/concat.ts';
import { dropout } from '../ops/dropout.ts';
import { silu } from '../ops/unary.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import {
  MULTI_HEAD_ATTENTION_OPTIONS,
  MultiHeadAttention,
  type AttentionInput,
  type MultiHeadAttentionOptions,
} from './attention.ts';
import { Linear } from './linear.ts';
import { Module } from './module.ts';
import { LayerNorm, RMSNorm } from './norm.ts';

export interface MlpOptions {
  /** Width inside. Default 4 dim for 'gelu', 8/3 dim rounded up to a multiple of 32 for 'swiglu'. */
  hidden?: number;
  /** 'gelu' (default; exact), 'geluTanh', or 'swiglu'. */
  kind?: 'gelu' | 'geluTanh' | 'swiglu';
  /** Default true. */
  bias?: boolean;
}

const MLP_OPTIONS: OptionNames<MlpOptions> = { hidden: true, kind: true, bias: true };

/**
 * The two-layer feed-forward net. Keys: fc1.{weight,bias}, fc2.{weight,bias}; for 'swiglu' the rows of fc1 are all gates, then all values:
 * fc2(silu(gate) * value).
 *
 * Source: Shazeer 2020, "GLU Variants Improve Transformer".
 */
export class Mlp extends Module {
  readonly kind: 'gelu' | 'geluTanh' | 'swiglu';
  fc1: Linear;
  fc2: Linear;

  constructor(dim: number, options: MlpOptions = {}) {
    super();
    expectOptions('Mlp', options, MLP_OPTIONS);
    const { hidden, kind = 'gelu', bias = true } = options;
    const inside = hidden ?? (kind === 'swiglu' ? Math.ceil((8 * dim) / 3 / 32) * 32 : 4 * dim);
    this.kind = kind;
    this.fc1 = new Linear(dim, kind === 'swiglu' ? 2 * inside : inside, {
      bias,
      activation: kind === 'swiglu' ? 'none' : kind,
    });
    this.fc2 = new Linear(inside, dim, { bias });
  }

  override forward(x: Tensor): Tensor {
    const h = this.fc1.forward(x);
    if (this.kind !== 'swiglu') return this.fc2.forward(h);
    const [gate, value] = split(h, h.shape[h.rank - 1] / 2, -1);
    return this.fc2.forward(mul(silu(gate), value));
  }
}

export interface TransformerBlockOptions extends MultiHeadAttentionOptions {
  mlp?: MlpOptions;
  /** 'layer' (default) or 'rms'. */
  norm?: 'layer' | 'rms';
  /** Dropout of both branches before they are added. Default 0. */
  dropout?: number;
}

const BLOCK_OPTIONS: OptionNames<TransformerBlockOptions> = {
  ...MULTI_HEAD_ATTENTION_OPTIONS,
  mlp: true,
  norm: true,
  dropout: true,
};

/**
 * A pre-norm transformer block: x + attn(norm1(x)), then + mlp(norm2(x)). x [B, L, dim].
 * Keys: norm1.*, attn.* (see MultiHeadAttention), norm2.*, mlp.* (see Mlp).
 */
export class TransformerBlock extends Module {
  readonly dropout: number;
  norm1: LayerNorm | RMSNorm;
  attn: MultiHeadAttention;
  norm2: LayerNorm | RMSNorm;
  mlp: Mlp;

  constructor(dim: number, options: TransformerBlockOptions) {
    super();
    expectOptions('TransformerBlock', options, BLOCK_OPTIONS);
    const { mlp, norm: kind, dropout = 0, ...heads } = options;
    const norm = (): LayerNorm | RMSNorm => (kind === 'rms' ? new RMSNorm(dim) : new LayerNorm(dim));
    this.dropout = dropout;
    this.norm1 = norm();
    this.attn = new MultiHeadAttention(dim, heads);
    this.norm2 = norm();
    this.mlp = new Mlp(dim, mlp);
  }

  override forward(x: Tensor, options: AttentionInput = {}): Tensor {
    const drop = (t: Tensor): Tensor => dropout(t, this.dropout, { training: this.training });
    const attended = add(x, drop(this.attn.forward(this.norm1.forward(x), options)));
    return add(attended, drop(this.mlp.forward(this.norm2.forward(attended))));
  }
}
