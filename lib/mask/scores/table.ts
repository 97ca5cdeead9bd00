import type { CapturedTensor } from '../program.ts';

/** Values a score captures under one index. A tensor with `requiresGrad` receives gradients. */
export type FloatTable = Float32Array | readonly number[] | CapturedTensor;

/** The same under two indices. */
export type FloatTable2 = readonly (readonly number[])[] | CapturedTensor;

/** The table typed as a score function sees it. */
export function seen(table: FloatTable): readonly number[];
export function seen(table: FloatTable2): readonly (readonly number[])[];
export function seen(table: unknown): unknown {
  return table;
}
