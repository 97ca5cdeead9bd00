import type { GradNode } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native, type Handle } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { deviceName, type DeviceName } from './device.ts';
import {
  arrayDType,
  DTYPES,
  dtypeCode,
  viewBuffer,
  type ArrayDType,
  type DataOf,
  type DType,
  type TensorData,
} from './dtype.ts';
import { print } from './print.ts';
import { track } from './scope.ts';

const registry = new FinalizationRegistry<Handle>((handle) => native().release(handle));
const inspect = Symbol.for('nodejs.util.inspect.custom');

export interface BackwardOptions {
  /** Gradient of this tensor; default 1, which needs a scalar. */
  gradient?: Tensor;
  /** Keep the graph for another backward through it. Default false. */
  retainGraph?: boolean;
}

const BACKWARD_OPTIONS: OptionNames<BackwardOptions> = { gradient: true, retainGraph: true };

/**
 * An n-dimensional array on a device. A value: operations make new tensors; those that write in place say so by name and raise the
 * version of the storage, which autograd checks.
 *
 * Operations are queued on the device's stream and return at once; `await t.data()` waits for the result, `t.dataSync()` blocks for it.
 * Memory is freed by `dispose()`, by `using`, at the end of a `scope()`, or some time after the object is unreachable.
 */
export class Tensor {
  /** @internal The addon's handle. */
  readonly handle: Handle;
  /** @internal True for tensors taken out of their scope by keep(). */
  kept = false;
  /** @internal How this tensor was computed, when a gradient may flow through it. */
  node: GradNode | null = null;
  /** @internal Which output of `node` this tensor is. */
  nodeOutput = 0;
  /** Accumulated gradient of a leaf with requiresGrad, after backward(). */
  grad: Tensor | null = null;
  #requiresGrad = false;
  #shape: readonly number[] | null = null;
  #strides: readonly number[] | null = null;
  #dtype: DType | null = null;
  #device: DeviceName | null = null;
  #disposed = false;
  #collected = false;

  /** Wraps a handle; internal: use tensor(), zeros(), ... */
  constructor(handle: Handle) {
    this.handle = handle;
    if (!track(this)) this.releaseWhenUnreachable();
  }

  /** @internal Has the collector free the memory; a tensor in a scope does without, since the scope holds it to its end. */
  releaseWhenUnreachable(): void {
    if (this.#collected) return;
    this.#collected = true;
    registry.register(this, this.handle);
  }

  /** Sizes of the dimensions; [] for a scalar. */
  get shape(): readonly number[] {
    return (this.#shape ??= Object.freeze(native().shape(this.handle)));
  }

  /** Type of the elements. */
  get dtype(): DType {
    return (this.#dtype ??= DTYPES[native().dtype(this.handle)]);
  }

  /** 'cpu' or 'cuda:N'. */
  get device(): DeviceName {
    return (this.#device ??= deviceName(native().device(this.handle)));
  }

  /** Steps between neighbours of each dimension, in elements. */
  get strides(): readonly number[] {
    return (this.#strides ??= Object.freeze(native().strides(this.handle)));
  }

  /** Number of dimensions. */
  get rank(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((n, extent) => n * extent, 1);
  }

  /** True after dispose(), or the end of the scope the tensor was made in. */
  get disposed(): boolean {
    return this.#disposed;
  }

  /** True when a gradient is wanted for this tensor (a leaf set so) or flows through it. */
  get requiresGrad(): boolean {
    return this.#requiresGrad || this.node !== null;
  }

  set requiresGrad(wanted: boolean) {
    if (this.node && !wanted) {
      throw new FoveaError(
        'ERR_AUTOGRAD',
        'requiresGrad = false on a computed tensor; use detach() for a copy outside the graph',
      );
    }
    if (wanted && !['f32', 'f64', 'bf16', 'f16'].includes(this.dtype)) {
      throw new FoveaError(
        'ERR_AUTOGRAD',
        `requiresGrad on a tensor of ${this.dtype}; gradients exist for floating dtypes only`,
      );
    }
    this.#requiresGrad = wanted;
  }

  /** True for tensors that were not computed from others with gradients. */
  get isLeaf(): boolean {
    return this.node === null;
  }

  /**
   * The elements in row-major order, once the stream has computed them, as the array type of the dtype; bf16 and f16 come as Float32Array,
   * bool as Uint8Array of 0 and 1. With a `dtype` they are converted as by cast(), and the type of the array is known: `data('f32')`.
   * Rejects with the error of the kernel that failed to compute this tensor or one it depends on.
   */
  data(): Promise<TensorData>;
  data<D extends ArrayDType>(dtype: D): Promise<DataOf[D]>;
  async data(dtype?: ArrayDType): Promise<TensorData> {
    const [handle, as] = this.#readable(dtype);
    try {
      return viewBuffer(await native().read(handle), as);
    } finally {
      if (handle !== this.handle) native().release(handle);
    }
  }

  /** As data(), blocking the thread. */
  dataSync(): TensorData;
  dataSync<D extends ArrayDType>(dtype: D): DataOf[D];
  dataSync(dtype?: ArrayDType): TensorData {
    const [handle, as] = this.#readable(dtype);
    try {
      return viewBuffer(native().readSync(handle), as);
    } finally {
      if (handle !== this.handle) native().release(handle);
    }
  }

  /** This tensor's handle where its elements can be viewed as they are, else one of a copy in a dtype that can; and that dtype. */
  #readable(asked: ArrayDType | undefined): [handle: Handle, dtype: ArrayDType] {
    const dtype = asked ?? arrayDType(this.dtype);
    return [dtype === this.dtype ? this.handle : native().cast(this.handle, dtypeCode(dtype)), dtype];
  }

  /** The elements as mask and score functions capture them (lib/mask/program.ts): read once, blocking. */
  toTableData(): TensorData {
    return this.dataSync();
  }

  /** The raw little-endian bytes in row-major order, in this tensor's own dtype. */
  bytes(): Promise<ArrayBuffer> {
    return native().read(this.handle);
  }

  /** The one element as a number (i64 included; exact up to 2^53). Throws ERR_SHAPE when there is not exactly one. */
  async item(): Promise<number> {
    this.#expectOne();
    return Number((await this.data())[0]);
  }

  /** As item(), blocking the thread. */
  itemSync(): number {
    this.#expectOne();
    return Number(this.dataSync()[0]);
  }

  #expectOne(): void {
    if (this.size !== 1)
      throw new FoveaError(
        'ERR_SHAPE',
        `item: a tensor of shape [${this.shape.join(', ')}] has ${this.size} elements, expected 1`,
      );
  }

  /** Nested arrays of numbers (a number for rank 0). */
  async toArray(): Promise<NestedNumbers> {
    return nest(await this.data(), this.shape);
  }

  /** A tensor with the same contents outside the autograd graph; shares memory. */
  detach(): Tensor {
    const h = native();
    return new Tensor(h.view(this.handle, this.shape, this.strides, h.offset(this.handle)));
  }

  /**
   * Accumulates the gradients of this tensor into `.grad` of every leaf with requiresGrad it was computed from.
   * A second backward through the same graph throws ERR_AUTOGRAD unless the first had `retainGraph: true`.
   */
  backward(options: BackwardOptions = {}): void {
    expectOptions('backward', options, BACKWARD_OPTIONS);
    backwardHook(this, options);
  }

  /**
   * A token to post to another worker, which turns it into a tensor over the same memory with `receive(token)`. Each token is for one
   * receiver. Work queued here before is ordered before what the receiver queues. Throws ERR_UNSUPPORTED for a tensor over the memory of a
   * TypedArray (`copy: false`), which goes with this thread.
   */
  share(): SharedTensor {
    return { foveaSharedTensor: native().exportTensor(this.handle) };
  }

  /** Frees the memory now (kernels already queued still run). Using the tensor afterwards throws ERR_DISPOSED. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    native().release(this.handle);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Shape, dtype and elements, those of long axes at their ends; blocks until they are computed. */
  toString(): string {
    return this.#disposed ? 'Tensor(disposed)' : print(this);
  }

  [inspect](): string {
    return this.toString();
  }
}

/** What share() posts. */
export interface SharedTensor {
  foveaSharedTensor: number;
}

/** The tensor behind a token made by share(), on this thread. Throws ERR_ARGUMENT when it was received before. */
export function receive(token: SharedTensor): Tensor {
  if (typeof token?.foveaSharedTensor !== 'number')
    throw new FoveaError('ERR_ARGUMENT', `receive: got ${String(token)}, expected what share() gave`);
  return new Tensor(native().importTensor(token.foveaSharedTensor));
}

export type NestedNumbers = number | NestedNumbers[];

function nest(data: TensorData, shape: readonly number[]): NestedNumbers {
  let position = 0;
  const walk = (axis: number): NestedNumbers =>
    axis === shape.length ? Number(data[position++]) : Array.from({ length: shape[axis] }, () => walk(axis + 1));
  return walk(0);
}

/** Set by autograd/tape.ts, which needs this class itself. */
let backwardHook: (t: Tensor, options: BackwardOptions) => void = () => {
  throw new FoveaError('ERR_INTERNAL', 'autograd is not loaded');
};

export function setBackwardHook(hook: typeof backwardHook): void {
  backwardHook = hook;
}
