import { FoveaError } from './errors.ts';
import { native, type Native } from './native.ts';
import { dtypeCode } from './tensor/dtype.ts';
import { expectFunction } from './tensor/expect.ts';

export interface MemoryReport {
  /** Bytes owned by live tensors of the process, rounded up to allocator blocks. */
  liveBytes: number;
  liveBlocks: number;
  /** Freed blocks kept for reuse; `trimMemory()` gives them back. */
  cachedBytes: number;
  /** Highest liveBytes since the start or the last resetPeakMemory(). */
  peakBytes: number;
  /** Kernel scratch, one buffer per thread. */
  scratchBytes: number;
  /** Tensor handles of this thread (views count). */
  tensors: number;
  /** CUDA devices in use, by name. */
  devices: Record<string, DeviceMemoryReport>;
}

export interface DeviceMemoryReport {
  /** Bytes owned by live tensors, rounded up to 512 each. */
  liveBytes: number;
  liveBlocks: number;
  peakBytes: number;
  /** Freed memory that the driver's pool keeps for reuse; `trimMemory()` gives it back. */
  cachedBytes: number;
  totalBytes: number;
}

/** Numbers per device in the addon's deviceMemory(). */
const DEVICE_FIELDS = 6;

function deviceMemory(): Record<string, DeviceMemoryReport> {
  const values = native().deviceMemory();
  const reports: Record<string, DeviceMemoryReport> = {};
  for (let i = 0; i < values.length; i += DEVICE_FIELDS) {
    const [ordinal, liveBytes, liveBlocks, peakBytes, cachedBytes, totalBytes] = values.slice(i, i + DEVICE_FIELDS);
    reports[`cuda:${ordinal}`] = { liveBytes, liveBlocks, peakBytes, cachedBytes, totalBytes };
  }
  return reports;
}

/** What the allocators of the CPU and of the CUDA devices in use hold, exactly. */
export function memory(): MemoryReport {
  const [liveBytes, liveBlocks, cachedBytes, peakBytes, , scratchBytes, tensors] = native().memory();
  return { liveBytes, liveBlocks, cachedBytes, peakBytes, scratchBytes, tensors, devices: deviceMemory() };
}

/** Gives cached memory back to the system once the stream has passed the work queued so far. */
export function trimMemory(): void {
  native().trim();
}

/** Makes `memory().peakBytes` count from now. */
export function resetPeakMemory(): void {
  native().resetPeak();
}

/** Makes allocations beyond `bytes` (live and cached) fail with ERR_OOM; 0 lifts the limit. */
export function setMemoryLimit(bytes: number): void {
  if (!(typeof bytes === 'number' && bytes >= 0 && bytes <= Number.MAX_SAFE_INTEGER))
    throw new FoveaError('ERR_ARGUMENT', `setMemoryLimit: expected a number of bytes, 0 to 2^53, got ${String(bytes)}`);
  native().setMemoryLimit(Math.ceil(bytes));
}

/** Number of threads kernels use; results have the same bits for any number. Throws ERR_ARGUMENT outside 1..256. */
export function setNumThreads(n: number): void {
  if (!Number.isInteger(n) || (n | 0) !== n)
    throw new FoveaError('ERR_ARGUMENT', `setNumThreads: expected a number from 1 to 256, got ${String(n)}`);
  native().setThreads(n);
}

/** Number of threads kernels use; at first one for each processor that the process may run on. */
export function getNumThreads(): number {
  return native().threads();
}

/** Resolves when everything queued so far has run; rejects with the error of a skipped in-place operation, if there was one. */
export function synchronize(): Promise<void> {
  return native().synchronize();
}

/** As synchronize(), blocking the thread. */
export function synchronizeSync(): void {
  native().synchronizeSync();
}

/**
 * Promises that settle when each device in use has passed what is queued now: reads of nothing, since synchronize() would take an error
 * that belongs to its next caller.
 */
function fences(h: Native): Promise<unknown>[] {
  const used = h.deviceMemory().filter((_, i) => i % DEVICE_FIELDS === 0);
  return [0, ...used.map((ordinal) => ordinal + 1)].map(async (device) => {
    const nothing = h.fromBytes(new Uint8Array(0), dtypeCode('u8'), [0], device);
    const passed = h.read(nothing);
    h.release(nothing);
    await passed;
  });
}

/** The calls that a signal stops: all by one listener, since Node warns of a signal that has more than ten. */
const stoppedBy = new WeakMap<AbortSignal, { readonly calls: Set<number>; readonly stop: () => void }>();

/** Has `signal` stop the call; returns what undoes it. */
function stopAt(signal: AbortSignal, call: number): () => void {
  const entry = stoppedBy.get(signal) ?? newListener(signal);
  entry.calls.add(call);
  return () => {
    entry.calls.delete(call);
    if (entry.calls.size > 0 || stoppedBy.get(signal) !== entry) return;
    signal.removeEventListener('abort', entry.stop);
    stoppedBy.delete(signal);
  };
}

function newListener(signal: AbortSignal) {
  const calls = new Set<number>();
  const entry = { calls, stop: () => calls.forEach((call) => native().abort(call, { cause: signal.reason })) };
  signal.addEventListener('abort', entry.stop, { once: true });
  stoppedBy.set(signal, entry);
  return entry;
}

/**
 * Calls `fn`, whose operations stop at `signal`: those still queued are skipped and the one running ends at its next tile; their results
 * reject with ERR_ABORTED, whose `cause` is the signal's reason (unless another thread received them). `fn` must be synchronous.
 */
export function abortable<R>(signal: AbortSignal | undefined, fn: () => R): R {
  expectFunction('abortable', 'fn', fn);
  if (!signal) return fn();
  if (typeof signal.addEventListener !== 'function')
    throw new FoveaError('ERR_ARGUMENT', 'signal is not an AbortSignal');
  if (signal.aborted)
    throw new FoveaError('ERR_ABORTED', 'the signal was aborted before the call', { cause: signal.reason });
  const h = native();
  const id = h.beginAbortable();
  const undo = stopAt(signal, id);
  try {
    return fn();
  } finally {
    h.endAbortable();
    const forget = (): void => {
      undo();
      h.forgetAbortable(id);
    };
    void Promise.allSettled(fences(h)).then(forget);
  }
}

export interface DeviceReport {
  name: string;
  available: boolean;
  /** What it is, or why it is not there. */
  detail: string;
}

/** Every device there is, usable or not, with the reason; where there is no CUDA at all, one entry 'cuda' says why and what to do. */
export function devices(): DeviceReport[] {
  const h = native();
  const cuda = JSON.parse(h.cudaDevices()) as {
    problem: string;
    devices: { available: boolean; detail: string }[];
  };
  return [
    { name: 'cpu', available: true, detail: `${h.threads()} threads, ${h.isa()} kernels (best here: ${h.bestIsa()})` },
    ...(cuda.problem
      ? [{ name: 'cuda', available: false, detail: cuda.problem }]
      : cuda.devices.map((device, i) => ({ name: `cuda:${i}`, ...device }))),
  ];
}
