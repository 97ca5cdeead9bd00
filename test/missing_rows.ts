/**
 * Attention over pages and lists with entries that name no row (-1): what lies in rows that nobody names, not even NaN, may reach a result
 * or a gradient.
 */
import { expect } from 'vitest';
import { planAttention } from '../lib/attention/plan.ts';
import {
  attention,
  cast,
  concat,
  full,
  grad,
  sum,
  tensor,
  type DeviceName,
  type DType,
  type Tensor,
} from '../lib/index.ts';
import { random } from './reference_matmul.ts';

const DIM = 64;
const PAGES = [3, -1, 2, 1, -1, 4, -1, -1];
const ROWS = Array.from({ length: 150 }, (_, i) => (i % 7 === 6 || (i >= 64 && i < 130) ? -1 : 1 + ((i * i) % 19)));

/** Fails unless results are the same whatever row 0 of the keys and values holds. */
export function expectUnnamedRowsIgnored(device: DeviceName, dtype: DType, queries: number): void {
  const list = (values: number[], shape: number[]): Tensor =>
    tensor(Int32Array.from(values), shape, { dtype: 'i32', device });
  const operand = (value: number, rows: Tensor, axis: number): Tensor => {
    const first = full(rows.shape.with(axis, 1), value);
    return cast(concat([first, rows], axis), dtype)
      .to(device)
      .detach();
  };
  const bits = (tensors: Tensor[]): string =>
    Buffer.concat(tensors.map((t) => Buffer.from(cast(t.to('cpu'), 'f32').dataSync().buffer))).toString('base64');
  const query = (): Tensor => random([1, 2, queries, DIM], dtype, 1).t.to(device).detach();

  const paged = (value: number): string => {
    const [k, v] = [2, 3].map((seed) => operand(value, random([4, 1, 4, DIM], 'f32', seed).t, 0));
    return bits([attention(query(), k, v, { pageTable: list(PAGES, [1, PAGES.length]), softcap: 20 })]);
  };
  const listed = (value: number): string => {
    const leaves = [query(), ...[2, 3].map((seed) => operand(value, random([1, 1, 19, DIM], 'f32', seed).t, 2))];
    for (const t of leaves) t.requiresGrad = true;
    const { out } = planAttention(leaves[0], leaves[1], leaves[2], { kvRows: list(ROWS, [1, 1, ROWS.length]) });
    return bits([out, ...(grad([sum(out)], leaves) as Tensor[])]);
  };
  for (const run of [paged, listed]) {
    const expected = run(0);
    for (const value of [NaN, Infinity, -3e4, 3e4]) expect(run(value), `${value}`).toBe(expected);
  }
}
