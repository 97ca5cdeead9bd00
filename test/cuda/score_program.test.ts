/**
 * Score programs on CUDA, where they are PTX spliced into the attention kernels: each score of the library, opcodes at their edges and random
 * programs, forward and backward, against the CPU's interpreter.
 */
import { describe, expect, test } from 'vitest';
import { attention, cast, grad, tensor, type AttentionOptions, type DType, type Tensor } from '../../lib/index.ts';
import { differentiate } from '../../lib/mask/differentiate.ts';
import { evaluate } from '../../lib/mask/evaluate.ts';
import { mask, score, type Score } from '../../lib/mask/mask.ts';
import * as scores from '../../lib/mask/scores/index.ts';
import { random } from '../reference_matmul.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';
import { bentScore, functionOf } from './long_score.ts';

const cuda = useCuda({}, 1 << 17);
const values = (t: Tensor): ArrayLike<number> => cast(t.to('cpu'), 'f32').dataSync() as Float32Array;

const HEADS = 2;
const table = (rows: number, columns: number): number[][] =>
  Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => Math.sin(1.7 * j + i)));
const hops = Array.from({ length: 80 }, (_, i) => Array.from({ length: 80 }, (_, j) => Math.min(Math.abs(i - j), 5)));

const LIBRARY: Readonly<Record<string, Score>> = {
  alibi: scores.alibi(HEADS),
  softcap: scores.softcap(2),
  relativeBias: scores.relativeBias(table(HEADS, 15), 7),
  t5Bias: scores.t5Bias(table(HEADS, 16), { bidirectional: true, buckets: 16, maxDistance: 30 }),
  sandwich: scores.sandwich(HEADS, 32, 64),
  graphormer: scores.graphormer(table(HEADS, 6), hops),
};

const floats = (shape: readonly number[], seed: number): Tensor => random(shape, 'f32', seed).t;

function operands([lq, lk, d]: readonly [number, number, number], dtype: DType): [Tensor, Tensor, Tensor] {
  const of = (l: number, seed: number): Tensor => cast(random([1, HEADS, l, d], 'f32', seed).t, dtype);
  return [of(lq, 1), of(lk, 2), of(lk, 3)];
}

/** Gradients of the operands on CUDA against those on the CPU in f32, from the same rounded inputs. */
function expectSameGradients([q, k, v]: readonly Tensor[], options: AttentionOptions, dtype: DType): void {
  const dout = cast(random([...q.shape.slice(0, 3), v.shape[3]], 'f32', 4).t, dtype);
  const dlse = random(q.shape.slice(0, 3), 'f32', 5).t;
  const gradients = (operand: (t: Tensor) => Tensor, like: (t: Tensor) => Tensor): ArrayLike<number>[] => {
    const leaves = [q, k, v].map((t) => operand(t).detach()) as [Tensor, Tensor, Tensor];
    for (const t of leaves) t.requiresGrad = true;
    const bias = options.bias && like(options.bias);
    const { out, lse } = attention(...leaves, { ...options, ...(bias && { bias }), returnLse: true });
    return (grad([out, lse], leaves, { gradients: [operand(dout), like(dlse)] }) as Tensor[]).map(values);
  };
  const there = gradients(
    (t) => t.to('cuda'),
    (t) => t.to('cuda'),
  );
  const here = gradients(
    (t) => cast(t, 'f32'),
    (t) => t,
  );
  for (const [i, actual] of there.entries()) expectClose(actual, here[i], dtype, 2);
}

describe.skipIf(cuda.skip)('score programs on CUDA', () => {
  describe.each(['f32', 'bf16', 'f16'] as const)('%s', (dtype) => {
    test.each(Object.keys(LIBRARY))('%s', (name) => {
      const [q, k, v] = operands([70, 75, 32], dtype);
      const options: AttentionOptions = { score: LIBRARY[name], causal: 'bottom-right', window: [50, -1] };
      const there = attention(q.to('cuda'), k.to('cuda'), v.to('cuda'), { ...options, returnLse: true });
      const wide = [q, k, v].map((t) => cast(t, 'f32')) as [Tensor, Tensor, Tensor];
      const here = attention(...wide, { ...options, returnLse: true });
      expectClose(values(there.out), values(here.out), dtype);
      expectClose(values(there.lse), values(here.lse), 'f32', 10);
    });

    test.each(Object.keys(LIBRARY))('%s, gradients', (name) => {
      const options: AttentionOptions = { score: LIBRARY[name], causal: 'bottom-right', window: [50, -1] };
      expectSameGradients(operands([70, 75, 32], dtype), options, dtype);
    });

    test.each([
      [9, 40, 64],
      [40, 30, 128],
      [33, 40, 200],
    ] as const)('gradients of a score of everything, grouped heads, %i queries, %i keys, dim %i', (lq, lk, d) => {
      const of = (heads: number, l: number, seed: number): Tensor =>
        cast(random([2, heads, l, d], 'f32', seed).t, dtype);
      const bend = Float32Array.from({ length: 40 }, (_, i) => Math.cos(i));
      const options: AttentionOptions = {
        score: score(
          ({ b, h, q, kv, s }, { bend, rate }) =>
            Math.tanh(s * bend[q]) * rate + (kv > q + h ? s * s * bend[kv] : s * (b + 1)),
          { bend, rate: 1.5 },
        ),
        softcap: 5,
        bias: floats([2, 1, lq, lk], 6),
        mask: mask(({ q, kv }) => (q + kv) % 7 !== 3),
      };
      expectSameGradients([of(4, lq, 1), of(2, lk, 2), of(2, lk, 3)], options, dtype);
    });
  });

  describe('long programs, of which a kernel has one copy', () => {
    const bend = Float32Array.from({ length: 40 }, (_, i) => Math.cos(i));
    /** Instructions of the score and of its derivative; up to 128 they are copied. */
    const sizes = [
      [8, 81, 115],
      [9, 90, 129],
      [16, 132, 208],
      [120, 756, 1352],
      [368, 2244, 4080],
    ] as const;

    test.each(sizes)('%i bends: %i instructions, %i of the derivative', (steps, size, derivative) => {
      const bends = bentScore(steps, { bend });
      expect([bends.program, differentiate(bends.program)].map((p) => p.code.length / 4)).toEqual([size, derivative]);
      for (const dtype of ['f32', 'bf16'] as const) {
        const [q, k, v] = operands([steps < 100 ? 70 : 20, 45, 32], dtype);
        const options: AttentionOptions = { score: bends, causal: 'bottom-right' };
        const there = attention(q.to('cuda'), k.to('cuda'), v.to('cuda'), options);
        const here = attention(...([q, k, v].map((t) => cast(t, 'f32')) as [Tensor, Tensor, Tensor]), options);
        expectClose(values(there), values(here), dtype);
        expectSameGradients([q, k, v], options, dtype);
      }
    });

    test('few queries, and the gradient of a table', () => {
      const gradients = (place: (t: Tensor) => Tensor): ArrayLike<number>[] => {
        const table = place(tensor(bend, [40])).detach();
        table.requiresGrad = true;
        const [q, k, v] = operands([9, 50, 32], 'f32').map(place);
        const out = attention(q, k, v, { score: bentScore(30, { bend: table }) });
        return [out, ...(grad([out], [table], { gradients: [out.detach()] }) as Tensor[])].map(values);
      };
      const here = gradients((t) => t);
      gradients((t) => t.to('cuda')).forEach((there, i) => expectClose(there, here[i], 'f32', 2));
    });
  });

  test('16 tables and 64 numbers, no more', () => {
    const sum = (of: 'table' | 'number', count: number): Score => {
      const entries = Array.from({ length: count }, (_, i) => [
        `c${i}`,
        of === 'table' ? Float32Array.of(i, 1) : i / 7,
      ]);
      const terms = entries.map(([name]) => (of === 'table' ? `${String(name)}[q % 2]` : String(name)));
      return score(functionOf(`({ s, q }, captures) => s + 0 * q + ${terms.map((t) => `captures.${t}`).join(' + ')}`), Object.fromEntries(entries) as Record<string, number>); // prettier-ignore
    };
    const [q, k, v] = operands([5, 6, 8], 'f32');
    const run = (s: Score): Tensor => attention(q.to('cuda'), k.to('cuda'), v.to('cuda'), { score: s });
    for (const [of, most] of [
      ['table', 16],
      ['number', 64],
    ] as const) {
      // prettier-ignore
      expectClose(values(run(sum(of, most))), values(attention(q, k, v, { score: sum(of, most) })), 'f32');
      expect(() => run(sum(of, most + 1))).toThrow(expect.objectContaining({ code: 'ERR_UNSUPPORTED', message: expect.stringContaining('16 tables or 64 numbers') as string })); // prettier-ignore
    }
  });

  // One key: the log-sum-exp of query q is the program's value there.
  describe('operations as the host computes them', () => {
    const specials = [
      0,
      -0,
      1,
      -1,
      0.5,
      -0.5,
      1.5,
      2.5,
      -2.5,
      3,
      -3,
      7,
      1e-3,
      -1e-3,
      40.25,
      -40.75,
      1e9,
      -1e9,
      3e38,
      NaN,
    ];
    const x = Float32Array.from({ length: 400 }, (_, i) => specials[i % 20]);
    const y = Float32Array.from({ length: 400 }, (_, i) => specials[Math.floor(i / 20)]);
    const edges = [
      0, 1, -1, 2, -2, 3, 7, -7, 31, 32, 33, -33, 1000, 65535, 0x7fffffff, -0x80000000, 0x40000000, -5, 100, 12345,
    ];
    const m = Int32Array.from({ length: 400 }, (_, i) => edges[i % 20]);
    const n = Int32Array.from({ length: 400 }, (_, i) => edges[Math.floor(i / 20)]);
    const table = Float32Array.from([4, 5, 6, 7.5]);
    const bytes = Uint8Array.from([250, 3, 17]);
    const live = [true, false, true];
    // Values are kept small and finite, so that the log-sum-exp is exact to rounding; NaN becomes 77.
    const programs: Readonly<Record<string, Score>> = {
      divide: score(({ q }, { m, n }) => (((m[q] / n[q]) | 0) % 9973) / 8, { m, n }),
      remainder: score(({ q }, { m, n }) => (n[q] === 0 ? 3 : ((m[q] % n[q]) % 9973) / 8), { m, n }),
      floor: score(({ q }, { m, n }) => (n[q] === 0 ? 3 : (Math.floor(m[q] / n[q]) % 9973) / 8), { m, n }),
      product: score(({ q }, { m, n }) => (Math.imul(m[q], n[q]) % 9973) / 8, { m, n }),
      left: score(({ q }, { m, n }) => ((m[q] << n[q]) % 9973) / 8, { m, n }),
      right: score(({ q }, { m, n }) => ((m[q] >> n[q]) % 9973) / 8, { m, n }),
      unsigned: score(({ q }, { m, n }) => (((m[q] >>> n[q]) | 0) % 9973) / 8, { m, n }),
      bits: score(({ q }, { m, n }) => (((m[q] & n[q]) ^ (m[q] | ~n[q])) % 9973) / 8, { m, n }),
      extremes: score(({ q }, { m, n }) => (Math.min(m[q], n[q]) % 97) + (Math.max(m[q], n[q]) % 89), { m, n }),
      compare: score(({ q }, { x, y }) => (x[q] < y[q] ? 1 : 0) + (x[q] <= y[q] ? 2 : 0) + (x[q] === y[q] ? 4 : 0) + (x[q] !== y[q] ? 8 : 0), { x, y }), // prettier-ignore
      smaller: score(({ q }, { x, y }) => { const v = Math.min(x[q], y[q]); return v !== v ? 77 : Math.max(-1e5, Math.min(v, 1e5)); }, { x, y }), // prettier-ignore
      larger: score(({ q }, { x, y }) => { const v = Math.max(x[q], y[q]); return v !== v ? 77 : Math.max(-1e5, Math.min(v, 1e5)); }, { x, y }), // prettier-ignore
      modulo: score(({ q }, { x, y }) => { const v = x[q] % y[q]; return v !== v ? 77 : Math.max(-1e5, Math.min(v, 1e5)); }, { x, y }), // prettier-ignore
      power: score(({ q }, { x, y }) => { const v = x[q] ** y[q]; return v !== v ? 77 : Math.max(-1e5, Math.min(v, 1e5)); }, { x, y }), // prettier-ignore
      quotient: score(({ q }, { x, y }) => { const v = x[q] / y[q]; return v !== v ? 77 : Math.max(-1e5, Math.min(v, 1e5)); }, { x, y }), // prettier-ignore
      exponential: score(({ q }, { x, y }) => { const v = Math.exp(x[q] * 2 + y[q] * 0); return v !== v ? 77 : Math.min(v, 1e5); }, { x, y }), // prettier-ignore
      logarithm: score(({ q }, { x }) => { const v = Math.log(x[q]); return v !== v ? 77 : Math.max(-1e5, v); }, { x }), // prettier-ignore
      hyperbolic: score(({ q }, { x }) => (x[q] !== x[q] ? 77 : Math.tanh(x[q]) + Math.tanh(x[q] / 9)), { x }),
      circular: score(({ q }, { x }) => (x[q] === x[q] && Math.abs(x[q]) < 2e9 ? Math.sin(x[q]) + 3 * Math.cos(x[q]) : 77), { x }), // prettier-ignore
      root: score(({ q }, { x }) => { const v = Math.sqrt(x[q]); return v !== v ? 77 : Math.min(v, 1e5); }, { x }), // prettier-ignore
      rounding: score(({ q }, { x }) => { const v = x[q]; return v !== v || Math.abs(v) > 1e6 ? 77 : Math.floor(v) + 3 * Math.ceil(v) + 7 * Math.round(v) + 11 * Math.trunc(v) + 13 * Math.sign(v); }, { x }), // prettier-ignore
      clamped: score(({ q }, { m, table }) => table[Math.min(Math.max(m[q], 0), 3)], { m, table }),
      bytes: score(({ q }, { bytes, live }) => bytes[q % 3] + (live[(q + 1) % 3] ? 0.25 : 0) + (q > 4 && !live[q % 3] ? 1 : 0), { bytes, live }), // prettier-ignore
    };
    test.each(Object.keys(programs))('%s', (name) => {
      const q = tensor(new Float32Array(400), [1, 1, 400, 1]).to('cuda');
      const k = tensor(new Float32Array(1), [1, 1, 1, 1]).to('cuda');
      const { lse } = attention(q, k, k, { score: programs[name], returnLse: true });
      const actual = values(lse);
      for (let i = 0; i < 400; ++i) {
        const expected = evaluate(programs[name].program, { b: 0, h: 0, q: i, kv: 0, s: 0 });
        if (!(Math.abs(actual[i] - expected) <= 2e-6 * (1 + Math.abs(expected))))
          expect.fail(`query ${i}: ${actual[i]}, expected ${expected} of ${x[i]}, ${y[i]} or ${m[i]}, ${n[i]}`);
      }
    });
  });
});
