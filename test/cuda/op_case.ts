/** One call of an op, made on the CPU and on CUDA from the same values: results and gradients are compared. */
import * as F from '../../lib/index.ts';
import type { DType, Tensor } from '../../lib/index.ts';
import { laidOut, uniform, type Layout } from '../inputs.ts';
import { sizeOf } from '../reference.ts';
import { expectClose } from '../tolerance.ts';

export interface OpCase {
  shapes: readonly (readonly number[])[];
  op: (...inputs: Tensor[]) => Tensor;
  dtypes?: readonly DType[];
  /** How the operands lie in memory, in turn. Default contiguous. */
  layouts?: readonly Layout[];
  /** Values are drawn from [low, high]. Default [-1, 1]. */
  domain?: readonly [number, number];
  avoid?: readonly number[];
  gradient?: boolean;
  /** Times the dtype's tolerance. Default 2. */
  factor?: number;
}

export async function doubles(t: Tensor): Promise<Float64Array> {
  return Float64Array.from((await F.cast(t, 'f64').data()) as Float64Array);
}

/** fn() with tensors made on `device`. */
export function on<R>(device: F.DeviceName, fn: () => R): R {
  const before = F.getDevice();
  F.setDevice(device);
  try {
    return fn();
  } finally {
    F.setDevice(before);
  }
}

/** Result and gradients of sum(op(...) weights), as doubles. */
async function evaluate(c: OpCase, dtype: DType, device: 'cpu' | 'cuda'): Promise<Float64Array[]> {
  const tensors = on(device, () => {
    const leaves = c.shapes.map((shape, i) => {
      const values = uniform(sizeOf(shape), 11 + i, ...(c.domain ?? [-1, 1]), c.avoid ?? []);
      const leaf = laidOut(c.layouts?.[i % c.layouts.length] ?? 'contiguous', shape, values, dtype);
      leaf.requiresGrad = c.gradient ?? true;
      return leaf;
    });
    const out = c.op(...leaves);
    if (c.gradient === false) return [out];
    const weights = F.tensor(uniform(sizeOf(out.shape), 99), out.shape, { dtype: out.dtype });
    return [out, ...(F.grad([F.sum(F.mul(out, weights))], leaves) as Tensor[])];
  });
  return Promise.all(tensors.map(doubles));
}

/** Fails where CUDA and the CPU differ by more than rounding. */
export async function check(c: OpCase): Promise<void> {
  for (const dtype of c.dtypes ?? (['f32', 'bf16', 'f16'] as const)) {
    const expected = await evaluate(c, dtype, 'cpu');
    const got = await evaluate(c, dtype, 'cuda');
    expected.forEach((values, i) => expectClose(got[i], values, dtype, c.factor ?? 2));
  }
}

/** Indices on the device of `like`. */
export function ids(values: readonly number[], shape: readonly number[] | null, like: Tensor): Tensor {
  return F.tensor(Int32Array.from(values), shape, { device: like.device });
}
