/** What the language accepts: every construct against JavaScript itself, and the texts that tools make of functions. */
import { describe, expect, it } from 'vitest';
import { evaluate } from '../../lib/mask/evaluate.ts';
import { mask, score } from '../../lib/mask/mask.ts';
import { compileSource } from '../../lib/mask/term.ts';
import { OP } from '../../lib/mask/program.ts';
import { build } from './grammar.ts';

type Fn = (at: { b: number; h: number; q: number; kv: number }, captures: unknown) => unknown;

function agrees(text: string, captures: Record<string, unknown> = {}, size = 24): void {
  const program = compileSource(text, 'mask', captures);
  const fn = build<Fn>(text.startsWith('value(') ? `({${text}}).value` : text);
  for (let q = 0; q < size; ++q) {
    for (let kv = 0; kv < size; ++kv) {
      const at = { b: kv % 3, h: q % 4, q, kv };
      const expected = Boolean(fn(at, captures));
      if ((evaluate(program, at) === 1) !== expected) expect.fail(`${text} is ${expected} at ${JSON.stringify(at)}`);
    }
  }
}

const opcodes = (text: string, captures: Record<string, unknown> = {}): number[] =>
  [...compileSource(text, 'mask', captures).code].filter((_, i) => i % 4 === 0);

describe('forms of functions', () => {
  it.each([
    ['arrow with destructuring', '({ q, kv }) => q >= kv'],
    ['renamed parameters', '({ q: e, kv: t }, { w: n }) => e - t < n'],
    ['whole arguments', '(c, t) => c.q - c["kv"] < t.w'],
    ['function expression', 'function f(c) { "use strict"; return c.q > c.kv }'],
    ['method', 'value({ q, kv }) { return q > kv }'],
    ['destructuring in the body', '(c, t) => { const { q, kv } = c; const { w } = t; return q - kv < w; }'],
    [
      'early returns',
      '({ q, kv }) => { if (q < 3) { if (kv < 2) return true; } else if (kv > 9) { return false } if (q > 20) return kv < 5; return q > kv; }',
    ],
    ['shadowed names', '({ q, kv }) => { const x = q; if (kv > 3) { const x = kv * 2; return x > q } return x > 7; }'],
    [
      'local helpers',
      '({ q, kv }, { w }) => { const dist = (x, y) => Math.abs(x - y); function near(x, y) { return dist(x, y) < w } return near(q, kv) }',
    ],
    ['immediately called', '({ q, kv }) => ((x) => x > kv)(q + 1)'],
    ['unused code after a return', '({ q }) => { return q > 3; return false }'],
    ['constants of Math', '({ q, kv }) => q * Math.PI > kv * Math.E'],
  ])('%s', (_, text) => agrees(text, { w: 5 }));

  it.each([
    ['esbuild', '({q:e,kv:t},{doc:o})=>e>=t&&o[e]===o[t]'],
    ['esbuild literals', '({q:e,kv:t})=>e>t?!0:t>3?!1:e===2/1'],
    ['terser sequences', '({q:e,kv:t})=>{let o=e-t,n=3;return 0,o>=0&&o<n}'],
    [
      'tsx keepNames',
      '({ q, kv }) => { const d = /* @__PURE__ */ __name((x, y) => x - y, "d"); return d(q, kv) > 2; }',
    ],
    ['renamed keepNames', '({q:e,kv:t})=>{const n=o((r,i)=>r-i,"d");return n(e,t)>2}'],
    ['called without this', '({ q, kv }) => (0, Math.min)(q, 7) > kv'],
    ['infinity as a quotient', '({ q, kv }) => q - kv < 1/0'],
  ])('text of %s', (_, text) => agrees(text, { doc: Int32Array.from({ length: 24 }, (_, i) => i >> 2) }));
});

describe('meaning', () => {
  it.each([
    'Math.floor((q - kv) / 3) === -2', 'Math.floor((q - kv) / -3) > 1', 'Math.ceil((q - kv) / 4) <= -1', 'Math.round((q - kv) / 2) === 3',
    'Math.trunc((q - kv) / 3) === 0', '((q - kv) / 3 | 0) === -1', '~~((q - kv) / 5) === 1', '(q - kv) / 2 >> 1 === -2', '(q - kv) % 3 === -1',
    'q / 3 === 2', 'q / 3 < 2.5', 'q * 0.5 === kv', '(q & 6) === (kv & 6)', '(q ^ kv) < 8', '(q | 1) === kv', '(~q & 15) === kv', 'q << 2 > kv << 3',
    '(kv - q) >> 1 < -3', '((q - kv) >>> 28) === 15', '!(q % 2)', 'q % 2 && kv % 3', 'q % 2 || kv % 3', '(q && kv) > 4', '(q - 3 || kv) > 4',
    '(q > 3) === (kv > 3)', '(q > 3) + (kv > 3) === 1', '(q > 3) == 1', '+(q > kv) + 2 > 2', 'Boolean(q % 3)', 'Number(q > 4) > kv', 'Math.sign(q - kv) === -1',
    'Math.max(q, kv, 7) === 9', 'Math.min(q, 2.5) < kv', 'Math.abs(q - kv) <= 2', 'q ** 2 > kv ** 3', '2 ** q > kv * 1000', 'Math.pow(q, 2) === 16', 'Math.imul(q, kv) > 30',
    'Math.hypot(q, kv) < 10.25', 'Math.sqrt(q) > 2.5', 'Math.log2(q + 0.5) > 3.25', 'kv < 2.5', '2.5 < kv', 'kv <= 2.5', '3.5 >= q', 'q === 2.5', 'q !== 2.5', '1e-3 < q', 'q > 4294967296',
    'q > -Infinity', '!(q < NaN)', 'b > 1 || h === 2', '-q < -kv', '- -q > kv', 'q - q % 4 === kv - kv % 4', '(q >= kv) & (q < 9)', '!!(q & 1) !== (kv > 2)', 'true', '!1', 'q >= 0',
  ])('%s', (expression) => agrees(`({ b, h, q, kv }) => ${expression}`)); // prettier-ignore

  it('table types', () => {
    const tables = {
      u8: Uint8Array.of(0, 1, 200, 3),
      i8: Int8Array.of(-1, 2, -3, 4),
      i16: Int16Array.of(-300, 2, 300, 4),
      i32: Int32Array.of(-70000, 70000, 1, 2),
      f32: Float32Array.of(0.5, -1.5, 2, 3),
      f64: Float64Array.of(0.25, 1, 2, 3.75),
      ints: [1, 2, -3, 4],
      floats: [0.5, 2, 1.5, 0.125],
      flags: [true, false, true, true],
      grid: [[1, 2, 3, 4], [5, 6, 7, 8]], // prettier-ignore
      cube: [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], // prettier-ignore
    };
    for (const name of ['u8', 'i8', 'i16', 'i32', 'f32', 'f64', 'ints', 'floats']) {
      agrees(`({ q, kv }, { ${name}: t }) => t[q & 3] < t[kv & 3] || t.length === q`, tables);
    }
    agrees('({ q, kv }, { flags }) => flags[q & 3] === flags[kv & 3] && flags[0]', tables);
    agrees(
      '({ q, kv }, t) => t.grid[q & 1][kv & 3] > q && t.cube[q & 1][kv & 1][(q + kv) & 1] > t.grid[1].length',
      tables,
    );
    agrees('({ q, kv }, { grid }) => { const row = grid[q & 1]; return row[kv & 3] % 2 === 0 }', tables);
  });

  it('tensors are captured by their interface', () => {
    const tensor = (dtype: string, shape: number[], data: ArrayLike<number> | ArrayLike<bigint>) => ({
      dtype,
      shape,
      toTableData: () => data,
    });
    const bias = tensor('bf16', [2, 3], [0.5, 1, 2, 3, 4, 5]);
    const made = score(({ s, h, q }, { bias }) => s + bias[h % 2][q % 3], { bias });
    expect(made.value({ s: 1, h: 1, q: 2 })).toBe(6);
    expect(evaluate(made.program, { s: 1, h: 1, q: 2 })).toBe(6);
    expect(made.program.tables[0]).toMatchObject({ dtype: 'f32', shape: [2, 3], source: bias });
    const ids = tensor('i64', [3], BigInt64Array.of(1n, 2n, 2n));
    expect(mask(({ q, kv }, { ids }) => ids[q % 3] === ids[kv % 3], { ids }).value({ q: 1, kv: 2 })).toBe(true);
  });

  it('captured numbers are uniforms of their own type', () => {
    const program = compileSource('({ q, kv }, { w, x, on }) => on && q - kv < w && q > x', 'mask', {
      w: 8,
      x: 0.5,
      on: true,
    });
    expect(program.uniforms.map(({ name, type, value }) => [name, type, value]).sort()).toEqual([['on', 'i32', 1], ['w', 'i32', 8], ['x', 'f32', 0.5]]); // prettier-ignore
  });

  it('divides integers by constants without a division', () => {
    expect(opcodes('({ q, kv }) => Math.floor(q / 64) === Math.floor(kv / 64)')).not.toContain(OP.DivI);
    expect(opcodes('({ q, kv }) => q % 64 === kv % 64')).not.toContain(OP.RemI);
    expect(opcodes('({ q, kv }) => Math.floor((q - kv) / 64) === 1')).toContain(OP.ShrI);
  });

  it('products beyond i32 are multiplied in f32 where a float is wanted', () => {
    const gauss = score(({ s, q, kv }, { sigma }) => s - (q - kv) ** 2 / (2 * sigma * sigma), { sigma: 800 });
    const at = { s: 1, q: 100_000, kv: 0 };
    expect(evaluate(gauss.program, at)).toBeCloseTo(gauss.value(at), 2);
  });

  it('verifies the functions that this very file contains', () => {
    const doc = Int32Array.from({ length: 300 }, (_, i) => Math.floor(i / 50));
    const made = mask(({ q, kv }, { doc, w }) => q >= kv && doc[q] === doc[kv] && q - kv < w, { doc, w: 20 });
    for (const [q, kv] of [[60, 55], [60, 45], [99, 60]]) expect(made.value({ q, kv })).toBe(evaluate(made.program, { q, kv }) === 1); // prettier-ignore
    expect(made.kind).toBe('mask');
    expect(Object.isFrozen(made)).toBe(true);
    doc.fill(0);
    expect(made.value({ q: 60, kv: 45 })).toBe(false);
  });
});
