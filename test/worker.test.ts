import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { abortable, memory, receive, synchronize, tensor, type SharedTensor } from '../lib/index.ts';

function start(workerData: object): Worker {
  return new Worker(new URL('./fixtures/worker.mjs', import.meta.url), { workerData });
}

test('tensors go to a worker and come back without a copy of their storage', async () => {
  using t = tensor([1, 2, 3]);
  const worker = start({ action: 'exchange', token: t.share() });
  const [{ data, own }] = (await once(worker, 'message')) as [{ data: Float32Array; own: SharedTensor }];
  expect(data).toEqual(new Float32Array([1, 2, 3]));
  using received = receive(own);
  await once(worker, 'exit');
  expect(await received.data()).toEqual(new Float32Array([7, 8, 9]));
  expect(await t.data()).toEqual(new Float32Array([1, 2, 3]));
});

test('what an abort left is refused by a worker too, which knows nothing of the reason', async () => {
  const controller = new AbortController();
  const t = abortable(controller.signal, () => {
    controller.abort(() => 'this thread alone has it');
    return tensor([1]).add(1);
  });
  const [error] = (await once(start({ action: 'exchange', token: t.share() }), 'error')) as [Error];
  expect(error).toMatchObject({ code: 'ERR_ABORTED' });
  expect(error.cause).toBeUndefined();
  await expect(t.data()).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: controller.signal.reason as unknown });
});

test('a token is for one receiver', () => {
  using t = tensor([1]);
  const token = t.share();
  using received = receive(token);
  expect(received.shape).toEqual([1]);
  expect(() => receive(token)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
});

test('work a worker queued for a shared tensor runs although the worker has left', async () => {
  const worker = start({ action: 'shareAndLeave' });
  const [{ own }] = (await once(worker, 'message')) as [{ own: SharedTensor }];
  await once(worker, 'exit');
  using received = receive(own);
  const data = await received.data();
  expect(data.length).toBe(1 << 18);
  expect(data.every((x) => x === 1.5)).toBe(true);
});

test('a worker that has left still changes the tensor it received', async () => {
  using t = tensor([1, 2, 3]);
  await once(start({ action: 'changeAndLeave', token: t.share() }), 'exit');
  expect(await t.data()).toEqual(new Float32Array([1.5, 1.5, 1.5]));
});

test('memory of a TypedArray, which goes with its thread, is not handed on', () => {
  using t = tensor(new Float32Array(3), null, { copy: false });
  const refused = expect.objectContaining({ code: 'ERR_UNSUPPORTED' });
  expect(() => t.share()).toThrow(refused);
  using detached = t.detach();
  expect(() => detached.share()).toThrow(refused);
});

test('terminating a worker with work in flight frees what it held', async () => {
  await synchronize();
  const before = memory().liveBytes;
  for (let i = 0; i < 3; i++) {
    const worker = start({ action: 'busy' });
    await once(worker, 'message');
    await worker.terminate();
  }
  await synchronize();
  expect(memory().liveBytes).toBe(before);
});
