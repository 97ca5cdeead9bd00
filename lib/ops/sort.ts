/**
 * Sorting along an axis. Equal elements come in rising index, ascending and descending alike (the sort is always stable); NaN counts as
 * larger than everything, -0 equals 0. Indices are i32.
 */
import { record } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { axisOf, shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { zeros } from './creation.ts';

export interface Sorted {
  values: Tensor;
  /** Where each value stood along the axis; i32. */
  indices: Tensor;
}

const SORT_OPTIONS = { descending: true } as const;
const TOP_K_OPTIONS = { largest: true } as const;

function run(op: string, t: Tensor, axis: number, k: number, descending: boolean): Sorted {
  expectTensors(op, { t });
  const at = axisOf(op, axis, t.rank);
  const [v, i] = native().sort(t.handle, at, k, descending);
  const [values, indices] = [new Tensor(v), new Tensor(i)];
  const { shape, dtype, device } = t;
  record(
    op,
    [values],
    [t],
    ([g]) => {
      const base = zeros(shape, { dtype, device });
      return [new Tensor(native().scatter(base.handle, at, indices.handle, (g as Tensor).handle))];
    },
    [indices],
  );
  return { values, indices };
}

/** `t` sorted along `axis` (default the last), any dtype. Differentiable in the values. */
export function sort(t: Tensor, axis = -1, options: { descending?: boolean } = {}): Sorted {
  expectOptions('sort', options, SORT_OPTIONS);
  return run('sort', t, axis, -1, options.descending ?? false);
}

/** The order that sorts `t` along `axis` (default the last); i32. */
export function argsort(t: Tensor, axis = -1, options: { descending?: boolean } = {}): Tensor {
  expectTensors('argsort', { t });
  expectOptions('argsort', options, SORT_OPTIONS);
  const at = axisOf('argsort', axis, t.rank);
  const [values, indices] = native().sort(t.handle, at, -1, options.descending ?? false);
  native().release(values);
  return new Tensor(indices);
}

/**
 * The k largest (or smallest) along `axis` (default the last), in order, the first of equals first. Throws ERR_ARGUMENT unless k is an
 * integer between 0 and the axis. Differentiable in the values.
 */
export function topK(t: Tensor, k: number, axis = -1, options: { largest?: boolean } = {}): Sorted {
  expectTensors('topK', { t });
  expectOptions('topK', options, TOP_K_OPTIONS);
  if (!Number.isInteger(k) || k < 0) {
    throw new FoveaError('ERR_ARGUMENT', `topK: k must be a non-negative integer, got ${k} for ${shapeText(t.shape)}`);
  }
  return run('topK', t, axis, k, options.largest ?? true);
}

/** The places of the k largest along the last axis, rising, the first of equals: what topK finds, as a set. f32, bf16, f16; i32 [..., k]. */
export function selectTop(t: Tensor, k: number): Tensor {
  return new Tensor(native().selectTop(t.handle, k));
}
