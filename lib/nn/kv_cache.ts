import { FoveaError } from '../errors.ts';
import { copyFrom } from '../ops/copy.ts';
import { zeros } from '../ops/creation.ts';
import { slice } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { DeviceName } from '../tensor/device.ts';
import type { DType } from '../tensor/dtype.ts';
import { keep } from '../tensor/scope.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';

export interface KvCacheOptions {
  batch: number;
  /** Key/value heads. */
  heads: number;
  /** Rows that fit. */
  maxLength: number;
  /** Dimensions of a key row. */
  dim: number;
  /** Dimensions of a value row. Default `dim`. */
  valueDim?: number;
  /** Default f32. */
  dtype?: DType;
  /** Default: that of setDevice(), at first the CPU. */
  device?: DeviceName;
}

const CACHE_OPTIONS: OptionNames<KvCacheOptions> = {
  batch: true,
  heads: true,
  maxLength: true,
  dim: true,
  valueDim: true,
  dtype: true,
  device: true,
};

/**
 * Keys and values of the tokens seen so far, in memory allocated once: k [batch, heads, maxLength, dim], v alike. append() writes in place
 * (the version of the memory rises), `keys` and `values` are views of what is there. For decoding: no
 * gradient flows through a cache.
 */
export class KvCache {
  readonly k: Tensor;
  readonly v: Tensor;
  readonly maxLength: number;
  #length = 0;

  constructor(options: KvCacheOptions) {
    expectOptions('KvCache', options, CACHE_OPTIONS);
    const { batch, heads, maxLength, dim, valueDim = dim, dtype = 'f32', device } = options;
    this.k = keep(zeros([batch, heads, maxLength, dim], { dtype, device }));
    this.v = keep(zeros([batch, heads, maxLength, valueDim], { dtype, device }));
    this.maxLength = maxLength;
  }

  /** Rows in use. */
  get length(): number {
    return this.#length;
  }

  /** [batch, heads, length, dim], a view. */
  get keys(): Tensor {
    return slice(this.k, 2, 0, this.#length);
  }

  /** [batch, heads, length, valueDim], a view. */
  get values(): Tensor {
    return slice(this.v, 2, 0, this.#length);
  }

  /** Adds the rows of k and v [batch, heads, n, ...]. Throws ERR_SHAPE when shapes do not fit, ERR_INDEX when the cache is full. */
  append(k: Tensor, v: Tensor): void {
    const n = k.shape[2];
    const fits = (t: Tensor, own: Tensor): boolean =>
      t.rank === 4 && own.shape.every((extent, axis) => (axis === 2 ? t.shape[2] === n : t.shape[axis] === extent));
    if (!fits(k, this.k) || !fits(v, this.v)) {
      throw new FoveaError(
        'ERR_SHAPE',
        `KvCache.append: k ${shapeText(k.shape)} and v ${shapeText(v.shape)} do not fit a cache of ${shapeText(this.k.shape)} and ${shapeText(this.v.shape)}`,
      );
    }
    if (this.#length + n > this.maxLength) {
      throw new FoveaError(
        'ERR_INDEX',
        `KvCache.append: ${n} rows after ${this.#length} do not fit a cache of ${this.maxLength}; truncate() or make a larger one`,
      );
    }
    for (const [cache, rows] of [
      [this.k, k],
      [this.v, v],
    ]) {
      using target = slice(cache, 2, this.#length, this.#length + n);
      using source = rows.detach();
      copyFrom(target, source);
    }
    this.#length += n;
  }

  /** Forgets the rows from `length` on; 0 empties the cache. Throws ERR_INDEX when there are fewer. */
  truncate(length = 0): void {
    if (!Number.isInteger(length) || length < 0 || length > this.#length) {
      throw new FoveaError('ERR_INDEX', `KvCache.truncate: ${length} is not in 0 to ${this.#length}`);
    }
    this.#length = length;
  }

  dispose(): void {
    this.k.dispose();
    this.v.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
