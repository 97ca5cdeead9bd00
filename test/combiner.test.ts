/** combinerAttention against goldens, a double-precision reference over explicit spans, and its invariants. */
import { describe, expect, test } from 'vitest';
import { attention, cast, combinerAttention, combinerCost, layerNorm, manualSeed, matmul, permute, randn, reshape, tensor, type CombinerOptions, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { expectClose, relativeError } from './tolerance.ts';

const swap = (t: Tensor): Tensor => permute(t, [0, 2, 1, 3]);

describe('goldens', () => {
  const run = (options: (config: { s: number; causal?: boolean }) => CombinerOptions) => (g: GoldenCase) =>
    swap(
      combinerAttention(
        swap(g.input('q')),
        swap(g.input('k')),
        swap(g.input('v')),
        options(g.config as unknown as { s: number }),
      ),
    );
  test.each(['combiner_fixed_causal', 'combiner_fixed_bidir'])('%s', (name) =>
    checkGolden(
      name,
      run(({ s, causal = true }) => ({ span: s, causal })),
    ),
  );
  test.each(['combiner_log_12', 'combiner_log_16'])('%s', (name) =>
    checkGolden(
      name,
      run(() => ({ pattern: 'log' })),
    ),
  );
  test.each(['combiner_axial_mixture', 'combiner_axial_mixture_sq'])('%s', (name) =>
    checkGolden(
      name,
      run(({ s }) => ({ pattern: 'axialMixture', span: s })),
    ),
  );
  test('combiner_axial_rowmajor', () =>
    checkGolden('combiner_axial_rowmajor', (g) => {
      const x = g.input('x');
      const [b, length, c] = x.shape;
      const project = (t: Tensor, name: string): Tensor => {
        const w = g.weight(name);
        return swap(reshape(matmul(t, reshape(w, [c, -1])), [b, length, w.shape[1], w.shape[2]]));
      };
      const summaryKeys = (rows: Tensor): Tensor => {
        const merged = matmul(reshape(swap(rows), [b, length, -1]), reshape(g.weight('proj'), [-1, c]));
        return project(layerNorm(merged.add(x), g.weight('ln_scale'), g.weight('ln_bias'), { eps: 1e-6 }), 'k2');
      };
      const [q, k, v] = ['q', 'k', 'v'].map((name) => project(x, name)) as [Tensor, Tensor, Tensor];
      return swap(combinerAttention(q, k, v, { pattern: 'axialRow', span: 4, summaryKeys }));
    }));
});

/** For each query the direct keys and the spans it sees: what the pattern says, in words of indices. */
interface Seen {
  readonly direct: readonly number[];
  readonly spans: readonly (readonly number[])[];
}

const range = (from: number, to: number): number[] =>
  Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);

function seenBy(i: number, length: number, { pattern, span = 1, causal }: CombinerOptions): Seen {
  const [row, column] = [Math.floor(i / span), i % span];
  if (pattern === 'log') {
    const spans = range(0, 31).filter((l) => (i >> l) & 1);
    return { direct: [i], spans: spans.map((l) => range(((i >> l) - 1) * 2 ** l, (i >> l) * 2 ** l)) };
  }
  const rowStart = row * span;
  if (pattern === 'fixed') {
    const all = range(0, length / span).map((r) => range(r * span, (r + 1) * span));
    if (causal === false) return { direct: range(rowStart, rowStart + span), spans: all };
    return { direct: range(rowStart, i + 1), spans: all.slice(0, row) };
  }
  const rows = range(0, row);
  const direct = [...rows.map((r) => r * span + column), ...range(rowStart, i + 1)];
  const vertical = range(0, span).flatMap((c) => (c === column || row === 0 ? [] : [rows.map((r) => r * span + c)]));
  const horizontal = rows.flatMap((r) =>
    [range(r * span, r * span + column), range(r * span + column + 1, (r + 1) * span)].filter((s) => s.length > 0),
  );
  return {
    direct,
    spans: [...(pattern === 'axialHorizontal' ? [] : vertical), ...(pattern === 'axialVertical' ? [] : horizontal)],
  };
}

/** One head of [length, dim]. */
function reference(q: Float64Array, k: Float64Array, v: Float64Array, d: number, options: CombinerOptions): number[] {
  const length = q.length / d;
  const scale = 1 / Math.sqrt(d);
  const at = (x: Float64Array, i: number): number[] => [...x.slice(i * d, (i + 1) * d)];
  const dot = (a: number[], b: number[]): number => a.reduce((sum, x, c) => sum + x * b[c], 0) * scale;
  const pooled = (x: Float64Array, span: readonly number[]): number[] =>
    range(0, d).map((c) => {
      const values = span.map((j) => x[j * d + c]);
      return options.pool === 'mean' ? values.reduce((a, b) => a + b, 0) / span.length : Math.max(...values);
    });
  const mix = (logits: number[], values: number[][]): number[] => {
    const high = Math.max(...logits);
    const weights = logits.map((x) => Math.exp(x - high));
    const total = weights.reduce((a, b) => a + b, 0);
    return range(0, d).map((c) => weights.reduce((sum, w, j) => sum + w * values[j][c], 0) / total);
  };
  return range(0, length).flatMap((i) => {
    const { direct, spans } = seenBy(i, length, options);
    const query = at(q, i);
    const logits = direct.map((j) => dot(query, at(k, j)));
    const values = direct.map((j) => at(v, j));
    for (const span of spans) {
      logits.push(dot(query, pooled(k, span)));
      const inner = pooled(q, span);
      values.push(mix(span.map((j) => dot(inner, at(k, j))), span.map((j) => at(v, j)))); // prettier-ignore
    }
    return mix(logits, values);
  });
}

describe('double-precision reference, values and finite differences', () => {
  test.each<[number, CombinerOptions]>([
    [2, { pattern: 'fixed', span: 1 }],
    [12, { pattern: 'fixed', span: 3 }],
    [12, { pattern: 'fixed', span: 4, pool: 'mean' }],
    [10, { pattern: 'fixed', span: 5, causal: false }],
    [2, { pattern: 'log' }],
    [9, { pattern: 'log' }],
    [17, { pattern: 'log', pool: 'mean' }],
    [12, { pattern: 'axialVertical', span: 3 }],
    [12, { pattern: 'axialHorizontal', span: 4 }],
    [10, { pattern: 'axialMixture', span: 5 }],
    [5, { pattern: 'axialMixture', span: 1 }],
  ])('length %i, %j', (length, options) => {
    const shape = [1, 1, length, 3];
    checkGradients({
      shapes: [shape, shape, shape],
      op: (q, k, v) => combinerAttention(q, k, v, options),
      reference: (q, k, v) => reference(q, k, v, 3, options),
    });
  });
});

test('one segment, or one grid row, is dense causal attention', () => {
  manualSeed(1);
  const [q, k, v] = [1, 2, 3].map(() => randn([2, 3, 24, 8]));
  const dense = numbers(attention(q, k, v, { causal: true }));
  for (const pattern of ['fixed', 'axialRow', 'axialMixture'] as const)
    expectClose(numbers(combinerAttention(q, k, v, { pattern, span: 24 })), dense);
  expectClose(numbers(combinerAttention(q, k, v, { span: 1 })), dense);
});

test.each(['fixed', 'log', 'axialRow', 'axialMixture'] as const)(
  '%s: a later token changes nothing before it',
  (pattern) => {
    manualSeed(2);
    const [q, k, v] = [1, 2, 3].map(() => randn([1, 2, 16, 4]));
    const from = 9;
    const changed = [q, k, v].map((t) => {
      const values = numbers(t);
      for (let h = 0; h < 2; h++) for (let i = (h * 16 + from) * 4; i < (h + 1) * 64; i++) values[i] += 1;
      return tensor(values, t.shape, { dtype: 'f32' });
    });
    const before = numbers(combinerAttention(q, k, v, { pattern }));
    const after = numbers(combinerAttention(changed[0], changed[1], changed[2], { pattern }));
    const early = (x: Float64Array): Float64Array =>
      Float64Array.from([...x.slice(0, from * 4), ...x.slice(64, 64 + from * 4)]);
    expect([...early(after)]).toEqual([...early(before)]);
  },
);

test('bf16', () => {
  manualSeed(3);
  const [q, k, v] = [1, 2, 3].map(() => randn([1, 2, 36, 16]));
  for (const pattern of ['fixed', 'log', 'axialRow', 'axialMixture'] as const) {
    const [qb, kb, vb] = [q, k, v].map((t) => cast(t, 'bf16'));
    const narrow = combinerAttention(qb, kb, vb, { pattern });
    expect(narrow.dtype).toBe('bf16');
    expect(relativeError(numbers(narrow), numbers(combinerAttention(q, k, v, { pattern })))).toBeLessThan(2e-2);
  }
});

test('what does not fit is refused', () => {
  const [q, k, v] = [1, 2, 3].map(() => randn([1, 2, 12, 4]));
  const code = (name: string) => expect.objectContaining({ code: name }) as Error;
  expect(() => combinerAttention(q, k, v, { span: 5 })).toThrow(code('ERR_ARGUMENT'));
  expect(() => combinerAttention(q, k, v, { pattern: 'log', causal: false })).toThrow(code('ERR_ARGUMENT'));
  expect(() => combinerAttention(q, randn([1, 1, 12, 4]), v)).toThrow(code('ERR_SHAPE'));
});

test('cost grows as length^1.5, and n log n', () => {
  const growth = (pattern: 'fixed' | 'log'): number =>
    Math.log(combinerCost({ length: 65536, dim: 64 }, { pattern }).flops / combinerCost({ length: 4096, dim: 64 }, { pattern }).flops) / Math.log(16); // prettier-ignore
  expect(growth('fixed')).toBeCloseTo(1.5, 1);
  expect(growth('log')).toBeLessThan(1.15);
});
