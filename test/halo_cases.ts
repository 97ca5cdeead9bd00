/** What the tests of haloAttention() on all devices share: a golden file of the published layer. */
import { fileURLToPath } from 'node:url';
import {
  grad,
  haloAttention,
  linear,
  mean,
  permute,
  reshape,
  slice,
  type DeviceName,
  type Tensor,
} from '../lib/index.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { numbers } from './inputs.ts';
import { expectClose } from './tolerance.ts';

export const GOLDENS = ['basic', 'rect_bias', 'stride2', 'stride2_avg'] as const;

interface Config {
  dim: number;
  dim_out?: number;
  num_heads: number;
  block_size: number;
  halo_size: number;
  stride?: number;
}

/** The layer of a golden file halo_attn_<name>: output and gradients. */
export function checkGolden(name: string, device: DeviceName = 'cpu'): void {
  using golden = loadSafetensors(fileURLToPath(new URL(`./goldens/halo_attn_${name}.safetensors`, import.meta.url)));
  const config = JSON.parse(golden.metadata.config) as Config;
  const { num_heads: heads, block_size: blockSize, halo_size: haloSize, stride = 1 } = config;
  const stored = (key: string): Tensor => golden.get(key).to(device);
  const leaf = (key: string): Tensor => {
    const t = stored(key).detach();
    t.requiresGrad = true;
    return t;
  };
  const x = leaf('input.x');
  const [height, width] = ['height_rel', 'width_rel'].map((key) => leaf(`weights.pos_embed.${key}`));
  const [batch, channels, rows, columns] = x.shape;
  const project = (key: string, input: Tensor): Tensor => {
    const weight = stored(`weights.${key}.weight`);
    const bias = golden.has(`weights.${key}.bias`) ? stored(`weights.${key}.bias`) : undefined;
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
  const grads = grad(y, [x, height, width], { gradients: [stored('cotangent.output.y')] });
  ['input.x', 'weights.pos_embed.height_rel', 'weights.pos_embed.width_rel'].forEach((key, i) =>
    expectClose(numbers(grads[i] as Tensor), numbers(golden.get(`grad.${key}`)), 'f32', 2),
  );
}
