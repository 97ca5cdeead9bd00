/** Random functions: the compiled program equals the function everywhere, interval classes and index proofs are never wrong. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { evaluate, prepareValues } from '../../lib/mask/evaluate.ts';
import { checkIndices } from '../../lib/mask/indices.ts';
import { BOX_ALL, BOX_MIXED, prepareIntervals } from '../../lib/mask/interval.ts';
import { compileSource } from '../../lib/mask/term.ts';
import { resolveCaptures } from '../../lib/mask/captures.ts';
import type { FoveaError } from '../../lib/errors.ts';
import { CAPTURES, build, guardedMask, maskText, scoreText } from './grammar.ts';

interface At {
  b: number;
  h: number;
  q: number;
  kv: number;
  s: number;
}
type Fn = (at: At, captures: unknown) => unknown;

const TABLES = { t: Float32Array.from([0.5, -1.25, 2, 0.75]), bias: [[0.5, -0.25, 1.5], [2.5, 0.125, -3]] }; // prettier-ignore
const coordinate = fc.oneof(fc.integer({ min: 0, max: 15 }), fc.integer({ min: 0, max: 4000 }));
const point: fc.Arbitrary<At> = fc.record({
  b: fc.integer({ min: 0, max: 3 }),
  h: fc.integer({ min: 0, max: 1 }),
  q: coordinate,
  kv: coordinate,
  s: fc.double({ min: -4, max: 4, noNaN: true }).map(Math.fround),
});

describe('random functions', () => {
  it('mask programs equal their function', () => {
    const { views } = resolveCaptures(CAPTURES, 'mask');
    fc.assert(
      fc.property(maskText, fc.array(point, { minLength: 20, maxLength: 20 }), (text, points) => {
        const program = compileSource(text, 'mask', CAPTURES);
        const fn = build<Fn>(text);
        for (const at of points) {
          const expected = Boolean(fn(at, views));
          if ((evaluate(program, at) === 1) !== expected)
            expect.fail(`${text} is ${expected} at ${JSON.stringify(at)}`);
        }
      }),
      { numRuns: 600, seed: 1 },
    );
  });

  it('score programs equal their function up to rounding', () => {
    const captures = { ...CAPTURES, ...TABLES };
    const { views } = resolveCaptures(captures, 'score');
    fc.assert(
      fc.property(scoreText, fc.array(point, { minLength: 10, maxLength: 10 }), (text, points) => {
        const program = compileSource(text, 'score', captures);
        const values = prepareValues(program);
        const fn = build<Fn>(text);
        for (const at of points) {
          const expected = Number(fn(at, views));
          const computed = values(at);
          const scale = computed.reduce(
            (largest, x) => (Number.isFinite(x) ? Math.max(largest, Math.abs(x)) : largest),
            1,
          );
          if (!Number.isFinite(expected)) continue;
          const error = Math.abs(computed[program.result] - expected);
          if (!(error <= 1e-4 * scale)) expect.fail(`${text} at ${JSON.stringify(at)} is ${expected}, off by ${error}`);
        }
      }),
      { numRuns: 800, seed: 2 },
    );
  });

  it('interval classes are never wrong', () => {
    const range = fc
      .tuple(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 8 }))
      .map(([lo, size]): [number, number] => [lo, lo + size]);
    const heads: [number, number] = [0, 1];
    let decided = 0;
    fc.assert(
      fc.property(
        fc.oneof(maskText, guardedMask),
        fc.array(fc.tuple(range, range), { minLength: 8, maxLength: 8 }),
        (text, boxes) => {
          const program = compileSource(text, 'mask', CAPTURES);
          const classify = prepareIntervals(program);
          for (const [q, kv] of boxes) {
            const kind = classify({ b: [0, 0], h: heads, q, kv });
            if (kind === BOX_MIXED) continue;
            ++decided;
            for (let h = 0; h <= 1; ++h) {
              for (let i = q[0]; i <= q[1]; ++i) {
                for (let j = kv[0]; j <= kv[1]; ++j) {
                  if ((evaluate(program, { b: 0, h, q: i, kv: j }) === 1) !== (kind === BOX_ALL)) {
                    expect.fail(`${text} is called ${kind} in ${q} x ${kv}, but at h ${h}, q ${i}, kv ${j} it isn't`);
                  }
                }
              }
            }
          }
        },
      ),
      { numRuns: 1000, seed: 3 },
    );
    expect(decided).toBeGreaterThan(3000);
  });

  it('index proofs are never wrong, and common guards are proven', () => {
    const { views } = resolveCaptures(CAPTURES, 'mask');
    let outside = 0;
    const doc = new Proxy(CAPTURES.doc, {
      get(target, key) {
        if (key === 'length') return target.length;
        const index = Number(String(key));
        if (!(index >= 0 && index < target.length)) ++outside;
        return target[index];
      },
    });
    const side = fc.integer({ min: 1, max: 18 });
    let [accepted, safe] = [0, 0];
    fc.assert(
      fc.property(guardedMask, side, side, (text, queries, keys) => {
        const program = compileSource(text, 'mask', CAPTURES);
        let proven = true;
        try {
          checkIndices(program, { b: [0, 0], h: [0, 0], q: [0, queries - 1], kv: [0, keys - 1] });
        } catch (error) {
          expect((error as FoveaError).code).toBe('ERR_MASK_INDEX');
          proven = false;
        }
        const fn = build<Fn>(text);
        outside = 0;
        for (let q = 0; q < queries; ++q) {
          for (let kv = 0; kv < keys; ++kv) fn({ b: 0, h: 0, q, kv, s: 0 }, { ...views, doc });
        }
        if (proven && outside > 0) expect.fail(`${text} was proven for ${queries} x ${keys}, but reads outside`);
        accepted += Number(proven);
        safe += Number(outside === 0);
      }),
      { numRuns: 2000, seed: 4 },
    );
    expect(accepted / safe).toBeGreaterThan(0.9);
  });
});
