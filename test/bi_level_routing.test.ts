import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  attention,
  biLevelRoutingAttention,
  cast,
  chunk,
  depthwiseConv,
  eye,
  grad,
  linear,
  padToRegions,
  permute,
  reshape,
  roll,
  scope,
  slice,
  split,
  tensor,
  type BiLevelRoutingOptions,
  type Tensor,
} from '../lib/index.ts';
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { checkGradients, noise, sizeOf } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { referenceAttention } from './reference_attention.ts';
import { expectClose } from './tolerance.ts';

type Config = Record<string, number | string | boolean>;

/** The published NHWC module: pad, project, attend, enhance, project. */
function module({ input, weight, config }: GoldenCase): { y: Tensor; r_weight: Tensor; r_idx: Tensor } {
  const c = config as Config;
  const x = input('x');
  const [, height, width] = x.shape;
  const dim = c.dim as number;
  const dimQk = (c.qk_dim as number | undefined) ?? dim;
  const padded = c.auto_pad ? padToRegions(x, c.n_win as number) : x;
  const [q, k, v] = split(linear(padded, weight('qkv.qkv.weight'), weight('qkv.qkv.bias')), [dimQk, dimQk, dim], -1);
  const { out, routing } = biLevelRoutingAttention(q, k, v, {
    heads: c.num_heads as number,
    regions: c.n_win as number,
    topK: c.topk as number,
    soft: c.soft_routing as boolean,
    ...(c.kv_downsample_mode === 'ada_avgpool' && { pooling: { mode: 'mean', size: c.kv_per_win as number } }),
    ...((c.side_dwconv as number) > 0 && { lepe: { weight: weight('lepe.weight'), bias: weight('lepe.bias') } }),
    returnRouting: true,
  });
  const y = linear(out, weight('wo.weight'), weight('wo.bias'));
  return {
    y: slice(slice(y, 1, 0, height), 2, 0, width),
    r_weight: routing.weights,
    r_idx: routing.indices,
  };
}

/** The NCHW op: 1 x 1 convolutions around it are linear layers over channels. */
function nchw({ input, weight, config }: GoldenCase): { y: Tensor } {
  const c = config as Config;
  const flat = (name: string): Tensor => reshape(weight(name), weight(name).shape.slice(0, 2));
  const x = permute(input('x'), [0, 2, 3, 1]);
  const [q, k, v] = chunk(linear(x, flat('qkv_linear.weight'), weight('qkv_linear.bias')), 3, -1);
  const out = biLevelRoutingAttention(q, k, v, {
    heads: c.num_heads as number,
    regions: c.n_win as number,
    topK: c.topk as number,
    lepe: { weight: weight('lepe.weight'), bias: weight('lepe.bias') },
  });
  return { y: permute(linear(out, flat('output_linear.weight'), weight('output_linear.bias')), [0, 3, 1, 2]) };
}

/** Full attention with the enhancement of its input. */
function lepe({ input, weight, config }: GoldenCase): { y: Tensor } {
  const x = input('x');
  const [n, h, w, dim] = x.shape;
  const heads = (config as Config).num_heads as number;
  const qkv = reshape(linear(x, weight('qkv.weight')), [n, h * w, 3, heads, dim / heads]);
  const [q, k, v] = split(permute(qkv, [2, 0, 3, 1, 4]), 1, 0).map((t) => reshape(t, t.shape.slice(1)));
  const rows = reshape(permute(attention(q, k, v), [0, 2, 1, 3]), x.shape);
  const enhanced = rows.add(depthwiseConv(x, weight('lepe.weight'), weight('lepe.bias')));
  return { y: linear(enhanced, weight('proj.weight'), weight('proj.bias')) };
}

describe('goldens', () => {
  for (const name of ['basic', 'qkdim_soft', 'adaavg'])
    it(`biformer_bra_${name}`, () => checkGolden(`biformer_bra_${name}`, module));
  // Regions made of padding alone tie, so the order of their indices is not defined.
  it('biformer_bra_autopad', () =>
    checkGolden('biformer_bra_autopad', (g) => ({ y: module(g).y }), { leave: ['r_weight', 'r_idx'] }));
  for (const name of ['basic', 'ragged'])
    it(`biformer_nchwbra_${name}`, () => checkGolden(`biformer_nchwbra_${name}`, nchw));
  it('biformer_attention_lepe', () => checkGolden('biformer_attention_lepe', lepe));
});

interface Sizes {
  n: number;
  h: number;
  w: number;
  heads: number;
  dim: number;
  regions: number;
  topK: number;
}

/** In double precision: region of a pixel, region means, the choice, and attention with everything else masked. */
function reference(
  s: Sizes,
  ragged: 'zero' | 'hidden',
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
): Float64Array {
  const c = s.heads * s.dim;
  const [rh, rw] = [Math.floor(s.h / s.regions), Math.floor(s.w / s.regions)];
  const [down, across] = [Math.ceil(s.h / rh), Math.ceil(s.w / rw)];
  const [H, W] = ragged === 'zero' ? [down * rh, across * rw] : [s.h, s.w];
  const grow = (x: Float64Array): Float64Array => {
    const y = new Float64Array(s.n * H * W * c);
    for (let n = 0; n < s.n; n++)
      for (let i = 0; i < s.h; i++)
        for (let j = 0; j < s.w; j++)
          y.set(
            x.subarray(((n * s.h + i) * s.w + j) * c, ((n * s.h + i) * s.w + j + 1) * c),
            ((n * H + i) * W + j) * c,
          );
    return y;
  };
  const region = (p: number): number => Math.floor(Math.floor(p / W) / rh) * across + Math.floor((p % W) / rw);
  const means = (x: Float64Array, n: number): Float64Array[] => {
    const sums = Array.from({ length: down * across }, () => new Float64Array(c));
    const counts = new Float64Array(down * across);
    for (let i = 0; i < s.h; i++)
      for (let j = 0; j < s.w; j++) {
        const r = Math.floor(i / rh) * across + Math.floor(j / rw);
        counts[r]++;
        for (let d = 0; d < c; d++) sums[r][d] += x[((n * s.h + i) * s.w + j) * c + d];
      }
    return sums.map((sum, r) => sum.map((value) => value / counts[r]));
  };
  const chosen = Array.from({ length: s.n }, (_, n) => {
    const [qm, km] = [means(q, n), means(k, n)];
    return qm.map((a) => {
      const score = km.map((b) => b.reduce((sum, value, d) => sum + value * a[d], 0));
      return new Set(score.map((_, i) => i).toSorted((x, y) => score[y] - score[x]).slice(0, s.topK)); // prettier-ignore
    });
  });
  const heads = (x: Float64Array): Float64Array => {
    const y = new Float64Array(x.length);
    for (let n = 0; n < s.n; n++)
      for (let p = 0; p < H * W; p++)
        for (let h = 0; h < s.heads; h++)
          for (let d = 0; d < s.dim; d++)
            y[((n * s.heads + h) * H * W + p) * s.dim + d] = x[(n * H * W + p) * c + h * s.dim + d];
    return y;
  };
  const { out } = referenceAttention({
    b: s.n, hq: s.heads, hkv: s.heads, lq: H * W, lk: H * W, d: s.dim, dv: s.dim,
    q: heads(grow(q)), k: heads(grow(k)), v: heads(grow(v)),
    scale: 1 / Math.sqrt(c),
    visible: (b, _, i, j) => chosen[b][region(i)].has(region(j)),
  }); // prettier-ignore
  const y = new Float64Array(s.n * s.h * s.w * c);
  for (let n = 0; n < s.n; n++)
    for (let i = 0; i < s.h; i++)
      for (let j = 0; j < s.w; j++)
        for (let e = 0; e < c; e++)
          y[((n * s.h + i) * s.w + j) * c + e] =
            out[((n * s.heads + Math.floor(e / s.dim)) * H * W + i * W + j) * s.dim + (e % s.dim)];
  return y;
}

const arbitrary = fc
  .record({
    n: fc.integer({ min: 1, max: 2 }),
    h: fc.integer({ min: 3, max: 14 }),
    w: fc.integer({ min: 3, max: 14 }),
    heads: fc.integer({ min: 1, max: 3 }),
    dim: fc.integer({ min: 1, max: 9 }),
    regions: fc.integer({ min: 1, max: 3 }),
    topK: fc.integer({ min: 1, max: 9 }),
  })
  .map((s) => ({ ...s, topK: Math.min(s.topK, s.regions * s.regions) }));

const image = (s: Sizes): number[] => [s.n, s.h, s.w, s.heads * s.dim];
const optionsOf = ({ heads, regions, topK }: Sizes): BiLevelRoutingOptions => ({ heads, regions, topK });

describe('against the reference', () => {
  it.each(['zero', 'hidden'] as const)('random sizes, ragged edges %s', (ragged) => {
    fc.assert(
      fc.property(arbitrary, fc.integer({ min: 1, max: 1e6 }), (s, seed) => {
        scope(() => {
          const values = [0, 1, 2].map((i) => noise(sizeOf(image(s)), seed + i));
          const [q, k, v] = values.map((x) => tensor(x, image(s), { dtype: 'f32' }));
          const out = biLevelRoutingAttention(q, k, v, { ...optionsOf(s), ragged });
          expectClose(numbers(out), reference(s, ragged, values[0], values[1], values[2]));
        });
      }),
      { numRuns: 40 },
    );
  });

  it('gradients', () => {
    const s = { n: 2, h: 5, w: 4, heads: 2, dim: 2, regions: 2, topK: 2 };
    for (const ragged of ['zero', 'hidden'] as const)
      checkGradients({
        shapes: [image(s), image(s), image(s)],
        op: (q, k, v) => biLevelRoutingAttention(q, k, v, { ...optionsOf(s), ragged }),
        reference: (q, k, v) => reference(s, ragged, q, k, v),
      });
  });

  it('bf16', () => {
    const s = { n: 1, h: 12, w: 8, heads: 2, dim: 16, regions: 2, topK: 2 };
    const inputs = [0, 1, 2].map((i) =>
      cast(tensor(noise(sizeOf(image(s)), i + 3), image(s), { dtype: 'f32' }), 'bf16'),
    );
    const out = biLevelRoutingAttention(inputs[0], inputs[1], inputs[2], optionsOf(s));
    const values = inputs.map((t) => numbers(cast(t, 'f32')));
    expect(out.dtype).toBe('bf16');
    expectClose(numbers(cast(out, 'f32')), reference(s, 'zero', values[0], values[1], values[2]), 'bf16');
  });
});

describe('properties', () => {
  it('all regions chosen is full attention', () => {
    const shape = [1, 6, 9, 8];
    const [q, k, v] = [1, 2, 3].map((i) => tensor(noise(sizeOf(shape), i), shape, { dtype: 'f32' }));
    const out = biLevelRoutingAttention(q, k, v, { heads: 2, regions: 3, topK: 9 });
    const rows = (t: Tensor): Tensor => permute(reshape(t, [1, 54, 2, 4]), [0, 2, 1, 3]);
    const full = attention(rows(q), rows(k), rows(v), { scale: 1 / Math.sqrt(8) });
    expectClose(numbers(out), numbers(permute(full, [0, 2, 1, 3])));
  });

  it('an image rolled by whole regions gives the result rolled', () => {
    const shape = [1, 8, 12, 8];
    const images = [1, 2, 3].map((i) => tensor(noise(sizeOf(shape), i), shape, { dtype: 'f32' }));
    const call = ([q, k, v]: readonly Tensor[]): Tensor => biLevelRoutingAttention(q, k, v, { heads: 2, regions: 4, topK: 2 }); // prettier-ignore
    const rolled = (t: Tensor): Tensor => roll(t, [2, 6], [1, 2]);
    expectClose(numbers(call(images.map(rolled))), numbers(rolled(call(images))));
  });

  it('zero gradient through the choice of regions: scaling the mean of k alone changes nothing for q', () => {
    const shape = [1, 4, 4, 4];
    const leaves = [1, 2, 3].map((i) => tensor(noise(sizeOf(shape), i), shape, { dtype: 'f32', requiresGrad: true }));
    const { out, routing } = biLevelRoutingAttention(leaves[0], leaves[1], leaves[2], {
      heads: 1,
      regions: 2,
      topK: 1,
      soft: true,
      returnRouting: true,
    });
    expect(routing.weights.requiresGrad).toBe(false);
    expect(grad(out.sum(), leaves).every((g) => g !== null)).toBe(true);
  });

  it.each([
    ['q', true],
    ['the routing projection', true],
    ['the routing projection', false],
  ])('soft routing with gradients through the weights: %s, diffRouting %j', (name, diffRouting) => {
    const shape = [1, 4, 4, 4];
    const leaf = (sizes: readonly number[], i: number): Tensor =>
      tensor(noise(sizeOf(sizes), i), sizes, { dtype: 'f32', requiresGrad: true });
    const [q, k, v] = [4, 5, 6].map((i) => leaf(shape, i));
    const [weight, bias] = [leaf([4, 4], 9), leaf([4], 10)];
    const seed = tensor(noise(sizeOf(shape), 7), shape, { dtype: 'f32' });
    const call = (x: Tensor): Tensor =>
      name === 'q'
        ? biLevelRoutingAttention(x, k, v, { heads: 2, regions: 2, topK: 2, soft: true, diffRouting })
        : biLevelRoutingAttention(q, k, v, { heads: 2, regions: 2, topK: 2, soft: true, diffRouting, routingProjection: { weight: x, bias } }); // prettier-ignore
    const value = (x: Tensor): number => numbers(call(x).mul(seed).sum())[0];
    const moved = name === 'q' ? q : weight;
    const [g] = grad(call(moved), [moved], { gradients: [seed] });
    const direction = noise(moved.size, 8);
    const step = 1e-2;
    const at = (sign: number): Tensor => moved.detach().add(tensor(direction.map((x) => sign * step * x), moved.shape, { dtype: 'f32' })); // prettier-ignore
    const slope = (value(at(1)) - value(at(-1))) / (2 * step);
    const along = numbers(g as Tensor).reduce((sum, x, i) => sum + x * direction[i], 0);
    expect(Math.abs(along - slope)).toBeLessThan(2e-3 * Math.max(1, Math.abs(slope)));
  });

  it('the routing projection takes part in the choice and, without diffRouting, keeps q and k out of it', () => {
    const shape = [1, 4, 4, 4];
    const [q, k, v] = [1, 2, 3].map((i) =>
      tensor(noise(sizeOf(shape), i), shape, { dtype: 'f32', requiresGrad: true }),
    );
    const options = { heads: 2, regions: 2, topK: 2, soft: true, returnRouting: true } as const;
    const plain = biLevelRoutingAttention(q, k, v, options);
    const identity = biLevelRoutingAttention(q, k, v, { ...options, routingProjection: { weight: eye(4) } });
    expectClose(numbers(identity.out), numbers(plain.out));
    expect(identity.routing.weights.requiresGrad).toBe(false);
    const [bias, weight] = [[9, 0, 0, 0], eye(4).mul(0)];
    const none = biLevelRoutingAttention(q, k, v, { ...options, routingProjection: { weight, bias: tensor(bias) } });
    expectClose(
      numbers(none.routing.weights),
      Float64Array.from({ length: 8 }, () => 0.5),
    );
  });

  it('regions that are not routed to do not matter', () => {
    const shape = [1, 8, 8, 4];
    const [q, k, v] = [1, 2, 3].map((i) => tensor(noise(sizeOf(shape), i + 20), shape, { dtype: 'f32' }));
    const options = { heads: 1, regions: 2, topK: 2, returnRouting: true } as const;
    const { out, routing } = biLevelRoutingAttention(q, k, v, options);
    const used = new Set(Array.from(routing.indices.dataSync() as Int32Array).slice(0, 2));
    const other = [0, 1, 2, 3].find((r) => !used.has(r)) as number;
    const changed = numbers(v).map((x, i) => {
      const p = Math.floor(i / 4);
      const r = Math.floor(Math.floor(p / 8) / 4) * 2 + Math.floor((p % 8) / 4);
      return r === other ? x + 1 : x;
    });
    const again = biLevelRoutingAttention(q, k, tensor(changed, shape, { dtype: 'f32' }), options).out;
    const corner = (t: Tensor): Float64Array => numbers(slice(slice(t, 1, 0, 4), 2, 0, 4));
    expect(corner(again)).toEqual(corner(out));
  });

  it('refuses what does not fit', () => {
    const x = tensor(new Float32Array(64), [1, 4, 4, 4]);
    const call =
      (options: Partial<BiLevelRoutingOptions>): (() => Tensor) =>
      () =>
        biLevelRoutingAttention(x, x, x, { heads: 2, regions: 2, topK: 2, ...options });
    expect(call({ heads: 3 })).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
    expect(call({ regions: 5 })).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
    expect(call({ topK: 5 })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(call({ topK: 0 })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(call({ pooling: { mode: 'mean' } })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  });
});
