/** Streams on the CPU: results, errors and waiting, each stream for itself. test/cuda/stream.test.ts has the order between streams. */
import { describe, expect, test } from 'vitest';
import {
  abortable,
  copyFrom,
  embedding,
  full,
  getDevice,
  indexSelect,
  Stream,
  sum,
  synchronize,
  synchronizeSync,
  tensor,
  zeros,
} from '../lib/index.ts';

const badIndex = () => tensor([9], null, { dtype: 'i32' });

/** Queues an in-place operation that is skipped since its input failed. */
function skippedUpdate() {
  const target = zeros([1, 2]);
  copyFrom(target, embedding(zeros([4, 2]), badIndex()));
  return target;
}

describe('streams on the CPU', () => {
  test('run() gives what fn gives, results meet those of other streams', async () => {
    using a = new Stream('cpu');
    using b = new Stream();
    expect([a.device, b.device]).toEqual(['cpu', getDevice()]);
    const x = a.run(() => full([1000], 2));
    const y = b.run(() => a.run(() => x.mul(3)).add(x));
    expect(await sum(y).item()).toBe(8000);
  });

  test('work waits for an event, a stream, the default stream', async () => {
    using a = new Stream('cpu');
    using b = new Stream('cpu');
    const target = zeros([4]);
    a.run(() => copyFrom(target, full([1], 1)));
    const event = a.record();
    b.wait(event);
    b.wait(a);
    b.run(() => copyFrom(target, full([1], 2)));
    Stream.default('cpu').wait(b);
    await event.synchronize();
    event.synchronizeSync();
    expect(await target.data()).toEqual(Float32Array.of(2, 2, 2, 2));
    await b.synchronize();
    b.synchronizeSync();
  });

  test('a skipped update is told by its own stream, once', async () => {
    using a = new Stream('cpu');
    using b = new Stream('cpu');
    const target = a.run(skippedUpdate);
    await b.synchronize();
    await Stream.default('cpu').synchronize();
    await expect(a.synchronize()).rejects.toMatchObject({ code: 'ERR_INDEX' });
    await a.synchronize();
    expect(await target.data()).toEqual(Float32Array.of(0, 0));
    a.run(skippedUpdate);
    expect(() => a.synchronizeSync()).toThrow(expect.objectContaining({ code: 'ERR_INDEX' }));
    skippedUpdate();
    await a.synchronize();
    await expect(Stream.default('cpu').synchronize()).rejects.toMatchObject({ code: 'ERR_INDEX' });
  });

  test('the global synchronize() tells the errors of all streams', async () => {
    using a = new Stream('cpu');
    a.run(skippedUpdate);
    await expect(synchronize()).rejects.toMatchObject({ code: 'ERR_INDEX' });
    a.run(skippedUpdate);
    expect(() => synchronizeSync()).toThrow(expect.objectContaining({ code: 'ERR_INDEX' }));
    await synchronize();
  });

  test('poison crosses streams with the data', async () => {
    using a = new Stream('cpu');
    using b = new Stream('cpu');
    const bad = a.run(() => indexSelect(zeros([3]), 0, badIndex()));
    const after = b.run(() => bad.add(1));
    await expect(after.data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
    expect(await b.run(() => full([1], 5)).item()).toBe(5);
  });

  test('a throwing fn leaves the stream; a promise is refused', async () => {
    using a = new Stream('cpu');
    expect(() =>
      a.run(() => {
        throw new RangeError('mine');
      }),
    ).toThrow(RangeError);
    expect(() => a.run(async () => Promise.resolve(1))).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    skippedUpdate();
    await a.synchronize();
    await expect(synchronize()).rejects.toMatchObject({ code: 'ERR_INDEX' });
  });

  test('a stream is not disposed while a function of it runs, whatever runs inside', async () => {
    using a = new Stream('cpu');
    using b = new Stream('cpu');
    const refused = expect.objectContaining({ code: 'ERR_ARGUMENT' });
    a.run(() => {
      expect(() => a.dispose()).toThrow(refused);
      b.run(() => expect(() => a.dispose()).toThrow(refused));
    });
    expect(await a.run(() => full([1], 5)).item()).toBe(5);
  });

  test('aborted work on a stream rejects, the stream goes on', async () => {
    using a = new Stream('cpu');
    const controller = new AbortController();
    const out = abortable(controller.signal, () => {
      const pending = a.run(() => full([1 << 20], 1).add(1));
      controller.abort();
      return a.run(() => pending.add(1));
    });
    await expect(out.data()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(await a.run(() => full([1], 5)).item()).toBe(5);
  });

  test('what comes of an aborted call has the reason of its signal as cause, however it is read', async () => {
    for (const reason of [new Error('too late'), 'a text', null, { step: 3 }]) {
      const controller = new AbortController();
      const out = abortable(controller.signal, () => {
        controller.abort(reason);
        return full([4], 1);
      });
      const expected = expect.objectContaining({ code: 'ERR_ABORTED', cause: reason });
      const derived = out.mul(2);
      for (const t of [out, derived]) {
        await expect(t.data()).rejects.toEqual(expected);
        expect(() => t.dataSync()).toThrow(expected);
      }
      out.dispose();
      await expect(derived.data()).rejects.toEqual(expected);
      expect(() => abortable(controller.signal, () => full([1], 1))).toThrow(expected);
    }
  });

  test('an outer signal stops what inner ones were given; what follows them stays its own', async () => {
    const [outer, inner] = [new AbortController(), new AbortController()];
    const [first, nested, last] = abortable(outer.signal, () => {
      const before = full([1 << 20], 1);
      const inside = abortable(inner.signal, () => before.add(1));
      const after = before.add(2);
      outer.abort('outer');
      return [inside, after, abortable(inner.signal, () => full([1], 3))];
    });
    for (const t of [first, nested, last])
      await expect(t.data()).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'outer' });
    const [stopped, going] = abortable(new AbortController().signal, () => {
      const pending = full([1 << 20], 1);
      return [abortable(inner.signal, () => (inner.abort('inner'), pending.add(1))), pending.add(2)];
    });
    await expect(stopped.data()).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'inner' });
    expect((await going.data())[0]).toBe(3);
  });

  test('an update in place that was aborted before it ran leaves its target', async () => {
    const target = zeros([2]);
    const controller = new AbortController();
    abortable(controller.signal, () => {
      controller.abort('in place');
      copyFrom(target, full([1], 1));
    });
    await expect(synchronize()).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'in place' });
    expect(await target.data()).toEqual(Float32Array.of(0, 0));
  });

  test('a disposed stream throws, what it held still runs', async () => {
    const a = new Stream('cpu');
    const x = a.run(() => full([3], 2).mul(2));
    expect(() => a.run(() => a.dispose())).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    a.dispose();
    a.dispose();
    expect(await x.data()).toEqual(Float32Array.of(4, 4, 4));
    for (const use of [() => a.run(() => 1), () => a.record(), () => a.synchronizeSync()])
      expect(use).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    Stream.default('cpu').dispose();
    await Stream.default('cpu').synchronize();
  });

  test('a stream on no device throws with the reason', () => {
    expect(() => new Stream('gpu' as never)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
  });
});
