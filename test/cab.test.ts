/** The attentions of the Comprehensive Attention Benchmark against its modules' goldens: the projections around them are of this file. */
import { describe, expect, test } from 'vitest';
import { abcAttention, add, arange, attention, causalLongShortAttention, chunkProjection, concat, cos, cosformerAttention, div, dynamicProjection, gelu, laraAttention, layerNorm, linear, logicalNot, longShortAttention, nystromAttention, performerAttention, matmul, mul, pad, permute, probSparseAttention, reshape, s4d, s4dKernel, sin, transpose, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden, type GoldenCase, type GoldenOptions } from './golden_case.ts';

const HEADS = 2;

/** The gradient of a key bias is zero but for rounding: small gradients are compared absolutely. */
const check = (
  name: string,
  run: (g: GoldenCase) => ReturnType<Parameters<typeof checkGolden>[1]>,
  options: GoldenOptions = {},
): void => checkGolden(name, run, { floor: 0.5, ...options });

const split = (t: Tensor): Tensor => permute(reshape(t, [t.shape[0], t.shape[1], HEADS, -1]), [0, 2, 1, 3]);
const join = (t: Tensor): Tensor => reshape(permute(t, [0, 2, 1, 3]), [t.shape[0], t.shape[2], -1]);

/** A module with q, k, v and out projections around `op`. */
function module(
  g: GoldenCase,
  op: (q: Tensor, k: Tensor, v: Tensor) => Tensor,
  names = ['q_proj', 'k_proj', 'v_proj', 'out_proj'],
): Tensor {
  const layer = (x: Tensor, name: string): Tensor => linear(x, g.weight(`${name}.weight`), g.weight(`${name}.bias`));
  const query = g.input('query');
  const key = g.config.S === null || g.config.S === undefined ? query : g.input('key');
  const [q, k, v] = [query, key, key].map((x, i) => split(layer(x, names[i])));
  return layer(join(op(q, k, v)), names[3]);
}

/** true where a key is real, [batch, 1, 1, keys]. */
const realKeys = (g: GoldenCase): Tensor => {
  const padding = g.input('key_padding_mask');
  return reshape(logicalNot(padding), [padding.shape[0], 1, 1, padding.shape[1]]);
};

const number = (g: GoldenCase, name: string): number => g.config[name] as number;

describe('goldens', () => {
  test('cab_mha_self', () => check('cab_mha_self', (g) => module(g, (q, k, v) => attention(q, k, v))));
  test('cab_mha_cross_pad', () =>
    check('cab_mha_cross_pad', (g) => module(g, (q, k, v) => attention(q, k, v, { mask: realKeys(g) }))));
  test('cab_local_self', () =>
    check('cab_local_self', (g) => module(g, (q, k, v) => attention(q, k, v, { window: number(g, 'wsize') }))));
  test('cab_local_causal', () =>
    check('cab_local_causal', (g) =>
      module(g, (q, k, v) => attention(q, k, v, { window: [number(g, 'wsize') - 1, 0] })),
    ));

  const weightings = (g: GoldenCase) => ({ compressK: g.weight('compress_k'), compressV: g.weight('compress_v') });
  test('cab_abc_self', () =>
    check('cab_abc_self', (g) => module(g, (q, k, v) => abcAttention(q, k, v, weightings(g)))));
  test('cab_abc_cross_pad', () =>
    check('cab_abc_cross_pad', (g) =>
      module(g, (q, k, v) => abcAttention(q, k, v, { ...weightings(g), mask: realKeys(g) })),
    ));
  test('cab_abc_causal_as_coded', () =>
    check('cab_abc_causal_as_coded', (g) =>
      module(g, (q, k, v) => abcAttention(q, k, v, { ...weightings(g), causal: true, memory: 'newest' })),
    ));
  test('abc_causal_recurrent', () =>
    check('abc_causal_recurrent', (g) => {
      const [q, k, v] = ['q', 'k', 'v'].map((name) => reshape(g.input(name), [2, 1, 11, 8]));
      const [compressK, compressV] = [g.input('compress_k'), g.input('compress_v')];
      return reshape(abcAttention(q, k, v, { compressK, compressV, causal: true }), [2, 11, 8]);
    }));

  test.each(['cab_cosformer_self', 'cab_cosformer_cross'])('%s', (name) =>
    check(name, (g) => module(g, (q, k, v) => cosformerAttention(q, k, v))),
  );
  test.each(['cab_performer_self', 'cab_performer_cross'])('%s', (name) =>
    check(name, (g) => module(g, (q, k, v) => performerAttention(q, k, v, { projection: g.weight('eval_proj') }))),
  );
  test.each(['cab_nystrom_div', 'cab_nystrom_nondiv_conv', 'cab_nystrom_short'])('%s', (name) =>
    check(
      name,
      (g) => {
        const conv = name.endsWith('conv') ? { conv: reshape(g.weight('conv.weight'), [HEADS, -1]) } : {};
        return module(g, (q, k, v) => nystromAttention(q, k, v, { landmarks: number(g, 'num_landmarks'), ...conv }));
      },
      { factor: 5 },
    ),
  );
  test('cab_lara_eval', () =>
    check('cab_lara_eval', (g) =>
      module(g, (q, k, v) => laraAttention(q, k, v, { landmarks: number(g, 'num_landmarks') })),
    ));
  test('cab_probsparse', () =>
    check('cab_probsparse', (g) =>
      module(
        g,
        (q, k, v) => probSparseAttention(q, k, v, { factor: number(g, 'factor'), sample: g.input('index_sample') }),
        ['query_projection', 'key_projection', 'value_projection', 'out_projection'],
      ),
    ));

  test.each(['cab_longshort_self', 'cab_longshort_pad'])('%s', (name) =>
    check(name, (g) => {
      const x = g.input('query');
      const layer = (part: string): Tensor => linear(x, g.weight(`${part}.weight`), g.weight(`${part}.bias`));
      const normal = (t: Tensor, part: string): Tensor => layerNorm(t, g.weight(`${part}.weight`), g.weight(`${part}.bias`)); // prettier-ignore
      const [q, k, v] = [layer('W_q'), normal(layer('W_k'), 'dual_ln_l'), normal(layer('W_v'), 'dual_ln_l')].map(split);
      const scores = layer('dconv_fc');
      const landmarks = (t: Tensor): Tensor => split(normal(join(dynamicProjection(t, scores)), 'dual_ln_s'));
      const options = { landmarkK: landmarks(k), landmarkV: landmarks(v), window: number(g, 'window_size') };
      const out = join(longShortAttention(q, k, v, options));
      return linear(out, g.weight('W_o.weight'), g.weight('W_o.bias'));
    }),
  );

  test('cab_causal_longshort', () =>
    check('cab_causal_longshort', (g) => {
      const x = g.input('query');
      const [batch, length, width] = x.shape;
      const [chunk, window, memory] = ['chunk_size', 'window_size', 'mem_len'].map((name) => number(g, name));
      const dim = width / HEADS;
      const projected = (part: string): Tensor => linear(x, g.weight(`${part}.weight`));
      const normal = (t: Tensor, part: string): Tensor => layerNorm(t, g.weight(`${part}.weight`), g.weight(`${part}.bias`)); // prettier-ignore
      const scores = linear(x, g.weight('dconv_1.weight'), g.weight('dconv_1.bias'));
      const withMemory = (t: Tensor, rows: number): Tensor => pad(t, [[0, 0], [rows, 0], [0, 0]]); // prettier-ignore
      const tokens = (part: string): Tensor => split(normal(withMemory(projected(part), memory), 'dual_ln_win'));
      const landmarks = (part: string): Tensor => {
        const own = join(chunkProjection(split(projected(part)), scores, chunk));
        return split(normal(withMemory(own, memory / chunk), 'dual_ln_dproj'));
      };
      const sinusoid = (count: number): Tensor => {
        const angle = mul(reshape(arange(count), [count, 1]), reshape(g.weight('pos_emb.inv_freq'), [1, -1]));
        return concat([sin(angle), cos(angle)], 1);
      };
      const q = split(projected('proj_query'));
      const scale = 1 / Math.sqrt(dim);
      const logits = (queries: Tensor, positions: Tensor): Tensor =>
        matmul(queries, permute(reshape(positions, [1, -1, HEADS, dim]), [0, 2, 3, 1]));
      const far = linear(sinusoid((length + memory) / chunk), g.weight('r_net_chunk.weight'), g.weight('r_net_chunk.bias')); // prettier-ignore
      const near = linear(sinusoid(window), g.weight('r_net.weight'));
      const contentBias = reshape(g.weight('r_w_bias'), [1, HEADS, 1, dim]);
      const out = causalLongShortAttention(q, tokens('proj_key'), tokens('proj_val'), {
        landmarkK: landmarks('proj_key'),
        landmarkV: landmarks('proj_val'),
        chunk,
        window,
        windowQ: add(q, div(contentBias, scale)),
        windowPositions: logits(add(mul(q, scale), g.weight('r_r_bias')), near),
        landmarkPositions: logits(mul(q, scale), far),
      });
      expect(out.shape).toEqual([batch, HEADS, length, dim]);
      return linear(join(out), g.weight('proj_out.weight'));
    }));

  test.each(['cab_s4d_causal', 'cab_s4d_bidir'])('%s', (name) =>
    check(
      name,
      (g) => {
        const u = transpose(g.input('query'), 1, 2);
        const [batch, , length] = u.shape;
        const part = (key: string): Tensor => g.weight(`kernel.kernel.${key}`);
        const parameters = { c: part('C'), logDt: part('log_dt'), logWReal: part('log_w_real'), wImag: part('w_imag'), d: g.weight('D') }; // prettier-ignore
        const y = s4d(u, parameters, { bidirectional: name.endsWith('bidir') });
        const features = transpose(reshape(gelu(y), [batch, -1, length]), 1, 2);
        const out = linear(features, g.weight('output_linear.weight'), g.weight('output_linear.bias'));
        return { out, y, kernel: s4dKernel(parameters, length) };
      },
      { factor: 2 },
    ),
  );
});
