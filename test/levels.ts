/** Running a check at every instruction set level of this machine and for several numbers of threads. */
import { expect } from 'vitest';
import { getNumThreads, setNumThreads, type Tensor } from '../lib/index.ts';
import { native } from '../lib/native.ts';

const ALL = ['baseline', 'avx2', 'avx512', 'avx512bf16', 'amx'];
export const LEVELS: readonly string[] = ALL.slice(0, ALL.indexOf(native().bestIsa()) + 1);

/** fn() under another level. */
export function atLevel<R>(level: string, fn: () => R): R {
  const before = native().isa();
  native().setIsa(level);
  try {
    return fn();
  } finally {
    native().synchronizeSync();
    native().setIsa(before);
  }
}

/** The raw bytes of fn()'s result must be the same for 1, 2 and 3 threads. */
export function expectSameBitsForAnyThreads(fn: () => Tensor): void {
  const before = getNumThreads();
  const bits = [1, 2, 3].map((n) => {
    setNumThreads(n);
    const t = fn();
    const bytes = native().readSync(t.handle);
    return Buffer.from(bytes);
  });
  setNumThreads(before);
  expect(bits[0].length).toBeGreaterThan(0);
  for (const other of bits.slice(1)) expect(other.equals(bits[0])).toBe(true);
}
