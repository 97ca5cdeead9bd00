/** haloAttention() against golden vectors of the published layer, values and gradients, and its limits. */
import { describe, expect, test } from 'vitest';
import {
  HaloAttention,
  haloAttention,
  mean,
  mul,
  neighborhoodAttention,
  tensor,
  zeros,
  type HaloOptions,
  type Tensor,
} from '../lib/index.ts';
import { checkGolden } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers, uniform } from './inputs.ts';
import { channelsFirst, channelsLast } from './layers.ts';
import { expectClose } from './tolerance.ts';

test.each(['basic', 'rect_bias', 'stride2', 'stride2_avg'])('golden halo_attn_%s: the published layer', (name) =>
  checkGolden(`halo_attn_${name}`, (g) => {
    const { dim, num_heads: heads, dim_out: outDim, dim_head: headDim, block_size: blockSize, halo_size: haloSize, stride, qkv_bias: qkvBias } = g.config; // prettier-ignore
    const layer = g.module(new HaloAttention(dim, { heads, outDim, headDim, blockSize, haloSize, stride, qkvBias }));
    return { y: channelsFirst(layer.forward(channelsLast(g.input('x')))) };
  }),
);

const image = (seed: number, shape: readonly number[]): Tensor =>
  tensor(uniform(shape.reduce((n, e) => n * e, 1), seed), shape, { dtype: 'f32' }); // prettier-ignore

test('without a halo it is attention in blocks', () => {
  const shape = [2, 6, 9, 2, 5];
  const [q, k, v] = [image(1, shape), image(2, shape), image(3, shape)];
  const blocked = neighborhoodAttention(q, k, v, { kernelSize: 3, stride: 3 });
  expectClose(numbers(haloAttention(q, k, v, { blockSize: 3 })), numbers(blocked));
});

interface Sizes {
  readonly batch: number;
  /** Of the keys. */
  readonly rows: number;
  readonly columns: number;
  readonly heads: number;
  readonly dim: number;
  readonly dimV: number;
  readonly block: number;
  readonly halo: number;
  readonly stride: number;
}

/** Window by window, in double precision; tables are optional. */
function reference(
  { batch, rows, columns, heads, dim, dimV, block, halo, stride }: Sizes,
  [q, k, v, height, width]: readonly Float64Array[],
): Float64Array {
  const [side, window] = [block / stride, block + 2 * halo];
  const [down, across] = [rows / stride, columns / stride];
  const out = new Float64Array(batch * down * across * heads * dimV);
  const dot = (a: Float64Array, at: number, b: Float64Array, bt: number): number => {
    let sum = 0;
    for (let d = 0; d < dim; d++) sum += a[at + d] * b[bt + d];
    return sum;
  };
  for (let b = 0; b < batch; b++)
    for (let y = 0; y < down; y++)
      for (let x = 0; x < across; x++)
        for (let h = 0; h < heads; h++) {
          const row = ((b * down + y) * across + x) * heads + h;
          const [top, left] = [Math.floor(y / side) * block - halo, Math.floor(x / side) * block - halo];
          const weights: [weight: number, key: number][] = [];
          for (let u = 0; u < window; u++)
            for (let w = 0; w < window; w++) {
              const [i, j] = [top + u, left + w];
              const key = i >= 0 && j >= 0 && i < rows && j < columns ? ((b * rows + i) * columns + j) * heads + h : -1;
              let logit = key < 0 ? 0 : dot(q, row * dim, k, key * dim) / Math.sqrt(dim);
              if (height)
                logit +=
                  dot(q, row * dim, height, (u - (y % side) + window - 1) * dim) +
                  dot(q, row * dim, width, (w - (x % side) + window - 1) * dim);
              weights.push([Math.exp(logit), key]);
            }
          const total = weights.reduce((sum, [weight]) => sum + weight, 0);
          for (const [weight, key] of weights)
            for (let d = 0; key >= 0 && d < dimV; d++) out[row * dimV + d] += (weight / total) * v[key * dimV + d];
        }
  return out;
}

const SIZES: readonly Sizes[] = [
  { batch: 2, rows: 4, columns: 6, heads: 2, dim: 2, dimV: 3, block: 2, halo: 1, stride: 1 },
  { batch: 1, rows: 2, columns: 2, heads: 1, dim: 3, dimV: 2, block: 1, halo: 2, stride: 1 },
  { batch: 1, rows: 4, columns: 8, heads: 1, dim: 3, dimV: 3, block: 4, halo: 1, stride: 2 },
  { batch: 1, rows: 3, columns: 6, heads: 1, dim: 2, dimV: 1, block: 3, halo: 0, stride: 3 },
];

describe.each(SIZES)('blocks of $block, halo $halo, stride $stride', (sizes) => {
  const { batch, rows, columns, heads, dim, dimV, block, halo, stride } = sizes;
  const shapes = [
    [batch, rows / stride, columns / stride, heads, dim],
    [batch, rows, columns, heads, dim],
    [batch, rows, columns, heads, dimV],
  ];
  const options = { blockSize: block, haloSize: halo };

  test('values and gradients', () => {
    checkGradients({
      shapes,
      op: (q, k, v) => haloAttention(q, k, v, options),
      reference: (...inputs) => reference(sizes, inputs),
    });
  });

  test('values and gradients with relative positions', () => {
    const table = [2 * (block + 2 * halo) - 1, dim];
    checkGradients({
      shapes: [...shapes, table, table],
      op: (q, k, v, height, width) => haloAttention(q, k, v, { ...options, relative: { height, width } }),
      reference: (...inputs) => reference(sizes, inputs),
    });
  });
});

test('no images', () => {
  const none = zeros([0, 4, 4, 1, 2]);
  expect(haloAttention(none, none, none, { blockSize: 2, haloSize: 1 }).shape).toEqual([0, 4, 4, 1, 2]);
});

test('positions outside the image have weight', () => {
  const [q, v] = [zeros([1, 2, 2, 1, 4]), image(1, [1, 2, 2, 1, 4])];
  const out = numbers(haloAttention(q, q, v, { blockSize: 2, haloSize: 1 }));
  const average = numbers(mean(v, [1, 2])).map((x) => (x * 4) / 16);
  expectClose(out.slice(0, 4), average);
});

test('scaleRelative scales the relative logits too', () => {
  const shape = [1, 4, 4, 2, 5];
  const [q, k, v] = [image(1, shape), image(2, shape), image(3, shape)];
  const [height, width] = [image(4, [7, 5]), image(5, [7, 5])];
  const call = (scale: number, options: Partial<HaloOptions>): Tensor =>
    haloAttention(q, k, v, { blockSize: 2, haloSize: 1, scale, ...options });
  const scaled = { height: mul(height, 0.3), width: mul(width, 0.3) };
  const all = call(0.3, { relative: { height, width }, scaleRelative: true });
  expectClose(numbers(all), numbers(call(0.3, { relative: scaled })));
});

describe('refusals', () => {
  const t = (...shape: number[]): Tensor => zeros(shape);
  test.each<[string, () => unknown]>([
    ['blocks that do not divide', () => haloAttention(t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), { blockSize: 4 })],
    ['rank', () => haloAttention(t(1, 6, 6, 4), t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), { blockSize: 3 })],
    ['queries', () => haloAttention(t(1, 4, 6, 1, 4), t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), { blockSize: 3 })],
    ['heads', () => haloAttention(t(1, 6, 6, 2, 4), t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), { blockSize: 3 })],
    ['tables', () => haloAttention(t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), { blockSize: 3, relative: { height: t(4, 4), width: t(5, 4) } })],
  ])('%s', (_name, fn) => expect(fn).toThrow(/haloAttention/)); // prettier-ignore
});
