/** What an attention call would do: the kernel that takes it, those that don't and why, and how much work it is. */
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { scope } from '../tensor/scope.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { bindAttention, nativeCall, type AttentionOptions } from './arguments.ts';

export interface RefusedKernel {
  readonly kernel: string;
  readonly reason: string;
}

export interface AttentionExplanation {
  /** The kernel that takes the call. */
  readonly kernel: string;
  /** Instruction set the kernel runs with. */
  readonly isa: string;
  /** Kernels asked before the chosen one, in order. */
  readonly refused: readonly RefusedKernel[];
  /** Queries and keys of the tiles counted below. */
  readonly tile: readonly [number, number];
  /** Tiles visited without looking at a mask, with one, and not at all. */
  readonly tiles: { readonly full: number; readonly partial: number; readonly skipped: number };
  /** Floating-point operations of the tiles that are visited, and of all tiles; a multiplication with an addition counts 2. */
  readonly flops: number;
  readonly denseFlops: number;
  /** Bytes of operands and results, each moved once. */
  readonly bytes: number;
  toString(): string;
}

interface NativeExplanation {
  readonly kernel: string;
  readonly isa: string;
  readonly refused: readonly RefusedKernel[];
  readonly tile: readonly [number, number];
  readonly full: number;
  readonly partial: number;
  readonly skipped: number;
  readonly flops: number;
  readonly denseFlops: number;
  readonly bytes: number;
}

/**
 * Explains `attention(q, k, v, options)` without running it: data, and a text by `toString()`. Waits for the operands, since lengths and
 * block lists decide what is skipped.
 *
 * @throws FoveaError as `attention`
 */
export function explain(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): AttentionExplanation {
  const text = scope(() => native().attentionExplain(...nativeCall(bindAttention(q, k, v, options))));
  const { full, partial, skipped, ...rest } = parse(text);
  const shapes = `q ${shapeText(q.shape)}, k ${shapeText(k.shape)}, v ${shapeText(v.shape)}, ${q.dtype}`;
  const explanation = { ...rest, tiles: { full, partial, skipped } };
  return Object.freeze({ ...explanation, toString: () => render(shapes, explanation) });
}

function parse(text: string): NativeExplanation {
  try {
    return JSON.parse(text) as NativeExplanation;
  } catch (cause) {
    throw new FoveaError('ERR_INTERNAL', `explain: the addon gave ${text.slice(0, 80)}`, { cause });
  }
}

function render(shapes: string, e: Omit<AttentionExplanation, 'toString'>): string {
  const { full, partial, skipped } = e.tiles;
  const total = full + partial + skipped;
  const share = (n: number): string => `${n} (${total === 0 ? 0 : ((100 * n) / total).toFixed(1)} %)`;
  return [
    `attention: ${shapes}`,
    `  kernel   ${e.kernel} on ${e.isa}`,
    ...e.refused.map(({ kernel, reason }) => `  refused  ${kernel}: ${reason}`),
    `  tiles    ${total} of ${e.tile.join(' x ')}: full ${share(full)}, partial ${share(partial)}, skipped ${share(skipped)}`,
    `  flops    ${scaled(e.flops, 'FLOP')} of ${scaled(e.denseFlops, 'FLOP')} dense`,
    `  bytes    ${scaled(e.bytes, 'B')}`,
  ].join('\n');
}

function scaled(x: number, unit: string): string {
  const prefixes = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
  let i = 0;
  let value = x;
  for (; value >= 1000 && i < prefixes.length - 1; i++) value /= 1000;
  return `${i === 0 ? value : value.toPrecision(3)} ${prefixes[i]}${unit}`;
}
