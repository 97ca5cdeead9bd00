/**
 * Few queries over long keys on CUDA: every kind of call in every dtype against the CPU in f32 on the same rounded inputs, pages, and a
 * decoding loop with a cache.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  attention,
  cast,
  explain,
  KvCache,
  permute,
  rmsNorm,
  slice,
  tensor,
  type AttentionOptions,
  type DType,
  type Tensor,
} from '../../lib/index.ts';
import { planAttention, type AttentionPlan } from '../../lib/attention/plan.ts';
import { mask, score } from '../../lib/mask/mask.ts';
import { random } from '../reference_matmul.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const values = (t: Tensor): ArrayLike<number> => cast(t.to('cpu'), 'f32').dataSync() as Float32Array;
const on = (t: Tensor): Tensor => t.to('cuda');
const floats = (shape: readonly number[], seed: number): Tensor => random(shape, 'f32', seed).t;
const integers = (shape: readonly number[], at: (i: number) => number): Tensor =>
  tensor(
    Int32Array.from({ length: shape.reduce((n, x) => n * x, 1) }, (_, i) => at(i)),
    shape,
    { dtype: 'i32' },
  );

interface Case {
  readonly name: string;
  /** [batch, query heads, key heads, queries, keys, dim of keys, dim of values] */
  readonly size: readonly [number, number, number, number, number, number, number];
  /** Extents of k and v where they are not those of the call. */
  readonly stored?: readonly [batch: number, length: number];
  readonly options?: (place: (t: Tensor) => Tensor) => AttentionOptions;
  readonly plan?: (place: (t: Tensor) => Tensor) => AttentionPlan;
}

const cases: readonly Case[] = [
  { name: 'one query, one key', size: [1, 1, 1, 1, 1, 8, 8] },
  { name: 'one query, several splits', size: [2, 2, 2, 1, 2500, 64, 64] },
  { name: 'a group of 8 heads, dim 128', size: [1, 16, 2, 1, 700, 128, 128] },
  { name: 'a group of 24 heads in several tiles', size: [1, 24, 1, 1, 90, 32, 32] },
  {
    name: '16 queries of 3 heads, causal',
    size: [1, 6, 2, 16, 300, 32, 32],
    options: () => ({ causal: 'bottom-right' }),
  },
  { name: 'causal from the top left', size: [1, 2, 1, 7, 100, 16, 16], options: () => ({ causal: true }) },
  {
    name: 'more queries than keys, causal',
    size: [1, 1, 1, 9, 4, 16, 16],
    options: () => ({ causal: 'bottom-right' }),
  },
  { name: 'odd dims', size: [1, 2, 1, 3, 77, 19, 37] },
  { name: 'values shorter than keys', size: [1, 2, 1, 2, 600, 96, 20] },
  { name: 'dim 256', size: [1, 4, 2, 2, 500, 256, 256] },
  { name: 'dim 200', size: [1, 1, 1, 1, 300, 200, 200] },
  {
    name: 'lengths, one of them zero',
    size: [4, 4, 2, 2, 900, 64, 64],
    options: (on) => ({ kvLengths: on(integers([4], (i) => [900, 0, 1, 333][i])), causal: 'bottom-right' }),
  },
  {
    name: 'window and lengths',
    size: [2, 2, 1, 4, 2000, 32, 32],
    options: () => ({ window: [500, 3], causal: 'bottom-right', kvLengths: [2000, 40] }),
  },
  { name: 'two-sided window', size: [1, 1, 1, 5, 900, 16, 16], options: () => ({ window: [2, 400] }) },
  { name: 'softcap, negative scale', size: [1, 2, 1, 2, 70, 32, 32], options: () => ({ softcap: 2, scale: -0.5 }) },
  {
    name: 'bias per head, mask of keys',
    size: [2, 4, 2, 3, 700, 48, 48],
    options: (on) => ({
      bias: on(floats([4, 1, 700], 7)),
      mask: on(
        tensor(
          Uint8Array.from({ length: 1400 }, (_, i) => Number(i % 5 !== 2)),
          [2, 1, 1, 700],
          { dtype: 'bool' },
        ),
      ),
    }),
  },
  {
    name: 'bias per query, 16 bits',
    size: [1, 2, 1, 3, 40, 16, 16],
    options: (on) => ({ bias: on(cast(floats([3, 40], 7), 'bf16')) }),
  },
  {
    name: 'score by distance and head, grouped heads',
    size: [2, 6, 2, 3, 700, 64, 64],
    options: () => ({
      causal: 'bottom-right',
      kvLengths: [700, 90],
      score: score(({ s, h, q, kv }, { slope }) => s - slope[h] * (q - kv), {
        slope: [0.1, 0, 0.02, -0.01, 0.3, 0.05],
      }),
    }),
  },
  {
    name: 'score of batch, head and parity with softcap, bias and mask',
    size: [2, 10, 2, 2, 150, 40, 40],
    options: (on) => ({
      softcap: 3,
      bias: on(floats([10, 1, 150], 7)),
      mask: on(
        tensor(
          Uint8Array.from({ length: 150 }, (_, i) => Number(i % 4 !== 1)),
          [150],
          { dtype: 'bool' },
        ),
      ),
      score: score(({ s, b, h, q, kv }) => Math.tanh(s) * (1 + h * 0.1) + ((q + kv + b) % 2 === 0 ? 0.5 : -0.25)),
    }),
  },
  {
    name: 'nothing visible',
    size: [1, 2, 1, 2, 60, 16, 16],
    options: (on) => ({ mask: on(tensor(new Uint8Array(60), [60], { dtype: 'bool' })) }),
  },
  {
    name: 'keys by list, repeated and missing',
    size: [2, 4, 2, 2, 150, 64, 64],
    stored: [2, 23],
    plan: (on) => ({ kvRows: on(integers([2, 2, 150], (i) => (i % 9 === 8 ? -1 : (i * i + 3 * i) % 23))) }),
  },
  {
    name: 'pages in any order, some missing',
    size: [3, 4, 2, 2, 20 * 16, 64, 64],
    stored: [70, 16],
    options: (on) => ({
      pageTable: on(integers([3, 20], (i) => (i % 11 === 7 ? -1 : (i * 13) % 70))),
      kvLengths: [320, 7, 200],
      causal: 'bottom-right',
    }),
  },
  {
    name: 'pages of odd size with a window',
    size: [2, 2, 1, 1, 40 * 13, 32, 32],
    stored: [80, 13],
    options: (on) => ({
      pageTable: on(integers([2, 40], (i) => (i * 7) % 80)),
      kvLengths: [520, 400],
      causal: 'bottom-right',
      window: [100, 0],
    }),
  },
  {
    name: 'pages for more than 16 queries',
    size: [2, 2, 1, 40, 6 * 16, 32, 32],
    stored: [12, 16],
    options: (on) => ({
      pageTable: on(integers([2, 6], (i) => (i * 5) % 12)),
      kvLengths: [96, 50],
      causal: 'bottom-right',
    }),
  },
];

/** out and lse. */
function results(
  { size, stored, options, plan }: Case,
  dtype: DType,
  place: (t: Tensor) => Tensor,
): ArrayLike<number>[] {
  const [b, hq, hkv, lq, lk, d, dv] = size;
  const [batch, length] = stored ?? [b, lk];
  const of = (shape: number[], seed: number): Tensor => place(cast(floats(shape, seed), dtype));
  const q = of([b, hq, lq, d], 1);
  const move = (t: Tensor): Tensor => t.to(q.device);
  const { out, lse } = planAttention(
    q,
    of([batch, hkv, length, d], 2),
    of([batch, hkv, length, dv], 3),
    plan?.(move) ?? {},
    options?.(move),
  );
  return [out, lse].map(values);
}

function compare(c: Case, dtype: DType): void {
  const [out, lse] = results(c, dtype, on);
  const [wantedOut, wantedLse] = results(c, dtype, (t) => cast(t, 'f32'));
  expectClose([...Array.from(out), 0.1], [...Array.from(wantedOut), 0.1], dtype);
  expectClose(lse, wantedLse, 'f32', 10);
}

describe.skipIf(cuda.skip)('attention of few queries on CUDA', () => {
  describe.each(['f32', 'bf16', 'f16'] as const)('%s', (dtype) => {
    test.each(cases)('$name', (c) => {
      compare(c, dtype);
    });

    test('views with strides, rows off 16-byte boundaries', () => {
      const whole = cast(floats([1, 100, 2, 41], 9), dtype);
      const view = (t: Tensor): Tensor => permute(slice(t, 3, 1, 41), [0, 2, 1, 3]);
      const call = (x: Tensor): ArrayLike<number> =>
        values(attention(slice(x, 2, 97, 100), x, x, { causal: 'bottom-right' }));
      expectClose(call(view(on(whole))), call(view(cast(whole, 'f32'))), dtype);
    });

    test('keys behind the length may hold anything', () => {
      const q = on(cast(floats([1, 2, 1, 32], 1), dtype));
      const noise = (seed: number): Tensor => {
        const data = floats([1, 1, 400, 32], seed).dataSync() as Float32Array;
        return on(
          cast(
            tensor(
              data.map((x, i) => (i < 300 * 32 ? x : NaN)),
              [1, 1, 400, 32],
            ),
            dtype,
          ),
        );
      };
      const [k, v] = [noise(2), noise(3)];
      const short = attention(q, slice(k, 2, 0, 300), slice(v, 2, 0, 300));
      expect(values(attention(q, k, v, { kvLengths: [300] }))).toEqual(values(short));
    });

    test('random calls', () => {
      const positive = (max: number): fc.Arbitrary<number> => fc.integer({ min: 1, max });
      fc.assert(
        fc.property(
          fc.tuple(positive(2), positive(9), positive(2), positive(16), positive(700), positive(70), positive(70)),
          fc.constantFrom(false, 'top-left', 'bottom-right'),
          fc.option(fc.tuple(fc.integer({ min: -1, max: 300 }), fc.integer({ min: -1, max: 20 })), { nil: undefined }),
          ([b, group, hkv, lq, lk, d, dv], causal, window) => {
            compare(
              {
                name: '',
                size: [b, group * hkv, hkv, lq, lk, d, dv],
                options: () => ({ causal: causal as false, ...(window && { window }) }),
              },
              dtype,
            );
          },
        ),
        { numRuns: 12 },
      );
    });
  });

  test('a row has the same bits in any batch, and in every call', () => {
    const [q, k, v] = [1, 1500, 1500].map((length, i) => on(cast(floats([3, 2, length, 64], i + 1), 'bf16')));
    const whole = values(attention(q, k, v));
    const one = (t: Tensor): Tensor => slice(t, 0, 1, 2);
    expect(Array.from(whole).slice(128, 256)).toEqual(Array.from(values(attention(one(q), one(k), one(v)))));
    expect(values(attention(q, k, v))).toEqual(whole);
    const some = values(attention(q, k, v, { kvLengths: [1500, 700, 20] }));
    expect(Array.from(some).slice(128, 256)).toEqual(
      Array.from(values(attention(one(q), one(k), one(v), { kvLengths: [700] }))),
    );
  });

  test('pages give the bits of the same rows without pages', () => {
    const [q, k, v] = [2, 320, 320].map((length, i) => on(cast(floats([1, 2, length, 64], i + 1), 'bf16')));
    const pages = (t: Tensor): Tensor => permute(t.reshape([2, 20, 16, 64]), [1, 0, 2, 3]);
    const pageTable = on(integers([1, 20], (i) => i));
    const paged = attention(q, pages(k), pages(v), { pageTable, causal: 'bottom-right' });
    expect(values(paged)).toEqual(values(attention(q, k, v, { causal: 'bottom-right' })));
  });

  test('explain names the kernel, or why not', () => {
    const q = on(floats([1, 2, 3, 64], 1));
    const kv = on(floats([1, 2, 40, 64], 2));
    expect(explain(q, kv, kv, { causal: true, kvLengths: [30] })).toMatchObject({ kernel: 'cuda.decode', refused: [] });
    const reasonOf = (options: AttentionOptions, x = q): string => {
      const { kernel, refused } = explain(x, kv, kv, options);
      expect(kernel).toBe('cuda.forward');
      expect(refused).toHaveLength(1);
      return refused[0].reason;
    };
    expect(reasonOf({}, on(floats([1, 2, 17, 64], 1)))).toBe('more than 16 queries');
    expect(reasonOf({ mask: mask(({ q, kv }) => q >= kv) })).toContain('block masks');
    expect(reasonOf({ cuSeqlens: { q: [0, 3], kv: [0, 40] } })).toContain('packed sequences');
  });

  test('a page that is not there rejects on the CPU and is not followed on the device', () => {
    const [q, k] = [floats([1, 1, 1, 16], 1), floats([4, 1, 8, 16], 2)];
    const pageTable = integers([1, 3], (i) => [0, 99, 2][i]);
    expect(() => attention(q, k, k, { pageTable }).dataSync()).toThrow(
      expect.objectContaining({ code: 'ERR_INDEX' }) as Error,
    );
    const skipped = attention(on(q), on(k), on(k), { pageTable: on(pageTable) });
    const absent = attention(on(q), on(k), on(k), { pageTable: on(integers([1, 3], (i) => [0, -1, 2][i])) });
    expect(values(skipped)).toEqual(values(absent));
  });

  test('pages must fit the batch', () => {
    const [q, k] = [on(floats([2, 1, 1, 16], 1)), on(floats([4, 1, 8, 16], 2))];
    const pageTable = on(integers([1, 3], (i) => i));
    expect(() => attention(q, k, k, { pageTable })).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }) as Error);
  });

  test('decoding with a cache equals attention over all tokens', () => {
    const length = 40;
    const normed = (seed: number): Tensor => rmsNorm(floats([2, 2, length, 32], seed));
    const [q, k, v] = [1, 2, 3].map((seed) => on(cast(normed(seed), 'bf16')));
    using cache = new KvCache({ batch: 2, heads: 2, maxLength: 64, dim: 32, dtype: 'bf16', device: 'cuda' });
    const whole = attention(q, k, v, { causal: true });
    let at = 0;
    for (const n of [17, 1, 1, 5, 16]) {
      const rows = (t: Tensor): Tensor => slice(t, 2, at, at + n);
      cache.append(rows(k), rows(v));
      const out = attention(rows(q), cache.keys, cache.values, { causal: 'bottom-right' });
      expectClose(values(out), values(rows(whole)), 'bf16');
      at += n;
    }
    expect(at).toBe(length);
    expect(cache.length).toBe(length);
    cache.truncate(3);
    expect(cache.keys.shape).toEqual([2, 2, 3, 32]);
    expect(cache.keys.device).toBe('cuda:0');
  });
});
