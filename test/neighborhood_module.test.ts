/** The neighborhood attention layers against golden vectors: the published layouts with and without relative position bias. */
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import {
  grad,
  NeighborhoodAttention1D,
  NeighborhoodAttention2D,
  NeighborhoodAttention3D,
  zeros,
  type Tensor,
} from '../lib/index.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { numbers } from './inputs.ts';
import { expectClose } from './tolerance.ts';

const layers = [NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D];
const names = ['na_module_1d', 'na_module_2d', 'na_module_3d', 'nat_attn_rpb_k3', 'nat_attn_rpb_k3_d2', 'nat_attn_rpb_pad']; // prettier-ignore

interface Config {
  dim?: number;
  embed_dim?: number;
  num_heads: number;
  kernel_size: number | number[];
  stride?: number[];
  dilation: number | number[];
  is_causal?: boolean[];
  rpb?: boolean;
}

test.each(names)('%s', (name) => {
  using golden = loadSafetensors(fileURLToPath(new URL(`./goldens/${name}.safetensors`, import.meta.url)));
  const config = JSON.parse(golden.metadata.config) as Config;
  const x = golden.get('input.x');
  x.requiresGrad = true;
  const Layer = layers[x.rank - 3];
  const layer = new Layer((config.dim ?? config.embed_dim) as number, {
    heads: config.num_heads,
    kernelSize: config.kernel_size,
    dilation: config.dilation,
    ...(config.stride && { stride: config.stride }),
    ...(config.is_causal && { causal: config.is_causal }),
    ...(config.rpb && { rpb: true }),
  });
  const keys = Object.keys(layer.stateDict());
  expect(keys.includes('rpb')).toBe(golden.has('weights.rpb'));
  layer.loadStateDict(Object.fromEntries(keys.map((key) => [key, golden.get(`weights.${key}`)])));
  const y = layer.forward(x);
  expectClose(numbers(y), numbers(golden.get('output.y')));
  const inputs = [x, ...(layer.rpb ? [layer.rpb] : [])];
  const grads = grad(y, inputs, { gradients: [golden.get('cotangent.output.y')] });
  expectClose(numbers(grads[0] as Tensor), numbers(golden.get('grad.input.x')), 'f32', 2);
  if (layer.rpb) expectClose(numbers(grads[1] as Tensor), numbers(golden.get('grad.weights.rpb')), 'f32', 2);
});

test('refusals', () => {
  expect(() => new NeighborhoodAttention2D(8, { heads: 3, kernelSize: 3 })).toThrow(/3 heads do not divide/);
  expect(() => new NeighborhoodAttention2D(8, { heads: 2, kernelSize: 4, rpb: true })).toThrow(/odd/);
  const layer = new NeighborhoodAttention2D(8, { heads: 2, kernelSize: 3 });
  expect(() => layer.forward(zeros([1, 5, 8]))).toThrow(/2 axes of space/);
  expect(() => layer.forward(zeros([1, 2, 5, 8]))).toThrow(/kernel size/);
});
