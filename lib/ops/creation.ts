/** Tensors from a rule: constants, sequences, the identity. */
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions } from '../options.ts';
import { checkShape, TENSOR_OPTIONS, type TensorOptions } from '../tensor/create.ts';
import { chosenDevice } from '../tensor/device.ts';
import { dtypeCode, type DType } from '../tensor/dtype.ts';
import { expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';

/** A new tensor with the options' requiresGrad. */
export function finish(handle: number, options: TensorOptions): Tensor {
  const t = new Tensor(handle);
  if (options.requiresGrad) t.requiresGrad = true;
  return t;
}

function filled(op: string, shape: readonly number[], value: number, options: TensorOptions): Tensor {
  expectOptions(op, options, TENSOR_OPTIONS);
  const device = chosenDevice(options.device);
  checkShape(op, shape);
  return finish(native().full(shape, value, dtypeCode(options.dtype ?? 'f32'), device), options);
}

function filledLike(op: string, t: Tensor, value: number, options: TensorOptions): Tensor {
  expectTensors(op, { t });
  return filled(op, t.shape, value, { dtype: t.dtype, device: t.device, ...options });
}

/**
 * A tensor with every element `value`, converted as cast() converts; f32 by default.
 * Throws ERR_SHAPE for a negative or fractional size.
 */
export function full(shape: readonly number[], value: number, options: TensorOptions = {}): Tensor {
  return filled('full', shape, value, options);
}

/** A tensor of zeros; f32 by default. */
export function zeros(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return filled('zeros', shape, 0, options);
}

/** A tensor of ones; f32 by default. */
export function ones(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return filled('ones', shape, 1, options);
}

/** Every element `value`, with the shape and, unless given, the dtype and device of `t`. */
export function fullLike(t: Tensor, value: number, options: TensorOptions = {}): Tensor {
  return filledLike('fullLike', t, value, options);
}

/** Zeros with the shape and, unless given, the dtype and device of `t`. */
export function zerosLike(t: Tensor, options: TensorOptions = {}): Tensor {
  return filledLike('zerosLike', t, 0, options);
}

/** Ones with the shape and, unless given, the dtype and device of `t`. */
export function onesLike(t: Tensor, options: TensorOptions = {}): Tensor {
  return filledLike('onesLike', t, 1, options);
}

/**
 * Values start, start + step, ... before `end`: arange(end), or arange(start, end, step). i32 when all three are integers, else f32.
 * Element i is start + i * step in double precision, then rounded. Throws ERR_ARGUMENT for a step of 0.
 */
export function arange(start: number, end?: number, step = 1, options: TensorOptions = {}): Tensor {
  expectOptions('arange', options, TENSOR_OPTIONS);
  const device = chosenDevice(options.device);
  const [from, to] = end === undefined ? [0, start] : [start, end];
  if (![from, to, step].every(Number.isFinite) || step === 0) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `arange: from ${from} to ${to} by ${step}; expected finite numbers, step not 0`,
    );
  }
  const count = Math.max(0, Math.ceil((to - from) / step));
  const natural: DType = [from, to, step].every(Number.isInteger) ? 'i32' : 'f32';
  return finish(native().sequence(from, step, count, dtypeCode(options.dtype ?? natural), device), options);
}

/** `count` values evenly spaced from `start` to `end`, both included; f32 by default. Throws ERR_ARGUMENT for a bad count. */
export function linspace(start: number, end: number, count: number, options: TensorOptions = {}): Tensor {
  expectOptions('linspace', options, TENSOR_OPTIONS);
  const device = chosenDevice(options.device);
  if (!Number.isInteger(count) || count < 0) {
    throw new FoveaError('ERR_ARGUMENT', `linspace: count must be a non-negative integer, got ${count}`);
  }
  if (typeof start !== 'number' || typeof end !== 'number')
    throw new FoveaError('ERR_ARGUMENT', `linspace: from ${String(start)} to ${String(end)}; expected numbers`);
  const step = count > 1 ? (end - start) / (count - 1) : 0;
  return finish(native().sequence(start, step, count, dtypeCode(options.dtype ?? 'f32'), device), options);
}

/** The identity: a [rows, columns] matrix (square by default) with ones on the main diagonal; f32 by default. */
export function eye(rows: number, columns = rows, options: TensorOptions = {}): Tensor {
  expectOptions('eye', options, TENSOR_OPTIONS);
  const device = chosenDevice(options.device);
  checkShape('eye', [rows, columns]);
  const dtype = options.dtype ?? 'f32';
  const h = native();
  const handle = h.full([rows, columns], 0, dtypeCode(dtype), device);
  const count = Math.min(rows, columns);
  if (count > 0) {
    const diagonal = h.view(handle, [count], [columns + 1], 0);
    const one = h.full([1], 1, dtypeCode(dtype), device);
    h.copyFrom(diagonal, one);
    h.release(diagonal);
    h.release(one);
  }
  return finish(handle, options);
}
