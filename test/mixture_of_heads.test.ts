import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  attention,
  chunk,
  div,
  expand,
  grad,
  headGates,
  headGatesByNorm,
  indexSelect,
  linear,
  log1p,
  exp,
  mixtureOfHeads,
  norm,
  permute,
  relu,
  reshape,
  rotary,
  scope,
  squeeze,
  tensor,
  transpose,
  unsqueeze,
  type Tensor,
} from '../lib/index.ts';
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { noise, sizeOf } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { expectSameBitsForAnyThreads } from './levels.ts';
import { referenceAttention, referenceGradients, type Problem } from './reference_attention.ts';
import { expectClose, relativeError } from './tolerance.ts';

type Config = Record<string, number | undefined>;

/** [batch, tokens, channels] to [batch, heads, tokens, dim], and back. */
const toHeads = (x: Tensor, heads: number): Tensor =>
  permute(reshape(x, [x.shape[0], x.shape[1], heads, x.shape[2] / heads]), [0, 2, 1, 3]);
const toTokens = (x: Tensor): Tensor => reshape(permute(x, [0, 2, 1, 3]), [x.shape[0], x.shape[2], x.shape[1] * x.shape[3]]); // prettier-ignore

function routerOf({ input, weight, config }: GoldenCase): ReturnType<typeof headGates> {
  const c = config as Config;
  const [heads, shared, active] = [c.num_heads, c.shared_head, c.routed_head] as number[];
  return headGates(
    input('x'),
    {
      ...(active > 0 && { routed: weight('wg.weight') }),
      ...(shared > 1 && { shared: weight('wg_1.weight') }),
      ...(shared > 0 && active > 0 && { balance: weight('wg_0.weight') }),
    },
    { heads, shared, active },
  );
}

/** The attention module of MoH-DiT. */
function dit(g: GoldenCase): Record<string, Tensor> {
  const { input, weight } = g;
  const heads = (g.config as Config).num_heads as number;
  const { gates, indices, balanceLoss } = routerOf(g);
  const [q, k, v] = chunk(linear(input('x'), weight('qkv.weight'), weight('qkv.bias')), 3, -1).map((t) => toHeads(t, heads)); // prettier-ignore
  const out = toTokens(mixtureOfHeads(q, k, v, gates));
  return {
    y: linear(out, weight('proj.weight'), weight('proj.bias')),
    ...(indices.size > 0 && { routed_idx: indices, load_balance_loss: reshape(balanceLoss, [1]) }),
  };
}

/** The last stage of MoH-ViT: cosine attention with a query embedding and a bias from relative positions. */
function vit(g: GoldenCase): Record<string, Tensor> {
  const { input, weight } = g;
  const heads = (g.config as Config).num_heads as number;
  const x = input('x');
  const tokens = x.shape[1];
  const { gates, indices } = routerOf(g);
  const [q, k, v] = chunk(linear(x, weight('qkv.weight'), weight('qkv.bias')), 3, -1).map((t) => toHeads(t, heads));
  const unit = (t: Tensor): Tensor => div(t, norm(t, -1, true));
  const temperature = log1p(exp(weight('temperature'))).mul(Math.log(tokens));
  const queries = unit(q).add(weight('query_embedding')).mul(temperature);
  const hidden = relu(linear(input('relative_coords_table'), weight('cpb_fc1.weight'), weight('cpb_fc1.bias')));
  const table = linear(hidden, weight('cpb_fc2.weight'), weight('cpb_fc2.bias'));
  const bias = reshape(indexSelect(transpose(table, 0, 1), 1, input('relative_pos_index')), [heads, tokens, tokens]);
  const out = toTokens(mixtureOfHeads(queries, unit(k), v, gates, { bias: unsqueeze(bias, 0), scale: 1 }));
  return { y: linear(out, weight('proj.weight'), weight('proj.bias')), routed_idx: indices };
}

/** Attention of MoH-LLaMA: grouped heads, rotary positions, routed by the length of queries. */
function llama({ input, weight, config }: GoldenCase): Record<string, Tensor> {
  const c = config as Config;
  const [heads, kvHeads, active, shared] = [c.heads, c.kv_heads, c.routed_head, c.shared_head] as number[];
  const x = input('x');
  const [q, k, v] = (['q', 'k', 'v'] as const).map((name) => toHeads(linear(x, weight(`${name}_proj.weight`)), name === 'q' ? heads : kvHeads)); // prettier-ignore
  const { gates, indices } = headGatesByNorm(q, { shared, active });
  const out = mixtureOfHeads(rotary(q), rotary(k), v, gates, { causal: true });
  return { y: linear(toTokens(out), weight('o_proj.weight')), routed_idx: indices };
}

describe('goldens', () => {
  for (const name of ['basic', 'headdim', 'noshared'])
    // One routed head a token has gate 1 whatever its probability: the gradient of the router is zero but for rounding.
    it(`moh_attn_${name}`, () => checkGolden(`moh_attn_${name}`, dit, { floor: 1e-2 }));
  it('moh_attn_allshared', () => checkGolden('moh_attn_allshared', dit));
  it('moh_vit_attention', () => checkGolden('moh_vit_attention', vit));
  it('moh_llama_attn', () => checkGolden('moh_llama_attn', llama));
});

const arbitrary = fc.record({
  b: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 2 }),
  hkv: fc.integer({ min: 1, max: 3 }),
  n: fc.integer({ min: 1, max: 40 }),
  d: fc.integer({ min: 1, max: 18 }),
  causal: fc.boolean(),
  biased: fc.boolean(),
});

describe('against dense attention times gates', () => {
  it('random sizes and choices, values and gradients', () => {
    fc.assert(
      fc.property(arbitrary, fc.integer({ min: 1, max: 1e6 }), ({ b, group, hkv, n, d, causal, biased }, seed) => {
        scope(() => {
          const hq = hkv * group;
          const shapes = [[b, hq, n, d], [b, hkv, n, d], [b, hkv, n, d], [b, n, hq], [1, hq, n, n]]; // prettier-ignore
          const values = shapes.map((shape, i) => noise(sizeOf(shape), seed + 11 * i));
          // About half of the heads of each token are off, sometimes all.
          values[3] = values[3].map((x) => (x > 0 ? x : 0));
          const leaves = values.map((x, i) => tensor(x, shapes[i], { dtype: 'f32', requiresGrad: true }));
          const [q, k, v, gates, bias] = leaves;
          const out = mixtureOfHeads(q, k, v, gates, { causal, ...(biased && { bias }) });
          const gate = (bi: number, h: number, i: number): number => values[3][(bi * n + i) * hq + h];
          const problem: Problem = {
            b, hq, hkv, lq: n, lk: n, d, dv: d, q: values[0], k: values[1], v: values[2],
            visible: (bi, h, i, j) => gate(bi, h, i) !== 0 && (!causal || j <= i),
            ...(biased && { logit: (s, _, h, i, j) => s + values[4][(h * n + i) * n + j] }),
          }; // prettier-ignore
          const dense = referenceAttention(problem).out;
          const gateOf = (at: number): number => {
            const row = Math.floor(at / d);
            return gate(Math.floor(row / (hq * n)), Math.floor(row / n) % hq, row % n);
          };
          expectClose(
            numbers(out),
            dense.map((x, i) => x * gateOf(i)),
          );
          const seedGrad = noise(out.size, 5);
          const grads = grad(out, biased ? leaves : leaves.slice(0, 4), { gradients: [tensor(seedGrad, out.shape, { dtype: 'f32' })] }); // prettier-ignore
          const expected = referenceGradients(
            problem,
            seedGrad.map((x, i) => x * gateOf(i)),
          );
          [expected.dq, expected.dk, expected.dv].forEach((e, i) =>
            expect(relativeError([...numbers(grads[i] as Tensor), 1], [...e, 1])).toBeLessThanOrEqual(5e-5),
          );
          const dgate = new Float64Array(values[3].length);
          seedGrad.forEach((x, at) => {
            const row = Math.floor(at / d);
            dgate[(Math.floor(row / (hq * n)) * n + (row % n)) * hq + (Math.floor(row / n) % hq)] += x * dense[at];
          });
          expect(relativeError([...numbers(grads[3] as Tensor), 1], [...dgate, 1])).toBeLessThanOrEqual(5e-5);
          if (!biased) return;
          const dbias = new Float64Array(hq * n * n);
          expected.dt.forEach((x, at) => (dbias[at % dbias.length] += x));
          expect(relativeError([...numbers(grads[4] as Tensor), 1], [...dbias, 1])).toBeLessThanOrEqual(5e-5);
        });
      }),
      { numRuns: 40 },
    );
  });
});

describe('router', () => {
  const x = tensor(noise(2 * 7 * 8, 3), [2, 7, 8], { dtype: 'f32' });
  const weight = (rows: number, seed: number): Tensor => tensor(noise(rows * 8, seed), [rows, 8], { dtype: 'f32' });

  it('shared and routed gates of a token add up to their balanced halves', () => {
    const { gates, indices } = headGates(
      x,
      { routed: weight(4, 1), shared: weight(2, 2), balance: weight(2, 3) },
      { heads: 6, shared: 2, active: 3 },
    );
    const values = numbers(gates);
    const chosen = numbers(indices);
    for (let t = 0; t < 14; t++) {
      const row = values.slice(6 * t, 6 * t + 6);
      const [a, r] = [(row[0] + row[1]) / 2, row.slice(2).reduce((sum, g) => sum + g, 0) / 3];
      expect(a + r).toBeCloseTo(2, 5);
      const on = [0, 1, 2, 3].filter((e) => row[2 + e] !== 0);
      expect(on).toEqual([...chosen.slice(3 * t, 3 * t + 3)]);
    }
  });

  it('evenly used heads have a balance loss of `active`', () => {
    const { balanceLoss } = headGates(x, { routed: weight(4, 1).mul(0) }, { heads: 4, shared: 0, active: 2 });
    expect(numbers(balanceLoss)[0]).toBeCloseTo(2, 5);
  });

  it('all gates 1 is multi-head attention', () => {
    const [q, k, v] = [1, 2, 3].map((i) => tensor(noise(2 * 3 * 9 * 4, i), [2, 3, 9, 4], { dtype: 'f32' }));
    const gates = expand(tensor([1], [1, 1, 1], { dtype: 'f32' }), [2, 9, 3]);
    expectClose(numbers(mixtureOfHeads(q, k, v, gates)), numbers(attention(q, k, v)));
    expect(squeeze(gates.sum([0, 1])).shape).toEqual([3]);
  });

  it('gives the same bits for any number of threads', () => {
    const [q, k, v] = [1, 2, 3].map((i) => tensor(noise(4 * 90 * 16, i), [1, 4, 90, 16], { dtype: 'f32' }));
    const gates = tensor(noise(90 * 4, 9).map((g) => Math.max(0, g)), [1, 90, 4], { dtype: 'f32' }); // prettier-ignore
    expectSameBitsForAnyThreads(() => mixtureOfHeads(q, k, v, gates));
  });

  it('refuses what does not fit', () => {
    const routed = weight(4, 1);
    const call = (heads: number, shared: number, active: number) => () => headGates(x, { routed }, { heads, shared, active }); // prettier-ignore
    expect(call(4, 0, 5)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(call(6, 2, 2)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(call(5, 0, 2)).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
    const q = tensor(new Float32Array(24), [1, 2, 3, 4]);
    expect(() => mixtureOfHeads(q, q, q, x)).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
  });
});
