/**
 * Blocks and small models of the literature, built here from the library's ops under the names of the official checkpoints, against goldens:
 * outputs, and gradients where the file has them.
 */
import { describe, test } from 'vitest';
import {
  abs,
  add,
  arange,
  attention,
  chunk,
  concat,
  cos,
  depthwiseConv,
  div,
  embedding,
  exp,
  expand,
  gelu,
  headGates,
  layerNorm,
  linear,
  linearAttention,
  lt,
  matmul,
  mean,
  mixtureOfHeads,
  mul,
  permute,
  promptMask,
  promptMaskedAttention,
  promptPool,
  reshape,
  reversedAttention,
  score,
  sigmoid,
  silu,
  sin,
  slice,
  softmax,
  split,
  square,
  sub,
  tensor,
  transpose,
  where,
  type Tensor,
} from '../lib/index.ts';
import { channelBranch, davitBlock, windowAttention } from './davit_block.ts';
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { numbers } from './inputs.ts';
import { channelsFirst, channelsLast, Layers, MODEL, qkvOf, setting, toHeads, toTokens } from './layers.ts';

/** Non-overlapping patches of [batch, channels, rows, columns] through a convolution of their size: [batch, patches, width]. */
function patches(x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  const [batch, channels, rows, columns] = x.shape;
  const [width, , side] = weight.shape;
  const [down, across] = [rows / side, columns / side];
  const apart = permute(reshape(x, [batch, channels, down, side, across, side]), [0, 2, 4, 1, 3, 5]);
  const flat = reshape(apart, [batch, down * across, channels * side * side]);
  return linear(flat, reshape(weight, [width, channels * side * side]), bias);
}

describe('DaViT', () => {
  const block = (rows: number, columns: number, attend: (w: Layers, x: Tensor, heads: number) => Tensor) => (g: GoldenCase) => {
    const x = g.input('x');
    const image = reshape(x, [x.shape[0], rows, columns, x.shape[2]]);
    const y = davitBlock(new Layers(g), image, (w, t) => attend(w, t, setting(g, 'num_heads')));
    return { y: reshape(y, x.shape) };
  }; // prettier-ignore

  test('davit_channel_block', () => checkGolden('davit_channel_block', block(5, 4, channelBranch), MODEL));

  test.each([
    ['davit_spatial_block', 8, 8, 4],
    ['davit_spatial_block_pad', 7, 5, 3],
  ])('%s', (name, rows, columns, window) =>
    checkGolden(
      name,
      block(rows, columns, (w, x, heads) => windowAttention(w, x, heads, window)),
      MODEL,
    ),
  );
});

describe('CARE', () => {
  const pointwise = (w: Layers, x: Tensor, name: string): Tensor => {
    const weight = w.weight(`${name}.weight`);
    return linear(x, reshape(weight, weight.shape.slice(0, 2)), w.weight(`${name}.bias`));
  };
  const depthwise = (w: Layers, x: Tensor, name: string): Tensor =>
    depthwiseConv(x, w.weight(`${name}.weight`), w.weight(`${name}.bias`));

  /** Parts of an image with channels last: memory, and what attention and convolutions make of the rest. */
  function mixer(w: Layers, x: Tensor, memory: number, dim: number): [Tensor, Tensor] {
    const [batch, rows, columns, channels] = x.shape;
    const width = (channels - memory) / 3;
    const [mem, att, one, two] = split(x, [memory, width, width, width], 3);
    const near = [depthwise(w, one, 'dwconv1'), depthwise(w, two, 'dwconv2')];
    if (dim === 0)
      return [mem, concat([add(depthwise(w, att, 'dwconvatt_1'), depthwise(w, att, 'dwconvatt_2')), ...near], 3)];
    const tokens = reshape(att, [batch, rows * columns, width]);
    const [q, k] = split(reshape(pointwise(w, att, 'qk'), [batch, rows * columns, 2 * width]), width, 2);
    const heads = (t: Tensor): Tensor => toHeads(t, width / dim);
    const far = reshape(toTokens(linearAttention(heads(q), heads(k), heads(tokens))), att.shape);
    return [mem, concat([far, ...near], 3)];
  }

  test('care_tokenmixer_conv', () =>
    checkGolden('care_tokenmixer_conv', (g) => {
      const [mem, feats] = mixer(new Layers(g), channelsLast(g.input('x')), setting(g, 'mem_dim'), 0);
      return { mem: mul(channelsFirst(mem), 1), feats: channelsFirst(feats) };
    }));

  test('care_block', () =>
    checkGolden(
      'care_block',
      (g) => {
        const w = new Layers(g);
        const x = channelsLast(g.input('x'));
        const [mem, feats] = mixer(w.at('token_mixer'), x, setting(g, 'mem_dim'), setting(g, 'att_head_dim'));
        const inter = (t: Tensor, name: string): Tensor => {
          const layers = new Layers(g, `inter_layer.${name}_`);
          const wide = gelu(pointwise(layers, layers.batchNorm(t, 'norm'), 'fc1'));
          return add(t, pointwise(layers, depthwise(layers, wide, 'conv'), 'fc2'));
        };
        const joined = inter(concat([mem, inter(feats, 'inter1')], 3), 'inter2');
        return { y: channelsFirst(add(x, mul(joined, w.weight('gamma')))) };
      },
      MODEL,
    ));
});

describe('Croc', () => {
  test('croc.cross_attention', () =>
    checkGolden('croc.cross_attention', (g) => {
      const w = new Layers(g, 'model.cross_attention.');
      const heads = setting(g, 'heads');
      const [q, k, v] = ['query', 'key', 'value'].map((name) =>
        toHeads(w.linear(g.input(name === 'query' ? 'query' : 'key_value'), name), heads),
      );
      return w.linear(toTokens(attention(q, k, v)), 'out');
    }));

  test('croc.image_head', () =>
    checkGolden(
      'croc.image_head',
      (g) => {
        const w = new Layers(g, 'transform_block.');
        const layer = w.at('layers.0');
        const heads = setting(g, 'heads');
        const x = add(g.input('hidden_states'), w.weight('position_embeddings.weight'));
        const [q, k, v] = ['query', 'key', 'value'].map((name) => toHeads(layer.linear(x, `attention.self.${name}`), heads)); // prettier-ignore
        const eps = 1e-12;
        const attended = layer.linear(toTokens(attention(q, k, v)), 'attention.output.dense');
        const middle = layer.norm(add(x, attended), 'attention.output.LayerNorm', eps);
        const fed = layer.linear(layer.linear(middle, 'intermediate.dense', 'gelu'), 'output.dense');
        const features = w.linear(layer.norm(add(middle, fed), 'output.LayerNorm', eps), 'resize');
        const beta = setting(g, 'smooth_l1_beta');
        const distance = abs(sub(features, g.input('target_features')));
        const smooth = where(lt(distance, beta), mul(square(distance), 0.5 / beta), sub(distance, beta / 2));
        return { predicted_features: features, image_loss: mul(mean(smooth), setting(g, 'loss_scale')) };
      },
      MODEL,
    ));
});

test('bihier.global_attention: padding hidden, both modalities in one sequence', () =>
  checkGolden('bihier.global_attention', (g) => {
    const w = new Layers(g);
    const [sequence, structure] = [g.input('sequence'), g.input('structure')];
    const [batch, residues] = sequence.shape;
    const heads = setting(g, 'heads');
    const x = concat([sequence, structure], 1);
    const real = tensor(numbers(g.input('residue_mask')).map((m) => Number(m !== 0)), [batch, residues], { dtype: 'bool', device: x.device }); // prettier-ignore
    const seen = reshape(concat([real, real], 1), [batch, 1, 1, 2 * residues]);
    const [q, k, v] = ['q', 'k', 'v'].map((name) => toHeads(w.linear(x, `${name}_proj`), heads));
    const mixed = w.norm(add(x, w.linear(toTokens(attention(q, k, v, { mask: seen })), 'out_proj')), 'norm');
    const fused = add(slice(mixed, 1, 0, residues), slice(mixed, 1, residues));
    const logits = mul(matmul(q, transpose(k)), 1 / Math.sqrt(q.shape[3]));
    const known = reshape(real, [batch, residues, 1]);
    return { fused: where(known, fused, 0), probabilities: softmax(where(seen, logits, -Infinity)) };
  }));

test.each(['prefill', 'decode_step'])('paint.modulate.%s: logits of the last query raised at informed tokens', (name) =>
  checkGolden(`paint.modulate.${name}`, (g) => {
    const [query, key, value] = ['query', 'key', 'value'].map((part) => g.input(part));
    const raise = new Float32Array(key.shape[2]);
    for (const [tokens, strength] of [['local_tokens', 'alpha'], ['summary_tokens', 'beta']] as const) // prettier-ignore
      for (const at of numbers(g.input(tokens))) raise[setting(g, 'image_start') + at] = setting(g, strength);
    const boost = score(({ s, q, kv }, { raise, last }) => (q === last ? s + raise[kv] * Math.abs(s) : s), {
      raise,
      last: query.shape[2] - 1,
    });
    const out = attention(query, key, value, { causal: 'bottom-right', score: boost });
    return { attention: out };
  }, { leave: ['probabilities'] }),
); // prettier-ignore

test('dependencyvit_model_tiny', () =>
  checkGolden(
    'dependencyvit_model_tiny',
    (g) => {
      const w = new Layers(g);
      const heads = setting(g, 'num_heads');
      let x = add(
        patches(g.input('x'), w.weight('patch_embed.proj.weight'), w.weight('patch_embed.proj.bias')),
        w.weight('pos_embed'),
      );
      let m: Tensor | null = null;
      for (let i = 0; i < setting(g, 'depth'); i++) {
        const block = w.at(`blocks.${i}`);
        const attn = block.at('attn');
        const normal = block.norm(x, 'norm1', 1e-6);
        const [q, k, v] = qkvOf(attn, normal, heads, false);
        const p = transpose(softmax(div(linear(normal, attn.weight('head_selector.weight')), 0.1)), 1, 2);
        const hidden = linear(normal, attn.weight('message_controller.fc1.weight'), null, 'gelu');
        const own = sigmoid(linear(hidden, attn.weight('message_controller.fc2.weight')));
        m = m ? mul(m, own) : own;
        const sent = reversedAttention(q, k, v, { p, m: transpose(m, 1, 2) });
        x = add(x, mul(attn.linear(toTokens(sent), 'proj'), block.weight('ls1.gamma')));
        x = add(x, mul(block.mlp(block.norm(x, 'norm2', 1e-6)), block.weight('ls2.gamma')));
      }
      const tokens = mul(w.norm(x, 'norm', 1e-6), m as Tensor);
      return { y: w.linear(mean(tokens, 1), 'head') };
    },
    MODEL,
  ));

/** Real part of the transform over both axes of [entries, channels]: cos(a + b) = cos a cos b - sin a sin b. */
function fourier(x: Tensor): Tensor {
  const wave = (n: number): { real: Tensor; imaginary: Tensor } => {
    const at = arange(0, n, 1, { dtype: 'f32', device: x.device });
    const turns = mul(reshape(at, [n, 1]), reshape(at, [1, n])).remainder(n);
    const angle = mul(turns, (2 * Math.PI) / n);
    return { real: cos(angle), imaginary: sin(angle) };
  };
  const [rows, columns] = [wave(x.shape[0]), wave(x.shape[1])];
  const part = (name: 'real' | 'imaginary'): Tensor => matmul(matmul(rows[name], x), columns[name]);
  return sub(part('real'), part('imaginary'));
}

test.each(['tcpa_model_tiny', 'tcpa_model_len2'])('%s', (name) =>
  checkGolden(
    name,
    (g) => {
      const w = new Layers(g, 'backbone.');
      const heads = setting(g, 'heads');
      const image = patches(g.input('x'), w.weight('patch_embed.proj.weight'), w.weight('patch_embed.proj.bias'));
      const [batch, n, dim] = image.shape;
      let x = add(concat([expand(w.weight('cls_token'), [batch, 1, dim]), image], 1), w.weight('pos_embed'));
      const pool = (role: 'cls' | 'image', part: string, i: number): Tensor =>
        g.weight(`Pool.Pool_${role}.${part}`).select(0, i);
      let distance: Tensor | null = null;
      for (let i = 0; i < setting(g, 'depth'); i++) {
        const block = w.at(`blocks.${i}`);
        const of = (role: 'cls' | 'image', tokens: Tensor) => {
          const match = promptPool(tokens, pool(role, 'keys', i), setting(g, `topk_${role}`));
          distance = distance ? add(distance, match.distance) : match.distance;
          return { index: match.index, entries: setting(g, `pool_size_${role}`), tokens: setting(g, `len_prompts_${role}`) };
        }; // prettier-ignore
        const allowed = promptMask({ cls: of('cls', x.select(1, 0)), image: of('image', slice(x, 1, 1)) });
        const both = (['cls', 'image'] as const).map((role) => reshape(pool(role, 'prompts', i), [-1, dim]));
        const prompts = fourier(concat(both, 0));
        const wide = expand(reshape(prompts, [1, -1, dim]), [batch, prompts.shape[0], dim]);
        const sequence = block.norm(concat([slice(x, 1, 0, 1), wide, slice(x, 1, 1)], 1), 'norm1', 1e-6);
        const [q, k, v] = qkvOf(block.at('attn'), sequence, heads);
        const queries = concat([slice(q, 2, 0, 1), slice(q, 2, q.shape[2] - n)], 2);
        const mixed = promptMaskedAttention(queries, k, v, { allowed });
        x = add(x, block.linear(toTokens(mixed), 'attn.proj'));
        x = add(x, block.mlp(block.norm(x, 'norm2', 1e-6)));
      }
      return { y: w.linear(w.norm(x, 'norm', 1e-6).select(1, 0), 'head'), dist: distance as unknown as Tensor };
    },
    MODEL,
  ),
);

test('moh_dit_tiny', () =>
  checkGolden(
    'moh_dit_tiny',
    (g) => {
      const w = new Layers(g);
      const x = g.input('x');
      const [batch, channels, side] = x.shape;
      const patch = setting(g, 'patch_size');
      const tokens = patches(x, w.weight('x_embedder.proj.weight'), w.weight('x_embedder.proj.bias'));
      let h = add(tokens, w.weight('pos_embed'));
      const half = 128;
      const frequency = exp(mul(arange(0, half, 1, { dtype: 'f32', device: x.device }), -Math.log(10000) / half));
      const angle = mul(reshape(g.input('t'), [batch, 1]), frequency);
      const time = w.linear(w.linear(concat([cos(angle), sin(angle)], 1), 't_embedder.mlp.0', 'silu'), 't_embedder.mlp.2');
      const condition = silu(add(time, embedding(w.weight('y_embedder.embedding_table.weight'), g.input('y'))));
      const modulate = (t: Tensor, shift: Tensor, scale: Tensor): Tensor =>
        add(mul(layerNorm(t, null, null, { eps: 1e-6 }), add(reshape(scale, [batch, 1, -1]), 1)), reshape(shift, [batch, 1, -1]));
      const lists = g.config as unknown as Record<'num_heads' | 'shared_head' | 'routed_head', readonly number[]>;
      for (let i = 0; i < setting(g, 'depth'); i++) {
        const block = w.at(`blocks.${i}`);
        const attn = block.at('attn');
        const [heads, shared, active] = [lists.num_heads[i], lists.shared_head[i], lists.routed_head[i]];
        const [shift, scale, gate, shift2, scale2, gate2] = chunk(block.linear(condition, 'adaLN_modulation.1'), 6, 1);
        const normal = modulate(h, shift, scale);
        const weights = {
          ...(active > 0 && { routed: attn.weight('wg.weight'), balance: attn.weight('wg_0.weight') }),
          shared: attn.weight('wg_1.weight'),
        };
        const { gates } = headGates(normal, weights, { heads, shared, active });
        const mixed = mixtureOfHeads(...qkvOf(attn, normal, heads), gates);
        h = add(h, mul(reshape(gate, [batch, 1, -1]), attn.linear(toTokens(mixed), 'proj')));
        h = add(h, mul(reshape(gate2, [batch, 1, -1]), block.mlp(modulate(h, shift2, scale2), 'geluTanh')));
      }
      const [shift, scale] = chunk(w.linear(condition, 'final_layer.adaLN_modulation.1'), 2, 1);
      const out = w.linear(modulate(h, shift, scale), 'final_layer.linear');
      const across = side / patch;
      const apart = reshape(out, [batch, across, across, patch, patch, 2 * channels]);
      return { y: reshape(permute(apart, [0, 5, 1, 3, 2, 4]), [batch, 2 * channels, side, side]) };
    },
    MODEL,
  )); // prettier-ignore
