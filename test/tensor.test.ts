import { constants, PerformanceObserver, type PerformanceEntry } from 'node:perf_hooks';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as F from '../lib/index.ts';
import {
  fromBytes,
  keep,
  memory,
  scope,
  setMemoryLimit,
  synchronize,
  synchronizeSync,
  tensor,
  trimMemory,
  zeros,
  type Tensor,
} from '../lib/index.ts';
import { numbers } from './inputs.ts';
import { indices, sizeOf, type Plain } from './reference.ts';

const code = (c: string) => expect.objectContaining({ name: 'FoveaError', code: c });

describe('creation', () => {
  it('elements read in a dtype of choice come as an array of known type', async () => {
    const t = tensor([1.5, -2.25, 300]);
    const wide: Float64Array = await t.data('f64');
    expect(wide).toEqual(Float64Array.of(1.5, -2.25, 300));
    const whole: BigInt64Array = t.dataSync('i64');
    expect(whole).toEqual(BigInt64Array.of(1n, -2n, 300n));
    const same: Float32Array = t.dataSync('f32');
    expect(same).toEqual(t.dataSync());
    const half: Float32Array = await t.to('bf16').data('f32');
    expect(half).toEqual(Float32Array.of(1.5, -2.25, 300));
    const before = memory().tensors;
    await t.data('u8');
    expect(memory().tensors).toBe(before);
    for (const dtype of ['bf16', 'f33'])
      await expect(t.data(dtype as never)).rejects.toMatchObject({ code: 'ERR_DTYPE' });
  });

  it('from nested arrays, numbers and booleans', async () => {
    const t = tensor([[1, 2, 3], [4, 5, 6]]); // prettier-ignore
    expect([t.shape, t.strides, t.dtype, t.rank, t.size, t.device]).toEqual([[2, 3], [3, 1], 'f32', 2, 6, 'cpu']);
    expect(await t.data()).toEqual(Float32Array.from([1, 2, 3, 4, 5, 6]));
    expect(await t.toArray()).toEqual([[1, 2, 3], [4, 5, 6]]); // prettier-ignore
    expect([tensor(7).shape, await tensor(7).item()]).toEqual([[], 7]);
    expect(tensor([true, false]).dtype).toBe('bool');
    expect(tensor([3n]).dtype).toBe('i64');
    expect(tensor([]).shape).toEqual([0]);
    expect(tensor([1, 2, 3, 4], [2, 2]).shape).toEqual([2, 2]);
  });

  it('from TypedArrays of every kind', () => {
    const cases = [
      [new Float32Array([1.5]), 'f32'],
      [new Float64Array([1.5]), 'f64'],
      [new Int32Array([-1]), 'i32'],
      [new BigInt64Array([-1n]), 'i64'],
      [new Uint8Array([255]), 'u8'],
      [new Int16Array([-7]), 'i32'],
      [new Uint32Array([7]), 'i32'],
    ] as const;
    for (const [array, dtype] of cases) {
      const t = tensor(array);
      expect(t.dtype).toBe(dtype);
      expect(numbers(t)[0]).toBe(Number(array[0]));
    }
  });

  it('converts: 16-bit floats round to nearest even, integers truncate and saturate', () => {
    expect(tensor([1 + 2 ** -8, 1 + 3 * 2 ** -8], null, { dtype: 'bf16' }).dataSync()).toEqual(
      Float32Array.from([1, 1 + 2 ** -6]),
    );
    expect(tensor([1 + 2 ** -11, 65519, 65520], null, { dtype: 'f16' }).dataSync()).toEqual(
      Float32Array.from([1, 65504, Infinity]),
    );
    expect(tensor([-1.9, 3e9, NaN], null, { dtype: 'i32' }).dataSync()).toEqual(Int32Array.from([-1, 2147483647, 0]));
    expect(tensor([0, -0, 2, NaN], null, { dtype: 'bool' }).dataSync()).toEqual(Uint8Array.from([0, 0, 1, 1]));
    expect(F.cast(tensor([300, -1], null, { dtype: 'i32' }), 'u8').dataSync()).toEqual(Uint8Array.from([255, 0]));
  });

  it('from raw bytes and back', async () => {
    const bits = Uint16Array.from([0x3f80, 0xc000]);
    const t = fromBytes(new Uint8Array(bits.buffer), 'bf16', [2]);
    expect(t.dataSync()).toEqual(Float32Array.from([1, -2]));
    expect(new Uint16Array(await t.bytes())).toEqual(bits);
  });

  it('refuses what does not fit', () => {
    expect(() => tensor([[1, 2], [3]])).toThrow(code('ERR_SHAPE')); // prettier-ignore
    expect(() => tensor([1, 2, 3], [2])).toThrow(code('ERR_SHAPE'));
    for (const data of ['text', undefined, null, [1, null], [{}], {}])
      expect(() => tensor(data as never)).toThrow(code('ERR_ARGUMENT'));
    expect(() => tensor([1], [-1])).toThrow(code('ERR_SHAPE'));
    expect(() => tensor([1], [1.5])).toThrow(code('ERR_SHAPE'));
    expect(() => tensor([1], [1], { dtype: 'f8' as never })).toThrow(code('ERR_DTYPE'));
    expect(() => tensor([1], [1], { device: 'tpu' })).toThrow(code('ERR_DEVICE'));
    expect(() => fromBytes(new Uint8Array(3), 'bf16', [2])).toThrow(code('ERR_SHAPE'));
    expect(() => tensor([1, 2]).itemSync()).toThrow(code('ERR_SHAPE'));
    expect(() => tensor(new Float32Array(1), [1, 1, 1, 1, 1, 1, 1, 1, 1])).toThrow(code('ERR_SHAPE'));
    expect(() => tensor(new BigUint64Array(1) as never)).toThrow(code('ERR_DTYPE'));
  });

  it('refuses shapes of more elements than can be counted', () => {
    const many = 2 ** 32; // squared, it is 0 in 64 bits
    expect(() => F.zeros([many, many])).toThrow(code('ERR_SHAPE'));
    expect(() => F.zeros([1]).expand([many, many])).toThrow(code('ERR_SHAPE'));
    expect(() =>
      F.zeros([1])
        .expand([many, 1])
        .add(F.zeros([1]).expand([1, many])),
    ).toThrow(code('ERR_SHAPE'));
    expect(F.zeros([many, many, 0]).size).toBe(0);
  });
});

describe('zero copy', () => {
  it('uses the memory of the TypedArray', async () => {
    const memory32 = Float32Array.from([1, 2, 3]);
    const t = tensor(memory32, [3], { copy: false });
    memory32[0] = 10;
    expect(await t.data()).toEqual(Float32Array.from([10, 2, 3]));
    t.copyFrom(tensor([7, 8, 9]));
    await synchronize();
    expect([...memory32]).toEqual([7, 8, 9]);
    t.dispose();
    await synchronize();
  });

  it('takes a window of a larger buffer', () => {
    const window = Float32Array.from([0, 1, 2, 3]).subarray(1, 3);
    expect([...numbers(tensor(window, null, { copy: false }))]).toEqual([1, 2]);
  });

  it('needs the dtype of the array', () => {
    expect(() => tensor(new Float32Array(2), [2], { copy: false, dtype: 'bf16' })).toThrow(code('ERR_DTYPE'));
  });
});

describe('printing', () => {
  it('shows dtype, shape and aligned values', () => {
    expect(String(tensor([[1, -20], [3, 4]]))).toBe('Tensor(f32, [2, 2])\n[[  1., -20.],\n [  3.,   4.]]'); // prettier-ignore
    expect(String(tensor([0.5, NaN, Infinity]))).toContain('[  0.5000,      NaN, Infinity]');
    expect(String(tensor([1, 2], null, { dtype: 'i32' }))).toBe('Tensor(i32, [2])\n[1, 2]');
    expect(String(tensor([2n ** 60n + 1n, -1n]))).toBe('Tensor(i64, [2])\n[1152921504606846977,                  -1]');
    expect(String(tensor([1e-9, 1]))).toContain('1.0000e-9');
    expect(String(tensor([]))).toBe('Tensor(f32, [0]) []');
    expect(String(tensor([1], null, { requiresGrad: true }))).toContain('requiresGrad');
  });

  it('abbreviates long axes', () => {
    const text = String(tensor(new Float32Array(3000), [3, 1000]));
    expect(text).toContain('...');
    expect(text.length).toBeLessThan(300);
  });

  it('says when a tensor is disposed', () => {
    const t = tensor([1]);
    t.dispose();
    expect(String(t)).toBe('Tensor(disposed)');
  });
});

describe('views', () => {
  const counting = (shape: readonly number[]): Float64Array =>
    Float64Array.from({ length: sizeOf(shape) }, (_, i) => i);

  it('share memory', () => {
    const t = tensor(counting([2, 3, 4]), [2, 3, 4], { dtype: 'f32' });
    const view = t.transpose(0, 2).slice(0, 1, 3).select(1, -1);
    expect(view.shape).toEqual([2, 2]);
    t.copyFrom(tensor(0));
    expect([...numbers(view)]).toEqual([0, 0, 0, 0]);
  });

  it('copyFrom refuses a source of more axes, and a target whose indices share elements', () => {
    const t = tensor([1, 2, 3]);
    expect(() => t.copyFrom(tensor([[4, 5, 6], [7, 8, 9]]))).toThrow(code('ERR_SHAPE')); // prettier-ignore
    expect(() => t.expand([2, 3]).copyFrom(tensor(0))).toThrow(code('ERR_ARGUMENT'));
    t.slice(0, 0, 3, 2).copyFrom(tensor([7, 9]));
    expect([...numbers(t)]).toEqual([7, 2, 9]);
  });

  it('reshape copies only what has no view', () => {
    const t = tensor(counting([4, 6]), [4, 6], { dtype: 'f32' });
    expect(t.reshape([2, 2, -1]).strides).toEqual([12, 6, 1]);
    expect(t.transpose().reshape([6, 2, 2]).strides).toEqual([1, 12, 6]);
    expect(t.slice(1, 0, 6, 2).reshape([2, 2, 3, 1]).strides.slice(0, 3)).toEqual([12, 6, 2]);
    expect([...numbers(t.transpose().reshape([24]))].slice(0, 5)).toEqual([0, 6, 12, 18, 1]);
  });

  it('slice takes bounds that are whole numbers or infinities as Array.prototype.slice does', () => {
    const rows = [[0, 1], [2, 3], [4, 5]]; // prettier-ignore
    for (const bounds of [[0, 2], [-2], [-9, 9], [-Infinity, Infinity], [1, -1], [2, 1]])
      // prettier-ignore
      expect([...numbers(tensor(rows).slice(0, ...bounds))]).toEqual(rows.slice(...bounds).flat());
  });

  it('refuse what is out of range', () => {
    const t = tensor(counting([2, 3]), [2, 3], { dtype: 'f32' });
    expect(() => t.reshape([4])).toThrow(code('ERR_SHAPE'));
    expect(() => t.reshape([-1, -1])).toThrow(code('ERR_SHAPE'));
    expect(() => t.reshape([-1, 4])).toThrow(code('ERR_SHAPE'));
    expect(() => t.permute([0, 0])).toThrow(code('ERR_ARGUMENT'));
    expect(() => t.permute([0])).toThrow(code('ERR_ARGUMENT'));
    expect(() => t.transpose(0, 2)).toThrow(code('ERR_ARGUMENT'));
    expect(() => t.expand([3, 3])).toThrow(code('ERR_SHAPE'));
    expect(() => t.squeeze(0)).toThrow(code('ERR_SHAPE'));
    expect(() => t.slice(0, 0, 2, 0)).toThrow(code('ERR_ARGUMENT'));
    expect(() => t.select(0, 2)).toThrow(code('ERR_INDEX'));
    expect(tensor([], [0, 3]).reshape([3, 0, 5]).shape).toEqual([3, 0, 5]);
  });

  /** One random step: a view of the tensor, and the same done to a plain array. */
  const step = fc.record({
    kind: fc.constantFrom('reshape', 'permute', 'slice', 'unsqueeze', 'squeeze', 'flatten', 'expand', 'select'),
    seed: fc.nat(1 << 20),
  });

  function pick(seed: number, n: number): number {
    return Math.floor(seed / 7) % n;
  }

  function take(p: Plain, shape: readonly number[], from: (index: number[]) => number[]): Plain {
    const position = (index: number[]): number => index.reduce((sum, n, i) => sum * p.shape[i] + n, 0);
    return { shape, data: Float64Array.from([...indices(shape)], (index) => p.data[position(from(index))]) };
  }

  function factors(n: number, seed: number): number[] {
    const shape: number[] = [];
    let rest = n;
    for (let f = 2; rest > 1; f++) {
      for (; rest % f === 0; rest /= f) {
        const opens = shape.length === 0 || (shape.length < 5 && (seed >> shape.length) & 1);
        if (opens) shape.push(f);
        else shape[shape.length - 1] *= f;
      }
    }
    if (seed & 64) shape.unshift(1);
    return seed & 128 ? shape.toReversed() : shape;
  }

  function apply(t: Tensor, p: Plain, kind: string, seed: number): [Tensor, Plain] {
    const { shape } = p;
    const rank = shape.length;
    const axis = rank > 0 ? pick(seed, rank) : 0;
    if (kind === 'reshape' && sizeOf(shape) > 0) {
      const dims = factors(sizeOf(shape), seed);
      return [F.reshape(t, dims), { shape: dims, data: p.data }];
    }
    if (kind === 'permute') {
      const order = shape.map((_, i) => i).sort((a, b) => ((a * 7 + seed) % 5) - ((b * 7 + seed) % 5) || a - b);
      const inverse = order.map((_, i) => order.indexOf(i));
      const dims = order.map((i) => shape[i]);
      return [F.permute(t, order), take(p, dims, (index) => inverse.map((i) => index[i]))];
    }
    if (kind === 'slice' && rank > 0) {
      const start = pick(seed, shape[axis] + 1);
      const by = 1 + (seed % 3);
      const count = Math.max(0, Math.ceil((shape[axis] - start) / by));
      const dims = shape.with(axis, count);
      return [
        F.slice(t, axis, start, undefined, by),
        take(p, dims, (index) => index.with(axis, start + index[axis] * by)),
      ];
    }
    if (kind === 'select' && rank > 0 && shape[axis] > 0) {
      const at = seed % shape[axis];
      const dims = shape.toSpliced(axis, 1);
      return [F.select(t, axis, at), take(p, dims, (index) => index.toSpliced(axis, 0, at))];
    }
    if (kind === 'unsqueeze' && rank < 6) {
      const to = pick(seed, rank + 1);
      return [F.unsqueeze(t, to), { shape: shape.toSpliced(to, 0, 1), data: p.data }];
    }
    if (kind === 'squeeze') return [F.squeeze(t), { shape: shape.filter((n) => n !== 1), data: p.data }];
    if (kind === 'flatten' && rank > 0) {
      const last = axis + pick(seed * 3, rank - axis);
      const merged = sizeOf(shape.slice(axis, last + 1));
      const dims = [...shape.slice(0, axis), merged, ...shape.slice(last + 1)];
      return [F.flatten(t, axis, last), { shape: dims, data: p.data }];
    }
    if (kind === 'expand' && rank < 6 && sizeOf(shape) < 200) {
      const dims = [2, ...shape.map((n) => (n === 1 ? 3 : n))];
      const from = (index: number[]): number[] => index.slice(1).map((n, i) => (shape[i] === 1 ? 0 : n));
      return [F.expand(t, dims), take(p, dims, from)];
    }
    return [t, p];
  }

  it('any chain of them equals the same on a plain array', () => {
    const start = fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 });
    fc.assert(
      fc.property(start, fc.array(step, { minLength: 1, maxLength: 8 }), (shape, steps) =>
        scope(() => {
          let p: Plain = { shape, data: counting(shape) };
          let t = tensor(p.data, shape, { dtype: 'f32' });
          for (const { kind, seed } of steps) [t, p] = apply(t, p, kind, seed);
          expect(t.shape).toEqual(p.shape);
          expect([...(t.dataSync() as Float32Array)]).toEqual([...p.data]);
        }),
      ),
      { numRuns: 400 },
    );
  });
});

describe('lifetime', () => {
  it('a disposed tensor throws, twice is fine, views live on', () => {
    const t = tensor([1, 2, 3]);
    const view = t.slice(0, 1);
    t.dispose();
    t.dispose();
    expect(t.disposed).toBe(true);
    expect(() => t.exp()).toThrow(code('ERR_DISPOSED'));
    expect(() => t.dataSync()).toThrow(code('ERR_DISPOSED'));
    expect([...numbers(view)]).toEqual([2, 3]);
  });

  it('`using` disposes at the end of the block', () => {
    let outside: Tensor;
    {
      using t = tensor([1]);
      outside = t;
      expect(t.disposed).toBe(false);
    }
    expect(outside.disposed).toBe(true);
  });

  it('queued work survives the disposal of its inputs', () => {
    const a = tensor(new Float32Array(100_000).fill(2));
    const b = a.mul(a);
    a.dispose();
    const c = tensor(new Float32Array(100_000).fill(-1)); // may get a's memory
    expect(b.dataSync()[99_999]).toBe(4);
    c.dispose();
  });

  it('scope disposes all but what it returns or keeps', () => {
    const made: Tensor[] = [];
    let kept: Tensor | undefined;
    const { inner, list } = scope(() => {
      const a = tensor([1]);
      kept = keep(a.add(1));
      made.push(a);
      return { inner: a.add(2), list: [a.add(3)] };
    });
    expect(made[0].disposed).toBe(true);
    expect([inner.disposed, list[0].disposed, kept?.disposed]).toEqual([false, false, false]);
    expect([inner.itemSync(), list[0].itemSync(), kept?.itemSync()]).toEqual([3, 4, 2]);
  });

  it('a scope does not set the collector off with what it disposes itself', async () => {
    let collections = 0;
    const observer = new PerformanceObserver((list) => {
      for (const entry of list.getEntries() as (PerformanceEntry & { detail: { kind: number } })[])
        if (entry.detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) collections++;
    });
    observer.observe({ entryTypes: ['gc'] });
    for (let step = 0; step < 20; step++) {
      scope(() => {
        for (let i = 0; i < 4; i++) zeros([2 ** 23]);
      });
      await synchronize();
    }
    observer.disconnect();
    expect(collections).toBeLessThan(8);
  });

  it('scopes nest: survivors belong to the outer one', () => {
    let survivor: Tensor | undefined;
    scope(() => {
      survivor = scope(() => tensor([1]));
      expect(survivor.disposed).toBe(false);
    });
    expect(survivor?.disposed).toBe(true);
  });

  it('scope disposes when fn throws, and refuses promises', () => {
    let t: Tensor | undefined;
    const fail = (): void =>
      scope(() => {
        t = tensor([1]);
        throw new Error('boom');
      });
    expect(fail).toThrow('boom');
    expect(t?.disposed).toBe(true);
    expect(() => scope(() => Promise.resolve(1))).toThrow(code('ERR_ARGUMENT'));
  });
});

describe('memory', () => {
  it('is exact: every op returns to the baseline', () => {
    synchronizeSync();
    const before = memory();
    scope(() => {
      const a = tensor(new Float32Array(10_000), [100, 100]);
      const b = a.transpose().add(a).softmax().sum(0).reshape([10, 10]).contiguous();
      b.dataSync();
      expect(memory().liveBytes).toBeGreaterThanOrEqual(before.liveBytes + 3 * 40_000);
      expect(memory().tensors).toBeGreaterThan(before.tensors);
    });
    synchronizeSync();
    expect(memory()).toMatchObject({
      liveBytes: before.liveBytes,
      liveBlocks: before.liveBlocks,
      tensors: before.tensors,
    });
  });

  it('a view keeps the whole storage, and only once', () => {
    const before = memory().liveBytes;
    const t = tensor(new Float32Array(1000));
    const one = memory().liveBytes - before;
    const view = t.slice(0, 0, 1);
    expect(memory().liveBytes - before).toBe(one);
    t.dispose();
    expect(memory().liveBytes - before).toBe(one);
    view.dispose();
    expect(memory().liveBytes).toBe(before);
  });

  it('beyond the limit fails with ERR_OOM and recovers', () => {
    trimMemory();
    synchronizeSync();
    const { liveBytes } = memory();
    setMemoryLimit(liveBytes + 1_000_000);
    try {
      expect(() => tensor(new Float32Array(1_000_000))).toThrow(code('ERR_OOM'));
      expect(tensor(new Float32Array(1000)).size).toBe(1000);
    } finally {
      setMemoryLimit(0);
    }
    expect(() => setMemoryLimit(-1)).toThrow(code('ERR_ARGUMENT'));
  });

  it('keeps what repeated work needs, and of ever new shapes the latest', () => {
    const MiB = 2 ** 20;
    const take = (bytes: number): void => F.zeros([bytes], { dtype: 'u8' }).dispose();
    trimMemory();
    const most = (count: number): number => {
      for (let i = 1; i <= count; i++) take(i * 4 * MiB);
      synchronizeSync();
      return memory().cachedBytes;
    };
    const spare = 256 * MiB;
    const largest = 64 * MiB + memory().liveBytes;
    expect(most(8)).toBeGreaterThanOrEqual(144 * MiB);
    expect(most(16)).toBeLessThanOrEqual(1.25 * Math.max(largest, memory().peakBytes) + spare);
    take(64 * MiB);
    const cached = memory().cachedBytes;
    take(64 * MiB);
    expect(memory().cachedBytes).toBe(cached);
  });

  it('trim gives cached memory back', () => {
    tensor(new Float32Array(1_000_000)).dispose();
    expect(memory().cachedBytes).toBeGreaterThan(0);
    trimMemory();
    synchronizeSync();
    expect(memory().cachedBytes).toBe(0);
  });
});
