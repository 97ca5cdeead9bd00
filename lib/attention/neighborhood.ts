/**
 * Neighborhood attention: every token of a 1-D, 2-D or 3-D lattice attends to the window of tokens around it.
 *
 * Windows are shifted at the borders, never padded; `masks.natten` is the same rule as a mask. The tape keeps q, k, v, out and lse, and one
 * native call makes all gradients.
 */
import { gradEnabled, record, type Gradients } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native, type MaybeHandle } from '../native.ts';
import { cast, contiguous } from '../ops/copy.ts';
import { zerosLike } from '../ops/creation.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectIntegers, expectOptionalTensors, expectTensors } from '../tensor/expect.ts';
import { scope } from '../tensor/scope.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AttentionResult } from './attention.ts';
import { fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import type { RefusedKernel } from './explain.ts';

/** A value for every axis, or one for all. */
type PerAxis<T> = T | readonly T[];

/** The window along each axis. */
export interface NeighborhoodWindow {
  /** Keys of the window, K >= 1. */
  readonly kernelSize: PerAxis<number>;
  /** Queries that share one window, 1 to K; default 1. K = blocked attention. */
  readonly stride?: PerAxis<number>;
  /** Distance of neighbouring keys; default 1. K * dilation must fit on the axis. */
  readonly dilation?: PerAxis<number>;
  /** Whether a query sees no key after it along the axis; default false. */
  readonly causal?: PerAxis<boolean>;
}

export const NEIGHBORHOOD_WINDOW: OptionNames<NeighborhoodWindow> = {
  kernelSize: true,
  stride: true,
  dilation: true,
  causal: true,
};

export interface NeighborhoodOptions extends NeighborhoodWindow {
  /** Relative position bias [heads, 2 K - 1 of each axis], added to the logits: entry key - query + K - 1, in steps of the dilation. */
  readonly rpb?: Tensor;
  /** Keys and values [batch, n, heads_kv, dim] that every query sees too, in the same softmax. */
  readonly extraKv?: { readonly k: Tensor; readonly v: Tensor };
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const CALL_OPTIONS: OptionNames<NeighborhoodOptions & { returnLse?: boolean }> = {
  ...NEIGHBORHOOD_WINDOW,
  rpb: true,
  extraKv: true,
  scale: true,
  returnLse: true,
};

/**
 * Neighborhood attention of q [batch, ...space, heads, dim] over k [batch, ...space, heads_kv, dim] and v [batch, ...space, heads_kv, dim_v],
 * with 1 to 3 axes of space.
 *
 * Along each axis a query sees the `kernelSize` keys nearest to it; at the borders the window moves inwards and keeps its size (a causal axis
 * cuts it instead). With `dilation` only tokens of equal coordinate modulo the dilation meet; with `stride` groups of queries share the window
 * of the one in their middle (causal: of their last). Any strides of memory; f32, bf16 or f16 with f32 accumulation; heads a multiple of
 * heads_kv; dims 1 to 256. Differentiable in q, k, v, rpb, the extra keys and values, and through lse.
 *
 * @returns out [batch, ...space, heads, dim_v], or { out, lse } with `returnLse`; lse [batch, ...space, heads] is the natural log of the sum
 * @throws FoveaError ERR_SHAPE, ERR_DTYPE for operands that do not fit; ERR_ARGUMENT unless 1 <= stride <= kernelSize and kernelSize *
 * dilation <= extent on every axis
 *
 * Source: Hassani et al., "Neighborhood Attention Transformer", 2023; "Dilated Neighborhood Attention Transformer", 2022; "Faster
 * Neighborhood Attention", 2024; "Generalized Neighborhood Attention", 2025.
 */
export function neighborhoodAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: NeighborhoodOptions & { readonly returnLse: true },
): AttentionResult;
export function neighborhoodAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: NeighborhoodOptions & { readonly returnLse?: false },
): Tensor;
export function neighborhoodAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: NeighborhoodOptions & { readonly returnLse?: boolean },
): Tensor | AttentionResult {
  return scope(() => {
    const call = bind('neighborhoodAttention', q, k, v, options);
    const [outHandle, lseHandle] = native().neighborhoodAttention(handles(call.operands), call.axes, call.scale);
    const out = new Tensor(outHandle);
    const lse = new Tensor(lseHandle);
    const inputs = call.operands.filter((t) => t !== null);
    if (gradEnabled() && inputs.some((t) => t.requiresGrad)) {
      const saved = { out: out.detach(), lse: lse.detach() };
      const rule = (grads: Gradients): Gradients => backward(call, saved, grads);
      record('neighborhoodAttention', [out, lse], inputs, rule, [...inputs, saved.out, saved.lse]);
    }
    return options.returnLse ? { out, lse } : out;
  });
}

const EXTRA_KV = { k: true, v: true } as const;

interface Call {
  /** q, k, v, extra k, extra v, rpb. */
  readonly operands: readonly (Tensor | null)[];
  readonly axes: readonly number[];
  readonly scale: number;
}

function bind(op: string, q: Tensor, k: Tensor, v: Tensor, options: NeighborhoodOptions): Call {
  expectTensors(op, { q, k, v });
  expectOptions(op, options, CALL_OPTIONS);
  if (options.extraKv) {
    expectOptions(`${op}: extraKv`, options.extraKv, EXTRA_KV);
    expectTensors(op, { 'extraKv.k': options.extraKv.k, 'extraKv.v': options.extraKv.v });
  }
  expectOptionalTensors(op, { rpb: options.rpb });
  const axes = axesOf(op, q, options);
  const { rpb, extraKv, scale = 1 / Math.sqrt(q.shape[q.rank - 1]) } = options;
  if (!Number.isFinite(scale))
    throw new FoveaError('ERR_ARGUMENT', `${op}: scale is ${scale}, expected a finite number`);
  const operands = [q, k, v, extraKv?.k ?? null, extraKv?.v ?? null, rpb ? contiguous(cast(rpb, 'f32')) : null];
  return { operands, axes, scale };
}

/** Kernel size, stride, dilation and causality of every axis of q, flat. */
export function axesOf(op: string, q: Tensor, options: NeighborhoodWindow): number[] {
  const count = q.rank - 3;
  if (count < 1 || count > 3)
    throw new FoveaError(
      'ERR_SHAPE',
      `${op}: q has shape ${shapeText(q.shape)}, expected [batch, ...space, heads, dim] with 1 to 3 axes of space`,
    );
  const each = <T extends number | boolean>(name: string, value: PerAxis<T>): readonly T[] => {
    const list: readonly T[] = Array.isArray(value)
      ? (value as readonly T[])
      : Array.from({ length: count }, () => value as T);
    if (list.length !== count)
      throw new FoveaError('ERR_ARGUMENT', `${op}: ${name} has ${list.length} entries, q has ${count} axes of space`);
    return list;
  };
  const { stride = 1, dilation = 1, causal = false } = options;
  const kernel = each('kernelSize', options.kernelSize);
  const settings = { stride: each('stride', stride), dilation: each('dilation', dilation) };
  const past = each('causal', causal);
  for (const [name, list] of Object.entries({ kernelSize: kernel, ...settings }))
    if (!list.every(Number.isInteger))
      throw new FoveaError('ERR_ARGUMENT', `${op}: ${name} is ${String(list)}, expected integers`);
  return kernel.flatMap((size, i) => [size, settings.stride[i], settings.dilation[i], past[i] ? 1 : 0]);
}

const handles = (tensors: readonly (Tensor | null)[]): MaybeHandle[] => tensors.map((t) => t?.handle ?? null);

function backward(call: Call, saved: AttentionResult, [dout, dlse]: Gradients): Gradients {
  const upstream = dout ?? zerosLike(saved.out);
  const state = [saved.out, saved.lse, upstream, dlse ? contiguous(dlse) : null];
  const grads = native().neighborhoodAttentionBackward(handles(call.operands), call.axes, call.scale, handles(state));
  return grads.flatMap((handle) => (handle === null ? [] : [new Tensor(handle)]));
}

/** The work of a call. */
export interface NeighborhoodWork {
  /** Pairs of a query and a key that it sees, over batch and heads. */
  readonly pairs: number;
  /** Floating-point operations of both products over these pairs; a multiplication with an addition counts 2. */
  readonly flops: number;
  /** Floating-point operations of attention over all pairs. */
  readonly denseFlops: number;
  /** Bytes of operands and results, each moved once. */
  readonly bytes: number;
}

export interface NeighborhoodExplanation extends NeighborhoodWork {
  /** The kernel that computes the output and, by its backward half, the gradients. */
  readonly kernel: string;
  /** Instruction set the kernel runs with. */
  readonly isa: string;
  /** Kernels asked before the chosen one, in order. */
  readonly refused: readonly RefusedKernel[];
  /** Queries along each axis that the tile kernel handles together. */
  readonly tile: readonly number[];
  toString(): string;
}

/**
 * The work of `neighborhoodAttention(q, k, v, options)`: pairs are counted exactly, causal and ragged windows included.
 *
 * @throws FoveaError as `neighborhoodAttention`
 */
export function neighborhoodWork(q: Tensor, k: Tensor, v: Tensor, options: NeighborhoodOptions): NeighborhoodWork {
  const call = bind('neighborhoodWork', q, k, v, options);
  native().neighborhoodExplain(handles(call.operands), call.axes, call.scale); // checks operands and windows
  const [batch, heads, dim] = [q.shape[0], q.shape[q.rank - 2], q.shape[q.rank - 1]];
  const dimV = v.shape[v.rank - 1];
  const space = q.shape.slice(1, -2);
  const tokens = space.reduce((n, extent) => n * extent, 1);
  const extra = options.extraKv?.k.shape[1] ?? 0;
  const seen = space.reduce((n, extent, i) => n * pairsOfAxis(extent, call.axes.slice(4 * i, 4 * i + 4)), 1);
  const pairs = batch * heads * (seen + tokens * extra);
  const perPair = 2 * (dim + dimV);
  const bytesOf = (t: Tensor): number => t.size * (t.dtype === 'f32' ? 4 : 2);
  const results = batch * tokens * heads * (dimV * (q.dtype === 'f32' ? 4 : 2) + 4);
  return {
    pairs,
    flops: perPair * pairs,
    denseFlops: perPair * batch * heads * tokens * (tokens + extra),
    bytes: call.operands.reduce((n, t) => n + (t ? bytesOf(t) : 0), results),
  };
}

/**
 * Cost of neighborhoodAttention on `space`, by default one axis of all tokens, with the window of every axis.
 */
export function neighborhoodCost(
  sizes: CostSizes,
  options: Partial<NeighborhoodWindow> & { readonly space?: readonly number[] } = {},
): Cost {
  expectOptions('neighborhoodCost', options, { ...NEIGHBORHOOD_WINDOW, space: true });
  const { length } = fullSizes(sizes);
  const { space = [length], kernelSize = 7, stride = 1, dilation = 1, causal = false } = options;
  expectIntegers('neighborhoodCost', 'space', space);
  const at = <T extends number | boolean>(value: PerAxis<T>, i: number): number =>
    Number(typeof value === 'object' ? value[i] : value);
  const pairs = space.reduce(
    (n, extent, i) => n * pairsOfAxis(extent, [at(kernelSize, i), at(stride, i), at(dilation, i), at(causal, i)]),
    1,
  );
  return pairsCost(sizes, pairs);
}

function pairsOfAxis(length: number, [kernel, stride, dilation, causal]: readonly number[]): number {
  if (!causal) return length * kernel;
  let pairs = 0;
  for (let group = 0; group < dilation; group++) {
    const n = Math.ceil((length - group) / dilation);
    for (let i = 0; i < n; i++) {
      const leader = Math.min(i - (i % stride) + stride - 1, n - 1);
      pairs += i + 1 - Math.max(leader - kernel + 1, 0);
    }
  }
  return pairs;
}

/**
 * Explains `neighborhoodAttention(q, k, v, options)` without running it: data, and a text by `toString()`.
 *
 * @throws FoveaError as `neighborhoodAttention`
 */
export function explainNeighborhood(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: NeighborhoodOptions,
): NeighborhoodExplanation {
  const call = bind('explainNeighborhood', q, k, v, options);
  const text = scope(() => native().neighborhoodExplain(handles(call.operands), call.axes, call.scale));
  const chosen = JSON.parse(text) as Pick<NeighborhoodExplanation, 'kernel' | 'isa' | 'refused' | 'tile'>;
  const e = { ...chosen, ...neighborhoodWork(q, k, v, options) };
  const lines = [
    `neighborhoodAttention: q ${shapeText(q.shape)}, k ${shapeText(k.shape)}, v ${shapeText(v.shape)}, ${q.dtype}`,
    `  kernel   ${e.kernel} on ${e.isa}`,
    ...e.refused.map(({ kernel, reason }) => `  refused  ${kernel}: ${reason}`),
    `  tile     ${e.tile.join(' x ')} queries`,
    `  flops    ${(e.flops / 1e6).toPrecision(3)} MFLOP of ${(e.denseFlops / 1e6).toPrecision(3)} MFLOP dense`,
    `  bytes    ${(e.bytes / 1e6).toPrecision(3)} MB`,
  ];
  return Object.freeze({ ...e, toString: () => lines.join('\n') });
}
