/**
 * What mechanisms still lack on CUDA: tests by the part of the error message that names the missing piece. Such a test expects
 * ERR_UNSUPPORTED with that text on CUDA; once the piece is there it fails, and its title has to leave this list.
 */
import { expect } from 'vitest';

const MISSING: Readonly<Record<string, readonly string[]>> = {
  'neighborhoodQK: there is no CUDA kernel': ['golden: moh_vit_aggregated', 'aggregated'],
};

/** Runs the part of the current test that is on CUDA; where the list has the test, the error is expected instead. */
export function expectOnCuda(run: () => void): void {
  const title = expect.getState().currentTestName?.split(' > ').at(-1) ?? '';
  const [missing] = Object.entries(MISSING).find(([, titles]) => titles.includes(title)) ?? [null];
  if (missing === null) return run();
  expect(run, `${title} on CUDA`).toThrow(
    expect.objectContaining({ code: 'ERR_UNSUPPORTED', message: expect.stringContaining(missing) as string }),
  );
}
