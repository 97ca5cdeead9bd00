import { describe, expect, test } from 'vitest';
import { runCommand, runScript, useCuda } from './device.ts';

const cuda = useCuda({}, 0);
const noEmulator = cuda.skip || cuda.gpu;

interface Failure {
  code: string;
  message: string;
}

describe.skipIf(noEmulator)('the CUDA run time', () => {
  test('out of memory: waits for frees and trims before it gives up, and works on', () => {
    const { value } = runScript(
      `
      const { zeros, memory, cast } = fovea;
      // Each pair fits alone; the pool has to give the f32 block back for the f64 one of the next round.
      for (let i = 0; i < 8; i++) {
        using a = zeros([(5 + i) << 18], { device: 'cuda' });
        using b = cast(a, 'bf16');
        await b.bytes();
      }
      const kept = zeros([4 << 20], { device: 'cuda' });
      const error = await failure(() => zeros([8 << 20], { device: 'cuda' }));
      const values = await kept.data();
      kept.dispose();
      const after = await zeros([8 << 20], { device: 'cuda' }).data();
      give({ error, kept: values.length, after: after.length, memory: memory().devices['cuda:0'] });
      `,
      { MEMORY: String(40 << 20) },
    );
    const { error, kept, after, memory } = value as {
      error: Failure;
      kept: number;
      after: number;
      memory: { totalBytes: number };
    };
    expect(error.code).toBe('ERR_OOM');
    expect(error.message).toMatch(
      /out of memory on cuda:0: 33554432 bytes were asked for while 16777216 bytes in 1 tensors are live/,
    );
    expect([kept, after, memory.totalBytes]).toEqual([4 << 20, 8 << 20, 40 << 20]);
  });

  test('a lost device rejects what waits for it, names the kernel, and says so from then on; the CPU goes on', () => {
    const { value } = runScript(
      `
      const { tensor, cast, synchronize, devices, zeros } = fovea;
      const before = tensor([1, 2, 3], null, { device: 'cuda' });
      await before.data();
      const out = cast(before, 'f64');
      const moved = out.to('cpu');
      const sum = moved.add(1);
      give({
        errors: [
          await failure(() => out.data()),
          await failure(() => sum.data()),
          await failure(() => out.dataSync()),
          await failure(() => before.data()),
          await failure(() => cast(before, 'i32')),
          await failure(() => zeros([2], { device: 'cuda' })),
          await failure(() => tensor([1]).to('cuda')),
          await failure(() => synchronize()),
        ],
        cpu: [...(await tensor([1, 2]).add(1).data())],
        devices: devices(),
      });
      `,
      { LOSE: 'convert_f32_f64' },
    );
    const { errors, cpu, devices } = value as {
      errors: (Failure | null)[];
      cpu: number[];
      devices: { name: string; available: boolean; detail: string }[];
    };
    for (const error of errors) {
      expect(error?.code).toBe('ERR_DEVICE');
      expect(error?.message).toMatch(/cuda:0 is lost: .*convert_f32_f64/s);
    }
    expect(cpu).toEqual([2, 3]);
    expect(devices.find((d) => d.name === 'cuda:0')).toMatchObject({
      available: false,
      detail: expect.stringContaining('lost'),
    });
  });

  test('one device is lost, the other goes on', () => {
    const { value } = runScript(
      `
      const { tensor, cast } = fovea;
      const [a, b] = [tensor([1, 2, 3], null, { device: 'cuda:0' }), tensor([4, 5, 6], null, { device: 'cuda:1' })];
      const error = await failure(() => cast(a, 'f64').data());
      const move = await failure(() => a.to('cuda:1').data());
      const back = await failure(() => b.to('cuda:0').data());
      give({ error, move, back, b: [...(await b.to('i32').data())] });
      `,
      { LOSE: 'convert_f32_f64', DEVICES: '2' },
    );
    expect(value).toMatchObject({
      error: { code: 'ERR_DEVICE' },
      move: { code: 'ERR_DEVICE', message: expect.stringContaining('cuda:0 is lost') },
      back: { code: 'ERR_DEVICE' },
      b: [4, 5, 6],
    });
  });

  test('two devices: moves, views, order of writes, no mixing, a device of its own per tensor', () => {
    const { value } = runScript(
      `
      const { tensor, copyFrom, full, transpose, devices, setDevice, getDevice, zeros, memory, add } = fovea;
      const a = tensor([[1, 2], [3, 4]], null, { device: 'cuda:0' });
      const b = transpose(a, 0, 1).to('cuda:1');
      const moves = [];
      for (let i = 0; i < 30; i++) {
        copyFrom(a, full([1], i, { device: 'cuda:0' }));
        moves.push(a.to('cuda:1').to('cuda:0').to('cpu'));
      }
      const moved = await Promise.all(moves.map(async (t) => (await t.data())[3]));
      const mixed = await failure(() => copyFrom(a, b));
      const added = await failure(() => add(a, b));
      setDevice('cuda:1');
      const chosen = zeros([2]).device;
      const absent = await failure(() => setDevice('cuda:2'));
      give({ b: [...(await b.data())], device: b.device, moved, mixed, added, chosen, absent, now: getDevice(),
        devices: devices().map((d) => [d.name, d.available]), live: Object.keys(memory().devices) });
      `,
      { DEVICES: '2' },
    );
    expect(value).toMatchObject({
      b: [1, 3, 2, 4],
      device: 'cuda:1',
      moved: Array.from({ length: 30 }, (_, i) => i),
      mixed: { code: 'ERR_DEVICE', message: expect.stringMatching(/cuda:0 and cuda:1/) },
      added: { code: 'ERR_DEVICE', message: expect.stringMatching(/cuda:0 and cuda:1/) },
      chosen: 'cuda:1',
      absent: {
        code: 'ERR_DEVICE',
        message: expect.stringContaining('there is no device cuda:2: the driver sees 2 devices'),
      },
      now: 'cuda:1',
      devices: [
        ['cpu', true],
        ['cuda:0', true],
        ['cuda:1', true],
      ],
      live: ['cuda:0', 'cuda:1'],
    });
  });

  test.each([
    ['no such file', {}, { FOVEA_CUDA_DRIVER: '/nowhere/libcuda.so' }, /FOVEA_CUDA_DRIVER cannot be opened: .*nowhere/],
    ['not a driver', {}, { FOVEA_CUDA_DRIVER: 'libm.so.6' }, /libm\.so\.6 is not a CUDA driver/],
    ['no device', { DEVICES: '0' }, {}, /sees no device/],
    ['an old driver', { DRIVER_VERSION: '11020' }, {}, /too old: it is for CUDA 11\.2, at least CUDA 11\.4/],
  ])('%s: the reason in devices(), in doctor and in the error', (_, settings, env, reason) => {
    const { value } = runScript(
      `
      const error = await failure(() => fovea.tensor([1]).to('cuda'));
      give({ error, cuda: fovea.devices()[1], cpu: [...(await fovea.tensor([1]).data())] });
      `,
      settings,
      env,
    );
    const {
      error,
      cuda: report,
      cpu,
    } = value as {
      error: Failure;
      cuda: { name: string; available: boolean; detail: string };
      cpu: number[];
    };
    expect(error.code).toBe('ERR_DEVICE');
    expect(error.message).toMatch(reason);
    const unavailable = { name: 'cuda', available: false, detail: expect.stringMatching(reason) };
    expect(report).toMatchObject(unavailable);
    const diagnosis = JSON.parse(runCommand(['doctor', '--json'], settings, env)) as { devices: unknown[] };
    expect(diagnosis.devices[1]).toMatchObject(unavailable);
    expect(cpu).toEqual([1]);
  });

  test('the oldest driver it takes runs kernels', () => {
    const { value } = runScript(
      `
      const { ones, matmul, attention } = fovea;
      const x = ones([1, 1, 20, 32], { dtype: 'bf16', device: 'cuda' });
      give([await matmul(x, x.transpose(2, 3)).sum().item(), await attention(x, x, x, { causal: true }).sum().item()]);
      `,
      { DRIVER_VERSION: '11040', CAPABILITY: '80' },
    );
    expect(value).toEqual([20 * 20 * 32, 20 * 32]);
  });

  test('three devices: a tensor goes around, each device keeps its own account', () => {
    const { value } = runScript(
      `
      const { tensor, memory, synchronize, matmul, add } = fovea;
      const here = tensor([[1, 2], [3, 4]]);
      const around = here.to('cuda:2').to('cuda:0').to('cuda:1');
      const product = matmul(around, here.to('cuda:1'));
      const mixed = await failure(() => add(product, here.to('cuda:2')));
      const values = [...(await product.to('cuda:2').data())];
      await synchronize();
      give({ values, mixed, devices: Object.keys(memory().devices).sort(), beyond: await failure(() => here.to('cuda:3')) });
      `,
      { DEVICES: '3' },
    );
    expect(value).toMatchObject({
      values: [7, 10, 15, 22],
      mixed: { code: 'ERR_DEVICE', message: expect.stringMatching(/cuda:1 and cuda:2/) },
      devices: ['cuda:0', 'cuda:1', 'cuda:2'],
      beyond: { code: 'ERR_DEVICE', message: expect.stringContaining('the driver sees 3 devices') },
    });
  });

  test('a kernel out of bounds: the promise rejects with the kernel and the place, and the device is lost', () => {
    const { value } = runScript(
      `
      const { tensor, cast, zeros, devices } = fovea;
      const there = tensor([1, 2, 3], null, { device: 'cuda' });
      const bad = cast(there, 'f64');
      give({
        bad: await failure(() => bad.data()),
        later: await failure(() => zeros([1], { device: 'cuda' })),
        available: devices()[1].available,
      });
      `,
      { STRAY: 'convert_f32_f64' },
    );
    const { bad, later, available } = value as { bad: Failure; later: Failure; available: boolean };
    expect(bad.code).toBe('ERR_DEVICE');
    expect(bad.message).toMatch(/cuda:0 is lost.*convert_f32_f64.*out of bounds.*ptx line \d+/s);
    expect(later).toEqual(bad);
    expect(available).toBe(false);
  });

  test('a kernel that does not compile: its results reject with the log of the compiler, all else goes on', () => {
    const { value } = runScript(
      `
      const { tensor, cast, copyFrom, zeros, synchronize } = fovea;
      const there = tensor([1, 2, 3], null, { device: 'cuda' });
      const bad = cast(there, 'f64');
      const after = cast(bad, 'i32');
      const target = zeros([3], { device: 'cuda' });
      copyFrom(target, after);
      give({
        errors: [await failure(() => bad.data()), await failure(() => after.data()), await failure(() => synchronize())],
        target: [...(await target.data())],
        again: await failure(() => cast(there, 'f64').data()),
        other: [...(await cast(there, 'i32').data())],
      });
      `,
      { REFUSE: 'convert_f32_f64' },
    );
    const { errors, again, target, other } = value as {
      errors: Failure[];
      again: Failure;
      target: number[];
      other: number[];
    };
    for (const error of [...errors, again]) {
      expect(error.code).toBe('ERR_INTERNAL');
      expect(error.message).toMatch(/cuda:0: compiling the kernel convert_f32_f64: .*as FOVEA_EMULATOR_REFUSE says/);
    }
    expect([target, other]).toEqual([
      [0, 0, 0],
      [1, 2, 3],
    ]);
  });

  test.each([
    { STREAMS: 'early', SCHEDULE: 'last' },
    { STREAMS: 'late', SCHEDULE: 'random:7' },
  ])('whenever the device gets to it: $STREAMS', (settings) => {
    const { value } = runScript(
      `
      const { arange, cast, memory, scope, synchronize, trimMemory } = fovea;
      const results = [];
      for (let i = 0; i < 40; i++) {
        scope(() => {
          const a = arange(i, i + 1000, 1, { dtype: 'f32', device: 'cuda' });
          results.push(cast(cast(a, 'bf16'), 'i32').to('cpu').data());
        });
      }
      const sums = (await Promise.all(results)).map((d) => d[100]);
      await synchronize();
      trimMemory();
      await synchronize();
      give({ sums, memory: memory().devices['cuda:0'] });
      `,
      settings,
    );
    expect(value).toMatchObject({
      sums: Array.from({ length: 40 }, (_, i) => 100 + i),
      memory: { liveBytes: 0, liveBlocks: 0, cachedBytes: 0 },
    });
  });

  test('a worker uses the device of the process, and one that is ended frees what it held', () => {
    const file = JSON.stringify(new URL('./worker.mjs', import.meta.url).href);
    const { value } = runScript(`
      const { Worker } = await import('node:worker_threads');
      const { tensor, receive, memory, synchronize } = fovea;
      const there = tensor([1, 2, 3], null, { device: 'cuda' });
      const worker = new Worker(new URL(${file}), { workerData: { token: there.share() } });
      const message: any = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
      const values = [...(await receive(message.token).data())];
      await worker.terminate();
      await synchronize();
      give({ device: message.device, values, held: message.bytes > 4 << 20, left: memory().devices['cuda:0'].liveBytes < 1 << 16 });
    `);
    expect(value).toEqual({ device: 'cuda:0', values: [1, 2, 3], held: true, left: true });
  });

  test('FOVEA_CUDA_SYNC names the one kernel', () => {
    const { value } = runScript(
      `
      const { tensor, cast } = fovea;
      const a = tensor([1, 2, 3], null, { device: 'cuda' });
      await cast(a, 'i32').data();
      const c = cast(a, 'f64');
      give({ c: await failure(() => c.data()) });
      `,
      { LOSE: 'convert_f32_f64' },
      { FOVEA_CUDA_SYNC: '1' },
    );
    expect(value).toMatchObject({ c: { message: expect.stringContaining('the kernel was convert_f32_f64') } });
  });
});
