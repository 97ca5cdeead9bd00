import { describe, expect, test } from 'vitest';
import {
  arange,
  cast,
  copyFrom,
  DTYPES,
  expand,
  eye,
  flip,
  full,
  linspace,
  memory,
  permute,
  reshape,
  scope,
  slice,
  sum,
  synchronize,
  synchronizeSync,
  tensor,
  transpose,
  trimMemory,
  zeros,
} from '../../lib/index.ts';
import { bytesAfterCollection, useCuda } from './device.ts';

const cuda = useCuda({}, 0);

describe.skipIf(cuda.skip)('tensors on a CUDA device', () => {
  test.each(DTYPES)('%s goes there and back', async (dtype) => {
    const data = [0, 1, 2, 3, 100, 127, 7];
    const there = tensor(data, null, { dtype }).to('cuda');
    expect([there.device, there.dtype, there.shape]).toEqual(['cuda:0', dtype, [7]]);
    const same = there.to('cuda:0');
    expect(same).toBe(there);
    const expected = await tensor(data, null, { dtype }).data();
    expect(await there.data()).toEqual(expected);
    expect(there.dataSync()).toEqual(expected);
    const back = there.to('cpu');
    expect(back.device).toBe('cpu');
    expect(await back.data()).toEqual(expected);
    expect(await tensor(data, null, { dtype, device: 'cuda' }).data()).toEqual(expected);
  });

  test('copies larger than one chunk of pinned memory, and many at once', async () => {
    const data = Float32Array.from({ length: 2_700_001 }, (_, i) => i % 65521);
    const there = tensor(data, null, { device: 'cuda' });
    const copies = await Promise.all([there.data(), there.to('cpu').data(), there.data()]);
    for (const copy of copies) expect(Buffer.compare(Buffer.from(copy.buffer), Buffer.from(data.buffer))).toBe(0);
    const small = Array.from({ length: 300 }, (_, i) => tensor([i, -i]).to('cuda'));
    const values = await Promise.all(small.map((t) => t.data()));
    expect(values.map((v) => v[1])).toEqual(small.map((_, i) => (i ? -i : -0)));
  });

  test('empty tensors, single elements, rank 0', async () => {
    expect(await zeros([3, 0, 2], { device: 'cuda' }).data()).toEqual(new Float32Array(0));
    expect(await tensor(new Float32Array(0)).to('cuda').to('cpu').data()).toEqual(new Float32Array(0));
    expect(await tensor(42).to('cuda').item()).toBe(42);
    expect(await tensor(42).to('cuda').to('bf16').item()).toBe(42);
  });

  test('views are read as the CPU reads them', async () => {
    const here = reshape(arange(0, 120, 1, { dtype: 'f32' }), [2, 3, 4, 5]);
    const there = here.to('cuda');
    for (const view of [
      (t: typeof here) => transpose(t, 1, 3),
      (t: typeof here) => permute(t, [3, 0, 2, 1]),
      (t: typeof here) => slice(t, 2, 1, 4, 2),
      (t: typeof here) => slice(transpose(t, 0, 3), 0, 4, 1),
      (t: typeof here) => expand(slice(t, 1, 1, 2), [2, 7, 4, 5]),
    ]) {
      const [expected, got] = [view(here), view(there)];
      expect(got.device).toBe('cuda:0');
      expect(await got.data()).toEqual(await expected.data());
      expect(await got.contiguous().data()).toEqual(await expected.data());
      expect(await got.to('cpu').data()).toEqual(await expected.data());
      expect(await view(here).to('cuda').data()).toEqual(await expected.data());
      expect(await cast(got, 'i64').data()).toEqual(await cast(expected, 'i64').data());
    }
  });

  test('creation on the device', async () => {
    for (const dtype of DTYPES) {
      expect(await full([300], 1, { dtype, device: 'cuda' }).data()).toEqual(await full([300], 1, { dtype }).data());
      expect(await eye(3, 5, { dtype, device: 'cuda' }).data()).toEqual(await eye(3, 5, { dtype }).data());
      expect(await arange(1, 100, 3, { dtype, device: 'cuda' }).data()).toEqual(
        await arange(1, 100, 3, { dtype }).data(),
      );
    }
    expect(await full([5], 0.1, { dtype: 'f64', device: 'cuda' }).data()).toEqual(new Float64Array(5).fill(0.1));
    expect(await linspace(-1, 3, 777, { device: 'cuda' }).data()).toEqual(await linspace(-1, 3, 777).data());
  });

  test('copyFrom writes in place, into views too, from another dtype and from itself', async () => {
    const target = zeros([3, 4], { device: 'cuda' });
    copyFrom(slice(target, 1, 1, 3), tensor([[1], [2], [3]], null, { dtype: 'i32', device: 'cuda' }));
    expect(await target.data()).toEqual(Float32Array.of(0, 1, 1, 0, 0, 2, 2, 0, 0, 3, 3, 0));
    const square = reshape(arange(0, 9, 1, { dtype: 'f32', device: 'cuda' }), [3, 3]);
    copyFrom(square, transpose(square, 0, 1));
    expect(await square.data()).toEqual(Float32Array.of(0, 3, 6, 1, 4, 7, 2, 5, 8));
  });

  test('a tensor that is written after it was sent arrives as it was', async () => {
    const here = full([100_000], 1);
    const arrivals = [];
    for (let i = 0; i < 20; i++) {
      arrivals.push(here.to('cuda'));
      copyFrom(here, full([1], i + 2));
    }
    for (const [i, there] of arrivals.entries()) {
      const values = await there.data();
      expect([values[0], values[99_999]]).toEqual([i + 1, i + 1]);
    }
    const there = full([100_000], 5, { device: 'cuda' });
    const back = there.to('cpu');
    copyFrom(there, full([1], 6, { device: 'cuda' }));
    expect((await back.data())[77]).toBe(5);
  });

  test('a tensor disposed while it travels', async () => {
    for (let i = 0; i < 50; i++) {
      const here = full([10_000], i);
      const there = here.to('cuda');
      here.dispose();
      const back = there.to('cpu');
      there.dispose();
      const noise = full([10_000], -1);
      expect((await back.data())[9_999]).toBe(i);
      back.dispose();
      noise.dispose();
    }
  });

  test('gradients flow back through a move', async () => {
    const x = tensor([1, 2, 3], null, { requiresGrad: true });
    const there = x.to('cuda');
    sum(there.to('cpu').mul(tensor([10, 20, 30]))).backward();
    expect(x.grad?.device).toBe('cpu');
    expect(await x.grad?.data()).toEqual(Float32Array.of(10, 20, 30));
  });

  test('an operation without a CUDA kernel, and operands on two devices', async () => {
    const [here, there] = [tensor([3, 1, 2]), tensor([3, 1, 2], null, { device: 'cuda' })];
    expect(() => copyFrom(here, there)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
    expect(() => here.add(there)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
    expect(() => tensor([1], null, { device: 'cuda:63' })).toThrow(
      expect.objectContaining({ code: 'ERR_DEVICE', message: expect.stringContaining('there is no device cuda:63') }),
    );
    expect(() => tensor([1], null, { device: 'gpu' })).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
    expect(await flip(here, [0]).data()).toEqual(Float32Array.of(2, 1, 3));
  });

  test('synchronize covers the device, and its memory is accounted for to the byte', async () => {
    await bytesAfterCollection(); // what the collector frees later would be cached
    trimMemory();
    await synchronize();
    const before = memory().devices['cuda:0'];
    scope(() => {
      for (let i = 0; i < 10; i++) cast(full([1000, 10], i, { device: 'cuda' }), 'f64');
      const now = memory().devices['cuda:0'];
      expect(now.liveBytes - before.liveBytes).toBe(10 * (79 * 512 + 157 * 512));
      expect(now.liveBlocks - before.liveBlocks).toBe(20);
    });
    synchronizeSync();
    expect(memory().devices['cuda:0']).toMatchObject({ liveBytes: before.liveBytes, liveBlocks: before.liveBlocks });
    trimMemory();
    await synchronize();
    const after = memory().devices['cuda:0'];
    if (!cuda.gpu) expect(after.cachedBytes).toBe(0);
    expect(after.peakBytes).toBeGreaterThanOrEqual(before.liveBytes + 10 * (79 + 157) * 512);
  });
});
