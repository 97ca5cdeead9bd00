/** What several models have: layers over images with channels last, and checks of their options. */
import { FoveaError } from '../errors.ts';
import { Conv2d } from '../nn/conv.ts';
import { Module } from '../nn/module.ts';
import { expectIntegers, kindText } from '../tensor/expect.ts';
import type { Tensor } from '../tensor/tensor.ts';

/** Throws ERR_ARGUMENT unless `depths` are whole numbers and every list that is given has an entry for each, none of them a BigInt. */
export function expectOnePerStage(
  model: string,
  depths: readonly number[],
  lists: Readonly<Record<string, readonly unknown[] | undefined>>,
): void {
  expectIntegers(model, 'depths', depths);
  for (const [name, list] of Object.entries(lists)) {
    if (list === undefined) continue;
    if (!Array.isArray(list) || list.length !== depths.length)
      throw new FoveaError(
        'ERR_ARGUMENT',
        `${model}: ${name} ${Array.isArray(list) ? `has ${list.length} entries` : `is ${kindText(list)}`}, expected one for each of ${depths.length} stages`,
      );
    if (list.some((entry) => typeof entry === 'bigint'))
      throw new FoveaError('ERR_ARGUMENT', `${model}: ${name} [${list.join(', ')}] has a BigInt, expected numbers`);
  }
}

/** A filter of odd size for each channel, the image keeping its size. */
export const depthwise = (dim: number, rows: number, columns = rows): Conv2d =>
  new Conv2d(dim, dim, [rows, columns], { groups: dim, padding: [rows >> 1, columns >> 1], layout: 'nhwc' });

/** A linear layer over channels, kept as a convolution of one pixel. */
export const pointwise = (from: number, to: number, bias = true): Conv2d =>
  new Conv2d(from, to, 1, { bias, layout: 'nhwc' });

/** Patches of `size` x `size` pixels, side by side, each a pixel of the result. */
export const patches = (from: number, to: number, size: number): Conv2d =>
  new Conv2d(from, to, size, { stride: size, layout: 'nhwc' });

/** The convolution of 3 x 3 inside a feed-forward net. Keys: dwconv.*. */
export class InnerConv extends Module {
  dwconv: Conv2d;

  constructor(dim: number) {
    super();
    this.dwconv = depthwise(dim, 3);
  }

  override forward(x: Tensor): Tensor {
    return this.dwconv.forward(x);
  }
}

/** Rates of stochastic depth, one a call for `count` blocks in turn: they rise evenly from 0 to `last`. */
export function risingRates(last: number, count: number): () => number {
  let at = 0;
  return () => (last * at++) / Math.max(1, count - 1);
}
