/**
 * Random mask and score functions as text, for property tests.
 *
 * The grammar stays where JavaScript's doubles and the program's i32 agree: products are of small numbers, divisors aren't zero, fractions are
 * dyadic. Reads of tables are safe (clamped or wrapped) except in `guardedMask`. Scores use continuous functions only, so that rounding never
 * flips a branch.
 */
import fc from 'fast-check';

export interface Generated {
  readonly text: string;
  readonly captures: Readonly<Record<string, unknown>>;
}

/** The captured values of every generated function. */
export const CAPTURES = {
  n: 7,
  w: -3,
  half: 0.5,
  flag: true,
  doc: Int32Array.from([0, 0, 0, 1, 1, 2, 2, 2, 2, 5, 5, 3]),
  live: Uint8Array.from([1, 0, 1, 1, 0, 1, 1, 1]),
  grid: [
    [1, 2, 3],
    [-4, 5, 6],
  ],
  bits: [true, false, false, true],
} as const;

type Text = fc.Arbitrary<string>;

const literal: Text = fc
  .oneof(fc.integer({ min: -9, max: 20 }), fc.constantFrom(64, 100))
  .map((x) => (x < 0 ? `(${x})` : `${x}`));
const positive: Text = fc.integer({ min: 1, max: 9 }).map(String);

const binary = (left: Text, operators: readonly string[], right: Text): Text =>
  fc.tuple(left, fc.constantFrom(...operators), right).map(([x, op, y]) => `(${x} ${op} ${y})`);

const template = (parts: readonly Text[], build: (...texts: string[]) => string): Text =>
  fc.tuple(...parts).map((texts) => build(...texts));

interface Expressions {
  readonly int: Text;
  readonly bool: Text;
  readonly float: Text;
}

const leaves: Expressions = {
  int: fc.oneof(
    fc
      .constantFrom('b', 'h', 'q', 'kv', 'q', 'kv', 'q - kv', 'n', 'w', 'doc.length', 'grid[0].length')
      .map((x) => `(${x})`),
    literal,
  ),
  bool: fc.constantFrom('(q >= kv)', '(kv < n)', 'flag', 'true', '!1', '(q === kv)'),
  float: fc.constantFrom('half', '0.25', '(q * 0.5)', '((q - kv) / 4)', '1.5', '(kv / 2)'),
};

function grow({ int, bool, float }: Expressions): Expressions {
  const wrapped = (size: string) => (x: string) => `((${x} % ${size}) + ${size}) % ${size}`;
  return {
    int: fc.oneof(
      leaves.int,
      binary(int, ['+', '-', '&', '|', '^'], int),
      template([int, literal], (x, y) => `((${x} % 1009) * ${y})`),
      template([int, positive], (x, y) => `(${x} % ${y})`),
      template([int, fc.constantFrom('2', '8', '3', '-5', 'n', 'w')], (x, y) => `Math.floor(${x} / ${y})`),
      template([int, fc.constantFrom('4', '7', '-2', 'n')], (x, y) => `(${x} / ${y} | 0)`),
      template(
        [fc.constantFrom('ceil', 'round', 'trunc'), int, fc.constantFrom('3', '4', 'n', 'w', '-6')],
        (f, x, y) => `Math.${f}(${x} / ${y})`,
      ),
      template([int, fc.constantFrom('0', '1', '3')], (x, y) => `(${x} >> ${y})`),
      template([int], (x) => `((${x} & 1023) << 3)`),
      template([int], (x) => `(${x} >>> 4)`),
      template([fc.constantFrom('min', 'max', 'imul'), int, int], (f, x, y) => `Math.${f}(${x} % 5003, ${y} % 5003)`),
      template([fc.constantFrom('Math.abs', 'Math.sign', '-', '~', '+'), int], (f, x) => `${f}(${x})`),
      template([bool, int, int], (c, x, y) => `(${c} ? ${x} : ${y})`),
      template([int, int, fc.constantFrom('&&', '||')], (x, y, op) => `(${x} ${op} ${y})`),
      template([int], (x) => `doc[Math.min(Math.max(${x}, 0), doc.length - 1)]`),
      template([int], (x) => `live[${wrapped('8')(x)}]`),
      template([bool, int], (c, x) => `grid[${c} ? 1 : 0][${wrapped('3')(x)}]`),
      template([float], (x) => `Math.floor(${x})`),
      template([bool], (x) => `Number(${x})`),
    ),
    bool: fc.oneof(
      leaves.bool,
      binary(int, ['<', '<=', '>', '>=', '===', '!==', '==', '!='], int),
      binary(float, ['<', '<=', '>', '>='], fc.oneof(int, float)),
      binary(bool, ['&&', '||', '===', '!=='], bool),
      template([bool], (x) => `!${x}`),
      template([bool, bool, bool], (c, x, y) => `(${c} ? ${x} : ${y})`),
      template([int], (x) => `bits[${x} & 3]`),
      template([int], (x) => `!!live[${wrapped('8')(x)}]`),
      template([int, fc.constantFrom('2.5', '-0.5', '3')], (x, y) => `(${x} > ${y})`),
    ),
    float: fc.oneof(
      leaves.float,
      template([int], (x) => `((${x} % 512) * 0.5)`),
      template([bool, float, int], (c, x, y) => `(${c} ? ${x} : ${y} % 512)`),
      template([fc.constantFrom('min', 'max'), float, int], (f, x, y) => `Math.${f}(${x}, ${y} % 512)`),
      template([fc.constantFrom('Math.abs', '-'), float], (f, x) => `${f}(${x})`),
    ),
  };
}

/** A function body: an expression, or declarations, guards and helpers before a return. */
function body(kind: 'bool' | 'float', { int, bool, float }: Expressions, result: Text): Text {
  const early = kind === 'bool' ? bool : float;
  return fc.oneof(
    result,
    template([int, result], (x, y) => `{ const t = ${x}; return ${y.replaceAll('(n)', '(t)')}; }`),
    template([bool, early, result], (c, x, y) => `{ if (${c}) return ${x}; return ${y}; }`),
    template(
      [bool, bool, early, early, result],
      (c, d, x, y, z) => `{ if (${c}) { if (${d}) return ${x}; } else return ${y}; return ${z} }`,
    ),
    template(
      [int, int, result],
      (x, y, z) =>
        `{ const near = (x, y) => { return x - y }; return near(${x}, ${y}) > 1 ? ${z} : ${early === bool ? '!0' : '1'} }`,
    ),
  );
}

const parameters = '{ n, w, half, flag, doc, live, grid, bits }';

/** Masks with safe reads. */
export const maskText: Text = (() => {
  const depth2 = grow(grow(leaves));
  const { bool } = grow(depth2);
  return body('bool', depth2, bool).map((text) => `({ b, h, q, kv }, ${parameters}) => ${text}`);
})(); // prettier-ignore

/** Masks whose reads may leave the table, behind guards that may or may not be enough. */
export const guardedMask: Text = (() => {
  const index = fc.constantFrom('q', 'kv', 'q - kv', 'kv - 1', 'q - kv + 2', 'q >> 1', 'q - 2 * kv', 'Math.abs(q - kv)', '2 * kv - 1', 'Math.max(kv - 3, 0)', 'n - kv', 'Math.floor(kv / 3)', 'kv % 15', '(q > kv ? q - kv : kv - q)', '(kv < 12 ? kv : 5)', '(q < 3 ? q : q > kv ? kv : 0)');
  const guard = fc.constantFrom(
    'kv > 0', 'q >= kv', 'q > kv', 'Math.abs(q - kv) <= 2', 'q - kv < 5', 'kv - q <= 2', 'q < 12', 'kv < doc.length', '!(kv >= 12)', 'kv !== 0',
    '(q >= kv && q - kv < 9)', '(q < 6 || kv < 4)', 'q === kv', 'kv <= n', '2 * kv <= q', 'flag', 'Math.min(q, kv) > 3', 'Math.max(q, kv) < 12', 'q + 1 > kv', '!(kv > q || kv > 9)', '!(kv >= q || b > 0)', '!(q < kv || q - kv > 8)', '!(kv === 0 || q - kv >= 12 || q <= kv)',
  ); // prettier-ignore
  return fc.tuple(fc.array(guard, { maxLength: 3 }), index, fc.constantFrom('&&', '?', 'if', '||')).map(([guards, at, form]) => {
    const all = guards.join(' && ') || 'true';
    const read = `doc[${at}] === 2`;
    const text =
      form === '&&' ? `${all} && ${read}`
        : form === '?' ? `(${all}) ? ${read} : false`
          : form === '||' ? `!(${all}) || ${read}`
            : `{ if (!(${all})) return false; const x = doc[${at}]; return x === 2 }`;
    return `({ b, h, q, kv }, ${parameters}) => ${text}`;
  }); // prettier-ignore
})(); // prettier-ignore

/** Scores: continuous in `s` and in the tables `t` (f32, one axis) and `bias` (f32, two axes). */
export const scoreText: Text = (() => {
  let float: Text = fc.constantFrom('s', 's', 'half', 't[h]', 'bias[h][(q - kv + 70) % 3]', '(q - kv)', 't[kv % 4]');
  const { int, bool } = grow(leaves);
  for (let depth = 0; depth < 3; ++depth) {
    const inner = float;
    float = fc.oneof(
      inner,
      binary(inner, ['+', '-', '*'], inner),
      template([inner, inner], (x, y) => `(${x} / (1 + Math.abs(${y})))`),
      template([fc.constantFrom('tanh', 'sin', 'cos', 'abs'), inner], (f, x) => `Math.${f}(${x})`),
      template([inner], (x) => `Math.exp(-Math.abs(${x}))`),
      template([inner], (x) => `Math.log(1 + Math.abs(${x}))`),
      template([inner], (x) => `Math.sqrt(1 + ${x} * ${x})`),
      template([inner], (x) => `(1 + Math.abs(${x})) ** 1.5`),
      template([inner], (x) => `${x} ** 2`).map((x) => `(${x})`),
      template([fc.constantFrom('min', 'max'), inner, inner], (f, x, y) => `Math.${f}(${x}, ${y})`),
      template([bool, inner, inner], (c, x, y) => `(${c} ? ${x} : ${y})`),
      template([bool, inner], (c, x) => `(${c} ? ${x} : Math.log(0 * ${x}))`).map((x) => `Math.max(${x}, -4)`),
      template([int], (x) => `(${x} % 17)`),
    );
  }
  const names = parameters.replace('}', ', t, bias }');
  return float.map((text) => `({ s, b, h, q, kv }, ${names}) => ${text}`);
})(); // prettier-ignore

/** The function that a text denotes. Tests alone may run text. `__name` and `o` are the helper that tsx inserts. */
export function build<F>(text: string): F {
  return new Function('__name', 'o', `return (${text})`)(
    (fn: unknown) => fn,
    (fn: unknown) => fn,
  ) as F;
}
