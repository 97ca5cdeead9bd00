/** What the language refuses, how it says so, and that nothing hostile gets further than an error. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FoveaError } from '../../lib/errors.ts';
import { mask, score } from '../../lib/mask/mask.ts';
import { compileSource } from '../../lib/mask/term.ts';
import { CAPTURES, maskText } from './grammar.ts';

function refusal(make: () => unknown): FoveaError {
  try {
    make();
  } catch (error) {
    if (error instanceof FoveaError) return error;
    throw error;
  }
  return expect.fail('nothing was refused');
}

const refused = (text: string, captures?: unknown): FoveaError => refusal(() => compileSource(text, 'mask', captures));

describe('syntax errors', () => {
  it('show the place and a hint', () => {
    const { code, message } = refused('({ q, kv }) => {\n  const near = q - kv < limit;\n  return near;\n}');
    expect(code).toBe('ERR_MASK_SYNTAX');
    expect(message).toBe(
      [
        'mask: "limit" is not defined in the function',
        '',
        '  2:25 |   const near = q - kv < limit;',
        '       |                         ^',
        '',
        "Hint: closures can't be seen in the text: pass it in the second argument, mask(fn, { limit })",
      ].join('\n'),
    );
  });

  it.each([
    ['loops', '({ q }) => { for (let i = 0; ; ) {} return q > 1 }', /loops are not supported/],
    ['while', '({ q }) => { while (true) {} return q > 1 }', /loops are not supported/],
    ['assignment', '({ q }) => { let x = 1; x = q; return x > 1 }', /assignment|effect/],
    ['assignment inside', '({ q }) => { let x = 1; return (x = q) > 1 }', /assignment expression is not supported/],
    ['increment', '({ q }) => q++ > 1', /update expression/],
    ['no return', '({ q }) => { if (q > 1) return true }', /not every path returns/],
    ['empty return', '({ q }) => { return }', /return without a value/],
    ['async', 'async ({ q }) => q > 1', /async functions are not supported/],
    ['generator', 'function* f({ q }) { return q > 1 }', /generator functions are not supported/],
    ['class', 'class A {}', /this is a class/],
    ['two functions', '() => true) ; (() => false', /exactly one function/],
    ['not a function', '42', /not a function/],
    ['not even code', '({ q }) => q >=', /Unexpected token/],
    ['strings', '({ q }) => q > "1"', /is not a number/],
    ['regular expressions', '({ q }) => /a/ > q', /is not a number/],
    ['big integers', '({ q }) => q > 1n', /is not a number/],
    ['objects', '({ q }) => ({}) > q', /object expression is not supported/],
    ['this', 'function ({ q }) { return this.x > q }', /this expression is not supported/],
    ['new', '({ q }) => new Date() > q', /new expression is not supported/],
    ['templates', '({ q }) => `${q}` > 1', /template literal is not supported/],
    ['import', '({ q }) => import("x") > q', /import expression is not supported/],
    ['try', '({ q }) => { try { return q > 1 } catch { return false } }', /try statement is not supported/],
    ['typeof', '({ q }) => typeof q > 1', /typeof is not supported/],
    ['nullish', '({ q }) => (q ?? 1) > 1', /\?\? is not supported/],
    ['optional chaining', '(c) => c?.q > 1', /optional chaining|chain expression/],
    ['default values', '({ q = 1 }) => q > 1', /default values/],
    ['rest', '({ q, ...rest }) => q > 1', /rest and computed/],
    ['three arguments', '(a, b, c) => true', /two arguments/],
    ['eval', '({ q }) => eval("q") > 1', /eval/],
    ['Function', '({ q }) => Function("return 1")() > q', /not known|not defined/],
    ['globals', '({ q }) => process.exit(1) > q', /process is not known/],
    ['random', '({ q }) => Math.random() < 0.5', /Math.random is not supported/],
    ['prototype of Math', '({ q }) => Math.constructor.constructor("x")() > q', /Math.constructor is not a number/],
    ['prototype of a coordinate', '({ q }) => q.constructor > 1', /no properties/],
    ['prototype of the coordinates', '({ constructor }) => true', /not a coordinate/],
    ['prototype of the captures', '(c, { toString }) => true', /not among the captured values/],
    ['proto', '(c, t) => t.__proto__ > 1', /not among the captured values/],
    ['computed capture', '({ q }, t) => t[q] > 1', /no properties/],
    ['methods of tables', '({ q }, { doc }) => doc.indexOf(q) > 1', /only \[index\] and \.length/],
    ['half-indexed tables', '({ q }, { grid }) => grid[q] > 1', /has 2 axes, 1 of them/],
    ['tables as values', '({ q }, { doc }) => doc > q', /has 1 axes, 0 of them/],
    ['unknown coordinate', '({ k }) => k > 1', /"k" is not a coordinate of a mask/],
    ['score in a mask', '({ s }) => s > 1', /"s" is not a coordinate of a mask/],
    ['capture in the first argument', '({ q, doc }) => doc[q] > 1', /captured values come in the second argument/],
    ['imported value', '({ q }) => q > __vite_ssr_import_1__.W', /"W" is imported.*\n*[^]*mask\(fn, \{ W \}\)/],
    [
      'imported function',
      '({ q }) => (0, __vite_ssr_import_1__.near)(q) > 1',
      /"near" is imported[^]*write the helper inside/,
    ],
    ['coverage', '({ q }) => { cov_1x().s[0]++; return q > 1 }', /coverage|update expression/],
    ['recursion', '({ q }) => { const f = (x) => f(x); return f(q) > 1 }', /cannot call themselves/],
    ['helper arity', '({ q }) => { const f = (x) => x; return f() > 1 }', /takes 1 arguments, not 0/],
    ['mixed ternary', '({ q }) => (q > 1 ? q > 2 : q) > 1', /one side is a boolean/],
    ['mixed equality', '({ q }) => (q > 1) === q', /always false/],
    ['missing value', '({ q }) => void 0', /undefined is used as a value/],
    ['spread', '({ q }) => Math.max(...q) > 1', /spread element is not supported/],
    ['statement without effect', '({ q }) => { q > 1; return true }', /without effect/],
  ])('%s', (_, text, message) => {
    const error = refused(text, { doc: Int32Array.of(1, 2), grid: [[1], [2]] });
    expect(error.code).toBe('ERR_MASK_SYNTAX');
    expect(error.message).toMatch(message);
  });

  it('a score returns a number', () => {
    expect(refusal(() => compileSource('({ s, q }) => q > 1', 'score')).message).toMatch(/a score returns a number/);
  });

  it('native, bound and proxied functions have no text', () => {
    for (const fn of [Math.max, ((): boolean => true).bind(null), new Proxy((): boolean => true, {})]) {
      expect(refusal(() => mask(fn as () => boolean)).message).toMatch(/not available/);
    }
    expect(refusal(() => mask(3 as unknown as () => boolean)).code).toBe('ERR_ARGUMENT');
  });
});

describe('captured values', () => {
  it.each([
    ['strings', { x: 'a' }, /of type string/],
    ['null', { x: null }, /is null/],
    ['functions', { x: () => 1 }, /of type function/],
    ['ragged arrays', { x: [[1, 2], [3]] }, /not a regular array/],
    ['mixed arrays', { x: [1, true] }, /not a regular array/],
    ['holes', { x: [1, , 2] }, /not a regular array/],
    ['empty arrays', { x: [] }, /is empty/],
    ['large integers', { x: Uint32Array.of(4294967295) }, /outside the range of i32/],
    ['getters', Object.defineProperty({}, 'x', { get: () => 1, enumerable: true }), /is a getter/],
    ['own __proto__', JSON.parse('{ "__proto__": 1 }'), /reserved name/],
    ['maps', new Map([['x', 1]]), /plain object/],
    ['arrays', [1], /plain object/],
    ['cycles', { x: (() => { const a: unknown[] = []; a.push(a); return a; })() }, /more than 8 axes/],
  ])('%s', (_, captures, message) => {
    const error = refused('({ q }) => q > 1', captures);
    expect(error.code).toBe('ERR_ARGUMENT');
    expect(error.message).toMatch(message);
  }); // prettier-ignore
});

describe('verification', () => {
  it('refuses a function whose text is not what it does', () => {
    let calls = 0;
    const impostor = Object.assign(() => ++calls % 2 === 0, {});
    expect(refusal(() => mask(impostor)).code).toBe('ERR_MASK_SYNTAX');
    const honest = ({ q, kv }: { q: number; kv: number }): boolean => q >= kv;
    expect(() => mask(honest)).not.toThrow();
  });

  it('refuses where f32 decides differently from double', () => {
    expect(refusal(() => mask(({ q, kv }) => q * 0.1 === kv / 10)).message).toMatch(
      /differs from the function at \{b:/,
    );
  });

  it('a table that is never read in range is an index error', () => {
    const error = refusal(() => mask(({ q }, { doc }) => doc[-1 - q] === 1, { doc: [1, 2] }));
    expect(error.code).toBe('ERR_MASK_INDEX');
  });

  it('scores are compared up to rounding', () => {
    expect(() => score(({ s, q, kv }) => Math.tanh(s / 30) * 30 - Math.log(1 + Math.abs(q - kv)) * 0.1)).not.toThrow();
  });
});

describe('hostile text', () => {
  const repeat = (text: string, count: number): string => text.repeat(count);
  it.each([
    ['long', `({ q }) => q > 1 ${repeat(' ', 70_000)}`],
    ['deep brackets', `({ q }) => ${repeat('(', 20_000)}q${repeat(')', 20_000)} > 1`],
    ['open brackets', repeat('[', 60_000)],
    ['deep negations', `({ q }) => ${repeat('!', 60_000)}q`],
    ['deep minus', `({ q }) => ${repeat('- ', 30_000)}q > 1`],
    ['long sums', `({ q }) => ${repeat('q+', 30_000)}q > 1`],
    ['deep ternaries', `({ q }) => ${repeat('q?1:', 15_000)}q`],
    ['deep ifs', `({ q }) => { ${repeat('if (q) ', 8_000)} return true; return false }`],
    ['long else chains', `({ q }) => { ${repeat('if (q > 1) return true; else ', 2_000)} return false }`],
    ['doubling helpers', `({ q }) => { const f0 = (x) => x + 1; ${Array.from({ length: 30 }, (_, i) => `const f${i + 1} = (x) => f${i}(f${i}(x));`).join('')} return f30(q) > 1 }`],
    ['doubling values', `({ q }) => { const v0 = q; ${Array.from({ length: 5000 }, (_, i) => `const v${i + 1}=v${i}*q%${i + 2};`).join('')} return v5000 > 1 }`],
    ['many returns', `({ q }) => { ${Array.from({ length: 2000 }, (_, i) => `if(q===${i})return !0;`).join('')} return false }`],
  ])('%s', (_, text) => {
    const started = process.cpuUsage();
    try {
      compileSource(text, 'mask');
    } catch (error) {
      expect(error).toBeInstanceOf(FoveaError);
      expect((error as FoveaError).code).toBe('ERR_MASK_SYNTAX');
      expect((error as FoveaError).message.length).toBeLessThan(1000);
    }
    expect(process.cpuUsage(started).user).toBeLessThan(10_000_000);
  }); // prettier-ignore

  it('is parsed, never run', () => {
    const target = globalThis as { hostile?: boolean };
    for (const text of ['(() => { globalThis.hostile = true })()', '({ q = (globalThis.hostile = true) }) => true', '({ q }) => (globalThis.hostile = true)', 'function f() {} globalThis.hostile = true']) {
      expect(refused(text).code).toBe('ERR_MASK_SYNTAX');
    }
    expect(target.hostile).toBeUndefined();
  }); // prettier-ignore

  it('arbitrary text gives a program or an ERR_MASK_SYNTAX', () => {
    const tokens = fc.constantFrom('(', ')', '{', '}', '[', ']', '=>', 'q', 'kv', 'c', ',', ';', '?', ':', '&&', '!', '-', '+', '/', '.', '1', '0.5', 'return ', 'const x=', 'if', 'Math.', 'floor', '__proto__', 'eval', '...', '`', '"', '=', '++', 'async ', 'function ', 'doc', '\n', '/*', '\u2028'); // prettier-ignore
    const soup = fc.array(tokens, { maxLength: 30 }).map((parts) => parts.join(''));
    const mutated = fc.tuple(maskText, fc.nat(), fc.nat(5), soup).map(([text, at, cut, insert]) => {
      const place = at % text.length;
      return text.slice(0, place) + insert + text.slice(place + cut);
    });
    fc.assert(
      fc.property(fc.oneof(soup, mutated, fc.string(), soup.map((body) => `({ q, kv }, { doc }) => ${body}`)), (text) => {
        try {
          compileSource(text, 'mask', CAPTURES);
        } catch (error) {
          if (!(error instanceof FoveaError) || error.code !== 'ERR_MASK_SYNTAX') throw error;
        }
      }),
      { numRuns: 3000, seed: 5 },
    ); // prettier-ignore
  });
});
