/** The encoding: in step with the C++ header, ordered by dependency, keyed by structure alone. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { MAX_PROGRAM_SIZE, OP, OPS, PROGRAM_MAGIC, encodeProgram, operandFields, programKey, uniformBits } from '../../lib/mask/program.ts'; // prettier-ignore
import { compileSource } from '../../lib/mask/term.ts';
import type { Program } from '../../lib/mask/program.ts';

const header = readFileSync(new URL('../../csrc/core/mask_program.h', import.meta.url), 'utf8');

const DOCS = '({ q, kv }, { doc }) => q >= kv && doc[q] === doc[kv]';

function dependence(program: Program): number[] {
  const bits: number[] = [];
  for (let i = 0; i < program.code.length; i += 4) {
    const [op, a, b, c] = program.code.subarray(i, i + 4);
    const fields = { a, b, c };
    const own = op === OP.Query ? 2 : op === OP.Key ? 4 : op === OP.Score || op === OP.Upstream ? 8 : 0;
    bits.push(operandFields(OPS[op]).reduce((sum, field) => sum | bits[fields[field]], own));
  }
  return bits;
}

describe('mask programs', () => {
  it('list the opcodes of the C++ header in its order', () => {
    const body = /enum class MaskOp : int32_t \{([^}]*)\}/.exec(header)?.[1] ?? '';
    const names = body.replace(/\/\/.*$/gm, '').split(',').map((name) => name.trim()).filter(Boolean); // prettier-ignore
    expect(names).toEqual([...OPS, 'Count']);
    expect(Number(/kMaskProgramMaxSize = (\d+)/.exec(header)?.[1])).toBe(MAX_PROGRAM_SIZE);
  });

  it('have operands before their uses, sorted by what they depend on', () => {
    const program = compileSource(
      '({ s, b, h, q, kv }, { t, w }) => t[b] * w + t[q] + t[kv] * s - (q - kv) * t[h]',
      'score',
      {
        t: new Float32Array(4),
        w: 3,
      },
    );
    const size = program.code.length / 4;
    for (let i = 0; i < size; ++i) {
      const [op, a, b, c] = program.code.subarray(4 * i, 4 * i + 4);
      const fields = { a, b, c };
      for (const field of operandFields(OPS[op])) expect(fields[field]).toBeLessThan(i);
    }
    dependence(program).forEach((bits, i) => {
      const expected = bits === 0 ? 0 : bits === 2 ? 1 : bits === 4 ? 2 : 3;
      const ends = [program.batchHeadEnd, program.queryEnd, program.keyEnd, size];
      expect(ends.findIndex((end) => i < end)).toBe(expected);
    });
    expect(program.result).toBeLessThan(size);
  });

  it('encode to one array and bits', () => {
    const program = compileSource('({ q, kv }, { w, x }) => q - kv < w && q > x', 'mask', { w: -2, x: 0.5 });
    const flat = encodeProgram(program);
    expect([...flat.subarray(0, 7)]).toEqual([
      PROGRAM_MAGIC,
      program.code.length / 4,
      program.batchHeadEnd,
      program.queryEnd,
      program.keyEnd,
      program.result,
      0,
    ]);
    expect([...flat.subarray(7)]).toEqual([...program.code]);
    const bits = uniformBits(program);
    const order = program.uniforms.map(({ name }) => name);
    expect(bits[order.indexOf('w')]).toBe(-2);
    expect(new Float32Array(bits.buffer)[order.indexOf('x')]).toBe(0.5);
  });

  it('have a key that captured values and lengths do not change', () => {
    const key = (doc: Int32Array, text = DOCS): string => programKey(compileSource(text, 'mask', { doc }));
    expect(key(Int32Array.of(1, 2))).toBe(key(Int32Array.of(3, 4, 5)));
    expect(key(Int32Array.of(1, 2))).toBe(
      key(Int32Array.of(1, 2), '(c, t) => { const d = t.doc; return c.kv <= c.q && d[c.q] == d[c.kv] }'),
    );
    expect(key(Int32Array.of(1, 2))).not.toBe(key(Int32Array.of(1, 2), DOCS.replace('>=', '>')));
    const grid = (rows: number, columns: number): string =>
      programKey(
        compileSource('({ h, q }, { g }) => g[h][q] > 0', 'mask', {
          g: Array.from({ length: rows }, () => Array(columns).fill(1)),
        }),
      );
    expect(grid(2, 3)).toBe(grid(4, 5));
    const window = (w: number): string => programKey(compileSource('({ q, kv }, { w }) => q - kv < w', 'mask', { w }));
    expect(window(3)).toBe(window(4096));
    expect(window(3)).not.toBe(window(0.5));
  });

  it('compute each value once', () => {
    const program = compileSource(
      '({ q, kv }) => (q - kv) * (q - kv) < 9 && (q - kv) % 2 === 0 && 3 + 4 === 7',
      'mask',
    );
    const count = (op: number): number => [...program.code].filter((word, i) => i % 4 === 0 && word === op).length;
    expect(count(OP.SubI)).toBe(1);
    expect(count(OP.AndB)).toBe(1);
  });

  it('refuse more instructions than the interpreters take', () => {
    const terms = Array.from({ length: 200 }, (_, i) => `(q % ${i + 2} === kv % ${i + 3} ? ${Array.from({ length: 12 }, (_, k) => `q * ${i * 12 + k + 2} % ${i + k + 3}`).join(' + ')} : 1)`); // prettier-ignore
    expect(() => compileSource(`({ q, kv }) => { ${terms.map((t, i) => `const v${i} = ${t};`).join('\n')} return ${terms.map((_, i) => `v${i}`).join('+')} > 0 }`, 'mask')).toThrow(/at most 4096|more than 16384/); // prettier-ignore
  });
});
