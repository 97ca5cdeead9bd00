/** Streams: work of one device in several orders of its own. */
import { FoveaError } from './errors.ts';
import { native } from './native.ts';
import { chosenDevice, deviceName, type DeviceName } from './tensor/device.ts';
import { expectFunction } from './tensor/expect.ts';

const streams = new FinalizationRegistry<number>((handle) => native().streamClose(handle));
const events = new FinalizationRegistry<number>((handle) => native().eventRelease(handle));

/** A point of a stream: everything queued there before `record()`. */
export class StreamEvent {
  /** The addon's handle; internal. */
  readonly handle: number;
  readonly device: DeviceName;

  /** Internal: use stream.record(). */
  constructor(handle: number, device: DeviceName) {
    this.handle = handle;
    this.device = device;
    events.register(this, handle);
  }

  /** Resolves when the device has got there; rejects with ERR_DEVICE when it is lost before. */
  synchronize(): Promise<void> {
    return native().eventDone(this.handle);
  }

  /** As synchronize(), blocking the thread. */
  synchronizeSync(): void {
    native().eventDoneSync(this.handle);
  }
}

/**
 * Work that runs in the order it was queued, whatever other streams of the device do. Without streams everything is queued on the device's
 * default one.
 *
 *     using side = new Stream('cuda');
 *     const a = side.run(() => matmul(x, y)); // beside what the default stream does
 *     const b = add(a, 1);                    // on the default stream, after the matmul
 *
 * Tensors need no care: an operation waits for the one that computed its operands on another stream, a write in place for the readers, and
 * memory is not reused before all streams are done with it. `await t.data()` waits for the stream that computed t alone. Events are for
 * order beyond that.
 *
 * On a CUDA device the kernels of different streams may overlap; they are still launched by one thread, in the order of the calls, and an
 * operation that looks at its indices (embedding, gather, ...) holds that thread until it has. A CPU kernel uses all threads, so the CPU's
 * streams run in the order of the calls; what they keep apart is errors and waiting.
 *
 * A failed operation poisons its results, whatever stream reads them. An in-place operation that was skipped for its inputs is told by
 * `synchronize()` of its own stream, and by the global one.
 */
export class Stream {
  /** The addon's handle; internal. */
  readonly handle: number;
  readonly device: DeviceName;

  /**
   * Opens a stream on `device`, by default that of setDevice(). Throws ERR_DEVICE with the reason when the device is not there.
   */
  constructor(device?: DeviceName);
  /** Internal. */
  constructor(device: DeviceName | undefined, handle: number);
  constructor(device?: DeviceName, handle?: number) {
    const code = chosenDevice(device);
    this.device = deviceName(code);
    this.handle = handle ?? native().streamOpen(code);
    streams.register(this, this.handle, this);
  }

  /** The default stream of a device, for events: disposing it does nothing. */
  static default(device?: DeviceName): Stream {
    return new Stream(device, native().streamDefault(chosenDevice(device)));
  }

  /**
   * Calls `fn`; what it queues on this stream's device goes to this stream, gradients and optimizer steps included. Calls nest. `fn` must
   * be synchronous (queue inside, await outside): a returned promise throws ERR_ARGUMENT.
   */
  run<R>(fn: () => R): R {
    expectFunction('Stream.run', 'fn', fn);
    native().streamEnter(this.handle);
    try {
      const result = fn();
      if (result instanceof Promise)
        throw new FoveaError(
          'ERR_ARGUMENT',
          'Stream.run: fn returned a promise; queue work inside run(), await outside it',
        );
      return result;
    } finally {
      native().streamLeave();
    }
  }

  /** A point behind everything queued on this stream so far. */
  record(): StreamEvent {
    return new StreamEvent(native().streamRecord(this.handle), this.device);
  }

  /**
   * What is queued on this stream from now on runs after `other`: an event, or all that a stream holds now. Throws ERR_DEVICE when it is of
   * another device; tensors that move between devices are waited for anyway.
   */
  wait(other: StreamEvent | Stream): void {
    const event = other instanceof Stream ? other.record() : other;
    native().streamWait(this.handle, event.handle);
  }

  /**
   * Resolves when what is queued on this stream now has run; rejects with the error of an in-place operation of this stream that was
   * skipped, once, or with ERR_DEVICE when the device is lost.
   */
  synchronize(): Promise<void> {
    return native().streamDone(this.handle);
  }

  /** As synchronize(), blocking the thread. */
  synchronizeSync(): void {
    native().streamDoneSync(this.handle);
  }

  /**
   * Gives the stream up: what it holds still runs, and the default stream goes on behind that. Using it afterwards throws ERR_DISPOSED;
   * disposing it inside its own run() throws ERR_ARGUMENT.
   */
  dispose(): void {
    native().streamClose(this.handle);
    streams.unregister(this);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
