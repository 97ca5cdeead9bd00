import { expectCount } from '../attention/checks.ts';
import { ATTENTION_OPTIONS, type AttentionOptions } from '../attention/arguments.ts';
import { attention } from '../attention/attention.ts';
import { FoveaError } from '../errors.ts';
import { split } from '../ops/concat.ts';
import { rotary, rotaryTable, type RotaryTable } from '../ops/rotary.ts';
import { permute, reshape } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { DeviceName } from '../tensor/device.ts';
import { keep } from '../tensor/scope.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { KvCache } from './kv_cache.ts';
import { Linear } from './linear.ts';
import { Module } from './module.ts';

export interface RotarySettings {
  /** Default 10000. */
  base?: number;
  /** Leading dimensions of a head that are turned. Default all. */
  dims?: number;
  /** Default false (halves, as Llama). */
  interleaved?: boolean;
}

const ROTARY_SETTINGS: OptionNames<RotarySettings> = { base: true, dims: true, interleaved: true };

export interface MultiHeadAttentionOptions {
  heads: number;
  /** Key/value heads, a divisor of `heads`. Default `heads`. */
  kvHeads?: number;
  /** Dimensions of a head. Default dim / heads. */
  headDim?: number;
  /** Cross attention: width of the context that keys and values come from. Default none: self attention. */
  contextDim?: number;
  /** Bias of the projections in. Default true. */
  qkvBias?: boolean;
  /** Bias of the projection out. Default true. */
  projBias?: boolean;
  /** Rotary positions for queries and keys; true for the defaults. Self attention only. */
  rotary?: boolean | RotarySettings;
}

export const MULTI_HEAD_ATTENTION_OPTIONS: OptionNames<MultiHeadAttentionOptions> = {
  heads: true,
  kvHeads: true,
  headDim: true,
  contextDim: true,
  qkvBias: true,
  projBias: true,
  rotary: true,
};

/** What a call may add: options of attention(), the context of cross attention, a cache for decoding. */
export interface AttentionInput extends Omit<AttentionOptions, 'returnLse'> {
  context?: Tensor;
  /** Keys and values of earlier tokens: this call's are appended, and positions go on from there. No gradient flows through it. */
  cache?: KvCache;
}

const INPUT_OPTIONS: OptionNames<AttentionInput> = { ...ATTENTION_OPTIONS, context: true, cache: true };

/**
 * Multi-head attention with its projections. x [B, L, dim] to [B, L, dim].
 *
 * Keys, self attention: qkv.{weight,bias} [(heads + 2 kvHeads) headDim, dim], rows in the order all q heads, all k heads, all v heads;
 * cross attention: q.{weight,bias}, kv.{weight,bias} (k heads, then v heads); both: proj.{weight,bias}.
 *
 * Source: Vaswani et al. 2017, section 3.2.2; grouped heads: Ainslie et al. 2023, "GQA".
 */
export class MultiHeadAttention extends Module {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly rotary: RotarySettings | null;
  qkv: Linear | null = null;
  q: Linear | null = null;
  kv: Linear | null = null;
  proj: Linear;
  #table: RotaryTable | null = null;

  constructor(dim: number, options: MultiHeadAttentionOptions) {
    super();
    expectOptions('MultiHeadAttention', options, MULTI_HEAD_ATTENTION_OPTIONS);
    const { heads, kvHeads = heads, contextDim, qkvBias = true, projBias = true } = options;
    for (const [name, value] of Object.entries({ dim, heads, kvHeads })) expectCount('MultiHeadAttention', name, value);
    const { headDim = dim / heads } = options;
    if (!Number.isInteger(headDim) || heads % kvHeads !== 0) {
      throw new FoveaError(
        'ERR_ARGUMENT',
        `MultiHeadAttention: dim ${dim}, heads ${heads}, kvHeads ${kvHeads}; heads must divide dim and be a multiple of kvHeads`,
      );
    }
    if (contextDim !== undefined && options.rotary) {
      throw new FoveaError(
        'ERR_ARGUMENT',
        'MultiHeadAttention: rotary positions are for self attention, not with contextDim',
      );
    }
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.headDim = headDim;
    this.rotary = options.rotary === true ? {} : options.rotary || null;
    if (this.rotary) expectOptions('MultiHeadAttention: rotary', this.rotary, ROTARY_SETTINGS);
    if (contextDim === undefined) this.qkv = new Linear(dim, (heads + 2 * kvHeads) * headDim, { bias: qkvBias });
    else {
      this.q = new Linear(dim, heads * headDim, { bias: qkvBias });
      this.kv = new Linear(contextDim, 2 * kvHeads * headDim, { bias: qkvBias });
    }
    this.proj = new Linear(heads * headDim, dim, { bias: projBias });
  }

  override forward(x: Tensor, input: AttentionInput = {}): Tensor {
    expectOptions('MultiHeadAttention.forward', input, INPUT_OPTIONS);
    const { context, cache, ...options } = input;
    const [batch, length] = x.shape;
    let [q, k, v] = this.#project(x, context);
    if (this.rotary) {
      const start = cache?.length ?? 0;
      const settings = {
        table: this.#angles(start + length, x.device),
        interleaved: this.rotary.interleaved,
        offset: start,
      };
      q = rotary(q, settings);
      k = rotary(k, settings);
    }
    if (cache) {
      cache.append(k, v);
      [k, v] = [cache.keys, cache.values];
    }
    const out = attention(q, k, v, options);
    return this.proj.forward(reshape(permute(out, [0, 2, 1, 3]), [batch, length, this.heads * this.headDim]));
  }

  /** q, k, v as [B, H, L, D] views. */
  #project(x: Tensor, context: Tensor | undefined): Tensor[] {
    const { heads, kvHeads, headDim } = this;
    const headsOf = (t: Tensor, counts: readonly number[]): Tensor[] => {
      const total = counts.reduce((a, b) => a + b, 0);
      const apart = split(reshape(t, [...t.shape.slice(0, 2), total, headDim]), counts, 2);
      return apart.map((part) => permute(part, [0, 2, 1, 3]));
    };
    if (this.qkv) {
      if (context)
        throw new FoveaError('ERR_ARGUMENT', 'MultiHeadAttention: a context needs { contextDim } at construction');
      return headsOf(this.qkv.forward(x), [heads, kvHeads, kvHeads]);
    }
    if (!context) throw new FoveaError('ERR_ARGUMENT', 'MultiHeadAttention: cross attention needs { context }');
    const [q, kv] = [this.q as Linear, this.kv as Linear];
    return [...headsOf(q.forward(x), [heads]), ...headsOf(kv.forward(context), [kvHeads, kvHeads])];
  }

  /** Angles for at least `length` positions; grown by doubling and kept (a graph may still use the smaller table). */
  #angles(length: number, device: DeviceName): RotaryTable {
    if (!this.#table || this.#table.cos.shape[0] < length || this.#table.cos.device !== device) {
      const rows = Math.max(64, 2 ** Math.ceil(Math.log2(length)));
      const table = rotaryTable(rows, this.rotary?.dims ?? this.headDim, this.rotary?.base, device);
      this.#table = { cos: keep(table.cos), sin: keep(table.sin) };
    }
    return this.#table;
  }
}
