import { readdirSync } from 'node:fs';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { Tensor } from '../lib/index.ts';
import {
  attention,
  explain,
  grad,
  mergeAttentions,
  noGrad,
  permute,
  scope,
  setNumThreads,
  slice,
  tensor,
  type AttentionOptions,
  type DType,
} from '../lib/index.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { mask, score } from '../lib/mask/mask.ts';
import { blockMask } from '../lib/ops/block_mask.ts';
import { native } from '../lib/native.ts';
import { referenceAttention, referenceGradients, type Problem, type Sizes } from './reference_attention.ts';
import { numbers, random, valuesOf } from './reference_matmul.ts';
import { expectClose, relativeError } from './tolerance.ts';

const LEVELS = ['baseline', 'avx2', 'avx512', 'avx512bf16'];
const available = LEVELS.slice(0, LEVELS.indexOf(native().bestIsa()) + 1);

afterEach(() => {
  native().setIsa(native().bestIsa());
  setNumThreads(2);
});

/** Gradients may be exactly zero (one key); then rounding errors are measured against the inputs, which are of order 1. */
function expectGradient(actual: Float64Array, expected: Float64Array, dtype: DType = 'f32', factor = 2): void {
  const floor = 0.1;
  expectClose([...actual, floor], [...expected, floor], dtype, factor);
}

type Rest = Partial<Omit<Problem, keyof Sizes | 'q' | 'k' | 'v'>>;

interface Case extends Rest {
  readonly name: string;
  readonly size: Sizes;
  readonly options?: AttentionOptions;
}

const size = (b: number, hq: number, hkv: number, lq: number, lk: number, d: number, dv = d): Sizes => ({
  b,
  hq,
  hkv,
  lq,
  lk,
  d,
  dv,
});

const boolTensor = (shape: readonly number[], at: (i: number) => boolean): Tensor =>
  tensor(
    Uint8Array.from({ length: shape.reduce((n, x) => n * x, 1) }, (_, i) => Number(at(i))),
    shape,
    { dtype: 'bool' },
  );

const keyMask = [1, 0, 1, 1, 0, 1, 1];
const keyed = (i: number): boolean => keyMask[i % 7] === 1;
const docs = Int32Array.from({ length: 150 }, (_, i) => Math.floor(i / 37));
const documents = mask(({ q, kv }, { doc }) => doc[q] === doc[kv], { doc: docs });
const near = mask(({ q, kv }) => q - kv < 20);
const perHead = mask(({ h, q, kv }) => q >= kv + 5 * h);
const slopes = [0.3, 0.1];

const cases: readonly Case[] = [
  { name: 'one query, one key', size: size(1, 1, 1, 1, 1, 1) },
  { name: 'plain', size: size(2, 2, 2, 70, 90, 16) },
  { name: 'odd dims and Dv != D', size: size(1, 2, 1, 33, 65, 19, 37) },
  { name: 'dim 256', size: size(1, 1, 1, 20, 70, 256) },
  {
    name: 'causal, grouped heads',
    size: size(1, 6, 2, 100, 100, 16),
    options: { causal: true },
    visible: (_b, _h, i, j) => j <= i,
  },
  {
    name: 'causal top-left, more keys',
    size: size(1, 2, 2, 40, 90, 8),
    options: { causal: 'top-left' },
    visible: (_b, _h, i, j) => j <= i,
  },
  {
    name: 'causal bottom-right with key lengths',
    size: size(3, 2, 1, 40, 70, 8),
    options: { causal: 'bottom-right', kvLengths: [70, 0, 33] },
    visible: (b, _h, i, j) => j < [70, 0, 33][b] && j <= i + [70, 0, 33][b] - 40,
  },
  {
    name: 'window',
    size: size(1, 2, 2, 150, 150, 8),
    options: { window: [20, 5] },
    visible: (_b, _h, i, j) => j >= i - 20 && j <= i + 5,
  },
  {
    name: 'one-sided window, causal',
    size: size(1, 1, 1, 150, 150, 8),
    options: { window: [30, -1], causal: true },
    visible: (_b, _h, i, j) => j >= i - 30 && j <= i,
  },
  {
    name: 'softcap and scale',
    size: size(1, 2, 2, 30, 60, 16),
    options: { softcap: 2, scale: 0.7 },
    softcap: 2,
    scale: 0.7,
  },
  {
    name: 'mask over keys',
    size: size(2, 2, 2, 30, 70, 8),
    options: { mask: boolTensor([2, 1, 1, 70], keyed) },
    visible: (b, _h, _i, j) => keyed(b * 70 + j),
  },
  {
    name: 'mask functions',
    size: size(1, 2, 1, 150, 150, 8),
    options: { mask: [documents, near], causal: true },
    visible: (_b, _h, i, j) => j <= i && i - j < 20 && docs[i] === docs[j],
  },
  {
    name: 'mask per head',
    size: size(2, 2, 2, 70, 70, 8),
    options: { mask: perHead },
    visible: (_b, h, i, j) => i >= j + 5 * h,
  },
  {
    name: 'score of a constant table, softcap',
    size: size(1, 2, 2, 70, 70, 8),
    options: {
      causal: true,
      softcap: 3,
      score: score(({ s, h, q, kv }, { slope }) => s - slope[h] * (q - kv), { slope: slopes }),
    },
    softcap: 3,
    visible: (_b, _h, i, j) => j <= i,
    logit: (s, _b, h, i, j) => s - Math.fround(slopes[h]) * (i - j),
  },
  {
    name: 'score that is not linear in s',
    size: size(1, 1, 1, 40, 70, 8),
    options: { score: score(({ s, q, kv }) => Math.tanh(s) * (1 + 0.01 * (q + kv))) },
    logit: (s, _b, _h, i, j) => Math.tanh(s) * (1 + 0.01 * (i + j)),
    slope: (s, _b, _h, i, j) => (1 - Math.tanh(s) ** 2) * (1 + 0.01 * (i + j)),
  },
];

function operands(s: Sizes, dtype: DType, seed: number) {
  const q = random([s.b, s.hq, s.lq, s.d], dtype, seed);
  const k = random([s.b, s.hkv, s.lk, s.d], dtype, seed + 1);
  const v = random([s.b, s.hkv, s.lk, s.dv], dtype, seed + 2);
  const dout = random([s.b, s.hq, s.lq, s.dv], dtype, seed + 3);
  const dlse = random([s.b, s.hq, s.lq], 'f32', seed + 4);
  for (const x of [q, k, v]) x.t.requiresGrad = true;
  return { q, k, v, dout, dlse };
}

function check(c: Case, dtype: DType, seed = 1): void {
  scope(() => {
    const { q, k, v, dout, dlse } = operands(c.size, dtype, seed);
    const problem: Problem = { ...c, ...c.size, q: q.values, k: k.values, v: v.values };
    const want = referenceAttention(problem);
    const { out, lse } = attention(q.t, k.t, v.t, { ...c.options, returnLse: true });
    expect(out.dtype).toBe(dtype);
    expectClose(valuesOf(out), want.out, dtype);
    expectClose(valuesOf(lse), want.lse, dtype === 'f32' ? 'f32' : 'bf16');
    const finite = dlse.values.map((x, i) => (want.lse[i] === -Infinity ? 0 : x));
    const wanted = referenceGradients(problem, dout.values, finite);
    const [dq, dk, dv] = grad([out, lse], [q.t, k.t, v.t], { gradients: [dout.t, dlse.t] }) as Tensor[];
    expect([dq.dtype, dk.dtype, dv.dtype]).toEqual([dtype, dtype, dtype]);
    expectGradient(valuesOf(dq), wanted.dq, dtype);
    expectGradient(valuesOf(dk), wanted.dk, dtype);
    expectGradient(valuesOf(dv), wanted.dv, dtype);
  });
}

describe('the reference', () => {
  it('has gradients that finite differences confirm', () => {
    const s = size(1, 2, 1, 4, 5, 3, 2);
    const next = numbers(5);
    const fill = (n: number): Float64Array => Float64Array.from({ length: n }, next);
    const [q, k, v] = [fill(24), fill(15), fill(10)];
    const [dout, dlse] = [fill(16), fill(8)];
    const problem: Problem = {
      ...s,
      q,
      k,
      v,
      softcap: 1.5,
      visible: (_b, _h, i, j) => (i + 2 * j) % 5 !== 1,
      logit: (x, _b, h, i, j) => Math.sin(x) + 0.1 * h * (i - j),
      slope: (x) => Math.cos(x),
    };
    const loss = (): number => {
      const { out, lse } = referenceAttention(problem);
      return out.reduce((a, x, i) => a + x * dout[i], 0) + lse.reduce((a, x, i) => a + x * dlse[i], 0);
    };
    const got = referenceGradients(problem, dout, dlse);
    for (const [x, dx] of [
      [q, got.dq],
      [k, got.dk],
      [v, got.dv],
    ]) {
      const numeric = x.map((value, i) => {
        x[i] = value + 1e-5;
        const above = loss();
        x[i] = value - 1e-5;
        const below = loss();
        x[i] = value;
        return (above - below) / 2e-5;
      });
      expect(relativeError(dx, numeric)).toBeLessThan(1e-8);
    }
  });
});

describe.each(available)('on %s', (level) => {
  it.each(cases)('$name: outputs and gradients agree with the reference in f32', (c) => {
    native().setIsa(level);
    check(c, 'f32');
  });
});

describe.each(['bf16', 'f16'] as const)('in %s', (dtype) => {
  it.each(cases)('$name: outputs and gradients agree with the reference', (c) => check(c, dtype));
});

describe('gradient of the bias', () => {
  const s = size(2, 2, 1, 40, 70, 8);
  it.each([[2, 2, 40, 70], [1, 2, 40, 70], [2, 1, 40, 70], [40, 70], [2, 1, 1, 70], [1, 1, 40, 1], [1]])(
    'is summed over broadcast axes of [%i, %i, %i, %i]',
    (...dims) => {
      const shape = dims.filter((n) => typeof n === 'number');
      const full = [...Array<number>(4 - shape.length).fill(1), ...shape];
      const index = (...at: number[]): number =>
        at.reduce((n, x, axis) => n * full[axis] + (full[axis] === 1 ? 0 : x), 0);
      for (const dtype of ['f32', 'bf16'] as const) {
        scope(() => {
          const { q, k, v, dout, dlse } = operands(s, dtype, 3);
          const bias = random(shape, dtype, 9);
          bias.t.requiresGrad = true;
          const problem: Problem = {
            ...s,
            q: q.values,
            k: k.values,
            v: v.values,
            visible: (_b, _h, i, j) => j <= i + 9,
            logit: (x, b, h, i, j) => x + bias.values[index(b, h, i, j)],
          };
          const { out, lse } = attention(q.t, k.t, v.t, { bias: bias.t, window: [-1, 9], returnLse: true });
          expectClose(valuesOf(out), referenceAttention(problem).out, dtype);
          const wanted = referenceGradients(problem, dout.values, dlse.values);
          const dbias = new Float64Array(bias.values.length);
          wanted.dt.forEach((x, at) => {
            const [j, i] = [at % 70, Math.floor(at / 70) % 40];
            dbias[index(Math.floor(at / 5600), Math.floor(at / 2800) % 2, i, j)] += x;
          });
          const grads = grad([out, lse], [q.t, k.t, v.t, bias.t], { gradients: [dout.t, dlse.t] }) as Tensor[];
          expect(grads[3].shape).toEqual(shape);
          expect(grads[3].dtype).toBe(dtype);
          expectClose(valuesOf(grads[3]), dbias, dtype, 2);
          expectClose(valuesOf(grads[1]), wanted.dk, dtype, 2);
        });
      }
    },
  );
});

describe('score programs', () => {
  it('give gradients of captured tensors', () => {
    const s = size(2, 2, 1, 70, 70, 8);
    for (const [level, threads] of [...available.map((name) => [name, 2] as const), [available[0], 1] as const]) {
      native().setIsa(level);
      setNumThreads(threads);
      scope(() => {
        const { q, k, v, dout } = operands(s, 'f32', 20);
        const slope = random([2], 'f32', 30);
        const table = random([2, 139], 'f32', 31);
        for (const x of [slope, table]) x.t.requiresGrad = true;
        const change = score(({ s: x, h, q: i, kv: j }, { a, rel }) => x * a[h] + rel[h][i - j + 69], {
          a: slope.t,
          rel: table.t,
        });
        const problem: Problem = {
          ...s,
          q: q.values,
          k: k.values,
          v: v.values,
          logit: (x, _b, h, i, j) => x * slope.values[h] + table.values[h * 139 + i - j + 69],
          slope: (_x, _b, h) => slope.values[h],
        };
        const out = attention(q.t, k.t, v.t, { score: change });
        expectClose(valuesOf(out), referenceAttention(problem).out);
        const wanted = referenceGradients(problem, dout.values);
        const dslope = new Float64Array(2);
        const dtable = new Float64Array(2 * 139);
        wanted.dt.forEach((x, at) => {
          const [j, i, h] = [at % 70, Math.floor(at / 70) % 70, Math.floor(at / 4900) % 2];
          const b = Math.floor(at / 9800);
          let dot = 0;
          for (let d = 0; d < 8; d++) dot += q.values[((b * 2 + h) * 70 + i) * 8 + d] * k.values[(b * 70 + j) * 8 + d];
          dslope[h] += (x * dot) / Math.sqrt(8);
          dtable[h * 139 + i - j + 69] += x;
        });
        const grads = grad([out], [q.t, k.t, slope.t, table.t], { gradients: [dout.t] }) as Tensor[];
        expectClose(valuesOf(grads[0]), wanted.dq, 'f32', 2);
        expectClose(valuesOf(grads[1]), wanted.dk, 'f32', 2);
        expectClose(valuesOf(grads[2]), dslope, 'f32', 5);
        expectClose(valuesOf(grads[3]), dtable, 'f32', 5);
      });
    }
  });

  it('see the present values of captured tensors', () => {
    scope(() => {
      const { q, k, v } = operands(size(1, 1, 1, 9, 9, 4), 'f32', 1);
      const slope = tensor([0.5]);
      const change = score(({ s, q: i, kv }, { a }) => s - a[0] * (i - kv), { a: slope });
      const before = valuesOf(attention(q.t, k.t, v.t, { score: change }));
      native().copyFrom(slope.handle, tensor([2]).handle);
      const after = valuesOf(attention(q.t, k.t, v.t, { score: change }));
      const fresh = score(({ s, q: i, kv }) => s - 2 * (i - kv));
      expectClose(after, valuesOf(attention(q.t, k.t, v.t, { score: fresh })));
      expect(relativeError(before, after)).toBeGreaterThan(1e-3);
    });
  });
});

describe('goldens', () => {
  const folder = new URL('./goldens/', import.meta.url).pathname;
  const names = readdirSync(folder).filter((name) => /^sdpa_.*\.safetensors$/.test(name));
  it('are there', () => expect(names.length).toBeGreaterThanOrEqual(17));
  it.each(names)('%s', (name) => {
    const file = loadSafetensors(folder + name);
    const config = JSON.parse(file.metadata.config) as {
      causal?: 'top_left' | 'bottom_right';
      window?: [number, number];
      softcap?: number;
      scale?: number;
    };
    const get = (key: string): Tensor => file.get(key);
    const inputs = ['q', 'k', 'v', 'bias'].filter((key) => file.has(`input.${key}`));
    const tensors = inputs.map((key) => {
      const t = get(`input.${key}`);
      t.requiresGrad = true;
      return t;
    });
    const [q, k, v, bias] = tensors;
    const { out, lse } = attention(q, k, v, {
      ...(bias ? { bias } : {}),
      ...(file.has('input.mask') ? { mask: get('input.mask') } : {}),
      ...(config.causal ? { causal: config.causal === 'top_left' ? 'top-left' : 'bottom-right' } : {}),
      ...(config.window ? { window: config.window } : {}),
      ...(config.softcap ? { softcap: config.softcap } : {}),
      ...(config.scale ? { scale: config.scale } : {}),
      returnLse: true,
    });
    expectClose(valuesOf(out), valuesOf(get('output.out')));
    expectClose(valuesOf(lse), valuesOf(get('output.lse')));
    const grads = grad([out], tensors, { gradients: [get('cotangent.output')] }) as Tensor[];
    inputs.forEach((key, i) => expectGradient(valuesOf(grads[i]), valuesOf(get(`grad.input.${key}`))));
  });
});

describe('any shapes and features', () => {
  it('agree with the reference', () => {
    const extent = fc.integer({ min: 1, max: 140 });
    const dim = fc.integer({ min: 1, max: 40 });
    const spec = fc.record({
      b: fc.integer({ min: 1, max: 2 }),
      hkv: fc.integer({ min: 1, max: 2 }),
      group: fc.integer({ min: 1, max: 3 }),
      lq: extent,
      lk: extent,
      d: dim,
      dv: dim,
      causal: fc.constantFrom(false, 'top-left', 'bottom-right'),
      left: fc.integer({ min: -1, max: 90 }),
      right: fc.integer({ min: -1, max: 90 }),
      softcap: fc.constantFrom(0, 1.5),
      masked: fc.constantFrom('no', 'tensor', 'block'),
      blockQ: fc.constantFrom(16, 32, 48, 64, 112),
      blockKv: fc.integer({ min: 1, max: 100 }),
    });
    const modulo = mask(({ q, kv }) => (q * 7 + kv * 3) % 5 !== 0 && (q >> 5) + (kv >> 5) !== 2);
    fc.assert(
      fc.property(spec, fc.nat(1000), (x, seed) => {
        const s = size(x.b, x.hkv * x.group, x.hkv, x.lq, x.lk, x.d, x.dv);
        const diagonal = x.causal === 'bottom-right' ? x.lk - x.lq : 0;
        const seen = (i: number, j: number): boolean => modulo.value({ q: i, kv: j });
        const masks = {
          no: undefined,
          tensor: boolTensor([x.lq, x.lk], (at) => seen(Math.floor(at / x.lk), at % x.lk)),
          block: blockMask(modulo, { q: x.lq, kv: x.lk, block: [x.blockQ, x.blockKv] }),
        };
        check(
          {
            name: 'random',
            size: s,
            options: {
              causal: x.causal as false,
              window: [x.left, x.right],
              softcap: x.softcap,
              mask: masks[x.masked as 'no'] ?? [],
            },
            softcap: x.softcap,
            visible: (_b, _h, i, j) =>
              (!x.causal || j <= i + diagonal) &&
              (x.left < 0 || j >= i + diagonal - x.left) &&
              (x.right < 0 || j <= i + diagonal + x.right) &&
              (x.masked === 'no' || seen(i, j)),
          },
          'f32',
          seed,
        );
      }),
      { numRuns: 60, seed: 7 },
    );
  });
});

describe('ways to say one thing', () => {
  const s = size(1, 2, 1, 130, 130, 8);
  const run = (options: AttentionOptions): Float64Array[] =>
    scope(() => {
      const { q, k, v, dout } = operands(s, 'f32', 4);
      const out = attention(q.t, k.t, v.t, options);
      return [out, ...(grad([out], [q.t, k.t, v.t], { gradients: [dout.t] }) as Tensor[])].map(valuesOf);
    });

  it('a mask function, its block mask, a bool tensor and the options agree', () => {
    const causalWindow = mask(({ q, kv }) => q >= kv && q - kv <= 25);
    const want = run({ causal: true, window: [25, -1] });
    const dense = boolTensor([130, 130], (at) => {
      const distance = Math.floor(at / 130) - (at % 130);
      return distance >= 0 && distance <= 25;
    });
    const ways: AttentionOptions[] = [
      { mask: causalWindow },
      { mask: blockMask(causalWindow, { q: 130, block: [32, 48] }) },
      { mask: dense },
      { mask: [dense, causalWindow], causal: true },
      {
        mask: [
          blockMask(causalWindow, { q: 200, block: 64 }),
          blockMask(
            mask(({ q, kv }) => q >= kv),
            { q: 130, block: 64 },
          ),
        ],
      },
      { mask: [mask(({ q, kv }) => q >= kv), mask(({ q, kv }) => q - kv <= 25)] },
    ];
    for (const options of ways) run(options).forEach((got, i) => expectClose(got, want[i]));
  });

  it('strided views give the same bits as contiguous tensors', () => {
    scope(() => {
      const { q, k, v, dout } = operands(s, 'f32', 4);
      const view = (x: { t: Tensor; values: Float64Array }): Tensor => {
        const [b, h, l, d] = x.t.shape;
        const moved = tensor(valuesOf(permute(x.t, [0, 2, 1, 3])), [b, l, h, d], { dtype: 'f32' });
        const t = permute(moved.detach(), [0, 2, 1, 3]);
        t.requiresGrad = true;
        return t;
      };
      const results = [
        [q.t, k.t, v.t, dout.t],
        [view(q), view(k), view(v), view(dout)],
      ].map(([a, b, c, g]) => {
        const out = attention(a, b, c, { causal: true });
        return [out, ...(grad([out], [a, b, c], { gradients: [g] }) as Tensor[])].map(valuesOf);
      });
      expect(results[1]).toEqual(results[0]);
    });
  });

  it('packed sequences equal calls of their own', () => {
    scope(() => {
      const bounds = [0, 1, 1, 40, 130];
      const { q, k, v, dout } = operands(s, 'f32', 4);
      const lists = [bounds, Int32Array.from(bounds), tensor(Int32Array.from(bounds)), { q: bounds, kv: bounds }];
      const packed = lists.map((cuSeqlens) => {
        const out = attention(q.t, k.t, v.t, { causal: true, cuSeqlens });
        return [out, ...(grad([out], [q.t, k.t, v.t], { gradients: [dout.t] }) as Tensor[])].map(valuesOf);
      });
      for (const other of packed.slice(1)) expect(other).toEqual(packed[0]);
      const part = (t: Tensor, n: number): Tensor => slice(t.detach(), 2, bounds[n], bounds[n + 1]);
      for (let n = 0; n < bounds.length - 1; n++) {
        const [a, b, c, g] = [q.t, k.t, v.t, dout.t].map((t) => part(t, n));
        for (const t of [a, b, c]) t.requiresGrad = true;
        const out = attention(a, b, c, { causal: true });
        const grads = grad([out], [a, b, c], { gradients: [g] }) as Tensor[];
        [out, ...grads].forEach((t, i) => {
          const whole = tensor(packed[0][i], [1, i === 2 || i === 3 ? 1 : 2, 130, 8]);
          if (t.size > 0) expectClose(valuesOf(part(whole, n)), valuesOf(t));
        });
      }
    });
  });
});

describe('mergeAttentions', () => {
  it('over two parts of the keys equals attention over all of them, with its gradients', () => {
    scope(() => {
      const { q, k, v, dout, dlse } = operands(size(1, 2, 1, 30, 50, 8), 'f32', 6);
      const upstream = { gradients: [dout.t, dlse.t] };
      const part = (begin: number, end: number) =>
        attention(q.t, slice(k.t, 2, begin, end), slice(v.t, 2, begin, end), { returnLse: true });
      const whole = attention(q.t, k.t, v.t, { returnLse: true });
      const merged = mergeAttentions([part(0, 13), part(13, 13), part(13, 50)]);
      expectClose(valuesOf(merged.out), valuesOf(whole.out));
      expectClose(valuesOf(merged.lse), valuesOf(whole.lse));
      const want = grad([whole.out, whole.lse], [q.t, k.t, v.t], upstream) as Tensor[];
      const got = grad([merged.out, merged.lse], [q.t, k.t, v.t], upstream) as Tensor[];
      got.forEach((g, i) => expectGradient(valuesOf(g), valuesOf(want[i])));
    });
  });
});

describe('explain', () => {
  it('tells tiles, work, and the kernels that were refused', () => {
    scope(() => {
      const { q, k, v } = operands(size(1, 2, 2, 256, 256, 16), 'f32', 1);
      const dense = explain(q.t, k.t, v.t);
      const half = explain(q.t, k.t, v.t, { mask: mask(({ q: i, kv }) => i >= kv) });
      expect(dense.tiles.partial + dense.tiles.skipped).toBe(0);
      expect(dense.flops).toBe(dense.denseFlops);
      expect(dense.denseFlops).toBe(2 * 4 * 256 * 256 * 16);
      // 4 x 4 blocks of 64 below the diagonal, for two heads
      expect(half.tile).toEqual([64, 64]);
      expect(half.tiles).toEqual({ full: 12, partial: 8, skipped: 12 });
      expect(half.flops).toBe((dense.flops * 20) / 32);
      expect(half.bytes).toBe(4 * (4 * 2 * 256 * 16 + 2 * 256));
      expect(half.kernel).not.toBe('');
      expect(LEVELS).toContain(half.isa);
      for (const { kernel, reason } of half.refused) expect([kernel, reason]).not.toContain('');
      expect(half.toString()).toContain('skipped 12 (37.5 %)');
      expect(JSON.parse(JSON.stringify(half))).toMatchObject({ tiles: { full: 12 } });
    });
  });

  it('throws what attention throws', () => {
    const q = tensor(new Float32Array(8), [1, 1, 2, 4]);
    expect(() => explain(q, q, q, { window: [-2, 0] })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error,
    );
  });
});

describe('determinism', () => {
  it('gives the same bits for any number of threads', () => {
    const s = size(1, 4, 2, 1100, 200, 16);
    const run = (threads: number): Float64Array[] =>
      scope(() => {
        setNumThreads(threads);
        const { q, k, v, dout } = operands(s, 'f32', 8);
        const bias = random([1, 1, 1, 200], 'f32', 2);
        bias.t.requiresGrad = true;
        const out = attention(q.t, k.t, v.t, { causal: 'bottom-right', window: [400, -1], bias: bias.t });
        return [out, ...(grad([out], [q.t, k.t, v.t, bias.t], { gradients: [dout.t] }) as Tensor[])].map(valuesOf);
      });
    const one = run(1);
    for (const threads of [2, 5]) expect(run(threads)).toEqual(one);
  });
});

describe('edges', () => {
  it('gives zero gradients to queries that see nothing, also where lse is used', () => {
    scope(() => {
      const s = size(1, 1, 1, 3, 4, 2);
      const { q, k, v, dout } = operands(s, 'f32', 1);
      const { out, lse } = attention(q.t, k.t, v.t, { kvLengths: [0], returnLse: true });
      expect([...valuesOf(out)]).toEqual([0, 0, 0, 0, 0, 0]);
      expect([...valuesOf(lse)]).toEqual([-Infinity, -Infinity, -Infinity]);
      const grads = grad([out, lse], [q.t, k.t, v.t], {
        gradients: [dout.t, tensor([1, 2, 3], [1, 1, 3])],
      }) as Tensor[];
      for (const g of grads) expect(valuesOf(g).every((x) => x === 0)).toBe(true);
    });
  });

  it('takes empty tensors', () => {
    scope(() => {
      for (const s of [size(0, 1, 1, 3, 4, 2), size(1, 1, 1, 0, 4, 2), size(1, 1, 1, 3, 0, 2)]) {
        const { q, k, v, dout } = operands(s, 'f32', 1);
        const out = attention(q.t, k.t, v.t);
        const grads = grad([out], [q.t, k.t, v.t], { gradients: [dout.t] }) as Tensor[];
        expect(grads.map((g) => g.shape)).toEqual([q.t.shape, k.t.shape, v.t.shape]);
        for (const g of [out, ...grads]) expect(valuesOf(g).every((x) => x === 0)).toBe(true);
      }
    });
  });

  it('flows through lse alone and through a part of the inputs', () => {
    scope(() => {
      const s = size(1, 1, 1, 5, 6, 3);
      const { q, k, v, dlse } = operands(s, 'f32', 1);
      v.t.requiresGrad = false;
      const { lse } = attention(q.t, k.t, v.t, { returnLse: true });
      const problem: Problem = { ...s, q: q.values, k: k.values, v: v.values };
      const wanted = referenceGradients(problem, new Float64Array(15), dlse.values);
      const [dq, dk] = grad([lse], [q.t, k.t], { gradients: [dlse.t] }) as Tensor[];
      expectClose(valuesOf(dq), wanted.dq);
      expectClose(valuesOf(dk), wanted.dk);
    });
  });

  it('records nothing under noGrad', () => {
    const { q, k, v } = operands(size(1, 1, 1, 2, 2, 2), 'f32', 1);
    expect(noGrad(() => attention(q.t, k.t, v.t)).requiresGrad).toBe(false);
    expect(attention(q.t, k.t, v.t).requiresGrad).toBe(true);
  });
});

describe('errors', () => {
  const t = (...shape: number[]): Tensor => tensor(new Float32Array(shape.reduce((n, x) => n * x, 1)), shape);
  const q = t(1, 2, 4, 8);
  const cases: [string, string, () => unknown][] = [
    ['rank', 'ERR_SHAPE', () => attention(t(2, 4, 8), q, q)],
    ['not a tensor', 'ERR_ARGUMENT', () => attention(q, q, null as unknown as Tensor)],
    ['dims of q and k', 'ERR_SHAPE', () => attention(q, t(1, 2, 4, 7), q)],
    ['lengths of k and v', 'ERR_SHAPE', () => attention(q, q, t(1, 2, 5, 8))],
    ['heads', 'ERR_SHAPE', () => attention(t(1, 3, 4, 8), q, q)],
    ['dim 257', 'ERR_SHAPE', () => attention(t(1, 1, 1, 257), t(1, 1, 1, 257), t(1, 1, 1, 257))],
    ['dtypes', 'ERR_DTYPE', () => attention(q, q, tensor(new Float64Array(64), [1, 2, 4, 8]))],
    ['causal', 'ERR_ARGUMENT', () => attention(q, q, q, { causal: 'left' as 'top-left' })],
    ['window', 'ERR_ARGUMENT', () => attention(q, q, q, { window: [1.5, 0] })],
    ['scale', 'ERR_ARGUMENT', () => attention(q, q, q, { scale: NaN })],
    ['softcap', 'ERR_ARGUMENT', () => attention(q, q, q, { softcap: -1 })],
    ['mask dtype', 'ERR_DTYPE', () => attention(q, q, q, { mask: t(4, 4) })],
    ['mask shape', 'ERR_SHAPE', () => attention(q, q, q, { mask: boolTensor([4, 5], () => true) })],
    ['mask kind', 'ERR_ARGUMENT', () => attention(q, q, q, { mask: {} as Tensor })],
    ['bias shape', 'ERR_SHAPE', () => attention(q, q, q, { bias: t(3, 4) })],
    ['block mask too small', 'ERR_SHAPE', () => attention(q, q, q, { mask: blockMask(near, { q: 3 }) })],
    ['kvLengths', 'ERR_SHAPE', () => attention(q, q, q, { kvLengths: [1, 2] })],
    [
      'cuSeqlens with batches',
      'ERR_SHAPE',
      () => attention(t(2, 1, 4, 8), t(2, 1, 4, 8), t(2, 1, 4, 8), { cuSeqlens: [0, 4] }),
    ],
    ['score kind', 'ERR_ARGUMENT', () => attention(q, q, q, { score: near as never })],
  ];
  it.each(cases)('%s: %s, thrown at once', (_name, code, call) => {
    expect(call).toThrow(expect.objectContaining({ code }) as Error);
  });

  it('rejects with ERR_SHAPE for lists whose contents do not fit', async () => {
    const bad = attention(q, q, q, { cuSeqlens: [0, 3] });
    await expect(bad.data()).rejects.toMatchObject({ code: 'ERR_SHAPE' });
  });
});

describe('AbortSignal', () => {
  it('stops a call that runs, rejecting with ERR_ABORTED', async () => {
    setNumThreads(1);
    const long = tensor(new Float32Array(16 * 8192 * 64), [1, 16, 8192, 64]);
    const controller = new AbortController();
    const out = attention(long, long, long, { signal: controller.signal });
    setTimeout(() => controller.abort(), 20);
    await expect(out.data()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(attention(long, long, long, { window: 4 }).data()).resolves.toHaveLength(long.size);
  });

  it('refuses a signal that was aborted before', () => {
    const q = tensor(new Float32Array(4), [1, 1, 1, 4]);
    expect(() => attention(q, q, q, { signal: AbortSignal.abort() })).toThrow(
      expect.objectContaining({ code: 'ERR_ABORTED' }) as Error,
    );
  });
});
