/** attention() beyond values: merging, explain, which bits a row has, empty and unseen inputs, errors, aborting. */
import { getEventListeners } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import {
  attention,
  cast,
  contiguous,
  explain,
  full,
  grad,
  mergeAttentions,
  memory,
  mul,
  neighborhoodAttention,
  noGrad,
  permute,
  randn,
  scope,
  setNumThreads,
  slice,
  sum,
  synchronizeSync,
  tensor,
  type AttentionOptions,
  type Tensor,
} from '../lib/index.ts';
import { mask, score } from '../lib/mask/mask.ts';
import { blockMask } from '../lib/ops/block_mask.ts';
import { native } from '../lib/native.ts';
import {
  available,
  LEVELS,
  boolTensor,
  check,
  documents,
  near,
  operands,
  size,
  expectGradient,
} from './attention_cases.ts';
import { referenceGradients, type Problem } from './reference_attention.ts';
import { random, valuesOf } from './reference_matmul.ts';
import { expectClose } from './tolerance.ts';

afterEach(() => {
  native().setIsa(native().bestIsa());
  setNumThreads(2);
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

describe('numbers too small to be normal', () => {
  it.each(available)('far keys weigh nothing, other operations keep every digit, at level %s', (level) => {
    native().setIsa(level);
    scope(() => {
      check(
        {
          name: 'steep',
          size: size(1, 1, 1, 64, 200, 16),
          options: { score: score(({ s, q, kv }) => s - 0.6 * Math.abs(q - kv)) },
          logit: (s, _b, _h, i, j) => s - 0.6 * Math.abs(i - j),
        },
        'f32',
      );
      const tiny = mul(full([100_000], 1e-30), 1e-10);
      expect([...valuesOf(tiny)].every((x) => x === Math.fround(1e-40))).toBe(true);
    });
  });
});

describe('an infinite value', () => {
  it.each(available)('reaches its own element of the output alone, at level %s', (level) => {
    native().setIsa(level);
    scope(() => {
      for (const lq of [1, 20]) {
        const { q, k, v } = operands(size(1, 4, 1, lq, 1500, 64), 'bf16', 3);
        const values = valuesOf(v.t);
        const finite = valuesOf(attention(q.t, k.t, v.t));
        values[700 * 64 + 9] = Infinity;
        const got = valuesOf(attention(q.t, k.t, cast(tensor(values, [1, 1, 1500, 64]), 'bf16')));
        got.forEach((x, i) => {
          if (i % 64 === 9) expect(x).toBe(Infinity);
          else expect(Math.abs(x - finite[i]), `element ${i}`).toBeLessThan(0.02);
        });
      }
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

  const structures: readonly [string, AttentionOptions][] = [
    ['causal', { causal: true }],
    ['causal window', { window: [20, 0] }],
    ['mask function', { mask: documents, causal: true }],
    ['mask tensor', { mask: boolTensor([150, 150], (i) => i % 150 <= Math.floor(i / 150) && i % 7 !== 3) }],
    ['softcap', { causal: true, softcap: 5 }],
    ['score by distance', { causal: true, score: score(({ s: x, q, kv }) => x - 0.5 * (q - kv)) }],
    ['score by distance, growing', { causal: true, score: score(({ s: x, q, kv }) => x + 0.5 * (q - kv)) }],
    ['score by position', { causal: true, score: score(({ s: x, q, kv }) => x - 3 * (q % 5) * (kv % 4)) }],
    ['negative scale', { causal: true, scale: -0.5 }],
  ];
  for (const dtype of ['f32', 'bf16', 'f16'] as const)
    it.each(structures)(`a row's bits depend on what it sees alone: %s, ${dtype}`, (_name, options) => {
      const from = 100;
      const s = size(1, 2, 1, 150, 150, 16);
      for (const level of available)
        scope(() => {
          native().setIsa(level);
          const { q, k, v } = operands(s, 'f32', 5);
          const early = (tensors: readonly Tensor[]): Float64Array[] => {
            const [a, b, c] = tensors.map((t) => cast(t, dtype));
            const { out, lse } = attention(a, b, c, { ...options, returnLse: true });
            return [slice(out, 2, 0, from), slice(lse, 2, 0, from)].map(valuesOf);
          };
          const plain = early([q.t, k.t, v.t]);
          for (const hidden of [2, 1e30, NaN]) {
            const later = (x: typeof q, heads: number, times: number): Tensor =>
              tensor(Float32Array.from(x.values, (value, i) => (Math.floor(i / 16) % 150 < from ? value : value * times)), [1, heads, 150, 16]); // prettier-ignore
            expect(early([later(q, 2, -40), later(k, 1, hidden), later(v, 1, 100)])).toEqual(plain);
          }
        });
    });
});

describe('values that a thread keeps for the next query tiles', () => {
  const bytes = (t: Tensor): Buffer => Buffer.from(valuesOf(t).buffer);
  const tile = (t: Tensor, i: number): Tensor => slice(t, 2, 48 * i, 48 * i + 48);
  const expectSame = (q: Tensor, k: Tensor, v: Tensor, out = attention(q, k, v)): void => {
    for (let i = 0; i < q.shape[2] / 48; i++) {
      const alone = attention(tile(q, i), k, v); // a call of one tile keeps none
      expect(Buffer.compare(bytes(tile(out, i)), bytes(alone)), `tile ${i}`).toBe(0);
    }
  };

  it.each([
    ['whole blocks', size(1, 2, 2, 288, 256, 64)],
    ['a last block that is not whole, heads that share keys', size(2, 4, 2, 192, 301, 32, 20)],
    ['more keys than are kept', size(1, 2, 1, 96, 2090, 64, 256)],
    ['a single key', size(2, 2, 1, 96, 1, 16)],
    ['fewer keys than a block', size(2, 1, 1, 240, 23, 16, 1)],
  ])('change no bit: %s', (_name, s) => {
    for (const threads of [1, 2])
      scope(() => {
        setNumThreads(threads);
        const [q, k, v] = (['q', 'k', 'v'] as const).map((name) => operands(s, 'bf16', 3)[name].t.detach());
        expectSame(q, k, v);
        const turned = permute(contiguous(permute(v, [0, 1, 3, 2])), [0, 1, 3, 2]);
        expectSame(q, k, turned);
        attention(q, k, v);
        v.copyFrom(mul(v, -3)); // those kept by the call before are not of these
        expectSame(q, k, v);
      });
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

  it('lays heads side by side in out where they are so in q', () => {
    const joined = random([2, 5, 3, 8], 'f32', 1).t;
    const q = permute(joined, [0, 2, 1, 3]);
    const out = attention(q, q, slice(q, 3, 0, 4));
    expect(out.strides).toEqual([60, 4, 12, 1]);
    const dense = contiguous(q);
    expect(attention(dense, dense, slice(dense, 3, 0, 4)).strides).toEqual([60, 20, 4, 1]);
    expectClose(valuesOf(out), valuesOf(attention(dense, dense, slice(dense, 3, 0, 4))));
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
    ['an option that does not exist', 'ERR_ARGUMENT', () => attention(q, q, q, { casual: true } as object)],
    ['window', 'ERR_ARGUMENT', () => attention(q, q, q, { window: [1.5, 0] })],
    ['scale', 'ERR_ARGUMENT', () => attention(q, q, q, { scale: NaN })],
    ['softcap', 'ERR_ARGUMENT', () => attention(q, q, q, { softcap: -1 })],
    ['mask dtype', 'ERR_DTYPE', () => attention(q, q, q, { mask: t(4, 4) })],
    ['mask shape', 'ERR_SHAPE', () => attention(q, q, q, { mask: boolTensor([4, 5], () => true) })],
    ['mask kind', 'ERR_ARGUMENT', () => attention(q, q, q, { mask: {} as Tensor })],
    ['bias shape', 'ERR_SHAPE', () => attention(q, q, q, { bias: t(3, 4) })],
    ['block mask too small', 'ERR_SHAPE', () => attention(q, q, q, { mask: blockMask(near, { q: 3 }) })],
    ['kvLengths', 'ERR_SHAPE', () => attention(q, q, q, { kvLengths: [1, 2] })],
    ['kvLengths beyond the keys', 'ERR_ARGUMENT', () => attention(q, q, q, { kvLengths: [5] })],
    ['kvLengths below 0', 'ERR_ARGUMENT', () => attention(q, q, q, { kvLengths: [-1] })],
    ['dim 0', 'ERR_SHAPE', () => attention(t(1, 1, 4, 0), t(1, 1, 4, 0), t(1, 1, 4, 8))],
    ['signal', 'ERR_ARGUMENT', () => attention(q, q, q, { signal: {} as AbortSignal })],
    ['a score that is a function', 'ERR_ARGUMENT', () => attention(q, q, q, { score: (() => 1) as never })],
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
    const error: unknown = await out.data().catch((e: unknown) => e);
    expect(error).toMatchObject({ name: 'FoveaError', code: 'ERR_ABORTED' });
    expect((error as Error).cause).toBe(controller.signal.reason);
    await expect(attention(long, long, long, { window: 4 }).data()).resolves.toHaveLength(long.size);
  });

  it('takes one listener of a signal for any number of calls, and none once they ran', async () => {
    const controller = new AbortController();
    const q = randn([1, 1, 4, 8], { seed: 1 });
    let x = q;
    for (let layer = 0; layer < 24; layer++) x = attention(x, x, x, { signal: controller.signal });
    expect(getEventListeners(controller.signal, 'abort').length).toBe(1);
    await x.data();
    while (getEventListeners(controller.signal, 'abort').length > 0) await setImmediate();
    const late = attention(q, q, q, { signal: controller.signal });
    expect((await late.data()).length).toBe(32);
  });

  it('refuses a signal that was aborted before', () => {
    const q = tensor(new Float32Array(4), [1, 1, 1, 4]);
    expect(() => attention(q, q, q, { signal: AbortSignal.abort('late') })).toThrow(
      expect.objectContaining({ code: 'ERR_ABORTED', cause: 'late' }) as Error,
    );
  });
});

it('what a call leaves behind is what it returns, with gradients and without', () => {
  const [q, k, v] = [1, 2, 3].map((seed) => randn([1, 6, 2, 8], { seed }));
  const leaf = randn([1, 6, 2, 8], { seed: 4, requiresGrad: true });
  const bias = randn([2, 5], { seed: 5 });
  const lengths = tensor([1], null, { dtype: 'i32' });
  const calls = [
    () => attention(q, k, v),
    () => attention(q, k, v, { kvLengths: [2] }),
    () => attention(q, k, v, { kvLengths: lengths }),
    () => attention(q, k, v, { cuSeqlens: [0, 1, 2] }),
    () => neighborhoodAttention(q, k, v, { kernelSize: 3 }),
    () => neighborhoodAttention(q, k, v, { kernelSize: 3, rpb: bias }),
  ];
  for (const call of calls) {
    const before = memory();
    call().dispose();
    synchronizeSync();
    expect(memory()).toMatchObject({ tensors: before.tensors, liveBytes: before.liveBytes });
  }
  for (const out of [attention(leaf, k, v), neighborhoodAttention(leaf, k, v, { kernelSize: 3 })])
    expect(grad(sum(out), [leaf])[0]?.shape).toEqual([1, 6, 2, 8]);
});
