/**
 * The second argument of `mask` and `score`: what may be captured and how it becomes uniforms and tables.
 *
 * Values are copied when the function is compiled, so a mask never changes afterwards; numbers that f32 can't hold are rounded to it, and
 * the function itself is given the same rounded values, so that it and its compiled form see one truth. Only own data properties are read:
 * getters are refused, inherited names don't exist. The values of a captured tensor stay linked to it through `Table.source`.
 */
import { FoveaError } from '../errors.ts';
import type { CapturedTensor, Table, Uniform } from './program.ts';

export type NumericArray =
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array;

export type NestedArray = readonly number[] | readonly boolean[] | readonly NestedArray[];

export type Capture = number | boolean | NumericArray | NestedArray | CapturedTensor;

export type Captures = Readonly<Record<string, Capture>>;

/** What the function sees of a captured tensor: numbers under one index per axis. */
export type TensorView = number & { readonly length: number; readonly [index: number]: TensorView };

/** What the function's second argument holds for each captured value. */
export type CaptureViews<C> = { readonly [K in keyof C]: C[K] extends CapturedTensor ? TensorView : C[K] };

export type ResolvedCapture =
  | { readonly kind: 'number'; readonly uniform: Uniform; readonly boolean: boolean }
  | { readonly kind: 'table'; readonly table: Table; readonly boolean: boolean; readonly lengths: readonly Uniform[] };

export interface CaptureSet {
  readonly entries: ReadonlyMap<string, ResolvedCapture>;
  /** The second argument for calling the function: frozen, without a prototype. */
  readonly views: Readonly<Record<string, unknown>>;
}

const MAX_AXES = 8;
const MAX_ELEMENTS = 2 ** 31 - 1;

/** Copies and types the captured values. Throws ERR_ARGUMENT for what can't be captured. */
export function resolveCaptures(captures: unknown, title: string): CaptureSet {
  if (captures === undefined) return { entries: new Map(), views: Object.freeze(Object.create(null)) };
  const prototype = typeof captures === 'object' && captures !== null ? Object.getPrototypeOf(captures) : undefined;
  if (prototype !== Object.prototype && prototype !== null) {
    throw new FoveaError('ERR_ARGUMENT', `${title}: captured values must be a plain object { name: value }`);
  }
  const entries = new Map<string, ResolvedCapture>();
  const views = Object.create(null) as Record<string, unknown>;
  for (const [name, property] of Object.entries(Object.getOwnPropertyDescriptors(captures as object))) {
    if (!property.enumerable) continue;
    if (name === '__proto__') throw refuse(title, name, 'has a reserved name');
    if (!('value' in property)) throw refuse(title, name, 'is a getter: pass its value');
    const entry = resolve(name, property.value, title);
    entries.set(name, entry);
    views[name] = view(entry);
  }
  return { entries, views: Object.freeze(views) };
}

function refuse(title: string, name: string, what: string): FoveaError {
  const accepted = 'numbers, booleans, typed arrays, nested arrays of numbers or booleans, and tensors can be captured';
  return new FoveaError('ERR_ARGUMENT', `${title}: captured value "${name}" ${what}; ${accepted}`);
}

function resolve(name: string, value: unknown, title: string): ResolvedCapture {
  if (typeof value === 'boolean') {
    return { kind: 'number', boolean: true, uniform: Object.freeze({ name, type: 'i32', value: Number(value) }) };
  }
  if (typeof value === 'number') {
    const type = isInt(value) ? 'i32' : 'f32';
    const rounded = type === 'i32' ? value | 0 : Math.fround(value);
    return { kind: 'number', boolean: false, uniform: Object.freeze({ name, type, value: rounded }) };
  }
  if (ArrayBuffer.isView(value) && !(value instanceof DataView))
    return fromTypedArray(name, value as NumericArray, title);
  if (Array.isArray(value)) return fromNestedArray(name, value as NestedArray, title);
  if (isTensor(value)) return fromTensor(name, value, title);
  throw refuse(title, name, `is ${value === null ? 'null' : `of type ${typeof value}`}`);
}

const isInt = (value: number): boolean => (value | 0) === value;

function isTensor(value: unknown): value is CapturedTensor {
  if (typeof value !== 'object' || value === null) return false;
  const tensor = value as Partial<CapturedTensor>;
  return typeof tensor.toTableData === 'function' && typeof tensor.dtype === 'string' && Array.isArray(tensor.shape);
}

function table(
  name: string,
  data: Table['data'],
  shape: readonly number[],
  title: string,
  boolean = false,
): ResolvedCapture {
  if (data.length === 0) throw refuse(title, name, 'is empty');
  if (data.length > MAX_ELEMENTS) throw refuse(title, name, `has ${data.length} elements, more than 2^31 - 1`);
  const dtype = data instanceof Float32Array ? 'f32' : data instanceof Int32Array ? 'i32' : 'u8';
  const lengths = shape.map((value, axis): Uniform =>
    Object.freeze({ name: `${name}.shape[${axis}]`, type: 'i32', value }),
  );
  return {
    kind: 'table',
    boolean,
    lengths,
    table: Object.freeze({ name, dtype, data, shape: Object.freeze([...shape]) }),
  };
}

function fromTypedArray(name: string, array: NumericArray, title: string): ResolvedCapture {
  return table(name, copyNumbers(name, array, title), [array.length], title);
}

/** A copy as u8, i32 or f32, whichever holds the values; integers that i32 can't hold are refused. */
function copyNumbers(name: string, array: ArrayLike<number | bigint | boolean>, title: string): Table['data'] {
  if (array instanceof Uint8Array || array instanceof Uint8ClampedArray) return new Uint8Array(array);
  if (array instanceof Float32Array || array instanceof Float64Array) return new Float32Array(array);
  if (array instanceof Int32Array || array instanceof Int16Array || array instanceof Int8Array)
    return new Int32Array(array);
  if (array instanceof Uint16Array) return new Int32Array(array);
  const numbers = new Float64Array(array.length);
  for (let i = 0; i < array.length; ++i) numbers[i] = Number(array[i]);
  if (numbers.every(isInt)) return new Int32Array(numbers);
  const big = ArrayBuffer.isView(array);
  if (big) throw refuse(title, name, 'holds integers outside the range of i32');
  return new Float32Array(numbers);
}

function fromNestedArray(name: string, value: NestedArray, title: string): ResolvedCapture {
  const shape: number[] = [];
  for (let level: unknown = value; Array.isArray(level); level = level[0]) {
    if (shape.push(level.length) > MAX_AXES) throw refuse(title, name, `has more than ${MAX_AXES} axes`);
  }
  const flat: (number | boolean)[] = [];
  flatten(value, 0, shape, flat, () => refuse(title, name, 'is not a regular array of numbers or of booleans'));
  if (flat.length > 0 && typeof flat[0] === 'boolean') {
    return table(name, Uint8Array.from(flat, Number), shape, title, true);
  }
  return table(name, copyNumbers(name, flat, title), shape, title);
}

function flatten(
  value: unknown,
  axis: number,
  shape: number[],
  out: (number | boolean)[],
  error: () => FoveaError,
): void {
  if (axis === shape.length) {
    if (typeof value !== 'number' && typeof value !== 'boolean') throw error();
    if (out.length > 0 && typeof value !== typeof out[0]) throw error();
    out.push(value);
    return;
  }
  if (!Array.isArray(value) || value.length !== shape[axis]) throw error();
  for (let i = 0; i < value.length; ++i) flatten(value[i], axis + 1, shape, out, error);
}

function fromTensor(name: string, tensor: CapturedTensor, title: string): ResolvedCapture {
  const shape = [...tensor.shape];
  const elements = shape.reduce((product, size) => product * size, 1);
  const read = tensor.toTableData();
  if (read.length !== elements) throw refuse(title, name, `gave ${read.length} elements for shape [${shape}]`);
  if (shape.length === 0)
    throw refuse(title, name, 'is a tensor without axes: capture its value, or give it the shape [1]');
  const float = /^(f|bf)\d/.test(tensor.dtype);
  const data = float ? new Float32Array(read as ArrayLike<number>) : copyNumbers(name, read, title);
  const resolved = table(name, data, shape, title);
  if (resolved.kind !== 'table') return resolved;
  return { ...resolved, table: Object.freeze({ ...resolved.table, source: tensor }) };
}

function view(entry: ResolvedCapture): unknown {
  if (entry.kind === 'number') return entry.boolean ? entry.uniform.value === 1 : entry.uniform.value;
  const { data, shape } = entry.table;
  const nested = (axis: number, from: number, to: number): unknown => {
    if (axis === shape.length - 1) {
      return entry.boolean
        ? Object.freeze(Array.from(data.subarray(from, to), (x) => x === 1))
        : data.subarray(from, to);
    }
    const step = (to - from) / shape[axis];
    return Object.freeze(
      Array.from({ length: shape[axis] }, (_, i) => nested(axis + 1, from + i * step, from + (i + 1) * step)),
    );
  };
  return nested(0, 0, data.length);
}
