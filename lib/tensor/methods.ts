/**
 * The fluent form of the ops: `a.add(b).mul(2).sum()` is `sum(mul(add(a, b), 2))`. Each method is the function of the same name with the
 * tensor as its first argument; the functions hold the documentation.
 */
import * as binary from '../ops/binary.ts';
import * as compare from '../ops/compare.ts';
import { contiguous, copyFrom, to } from '../ops/copy.ts';
import * as reduce from '../ops/reduce.ts';
import { cumsum } from '../ops/scan.ts';
import { logSoftmax, softmax } from '../ops/softmax.ts';
import * as unary from '../ops/unary.ts';
import * as view from '../ops/view.ts';
import { where } from '../ops/where.ts';
import type { DeviceName } from './device.ts';
import type { DType } from './dtype.ts';
import { Tensor } from './tensor.ts';

type Operand = binary.Operand;
type Axes = reduce.Axes;

declare module './tensor.ts' {
  interface Tensor {
    add(b: Operand): Tensor;
    sub(b: Operand): Tensor;
    mul(b: Operand): Tensor;
    div(b: Operand): Tensor;
    pow(b: Operand): Tensor;
    maximum(b: Operand): Tensor;
    minimum(b: Operand): Tensor;
    remainder(b: Operand): Tensor;
    atan2(b: Operand): Tensor;
    eq(b: Operand): Tensor;
    ne(b: Operand): Tensor;
    lt(b: Operand): Tensor;
    le(b: Operand): Tensor;
    gt(b: Operand): Tensor;
    ge(b: Operand): Tensor;
    logicalAnd(b: Tensor): Tensor;
    logicalOr(b: Tensor): Tensor;
    logicalXor(b: Tensor): Tensor;
    logicalNot(): Tensor;
    /** This bool tensor as the condition: elements of `a` where it holds, of `b` elsewhere. */
    where(a: Operand, b: Operand): Tensor;

    neg(): Tensor;
    abs(): Tensor;
    sign(): Tensor;
    square(): Tensor;
    floor(): Tensor;
    ceil(): Tensor;
    round(): Tensor;
    exp(): Tensor;
    expm1(): Tensor;
    log(): Tensor;
    log1p(): Tensor;
    sqrt(): Tensor;
    rsqrt(): Tensor;
    reciprocal(): Tensor;
    sin(): Tensor;
    cos(): Tensor;
    tanh(): Tensor;
    sigmoid(): Tensor;
    erf(): Tensor;
    relu(): Tensor;
    leakyRelu(slope?: number): Tensor;
    gelu(): Tensor;
    geluTanh(): Tensor;
    silu(): Tensor;
    softplus(): Tensor;
    clamp(low: number | null, high: number | null): Tensor;

    sum(axes?: Axes, keepDims?: boolean): Tensor;
    mean(axes?: Axes, keepDims?: boolean): Tensor;
    prod(axes?: Axes, keepDims?: boolean): Tensor;
    max(axes?: Axes, keepDims?: boolean): Tensor;
    min(axes?: Axes, keepDims?: boolean): Tensor;
    argMax(axis?: number | null, keepDims?: boolean): Tensor;
    argMin(axis?: number | null, keepDims?: boolean): Tensor;
    any(axes?: Axes, keepDims?: boolean): Tensor;
    all(axes?: Axes, keepDims?: boolean): Tensor;
    variance(axes?: Axes, keepDims?: boolean, correction?: number): Tensor;
    std(axes?: Axes, keepDims?: boolean, correction?: number): Tensor;
    norm(axes?: Axes, keepDims?: boolean): Tensor;
    logSumExp(axes?: Axes, keepDims?: boolean): Tensor;
    cumsum(axis: number): Tensor;
    softmax(axis?: number): Tensor;
    logSoftmax(axis?: number): Tensor;

    reshape(shape: readonly number[]): Tensor;
    permute(axes: readonly number[]): Tensor;
    transpose(a?: number, b?: number): Tensor;
    expand(shape: readonly number[]): Tensor;
    unsqueeze(axis: number): Tensor;
    squeeze(axes?: number | readonly number[]): Tensor;
    flatten(first?: number, last?: number): Tensor;
    slice(axis: number, start?: number, end?: number, step?: number): Tensor;
    select(axis: number, index: number): Tensor;
    contiguous(): Tensor;
    copyFrom(source: Tensor): void;
    /** This tensor converted to a dtype, or on another device; itself when it is so already. */
    to(target: DType | DeviceName): Tensor;
  }
}

type Functions = Readonly<Record<string, unknown>>;

/** Makes `name(t, ...rest)` callable as `t.name(...rest)`. */
export function defineMethods(functions: Functions): void {
  for (const [name, fn] of Object.entries(functions)) {
    const call = fn as (t: Tensor, ...rest: unknown[]) => unknown;
    Object.defineProperty(Tensor.prototype, name, {
      value(this: Tensor, ...rest: unknown[]) {
        return call(this, ...rest);
      },
      writable: true,
      configurable: true,
    });
  }
}

const { forward: _forward, ...arithmetic } = binary;
const { sumTo: _sumTo, ...views } = view;
defineMethods({
  ...arithmetic,
  ...compare,
  ...unary,
  ...reduce,
  ...views,
  ...{ contiguous, copyFrom, cumsum, logSoftmax, softmax, to, where },
});
