import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { chosenDevice } from './device.ts';
import { dtypeCode, DTYPE_BYTES, type DType } from './dtype.ts';
import { kindText } from './expect.ts';
import { Tensor } from './tensor.ts';

export interface TensorOptions {
  /** Default: the dtype of a TypedArray; f32 for plain numbers; bool for booleans. */
  dtype?: DType;
  /** 'cpu', 'cuda' or 'cuda:N'; default: that of setDevice(), at first the CPU. Throws ERR_DEVICE with the reason when it is not there. */
  device?: string;
  /** Whether gradients are collected for it. Default false. */
  requiresGrad?: boolean;
}

export const TENSOR_OPTIONS: OptionNames<TensorOptions> = { dtype: true, device: true, requiresGrad: true };

export interface FromDataOptions extends TensorOptions {
  /**
   * false: the tensor uses the TypedArray's own memory, without a copy. The caller must then leave the array alone while the tensor lives.
   * Needs the array's dtype to be the tensor's. Default true.
   */
  copy?: boolean;
}

const FROM_DATA_OPTIONS: OptionNames<FromDataOptions> = { ...TENSOR_OPTIONS, copy: true };

const FROM_BYTES_OPTIONS = { device: true, requiresGrad: true } as const;

export type NestedData = number | boolean | bigint | readonly NestedData[];
export type ArrayData = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array | Uint8ClampedArray | Int8Array | Int16Array | Uint16Array | Uint32Array; // prettier-ignore

/** Throws ERR_SHAPE unless every extent is a non-negative integer. */
export function checkShape(op: string, shape: readonly number[]): void {
  if (!Array.isArray(shape) || shape.some((n) => !Number.isSafeInteger(n) || n < 0)) {
    throw new FoveaError(
      'ERR_SHAPE',
      `${op}: shape must be an array of non-negative integers, got ${Array.isArray(shape) ? `[${shape.map(String).join(', ')}]` : String(shape)}`,
    );
  }
}

function nestedShape(data: NestedData): number[] {
  const shape: number[] = [];
  for (let level: NestedData = data; Array.isArray(level); level = level[0] as NestedData) {
    shape.push(level.length);
    if (level.length === 0) break;
  }
  return shape;
}

function flatten(data: NestedData, shape: readonly number[], axis: number, into: (number | bigint)[]): void {
  if (axis === shape.length) {
    if (Array.isArray(data)) throw new FoveaError('ERR_SHAPE', `tensor: nested arrays are ragged at depth ${axis}`);
    if (typeof data !== 'number' && typeof data !== 'boolean' && typeof data !== 'bigint') {
      const got = data === null ? 'null' : typeof data;
      throw new FoveaError(
        'ERR_ARGUMENT',
        `tensor: got ${got === 'object' ? Object.prototype.toString.call(data) : got}, expected numbers or booleans, nested arrays of them, or a TypedArray`,
      );
    }
    into.push(typeof data === 'bigint' ? data : Number(data));
    return;
  }
  if (!Array.isArray(data) || data.length !== shape[axis]) {
    const got = Array.isArray(data) ? `${data.length} items` : typeof data;
    throw new FoveaError(
      'ERR_SHAPE',
      `tensor: nested arrays are ragged at depth ${axis}: expected ${shape[axis]} items, got ${got}`,
    );
  }
  for (const item of data) flatten(item as NestedData, shape, axis + 1, into);
}

function firstLeaf(data: NestedData): NestedData {
  return Array.isArray(data) && data.length > 0 ? firstLeaf(data[0] as NestedData) : data;
}

/** The dtype whose elements a TypedArray holds, and null for those without one (they are converted). */
function dtypeOf(data: ArrayData): DType | null {
  if (data instanceof Float32Array) return 'f32';
  if (data instanceof Float64Array) return 'f64';
  if (data instanceof Int32Array) return 'i32';
  if (data instanceof BigInt64Array) return 'i64';
  if (data instanceof Uint8Array || data instanceof Uint8ClampedArray) return 'u8';
  return null;
}

function upload(data: ArrayData, from: DType, to: DType, shape: readonly number[], device: number): number {
  const h = native();
  if (from === to) return h.fromBytes(data, dtypeCode(from), shape, device);
  const handle = h.fromBytes(data, dtypeCode(from), shape);
  try {
    const cast = h.cast(handle, dtypeCode(to));
    if (device === 0) return cast;
    try {
      return h.toDevice(cast, device);
    } finally {
      h.release(cast);
    }
  } finally {
    h.release(handle);
  }
}

/**
 * A tensor from nested arrays, a number, or a TypedArray (row-major) with a shape.
 *
 * @param data numbers or booleans, nested to the rank; or a TypedArray, read at once unless `copy: false`
 * @param shape default: that of the nesting, or [length] for a TypedArray
 * @throws FoveaError ERR_SHAPE when sizes do not match or arrays are ragged; ERR_ARGUMENT for data of another kind; ERR_DTYPE for an unknown
 * dtype
 */
export function tensor(
  data: NestedData | ArrayData,
  shape?: readonly number[] | null,
  options: FromDataOptions = {},
): Tensor {
  expectOptions('tensor', options, FROM_DATA_OPTIONS);
  const device = chosenDevice(options.device);
  let t: Tensor;
  if (ArrayBuffer.isView(data)) {
    const array = data as ArrayData;
    const own = dtypeOf(array);
    const dtype = options.dtype ?? own ?? 'i32';
    const dims = shape ?? [array.length];
    checkShape('tensor', dims);
    if (options.copy === false) {
      if (own !== dtype && !(own === 'u8' && dtype === 'bool')) {
        throw new FoveaError(
          'ERR_DTYPE',
          `tensor: copy: false needs a TypedArray of ${dtype}, got ${own ?? array.constructor.name}; leave copy out to convert`,
        );
      }
      if (device !== 0)
        throw new FoveaError(
          'ERR_DEVICE',
          'tensor: copy: false keeps the memory of the CPU; leave copy out to use another device',
        );
      t = new Tensor(native().borrow(array, dtypeCode(dtype), dims));
    } else if (own) t = new Tensor(upload(array, own, dtype, dims, device));
    else if (!(
      array instanceof Int8Array ||
      array instanceof Int16Array ||
      array instanceof Uint16Array ||
      array instanceof Uint32Array
    )) {
      const { name } = (array as ArrayData).constructor;
      throw new FoveaError(
        'ERR_DTYPE',
        `tensor: ${name} holds elements of no dtype; expected one of the arrays of ArrayData (16-bit floats: fromBytes)`,
      );
    } else {
      const wide = array instanceof Uint32Array ? Float64Array.from(array) : Int32Array.from(array);
      t = new Tensor(upload(wide, wide instanceof Float64Array ? 'f64' : 'i32', dtype, dims, device));
    }
  } else {
    const nested = data as NestedData;
    const natural = nestedShape(nested);
    const flat: (number | bigint)[] = [];
    flatten(nested, natural, 0, flat);
    const leaf = firstLeaf(nested);
    const dtype = options.dtype ?? (typeof leaf === 'boolean' ? 'bool' : typeof leaf === 'bigint' ? 'i64' : 'f32');
    const dims = shape ?? natural;
    checkShape('tensor', dims);
    if (dtype === 'i64') {
      const fraction = flat.find((x) => typeof x === 'number' && !Number.isInteger(x));
      if (fraction !== undefined)
        throw new FoveaError('ERR_ARGUMENT', `tensor: ${fraction} is no whole number, which i64 holds`);
      t = new Tensor(
        upload(
          BigInt64Array.from(flat, (x) => BigInt(x)),
          'i64',
          dtype,
          dims,
          device,
        ),
      );
    } else t = new Tensor(upload(Float64Array.from(flat, Number), 'f64', dtype, dims, device));
  }
  if (options.requiresGrad) t.requiresGrad = true;
  return t;
}

/** A tensor from the raw little-endian bytes of its elements in row-major order: the way in for bf16 and f16 data. */
export function fromBytes(
  bytes: Uint8Array | ArrayBuffer,
  dtype: DType,
  shape: readonly number[],
  options: Omit<TensorOptions, 'dtype'> = {},
): Tensor {
  expectOptions('fromBytes', options, FROM_BYTES_OPTIONS);
  const device = chosenDevice(options.device);
  checkShape('fromBytes', shape);
  if (!(bytes instanceof ArrayBuffer || ArrayBuffer.isView(bytes)))
    throw new FoveaError('ERR_ARGUMENT', `fromBytes: got ${kindText(bytes)}, expected a Uint8Array or an ArrayBuffer`);
  const code = dtypeCode(dtype);
  const expected = shape.reduce((n, extent) => n * extent, 1) * DTYPE_BYTES[dtype];
  if (bytes.byteLength !== expected) {
    throw new FoveaError(
      'ERR_SHAPE',
      `fromBytes: shape [${shape.join(', ')}] of ${dtype} needs ${expected} bytes, got ${bytes.byteLength}`,
    );
  }
  const t = new Tensor(native().fromBytes(bytes, code, shape, device));
  if (options.requiresGrad) t.requiresGrad = true;
  return t;
}
