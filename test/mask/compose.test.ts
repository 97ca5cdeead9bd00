/** Composition: values and programs of and, or, not, offset and chain. */
import { describe, expect, it } from 'vitest';
import { and, chain, not, offset, or } from '../../lib/mask/compose.ts';
import { evaluate } from '../../lib/mask/evaluate.ts';
import { intervalOf } from '../../lib/mask/interval.ts';
import { mask, score } from '../../lib/mask/mask.ts';
import { OP, programKey } from '../../lib/mask/program.ts';
import type { Mask } from '../../lib/mask/mask.ts';

const causal = mask(({ q, kv }) => q >= kv);
const doc = Int32Array.from({ length: 40 }, (_, i) => Math.floor(i / 7));
const documents = mask(({ q, kv }, { doc }) => doc[q] === doc[kv], { doc });
const window = (w: number): Mask => mask(({ q, kv }, { w }) => Math.abs(q - kv) < w, { w });

function equals(made: Mask, expected: (q: number, kv: number) => boolean, size = 30): void {
  for (let q = 0; q < size; ++q) {
    for (let kv = 0; kv < size; ++kv) {
      const want = expected(q, kv);
      if (made.value({ q, kv }) !== want || (evaluate(made.program, { q, kv }) === 1) !== want)
        expect.fail(`${made.name} at ${q}, ${kv}`);
    }
  }
}

const count = (made: Mask, op: number): number =>
  [...made.program.code].filter((word, i) => i % 4 === 0 && word === op).length;

describe('composed masks', () => {
  it('and, or, not', () => {
    equals(and(causal, documents, window(4)), (q, kv) => q >= kv && doc[q] === doc[kv] && Math.abs(q - kv) < 4);
    equals(or(not(causal), window(3)), (q, kv) => q < kv || Math.abs(q - kv) < 3);
    equals(
      not(and(causal, or(documents, window(2)))),
      (q, kv) => !(q >= kv && (doc[q] === doc[kv] || Math.abs(q - kv) < 2)),
    );
    equals(and(), () => true);
    equals(or(), () => false);
    expect(and(causal, not(documents)).name).toMatch(/^and\(.*not\(/);
  });

  it('are refused beyond 256 of them over each other, not made ever more slowly', () => {
    let tower = causal;
    for (let i = 0; i < 256; ++i) tower = not(tower);
    equals(tower, (q, kv) => q >= kv);
    for (const more of [() => not(tower), () => and(causal, tower), () => offset(tower, { q: 1 })])
      expect(more).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error);
    equals(and(...Array.from({ length: 300 }, () => causal)), (q, kv) => q >= kv);
  });

  it('offset in both directions', () => {
    equals(offset(causal, { q: 5 }), (q, kv) => q + 5 >= kv);
    equals(offset(causal, { kv: 3 }), (q, kv) => q >= kv + 3);
    equals(offset(documents, { q: 4, kv: 2 }), (q, kv) => doc[q + 4] === doc[kv + 2]);
    const blocks = mask(({ q, kv }) => Math.floor(q / 6) === Math.floor(kv / 6) && q % 4 < 3);
    equals(
      offset(blocks, { q: -7, kv: -3 }),
      (q, kv) => Math.floor((q - 7) / 6) === Math.floor((kv - 3) / 6) && (q - 7) % 4 < 3,
    );
    expect(() => offset(causal, { q: 0.5 })).toThrow(/integer/);
  });

  it('share a program between offsets and compute common parts once', () => {
    expect(programKey(offset(causal, { q: 5 }).program)).toBe(programKey(offset(causal, { q: 900 }).program));
    const both = and(
      documents,
      mask(({ q, kv }, { ids }) => ids[q] !== ids[kv], { ids: doc }),
    );
    expect(both.program.tables).toHaveLength(1);
    expect(count(both, OP.LoadI)).toBe(0);
    equals(both, () => false);
    expect(intervalOf(and(causal, window(3)).program, { b: [0, 0], h: [0, 0], q: [8, 15], kv: [16, 31] })).toBe('none');
  });

  it('keep the captured values of all parts', () => {
    const made = and(window(3), window(5), documents);
    expect(made.captures).toMatchObject({ w: 3, w_2: 5 });
    expect(Object.keys(made.captures)).toEqual(['w', 'w_2', 'doc']);
  });

  it('take masks only', () => {
    expect(() => and(causal, {} as Mask)).toThrow(/expected masks made by mask/);
    expect(() => not(score(({ s }) => s) as unknown as Mask)).toThrow(/got a score/);
  });
});

describe('chained scores', () => {
  it('feed one into the next', () => {
    const cap = score(({ s }) => 20 * Math.tanh(s / 20));
    const alibi = score(({ s, h, q, kv }, { slope }) => s - slope[h % 2] * Math.abs(q - kv), { slope: [0.5, 0.25] });
    const at = { s: 30, h: 1, q: 9, kv: 4 };
    expect(chain(cap, alibi).value(at)).toBeCloseTo(20 * Math.tanh(1.5) - 0.25 * 5, 10);
    expect(evaluate(chain(cap, alibi).program, at)).toBeCloseTo(chain(cap, alibi).value(at), 4);
    expect(chain(alibi, cap).value(at)).toBeCloseTo(20 * Math.tanh((30 - 1.25) / 20), 10);
    expect(chain().value(at)).toBe(30);
  });
});
