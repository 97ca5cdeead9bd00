/**
 * The seam: every function the addon exports, typed. Handles are numbers (csrc/napi/environment.h); a test compares this list with the
 * addon's real exports. Nothing but this file loads native code, and only on first use.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FoveaError } from './errors.ts';
import { VERSION } from './version.ts';

export type Handle = number;
export type MaybeHandle = Handle | null;
type Shape = readonly number[];
type Memory = ArrayBuffer | ArrayBufferView;

/** An attention call, as csrc/ops/attention_call.h reads it. */
export type AttentionArguments = readonly [
  operands: readonly MaybeHandle[],
  block: readonly Handle[],
  tables: readonly Handle[],
  program: Int32Array | null,
  uniforms: Int32Array | null,
  integers: readonly number[],
  scale: number,
  softcap: number,
];

export interface Native {
  // tensors in and out
  fromBytes(bytes: Memory, dtype: number, shape: Shape, device?: number): Handle;
  borrow(bytes: Memory, dtype: number, shape: Shape): Handle;
  read(t: Handle): Promise<ArrayBuffer>;
  readSync(t: Handle): ArrayBuffer;
  synchronize(): Promise<void>;
  synchronizeSync(): void;
  exportTensor(t: Handle): number;
  importTensor(id: number): Handle;

  // devices: 0 is the CPU, n + 1 is cuda:n
  device(t: Handle): number;
  toDevice(t: Handle, device: number): Handle;
  cudaDevices(): string;
  deviceMemory(): number[];

  // views
  shape(t: Handle): number[];
  strides(t: Handle): number[];
  dtype(t: Handle): number;
  offset(t: Handle): number;
  version(t: Handle): number;
  sameStorage(a: Handle, b: Handle): boolean;
  view(t: Handle, shape: Shape, strides: Shape, offset: number): Handle;

  // memory, threads, environment
  release(t: Handle): void;
  memory(): number[];
  trim(): void;
  resetPeak(): void;
  setMemoryLimit(bytes: number): void;
  setThreads(n: number): void;
  threads(): number;
  isa(): string;
  bestIsa(): string;
  setIsa(name: string): void;
  buildVersion(): string;
  setErrorClass(constructor: typeof FoveaError): void;
  beginScope(): void;
  endScope(): void;
  beginAbortable(): number;
  endAbortable(): void;
  /** Errors of the call are made with `options`. */
  abort(id: number, options: ErrorOptions): void;
  forgetAbortable(id: number): void;

  // streams
  streamOpen(device: number): number;
  streamDefault(device: number): number;
  streamClose(stream: number): void;
  streamEnter(stream: number): void;
  streamLeave(): void;
  streamRecord(stream: number): number;
  streamWait(stream: number, event: number): void;
  streamDone(stream: number): Promise<void>;
  streamDoneSync(stream: number): void;
  eventDone(event: number): Promise<void>;
  eventDoneSync(event: number): void;
  eventRelease(event: number): void;

  // copies
  contiguous(t: Handle): Handle;
  own(t: Handle): Handle;
  cast(t: Handle, dtype: number): Handle;
  copyFrom(target: Handle, source: Handle): void;

  // creation and random numbers
  full(shape: Shape, value: number, dtype: number, device: number): Handle;
  sequence(start: number, step: number, count: number, dtype: number, device: number): Handle;
  rand(shape: Shape, dtype: number, seed: number, offset: number, scale: number, shift: number, device: number): Handle;
  randn(
    shape: Shape,
    dtype: number,
    seed: number,
    offset: number,
    scale: number,
    shift: number,
    device: number,
  ): Handle;
  randint(shape: Shape, dtype: number, seed: number, offset: number, low: number, high: number, device: number): Handle;
  bernoulli(shape: Shape, dtype: number, seed: number, offset: number, p: number, device: number): Handle;
  dropout(t: Handle, kept: number, seed: number, offset: number): Handle;

  // elementwise
  add(a: Handle, b: Handle): Handle;
  binary(op: number, a: Handle, b: Handle): Handle;
  binaryNumber(op: number, t: Handle, number: number, numberFirst: boolean): Handle;
  unary(op: number, t: Handle, first: number, second: number): Handle;
  unaryBackward(op: number, grad: Handle, saved: Handle, first: number, second: number): Handle;
  where(condition: Handle, a: MaybeHandle, aNumber: number, b: MaybeHandle, bNumber: number): Handle;

  // reductions and scans
  sum(t: Handle, axes: readonly number[], keepDims: boolean): Handle;
  reduce(op: number, t: Handle, axes: readonly number[], keepDims: boolean, correction: number): Handle;
  cumsum(t: Handle, axis: number, reverse: boolean): Handle;
  softmax(t: Handle, axis: number, log: boolean): Handle;
  softmaxBackward(grad: Handle, result: Handle, axis: number, log: boolean): Handle;

  // matrix products
  matmul(a: Handle, b: Handle, dtype: number, precision: number): Handle;
  linear(
    x: Handle,
    weight: Handle,
    bias: MaybeHandle,
    activation: number,
    wantPre: boolean,
    precision: number,
  ): Handle[];
  activationGrad(grad: Handle, pre: Handle, activation: number): Handle;

  // convolutions of images [batch, height, width, channels]
  depthwiseConv(x: Handle, weight: Handle, bias: MaybeHandle, flipped: boolean): Handle;
  depthwiseConvWeight(x: Handle, grad: Handle, rows: number, columns: number): Handle;

  // indexing
  takeRows(op: string, t: Handle, axis: number, ids: Handle): Handle;
  addRows(op: string, grad: Handle, shape: Shape, axis: number, ids: Handle): Handle;
  gather(t: Handle, axis: number, index: Handle): Handle;
  scatter(t: Handle, axis: number, index: Handle, src: Handle): Handle;
  scatterAdd(t: Handle, axis: number, index: Handle, src: Handle): Handle;
  scatterMean(src: Handle, axis: number, index: Handle, size: number): Handle[];

  // sorting
  assignment(costs: Handle): Handle;
  sort(t: Handle, axis: number, k: number, descending: boolean): Handle[];

  selectTop(t: Handle, k: number): Handle;

  // routing
  clusterTop(x: Handle, centroids: Handle, window: number): Handle;
  meanRows(src: Handle, ids: Handle, size: number, epsilon: number): [out: Handle, inverse: Handle];
  regionTop(
    q: Handle,
    k: Handle,
    integers: readonly [regionHeight: number, regionWidth: number, down: number, across: number, top: number],
    scale: number,
  ): [indices: Handle, affinities: Handle];
  headRows(active: Handle): Handle;
  mixSpans(out: Handle, lse: Handle, pairs: Handle, gate: Handle, near: MaybeHandle, nearLse: MaybeHandle): Handle;
  causalRanges(qRows: Handle, kvRows: Handle): Handle;
  spanSearch(
    q: Handle,
    k: Handle,
    keyMask: MaybeHandle,
    distances: Handle,
    steps: Handle,
    spanTables: Handle,
    integers: readonly number[],
  ): [anchors: Handle, scores: Handle, ranges: Handle];
  spanOrder(ranges: Handle, kvHeads: number, kvLength: number): [pairs: Handle, rows: Handle, sorted: Handle];

  // joining and rearranging
  concat(parts: readonly Handle[], axis: number): Handle;
  pad(t: Handle, before: readonly number[], after: readonly number[], value: number): Handle;
  triangle(t: Handle, diagonal: number, upper: boolean): Handle;
  sliceBackward(grad: Handle, shape: Shape, axis: number, start: number, step: number): Handle;

  // normalisation and losses
  norm(x: Handle, weight: MaybeHandle, bias: MaybeHandle, eps: number, axes: number, centered: boolean): MaybeHandle[];
  normBackward(
    grad: Handle,
    x: Handle,
    mean: MaybeHandle,
    rstd: Handle,
    weight: MaybeHandle,
    bias: MaybeHandle,
    axes: number,
    wantX: boolean,
    wantWeight: boolean,
    wantBias: boolean,
  ): MaybeHandle[];
  crossEntropy(logits: Handle, targets: Handle, ignore: number, smoothing: number, reduction: number): Handle[];
  crossEntropyBackward(
    grad: Handle,
    logits: Handle,
    targets: Handle,
    lse: Handle,
    count: Handle,
    ignore: number,
    smoothing: number,
    reduction: number,
  ): Handle;
  rotaryTable(length: number, dims: number, base: number, device: number): Handle[];
  rotary(
    x: Handle,
    cos: Handle,
    sin: Handle,
    positions: MaybeHandle,
    offset: number,
    interleaved: boolean,
    headsLast: boolean,
    inverse: boolean,
  ): Handle;

  // masks
  maskBits(
    program: Int32Array,
    uniforms: Int32Array,
    tables: Uint8Array,
    tableInfo: readonly number[],
    blocks: readonly number[],
    tiles: Int32Array,
    ids: Int32Array,
    bits: Uint8Array,
    device: number,
  ): number;

  // attention: arguments as csrc/ops/attention_call.h lists them
  attention(...call: AttentionArguments): [out: Handle, lse: Handle];
  attentionBackward(
    operands: readonly MaybeHandle[],
    block: readonly Handle[],
    tables: readonly Handle[],
    program: Int32Array | null,
    derivative: Int32Array | null,
    uniforms: Int32Array | null,
    integers: readonly number[],
    scale: number,
    softcap: number,
    saved: readonly MaybeHandle[],
    wanted: readonly number[],
  ): MaybeHandle[];
  attentionExplain(...call: AttentionArguments): string;
  neighborhoodAttention(
    operands: readonly MaybeHandle[],
    axes: readonly number[],
    scale: number,
  ): [out: Handle, lse: Handle];
  neighborhoodAttentionBackward(
    operands: readonly MaybeHandle[],
    axes: readonly number[],
    scale: number,
    saved: readonly MaybeHandle[],
  ): MaybeHandle[];
  neighborhoodDot(x: Handle, keys: Handle, axes: readonly number[], scale: number, unseen: number): Handle;
  neighborhoodGather(weights: Handle, keys: Handle, axes: readonly number[], scale: number): Handle;
  neighborhoodScatter(weights: Handle, x: Handle, axes: readonly number[], scale: number, headsKv: number): Handle;
  neighborhoodLoops(q: Handle, k: Handle, v: Handle, axes: readonly number[], scale: number): Handle;
  neighborhoodExplain(operands: readonly MaybeHandle[], axes: readonly number[], scale: number): string;
  mergeAttentions(outs: readonly Handle[], lses: readonly Handle[]): [out: Handle, lse: Handle];
  mergeAttentionsBackward(
    outs: readonly Handle[],
    lses: readonly Handle[],
    merged: readonly [out: Handle, lse: Handle],
    upstream: readonly [dout: MaybeHandle, dlse: MaybeHandle],
  ): Handle[];

  // optimizers
  adamwStep(
    params: readonly Handle[],
    grads: readonly Handle[],
    first: readonly Handle[],
    second: readonly Handle[],
    master: readonly MaybeHandle[],
    lr: number,
    beta1: number,
    beta2: number,
    eps: number,
    decay: number,
    step: number,
  ): void;
  sgdStep(
    params: readonly Handle[],
    grads: readonly Handle[],
    momenta: readonly MaybeHandle[],
    master: readonly MaybeHandle[],
    lr: number,
    momentum: number,
    decay: number,
    nesterov: boolean,
  ): void;
  clipGradNorm(grads: readonly Handle[], maxNorm: number): Handle;

  // files
  mapFile(path: string): Handle;
  reinterpret(t: Handle, dtype: number, shape: Shape, offset: number): Handle;

  // measuring
  fmaPeak(seconds: number, threads: number): number;
  readBandwidth(seconds: number, threads: number): number;
}

/** Package root: the parent of lib/ when run from source, of dist/ when installed. */
const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);
const REBUILD = 'run "npm run build:native" in a checkout, or "npx fovea build" in a project that depends on fovea';

function load(): Native {
  const override = process.env.FOVEA_NATIVE;
  const place = override || root;
  if (override && !existsSync(override))
    throw new FoveaError('ERR_NATIVE', `FOVEA_NATIVE names ${override}, where no file is; correct it or unset it`);
  let addon: Native;
  try {
    addon = (override ? require(override) : require('node-gyp-build')(root)) as Native;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    throw new FoveaError(
      'ERR_NATIVE',
      `no native build of fovea for ${process.platform}-${process.arch} loads from ${place}: ${reason}; ${REBUILD}`,
      { cause },
    );
  }
  const built = typeof addon.buildVersion === 'function' ? addon.buildVersion() : 'none that is known';
  if (built !== VERSION)
    throw new FoveaError(
      'ERR_NATIVE',
      `the addon in ${place} was built for version ${built}, this is fovea ${VERSION}; ${REBUILD}`,
    );
  addon.setErrorClass(FoveaError);
  return addon;
}

let loaded: Native | undefined;

/**
 * The addon, loaded on first use.
 *
 * @throws FoveaError ERR_NATIVE without a build of this version for this platform, ERR_ARGUMENT when FOVEA_CPU_ISA names no level this machine has.
 */
export function native(): Native {
  if (!loaded) {
    const addon = load();
    addon.isa();
    loaded = addon;
  }
  return loaded;
}
