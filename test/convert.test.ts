/** Conversion between any two dtypes, against plain JavaScript: numbers and typed arrays, and big integers where doubles are too narrow. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { cast, DTYPES, expand, fromBytes, slice, tensor, unsqueeze, type DType } from '../lib/index.ts';
import { isFloating } from '../lib/tensor/dtype.ts';
import { laidOut, LAYOUTS, numbers, uniform } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';

/** Significant bits and the lowest and highest exponent of normal numbers. */
const FORMATS = { f32: [24, -126, 127], bf16: [8, -126, 127], f16: [11, -14, 15] } as const;
const RANGES = { i32: [-(2n ** 31n), 2n ** 31n - 1n], i64: [-(2n ** 63n), 2n ** 63n - 1n], u8: [0n, 255n] } as const;

type Value = number | bigint;

function halfEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

/** A number rounded once, to nearest even, to a format of fewer bits than a double has. */
function rounded(x: number, format: keyof typeof FORMATS): number {
  if (x === 0 || !Number.isFinite(x)) return x;
  const [bits, lowest, highest] = FORMATS[format];
  let exponent = Math.floor(Math.log2(Math.abs(x)));
  if (2 ** exponent > Math.abs(x)) exponent--;
  if (2 ** (exponent + 1) <= Math.abs(x)) exponent++;
  const unit = Math.max(exponent, lowest) - bits + 1;
  const magnitude = halfEven(Math.abs(x) / 2 ** unit) * 2 ** unit;
  return Math.sign(x) * (magnitude >= 2 ** (highest + 1) ? Infinity : magnitude);
}

/** A big integer rounded once to f32. */
function roundedInteger(x: bigint): number {
  const magnitude = x < 0n ? -x : x;
  const drop = BigInt(Math.max(0, magnitude.toString(2).length - FORMATS.f32[0]));
  const [kept, rest] = [magnitude >> drop, magnitude & ((1n << drop) - 1n)];
  const up = 2n * rest > 1n << drop || (drop > 0n && 2n * rest === 1n << drop && kept % 2n === 1n);
  return Math.sign(Number(x)) * Number((up ? kept + 1n : kept) << drop);
}

/** What `x`, an exact value of some dtype, becomes. The 16-bit floats are reached through f32. */
function converted(x: Value, to: DType): Value {
  switch (to) {
    case 'f64':
      return Number(x);
    case 'f32':
      return typeof x === 'bigint' ? roundedInteger(x) : rounded(x, 'f32');
    case 'bf16':
    case 'f16':
      return rounded(converted(x, 'f32') as number, to);
    case 'bool':
      return x != 0 ? 1 : 0; // eslint-disable-line eqeqeq -- 0n too
    default: {
      if (Number.isNaN(x)) return 0n;
      const [low, high] = RANGES[to];
      if (x === Infinity || x === -Infinity) return x > 0 ? high : low;
      const whole = typeof x === 'bigint' ? x : BigInt(Math.trunc(x));
      return whole < low ? low : whole > high ? high : whole;
    }
  }
}

const tiny = [2 ** -149, 2 ** -150, 3 * 2 ** -150, 2 ** -126, 2 ** -127, 2 ** -133, 2 ** -134, 3 * 2 ** -134, 1e-310, 2 ** -24, 2 ** -25, 3 * 2 ** -25, 2 ** -14, 6.1e-5]; // prettier-ignore
const large = [65504, 65519.99, 65520, 65536, 2 ** 24 + 1, 2 ** 31 - 1, 2 ** 31, 2 ** 31 + 1, 2 ** 53, 2 ** 63, 2 ** 64, 3.3895e38, 3.4028234e38, 3.40282357e38, 1e39, 1.7e308]; // prettier-ignore
const steps = [1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -24, 1 + 3 * 2 ** -24, 1 + 2 ** -11 + 2 ** -30, 1 / 3, 0.1, 0.5, 1.5, 2.5, 254.5, 255, 255.5, 256]; // prettier-ignore
const magnitudes = [0, ...tiny, ...large, ...steps, Infinity];
const FLOATS: readonly number[] = [...magnitudes, ...magnitudes.map((x) => -x), NaN];
const INTEGERS: readonly bigint[] = [0, 1, 2, 127, 128, 255, 256, 257, 2 ** 24 - 1, 2 ** 24 + 1, 2 ** 24 + 3, 2 ** 31 - 1].map(BigInt); // prettier-ignore
const WIDE: readonly bigint[] = [2n ** 31n, 2n ** 53n + 1n, 2n ** 54n + 2n ** 30n, 2n ** 54n + 2n ** 30n + 1n, 2n ** 62n + 2n ** 38n, 2n ** 62n + 2n ** 38n + 1n, 2n ** 63n - 1n]; // prettier-ignore

/** Exact values of a dtype, its tensor made from their bytes or by rounding that this file computes itself. */
function source(dtype: DType): { values: Value[]; bytes: Uint8Array } {
  const of = (values: Value[], array: NodeJS.TypedArray): { values: Value[]; bytes: Uint8Array } => ({
    values,
    bytes: new Uint8Array(array.buffer),
  });
  if (dtype === 'f64') return of([...FLOATS], Float64Array.from(FLOATS));
  if (dtype === 'f32') {
    const values = FLOATS.map((x) => rounded(x, 'f32'));
    return of(values, Float32Array.from(values));
  }
  if (dtype === 'bf16' || dtype === 'f16') {
    const bits = Uint16Array.from({ length: 1 << 16 }, (_, i) => i);
    return of(
      Array.from(bits, (b) => (dtype === 'bf16' ? bfloat(b) : half(b))),
      bits,
    );
  }
  const signed = [...INTEGERS, ...INTEGERS.map((x) => -x)];
  if (dtype === 'i64') {
    const values = [...signed, ...WIDE, ...WIDE.map((x) => -x), -(2n ** 63n)];
    return of(values, BigInt64Array.from(values));
  }
  if (dtype === 'i32') {
    const values = [...signed.map(Number), -(2 ** 31)];
    return of(values.map(BigInt), Int32Array.from(values));
  }
  const values = Array.from({ length: dtype === 'bool' ? 77 : 256 }, (_, i) => (dtype === 'bool' ? Number(i % 3 > 0) : i));
  return of(values.map(BigInt), Uint8Array.from(values));
} // prettier-ignore

function bfloat(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0];
}

function half(bits: number): number {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

/** The elements of a tensor of `dtype` as exact values. */
function elements(bytes: ArrayBuffer, dtype: DType): Value[] {
  if (dtype === 'bf16') return Array.from(new Uint16Array(bytes), bfloat);
  if (dtype === 'f16') return Array.from(new Uint16Array(bytes), half);
  if (dtype === 'f32') return [...new Float32Array(bytes)];
  if (dtype === 'f64') return [...new Float64Array(bytes)];
  if (dtype === 'i64') return [...new BigInt64Array(bytes)];
  return Array.from<number, bigint>(dtype === 'i32' ? new Int32Array(bytes) : new Uint8Array(bytes), BigInt);
}

const pairs = DTYPES.flatMap((from) => DTYPES.map((to) => [from, to] as const));

describe('conversion', () => {
  test.each(pairs)('%s to %s', async (from, to) => {
    const { values, bytes } = source(from);
    const expected = values.map((x) => converted(x, to)).map((x) => (isFloating(to) ? Number(x) : BigInt(x)));
    const dense = fromBytes(bytes, from, [values.length]);
    const strided = slice(expand(unsqueeze(dense, 1), [values.length, 2]).contiguous(), 1, 1, 2);
    for (const level of LEVELS) {
      for (const view of [dense, strided]) {
        const got = elements(await atLevel(level, () => cast(view, to)).bytes(), to);
        expect(got.length).toBe(values.length);
        const wrong = got.findIndex((x, i) => !Object.is(x, expected[i]));
        if (wrong >= 0)
          expect(`${level}: ${values[wrong]} gives ${got[wrong]}`).toBe(
            `${level}: ${values[wrong]} gives ${expected[wrong]}`,
          );
      }
    }
  });

  test('every f32 near a rounding step of the 16-bit floats', async () => {
    const bits = Uint32Array.from({ length: 60_000 }, (_, i) => (0x3f7f_0000 + i * 7 + (i % 29) * 0x0310_0000) >>> 0);
    const values = new Float32Array(bits.buffer);
    for (const dtype of ['bf16', 'f16'] as const) {
      const expected = Array.from(values, (x) => rounded(x, dtype));
      for (const level of LEVELS)
        expect(elements(await atLevel(level, () => cast(tensor(values), dtype)).bytes(), dtype)).toEqual(expected);
    }
  });

  test('any number, any pair', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.double(), { minLength: 1, maxLength: 40 }),
        fc.constantFrom(...DTYPES),
        async (xs, to) => {
          const got = elements(await cast(tensor(Float64Array.from(xs)), to).bytes(), to);
          expect(got).toEqual(xs.map((x) => converted(x, to)).map((x) => (isFloating(to) ? Number(x) : BigInt(x))));
        },
      ),
      { numRuns: 200 },
    );
  });

  test.each(LAYOUTS)('of a %s view', (layout) => {
    for (const shape of [[1], [7], [3, 130], [5, 3, 17], [2, 0, 3]]) {
      const values = uniform(shape.reduce((n, x) => n * x, 1), 5, -300, 300); // prettier-ignore
      const view = laidOut(layout, shape, values, 'f32');
      for (const to of DTYPES) {
        const got = cast(view, to);
        expect([got.shape, got.dtype]).toEqual([shape, to]);
        expect(Array.from(numbers(got))).toEqual(Array.from(numbers(view), (x) => Number(converted(x, to))));
      }
    }
  });

  test('has the same bits for any number of threads', () => {
    const x = tensor(uniform(100_003, 3, -1e5, 1e5));
    for (const to of DTYPES) expectSameBitsForAnyThreads(() => cast(x, to));
  });

  test('to its own dtype gives the tensor itself', () => {
    const x = tensor([1, 2]);
    expect(cast(x, 'f32')).toBe(x);
  });
});
