/** Streams on CUDA: independent orders, order by tensors and events, memory across streams, errors. */
import { setImmediate } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import {
  blockMask,
  cast,
  copyFrom,
  embedding,
  full,
  grad,
  mask,
  matmul,
  memory,
  randn,
  scope,
  Stream,
  sum,
  synchronize,
  tensor,
  zeros,
  type Tensor,
} from '../../lib/index.ts';
import { runScript, useCuda, type EmulatorSettings } from './device.ts';

const cuda = useCuda({}, 0);

describe.skipIf(cuda.skip)('streams on CUDA', () => {
  // On the emulator a block of this takes a second or so; on a card the kernels are too short to tell.
  test.skipIf(cuda.gpu)('a short kernel on one stream overtakes a long one on another', async () => {
    using slow = new Stream('cuda');
    using fast = new Stream('cuda');
    const x = randn([192, 1024], { seed: 1, device: 'cuda' });
    await x.data();
    const order: string[] = [];
    const note = (name: string) => (): void => void order.push(name);
    const long = slow.run(() => matmul(x, x.transpose(0, 1)));
    const longDone = long.data().then(note('long'));
    const shortDone = fast
      .run(() => sum(full([10], 1, { device: 'cuda' })))
      .data()
      .then(note('short'));
    const eventDone = fast.record().synchronize().then(note('event'));
    await Promise.all([longDone, shortDone, eventDone]);
    expect(order.at(-1)).toBe('long');
  });

  test.skipIf(cuda.gpu)(
    'while kernels run the event loop turns, masks are evaluated, and the CPU computes',
    async () => {
      const x = randn([192, 1024], { seed: 1, device: 'cuda' });
      await x.data();
      const order: string[] = [];
      const note = (name: string) => (): void => void order.push(name);
      let product = x;
      for (let i = 0; i < 24; i++) product = matmul(matmul(product, x.transpose(0, 1)), x);
      const long = product.data().then(note('long'));
      const checkers = mask(({ q, kv }) => (q + kv) % 2 === 0);
      expect(blockMask(checkers, { q: 256, device: 'cuda' }).tiles).toHaveLength(4);
      for (let turn = 0; turn < 10; turn++) await setImmediate();
      await full([10], 1).data().then(note('CPU'));
      await long;
      expect(order).toEqual(['CPU', 'long']);
    },
  );

  test.skipIf(cuda.gpu)('while the CPU computes a device is fed', async () => {
    await full([1], 1, { device: 'cuda' }).data();
    const order: string[] = [];
    const note = (name: string) => (): void => void order.push(name);
    const x = randn([1024, 1024], { seed: 1 });
    let y = x;
    for (let i = 0; i < 40; i++) y = matmul(y, x);
    const long = y.data().then(note('CPU'));
    await full([10], 1, { device: 'cuda' }).data().then(note('cuda'));
    await long;
    expect(order).toEqual(['cuda', 'CPU']);
  });

  test('an operand of another stream is waited for, and so are readers of what is written', async () => {
    using a = new Stream('cuda');
    using b = new Stream('cuda:0');
    const x = randn([96, 96], { seed: 1, device: 'cuda' });
    const target = zeros([96, 96], { device: 'cuda' });
    const reads: Tensor[] = [];
    const expected: Tensor[] = [];
    for (let i = 0; i < 6; i++) {
      const y = a.run(() => matmul(x, x.mul(i)));
      reads.push(b.run(() => target.add(y)));
      a.run(() => copyFrom(target, y));
      expected.push(i ? matmul(x, x.mul(i - 1)).add(y) : y);
    }
    for (const [i, t] of reads.entries()) expect(await t.data()).toEqual(await expected[i].data());
    expect(await target.data()).toEqual(await matmul(x, x.mul(5)).data());
  });

  test('memory made on one stream and last used on another comes back whole', async () => {
    const run = (): Tensor[] => {
      using a = new Stream('cuda');
      using b = new Stream('cuda');
      return Array.from({ length: 12 }, (_, i) =>
        scope(() => {
          const x = a.run(() => full([64, 64], i, { device: 'cuda' }));
          const y = b.run(() => matmul(x, x));
          return i % 2 ? a.run(() => sum(y)) : sum(y);
        }),
      );
    };
    await synchronize();
    const before = memory().devices['cuda:0']?.liveBytes ?? 0;
    for (let round = 0; round < 3; round++) {
      const sums = run();
      const values = await Promise.all(sums.map((t) => t.item()));
      for (const t of sums) t.dispose();
      expect(values).toEqual(values.map((_, i) => 64 ** 3 * i * i));
    }
    await synchronize();
    expect(memory().devices['cuda:0'].liveBytes).toBeLessThanOrEqual(before);
  });

  test('what was made before the first stream opened, and on streams that are closed', async () => {
    const x = full([64, 64], 2, { device: 'cuda' });
    const y = matmul(x, x);
    const first = new Stream('cuda');
    const z = first.run(() => matmul(y, x));
    first.dispose();
    const w = z.add(1);
    using second = new Stream('cuda');
    const v = second.run(() => w.mul(z));
    z.dispose();
    expect((await v.data())[5]).toBe((64 * 64 * 8 + 1) * 64 * 64 * 8);
  });

  test('gradients flow across streams', async () => {
    using a = new Stream('cuda');
    using b = new Stream('cuda');
    const x = tensor([1, 2, 3], null, { device: 'cuda', requiresGrad: true });
    const y = a.run(() => x.mul(x));
    const loss = b.run(() => sum(y.mul(3)));
    const [g] = a.run(() => grad([loss], [x]));
    expect(await (g as Tensor).data()).toEqual(Float32Array.of(6, 12, 18));
  });

  test('events order what tensors do not; a point of another device is refused', async () => {
    using a = new Stream('cuda');
    using b = new Stream('cuda');
    const x = a.run(() => full([32], 3, { device: 'cuda' }));
    const event = a.record();
    b.wait(event);
    b.wait(a);
    Stream.default('cuda').wait(b);
    await event.synchronize();
    event.synchronizeSync();
    await b.synchronize();
    b.synchronizeSync();
    expect(await x.mul(2).data()).toEqual(new Float32Array(32).fill(6));
    expect(() => b.wait(Stream.default('cpu'))).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
  });

  test('a skipped update is told by its own stream, once; poison crosses with the data', async () => {
    using a = new Stream('cuda');
    using b = new Stream('cuda');
    const target = zeros([1, 2], { device: 'cuda' });
    const [bad, after] = a.run(() => {
      const rows = embedding(zeros([4, 2], { device: 'cuda' }), tensor([9], null, { dtype: 'i32', device: 'cuda' }));
      copyFrom(target, rows);
      return [rows, b.run(() => cast(rows, 'bf16'))];
    });
    await b.synchronize();
    await expect(a.synchronize()).rejects.toMatchObject({ code: 'ERR_INDEX' });
    await a.synchronize();
    await synchronize();
    for (const t of [bad, after]) await expect(t.data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
    expect(await target.data()).toEqual(Float32Array.of(0, 0));
  });

  test.skipIf(cuda.gpu).each<EmulatorSettings>([
    { STREAMS: 'early', SCHEDULE: 'last', ASYNC: 'early' },
    { STREAMS: 'late', SCHEDULE: 'random:7' },
    { STREAMS: 'thread', MEMORY: String(3 << 20) },
  ])('many streams, whenever the device gets to them: %o', (settings) => {
    const { value } = runScript(
      `
      const { Stream, full, add, memory, scope, synchronize, trimMemory } = fovea;
      const streams = [0, 1, 2].map(() => new Stream('cuda'));
      const results = [];
      for (let i = 0; i < 60; i++) {
        scope(() => {
          let t = full([20_000], i, { device: 'cuda' });
          for (let k = 0; k < 3; k++) t = streams[(i * 7 + k * 5) % 3].run(() => add(t, 1));
          results.push(t.data());
        });
        if (i % 20 === 19) streams.splice(i % 3, 1, new Stream('cuda'))[0].dispose();
      }
      const values = (await Promise.all(results)).map((d) => d[19_999]);
      for (const stream of streams) stream.dispose();
      await synchronize();
      trimMemory();
      await synchronize();
      give({ values, memory: memory().devices['cuda:0'] });
      `,
      settings,
    );
    expect(value).toMatchObject({
      values: Array.from({ length: 60 }, (_, i) => i + 3),
      memory: { liveBytes: 0, liveBlocks: 0, cachedBytes: 0 },
    });
  });

  test.skipIf(cuda.gpu)('a lost device rejects what waits on every stream', () => {
    const { value } = runScript(
      `
      const { Stream, full, cast } = fovea;
      const [a, b] = [new Stream('cuda'), new Stream('cuda')];
      const x = a.run(() => full([10], 1, { device: 'cuda' }));
      const bad = b.run(() => cast(x, 'f64'));
      give([
        await failure(() => bad.data()),
        await failure(() => a.synchronize()),
        await failure(() => b.synchronize()),
        await failure(() => b.record().synchronize()),
        await failure(() => new Stream('cuda')),
      ]);
      `,
      { LOSE: 'convert_f32_f64' },
    );
    for (const error of value as ({ code: string; message: string } | null)[])
      expect(error).toMatchObject({ code: 'ERR_DEVICE', message: expect.stringMatching(/convert_f32_f64/) });
  });

  test('a stream of a worker ends with it', () => {
    const file = JSON.stringify(new URL('./stream_worker.mjs', import.meta.url).href);
    const { value } = runScript(`
      const { Worker } = await import('node:worker_threads');
      const { full, synchronize, memory } = fovea;
      const worker = new Worker(new URL(${file}));
      await new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
      const t = full([4], 2, { device: 'cuda' }).add(1);
      const values = [...(await t.data())];
      t.dispose();
      await synchronize();
      give({ values, held: memory().devices['cuda:0'].liveBytes < 2048 });
    `);
    expect(value).toEqual({ values: [3, 3, 3, 3], held: true });
  });
});
