/** attention() against double precision: goldens, every kind of call in every dtype and at every level, gradients. */
import { readdirSync } from 'node:fs';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { Tensor } from '../lib/index.ts';
import { attention, grad, permute, scope, setNumThreads, slice, tensor, type AttentionOptions } from '../lib/index.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { mask, score } from '../lib/mask/mask.ts';
import { blockMask } from '../lib/ops/block_mask.ts';
import { native } from '../lib/native.ts';
import { available, expectGradient, size, boolTensor, cases, operands, check } from './attention_cases.ts';
import { referenceAttention, referenceGradients, type Problem } from './reference_attention.ts';
import { numbers, random, valuesOf } from './reference_matmul.ts';
import { expectClose, relativeError } from './tolerance.ts';

afterEach(() => {
  native().setIsa(native().bestIsa());
  setNumThreads(2);
});

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
            visible: (_b, _h, i, j) => j <= i + 30 + 9,
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

  it('may be undone by the scores they are added to', () => {
    // q.k = 3 (i - j), and the program adds 3 (j - i): every weight is the same, however far terms and scores are apart.
    const length = 300;
    const change = score(({ s, q, kv }) => s + 3 * (kv - q));
    for (const level of available)
      scope(() => {
        native().setIsa(level);
        const rows = (at: (i: number) => readonly [number, number]): Tensor =>
          tensor(
            Float32Array.from({ length: 2 * length }, (_, i) => at(i >> 1)[i & 1]),
            [1, 1, length, 2],
          );
        const [q, k] = [rows((i) => [i, 1]), rows((j) => [3, -3 * j])];
        const v = random([1, 1, length, 2], 'f32', 4);
        const causal = attention(q, k, v.t, { score: change, scale: 1, causal: true });
        const sum = [0, 0];
        const means = Array.from(v.values, (x, i) => (sum[i % 2] += x) / ((i >> 1) + 1));
        expectClose(valuesOf(causal), means, 'f32', 20);
        const dense = valuesOf(attention(q, k, v.t, { score: change, scale: 1 }));
        expectClose(
          dense,
          Array.from(means, (_, i) => means[2 * (length - 1) + (i % 2)]),
          'f32',
          20,
        );
      });
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
        const diagonal = x.causal === 'top-left' ? 0 : x.lk - x.lq;
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
