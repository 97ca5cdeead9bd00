/** Derivatives of scores against finite differences of the functions themselves. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { differentiate, trainableTables } from '../../lib/mask/differentiate.ts';
import { evaluate, evaluateScatters, prepareValues } from '../../lib/mask/evaluate.ts';
import { score } from '../../lib/mask/mask.ts';
import { compileSource } from '../../lib/mask/term.ts';
import { resolveCaptures } from '../../lib/mask/captures.ts';
import { OP } from '../../lib/mask/program.ts';
import { CAPTURES, build, scoreText } from './grammar.ts';
import type { CapturedTensor, Program } from '../../lib/mask/program.ts';

interface At {
  s: number;
  b: number;
  h: number;
  q: number;
  kv: number;
}
type Fn = (at: At, captures: unknown) => number;

const trainable = (shape: number[], data: number[]): CapturedTensor => ({
  dtype: 'f32',
  shape,
  requiresGrad: true,
  toTableData: () => Float32Array.from(data),
});

const gradientOf = (derivative: Program, at: At, upstream = 1): number => evaluate(derivative, { ...at, upstream });

describe('derivatives of scores', () => {
  it('of known functions', () => {
    const at = { s: 0.7, b: 0, h: 1, q: 9, kv: 5 };
    const ds = (text: string): number => gradientOf(differentiate(compileSource(text, 'score')), at);
    expect(ds('({ s }) => 3 * s * s')).toBeCloseTo(6 * 0.7, 5);
    expect(ds('({ s }) => Math.tanh(s / 2) * 2')).toBeCloseTo(1 - Math.tanh(0.35) ** 2, 5);
    expect(ds('({ s, q }) => s / q + q / s')).toBeCloseTo(1 / 9 - 9 / 0.49, 4);
    expect(ds('({ s }) => s ** 2.5')).toBeCloseTo(2.5 * 0.7 ** 1.5, 5);
    expect(ds('({ s }) => 2 ** s')).toBeCloseTo(Math.log(2) * 2 ** 0.7, 5);
    expect(ds('({ s }) => Math.exp(s) + Math.log(s) + Math.sqrt(s)')).toBeCloseTo(
      Math.exp(0.7) + 1 / 0.7 + 0.5 / Math.sqrt(0.7),
      5,
    );
    expect(ds('({ s }) => Math.sin(s) * Math.cos(s)')).toBeCloseTo(Math.cos(1.4), 5);
    expect(ds('({ s, q }) => q % s')).toBeCloseTo(-Math.trunc(9 / 0.7), 5);
    expect(ds('({ q }) => q')).toBe(0);
    expect(ds('({ s, q, kv }) => (q >= kv ? s : -Infinity)')).toBe(1);
    expect(ds('({ s, q, kv }) => (q < kv ? s : -Infinity)')).toBe(0);
  });

  it('subgradients are as documented', () => {
    const ds = (text: string, s: number): number =>
      gradientOf(differentiate(compileSource(text, 'score')), { s, b: 0, h: 0, q: 0, kv: 0 });
    expect(ds('({ s }) => Math.abs(s)', 0)).toBe(0);
    expect(ds('({ s }) => Math.max(s, 2 * s)', 0)).toBe(1);
    expect(ds('({ s }) => Math.min(2 * s, s)', 0)).toBe(2);
    expect(ds('({ s }) => Math.floor(s) + Math.round(s) + Math.sign(s)', 1.3)).toBe(0);
  });

  it('a side that was not chosen gives no NaN', () => {
    const at = { s: -1, b: 0, h: 0, q: 0, kv: 0 };
    for (const text of [
      '({ s }) => (s > 0 ? Math.log(s) : s)',
      '({ s }) => (s > 0 ? Math.sqrt(s) : s) * 1',
      '({ s }) => { const r = Math.sqrt(s); return (s > 0 ? r * r : s) + (s > 5 ? r : 0) }',
      '({ s, q }) => (q > 0 ? s / q : s)',
      '({ s, q }) => (q > 0 ? Math.exp(100 * s * s) : s)',
      '({ s }) => (s > 0 ? s ** 0.5 : s)',
    ]) {
      expect([text, gradientOf(differentiate(compileSource(text, 'score')), at)]).toEqual([text, 1]);
    }
  });

  it('ALiBi costs nothing but its slope', () => {
    const slope = trainable([2], [0.5, 0.25]);
    const alibi = score(({ s, h, q, kv }, { slope }) => s - slope[h % 2] * (q - kv), { slope });
    expect(trainableTables(alibi.program)).toEqual([0]);
    const derivative = differentiate(alibi.program);
    expect(derivative.kind).toBe('derivative');
    expect(derivative.tables).toEqual(alibi.program.tables);
    expect(derivative.code[4 * derivative.result]).toBe(OP.Upstream);
    expect(evaluateScatters(derivative, { h: 3, q: 9, kv: 5, upstream: 2 })).toEqual([
      { table: 0, index: 1, grad: -8 },
    ]);
    const plain = differentiate(alibi.program, []);
    expect(plain.scatters).toEqual([]);
    expect(plain.code.length / 4).toBe(1);
  });

  it('reads of one element at different places are gathered', () => {
    const program = compileSource('({ s, q, kv }, { t }) => s * t[q] + t[q] * t[kv] + t[2]', 'score', {
      t: Float32Array.of(1, 2, 3, 4),
    });
    const scatters = evaluateScatters(differentiate(program, [0]), { s: 5, q: 1, kv: 3, upstream: 1 });
    const total = new Float64Array(4);
    for (const { index, grad } of scatters) total[index] += grad;
    expect([...total]).toEqual([0, 5 + 4, 1, 2]);
  });

  it('refuses what has no derivative', () => {
    const ints = compileSource('({ s, q }, { t }) => s + t[q]', 'score', { t: Int32Array.of(1) });
    expect(() => differentiate(ints, [0])).toThrow(/only f32 tables/);
    expect(() => differentiate(ints, [7])).toThrow(/only f32 tables/);
    expect(() => differentiate(compileSource('({ q }) => q > 1', 'mask'))).toThrow(/expected a score/);
  });

  it('agree with finite differences for random scores', () => {
    const t = [0.5, -1.25, 2, 0.75];
    const bias = [[0.5, -0.25, 1.5], [2.5, 0.125, -3]]; // prettier-ignore
    const captures = { ...CAPTURES, t: Float32Array.from(t), bias };
    const { views } = resolveCaptures(captures, 'score');
    const coordinate = fc.integer({ min: 0, max: 20 });
    const point = fc.record({
      b: fc.constant(0),
      h: fc.integer({ min: 0, max: 1 }),
      q: coordinate,
      kv: coordinate,
      s: fc.integer({ min: -128, max: 128 }).map((x) => x / 64 + 1 / 256),
    });
    const step = 1e-5;
    let compared = 0;
    fc.assert(
      fc.property(scoreText, fc.array(point, { minLength: 6, maxLength: 6 }), (text, points) => {
        const program = compileSource(text, 'score', captures);
        const numbers = program.tables.flatMap(({ name }, i) => (name === 't' || name === 'bias' ? [i] : []));
        const derivative = differentiate(program, numbers);
        const values = prepareValues(derivative);
        const fn = build<Fn>(text);
        /** The function with `s` and one element moved: [table name, flat element] or 's'. */
        const moved = (at: At, what: string, element: number, by: number): number => {
          if (what === 's') return fn({ ...at, s: at.s + by }, views);
          const own = { ...views, t: Float64Array.from(t), bias: bias.map((row) => Float64Array.from(row)) };
          if (what === 't') own.t[element] += by;
          else own.bias[Math.floor(element / 3)][element % 3] += by;
          return fn(at, own);
        };
        for (const at of points) {
          const computed = values({ ...at, upstream: 1 });
          const largest = computed.reduce((most, x) => (Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most), 1);
          const check = (what: string, element: number, gradient: number): void => {
            const [low, middle, high] = [-step, 0, step].map((by) => moved(at, what, element, by));
            const [left, right] = [(middle - low) / step, (high - middle) / step];
            const noise = 1e-3 * largest;
            if (!Number.isFinite(left + right) || Math.abs(left - right) > noise) return;
            ++compared;
            if (!(Math.abs(gradient - (left + right) / 2) <= noise))
              expect.fail(`${text}: d${what}[${element}] at ${JSON.stringify(at)} is ${gradient}, not ${left}`);
          };
          check('s', 0, computed[derivative.result]);
          for (const table of numbers) {
            const { name, data } = program.tables[table];
            const total = new Float64Array(data.length);
            for (const s of derivative.scatters) if (s.table === table) total[computed[s.index]] += computed[s.grad];
            total.forEach((gradient, element) => check(name, element, gradient));
          }
        }
      }),
      { numRuns: 300, seed: 6 },
    );
    expect(compared).toBeGreaterThan(2000);
  });
});
