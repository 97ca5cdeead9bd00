/** haloAttention() against golden vectors of the published layer, values and gradients, and its limits. */
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import {
  grad,
  haloAttention,
  linear,
  mean,
  neighborhoodAttention,
  permute,
  reshape,
  slice,
  tensor,
  zeros,
  type Tensor,
} from '../lib/index.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { numbers, uniform } from './inputs.ts';
import { expectClose } from './tolerance.ts';

interface Config {
  dim: number;
  dim_out?: number;
  num_heads: number;
  block_size: number;
  halo_size: number;
  stride?: number;
}

test.each(['basic', 'rect_bias', 'stride2', 'stride2_avg'])('golden halo_attn_%s', (name) => {
  using golden = loadSafetensors(fileURLToPath(new URL(`./goldens/halo_attn_${name}.safetensors`, import.meta.url)));
  const config = JSON.parse(golden.metadata.config) as Config;
  const { num_heads: heads, block_size: blockSize, halo_size: haloSize, stride = 1 } = config;
  const leaf = (key: string): Tensor => {
    const t = golden.get(key);
    t.requiresGrad = true;
    return t;
  };
  const x = leaf('input.x');
  const [height, width] = ['height_rel', 'width_rel'].map((key) => leaf(`weights.pos_embed.${key}`));
  const [batch, channels, rows, columns] = x.shape;
  const project = (key: string, input: Tensor): Tensor => {
    const weight = golden.get(`weights.${key}.weight`);
    const bias = golden.has(`weights.${key}.bias`) ? golden.get(`weights.${key}.bias`) : undefined;
    return linear(input, reshape(weight, [weight.shape[0], channels]), bias);
  };
  const last = permute(x, [0, 2, 3, 1]);
  const strided = stride > 1 && blockSize % 2 === 0;
  const at = strided ? slice(slice(last, 1, 0, rows, stride), 2, 0, columns, stride) : last;
  const q = project('q', at);
  const dim = q.shape[3] / heads;
  const kv = project('kv', last);
  const apart = reshape(kv, [batch, rows, columns, heads, kv.shape[3] / heads]);
  let out = haloAttention(
    reshape(q, [batch, at.shape[1], at.shape[2], heads, dim]),
    slice(apart, 4, 0, dim),
    slice(apart, 4, dim),
    { blockSize, haloSize, relative: { height, width } },
  );
  if (stride > 1 && !strided) {
    const pooled = reshape(out, [batch, rows / 2, 2, columns / 2, 2, heads, out.shape[4]]);
    out = mean(pooled, [2, 4]);
  }
  const y = permute(reshape(out, [...out.shape.slice(0, 3), heads * out.shape[4]]), [0, 3, 1, 2]);
  expectClose(numbers(y), numbers(golden.get('output.y')));
  const grads = grad(y, [x, height, width], { gradients: [golden.get('cotangent.output.y')] });
  ['input.x', 'weights.pos_embed.height_rel', 'weights.pos_embed.width_rel'].forEach((key, i) =>
    expectClose(numbers(grads[i] as Tensor), numbers(golden.get(`grad.${key}`)), 'f32', 2),
  );
});

const image = (seed: number, shape: readonly number[]): Tensor =>
  tensor(uniform(shape.reduce((n, e) => n * e, 1), seed), shape, { dtype: 'f32' }); // prettier-ignore

test('without a halo it is attention in blocks', () => {
  const shape = [2, 6, 9, 2, 5];
  const [q, k, v] = [image(1, shape), image(2, shape), image(3, shape)];
  const blocked = neighborhoodAttention(q, k, v, { kernelSize: 3, stride: 3 });
  expectClose(numbers(haloAttention(q, k, v, { blockSize: 3 })), numbers(blocked));
});

test('positions outside the image have weight', () => {
  const [q, v] = [zeros([1, 2, 2, 1, 4]), image(1, [1, 2, 2, 1, 4])];
  const out = numbers(haloAttention(q, q, v, { blockSize: 2, haloSize: 1 }));
  const average = numbers(mean(v, [1, 2])).map((x) => (x * 4) / 16);
  expectClose(out.slice(0, 4), average);
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
