/** aggregatedAttention against a double-precision reference with gradients, the golden of MoH-ViT, and its errors. */
import { describe, expect, test } from 'vitest';
import { add, aggregatedAttention, cast, div, exp, expand, gelu, headGates, indexSelect, layerNorm, linear, log1p, mean, mul, norm, permute, randn, relu, reshape, slice, squeeze, tensor, transpose, unsqueeze, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, range, rowsOf, softmaxOf } from './plain_attention.ts';
import { expectClose } from './tolerance.ts';

test('golden: moh_vit_aggregated', () =>
  checkGolden('moh_vit_aggregated', ({ input, weight, config }) => {
    const { num_heads: heads, shared_head: shared, routed_head: active, sr_ratio: ratio, window_size: window, input_resolution } = config; // prettier-ignore
    const [rows, columns] = input_resolution as number[];
    const x = input('x');
    const [batch, pixels, channels] = x.shape;
    const dim = channels / heads;
    const layer = (t: Tensor, name: string): Tensor => linear(t, weight(`${name}.weight`), weight(`${name}.bias`));
    const unit = (t: Tensor): Tensor => div(t, norm(t, -1, true));
    const image = (t: Tensor): Tensor => reshape(t, [batch, rows, columns, heads, dim]);
    const halves = (t: Tensor): [Tensor, Tensor] => [slice(t, 2, 0, channels), slice(t, 2, channels)];

    const reduced = gelu(linear(x, reshape(weight('sr.weight'), [channels, channels]), weight('sr.bias')));
    const cells = [rows / ratio, columns / ratio];
    const means = mean(reshape(reduced, [batch, cells[0], ratio, cells[1], ratio, channels]), [2, 4]);
    const pooled = layerNorm(reshape(means, [batch, -1, channels]), weight('norm.weight'), weight('norm.bias'));
    const [k, v] = halves(layer(x, 'kv'));
    const [pooledK, pooledV] = halves(layer(pooled, 'kv')).map((t) =>
      permute(reshape(t, [batch, -1, heads, dim]), [0, 2, 1, 3]),
    );
    const count = (at: number, extent: number): number => Math.min(at, 1) + 1 + Math.min(extent - 1 - at, 1);
    const seen = range(0, pixels).map((i) => count(Math.floor(i / columns), rows) * count(i % columns, columns));
    const sizes = tensor(seen.map((n) => Math.log(n + cells[0] * cells[1])), [1, rows, columns, 1, 1], { dtype: 'f32' }); // prettier-ignore
    const perHead = (t: Tensor): Tensor => reshape(t, [1, 1, 1, heads, -1]);
    const queries = unit(image(layer(x, 'q')));
    const temperature = perHead(log1p(exp(weight('temperature'))));
    const hidden = relu(layer(input('relative_coords_table'), 'cpb_fc1'));
    const table = transpose(layer(hidden, 'cpb_fc2'), 0, 1);
    const out = aggregatedAttention(
      mul(mul(add(queries, perHead(weight('query_embedding'))), temperature), sizes),
      unit(image(k)),
      image(v),
      {
        pooledK: unit(pooledK),
        pooledV,
        window,
        localBias: weight('relative_pos_bias_local'),
        pooledBias: reshape(indexSelect(table, 1, input('relative_pos_index')), [heads, pixels, -1]),
        tokens: { queries, keys: weight('learnable_tokens'), bias: squeeze(weight('learnable_bias'), 1) },
        scale: 1,
      },
    );
    const { gates, indices } = headGates(x, { routed: weight('wg.weight'), balance: weight('wg_0.weight') }, { heads, shared, active }); // prettier-ignore
    const gated = mul(reshape(out, [batch, pixels, heads, dim]), unsqueeze(gates, 3));
    return { y: layer(reshape(gated, [batch, pixels, channels]), 'proj'), routed_idx: indices };
  }));

describe('reference', () => {
  test.each([
    { rows: 3, columns: 4, window: 3, pooled: 2, learned: true },
    { rows: 1, columns: 3, window: 5, pooled: 1, learned: false },
    { rows: 2, columns: 2, window: 1, pooled: 3, learned: true },
  ])('%o', ({ rows, columns, window, pooled, learned }) => {
    const [D, pixels, slots, side] = [3, rows * columns, window * window, (window - 1) / 2];
    const image = [1, rows, columns, 1, D];
    const shapes = [image, image, image, [1, 1, pooled, D], [1, 1, pooled, D], [1, slots], [1, pixels, pooled], image, [1, D, slots], [1, slots]]; // prettier-ignore
    checkGradients({
      shapes: learned ? shapes : shapes.slice(0, 7),
      op: (q, k, v, pooledK, pooledV, localBias, pooledBias, queries, keys, bias) =>
        aggregatedAttention(q, k, v, { pooledK, pooledV, window, localBias, pooledBias, ...(learned && { tokens: { queries, keys, bias } }) }), // prettier-ignore
      reference: (q, k, v, pk, pv, localBias, pooledBias, queries, keys, bias) => {
        const [qs, ks, vs, pks, pvs] = [q, k, v, pk, pv].map((x) => rowsOf(x, D));
        return qs.flatMap((query, i) => {
          const [y, x] = [Math.floor(i / columns), i % columns];
          const near = range(0, slots).map((slot) => {
            const [a, b] = [y + Math.floor(slot / window) - side, x + (slot % window) - side];
            return a >= 0 && a < rows && b >= 0 && b < columns ? a * columns + b : -1;
          });
          const logits = near.map((j, slot) => (j < 0 ? -Infinity : dot(query, ks[j]) / Math.sqrt(D) + localBias[slot]));
          const far = pks.map((key, p) => dot(query, key) / Math.sqrt(D) + pooledBias[i * pooled + p]);
          const weights = softmaxOf([...logits, ...far]);
          const extra = (slot: number): number =>
            learned ? range(0, D).reduce((sum, c) => sum + queries[i * D + c] * keys[c * slots + slot], bias[slot]) : 0;
          return range(0, D).map((c) =>
            near.reduce((sum, j, slot) => sum + (j < 0 ? 0 : (weights[slot] + extra(slot)) * vs[j][c]), 0) +
            pvs.reduce((sum, value, p) => sum + weights[slots + p] * value[c], 0));
        });
      },
    });
  }); // prettier-ignore
});

test('bf16 follows f32; a batch entry does not see another; what does not fit is refused', () => {
  const [q, k, v] = [1, 2, 3].map((seed) => randn([2, 5, 4, 2, 8], { seed }));
  const [pooledK, pooledV] = [4, 5].map((seed) => randn([2, 2, 3, 8], { seed }));
  const whole = numbers(aggregatedAttention(q, k, v, { pooledK, pooledV }));
  const [a, b, c, d, e] = [q, k, v, pooledK, pooledV].map((t) => cast(t, 'bf16'));
  const narrow = aggregatedAttention(a, b, c, { pooledK: d, pooledV: e });
  expect(narrow.dtype).toBe('bf16');
  expectClose(numbers(narrow), whole, 'bf16', 2);
  const second = (t: Tensor): Tensor => slice(t, 0, 1, 2);
  const alone = aggregatedAttention(second(q), second(k), second(v), { pooledK: second(pooledK), pooledV: second(pooledV) }); // prettier-ignore
  expectClose(numbers(alone), whole.slice(whole.length / 2), 'f32');
  const refused = (code: string, fn: () => unknown): void =>
    expect(fn).toThrow(expect.objectContaining({ code }) as Error);
  refused('ERR_ARGUMENT', () => aggregatedAttention(q, k, v, { pooledK, pooledV, window: 2 }));
  refused('ERR_SHAPE', () => aggregatedAttention(q, k, v, { pooledK, pooledV: second(pooledV) }));
  refused('ERR_SHAPE', () => aggregatedAttention(q, k, v, { pooledK, pooledV, localBias: expand(tensor([1]), [2, 25]) })); // prettier-ignore
});
