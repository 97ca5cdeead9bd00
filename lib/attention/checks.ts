/** Argument checks that mechanisms share. */
import { FoveaError } from '../errors.ts';
import { expectTensors } from '../tensor/expect.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';

/** Throws ERR_SHAPE unless every tensor has the `rank` axes of `layout`, ERR_ARGUMENT for what is no tensor. */
export function expectRank(op: string, layout: string, rank: number, tensors: Readonly<Record<string, Tensor>>): void {
  expectTensors(op, tensors);
  for (const [name, t] of Object.entries(tensors))
    if (t.rank !== rank)
      throw new FoveaError('ERR_SHAPE', `${op}: ${name} has shape ${shapeText(t.shape)}, expected ${layout}`);
}

/** Throws ERR_SHAPE unless q, k, v are [batch, heads, length, dim] with one batch, heads and length, q and k with one dim. */
export function expectSelfAttention(op: string, q: Tensor, k: Tensor, v: Tensor): void {
  expectRank(op, '[batch, heads, length, dim]', 4, { q, k, v });
  if (!sameShape(q.shape, k.shape) || !sameShape(q.shape.slice(0, 3), v.shape.slice(0, 3)))
    throw new FoveaError(
      'ERR_SHAPE',
      `${op}: q ${shapeText(q.shape)}, k ${shapeText(k.shape)}, v ${shapeText(v.shape)}; expected one batch, heads and length ` +
        '(repeat grouped key heads with repeatInterleave)',
    );
}

/** Throws ERR_SHAPE unless k and v fit q: one batch and heads, k and v of one length, q and k of one dim. */
export function expectCrossAttention(op: string, q: Tensor, k: Tensor, v: Tensor): void {
  expectRank(op, '[batch, heads, length, dim]', 4, { q, k, v });
  const heads = (t: Tensor): readonly number[] => t.shape.slice(0, 2);
  if (
    !sameShape(heads(q), heads(k)) ||
    !sameShape(k.shape.slice(0, 3), v.shape.slice(0, 3)) ||
    q.shape[3] !== k.shape[3]
  )
    throw new FoveaError(
      'ERR_SHAPE',
      `${op}: q ${shapeText(q.shape)}, k ${shapeText(k.shape)}, v ${shapeText(v.shape)}; expected one batch and heads, keys ` +
        'and values of one length, queries and keys of one dim',
    );
}

/** Throws ERR_SHAPE unless `valid`, where given, is bool [batch, length]: true for real tokens. */
export function expectValid(op: string, valid: Tensor | undefined, batch: number, length: number): void {
  if (valid && (valid.dtype !== 'bool' || !sameShape(valid.shape, [batch, length])))
    throw new FoveaError(
      'ERR_SHAPE',
      `${op}: valid is ${valid.dtype} ${shapeText(valid.shape)}, expected bool ${shapeText([batch, length])}`,
    );
}

/** Throws ERR_ARGUMENT unless `value` is a whole number of at least `least`. */
export function expectCount(op: string, name: string, value: number, least = 1): void {
  if (!Number.isSafeInteger(value) || value < least)
    throw new FoveaError('ERR_ARGUMENT', `${op}: ${name} is ${value}, expected a whole number of at least ${least}`);
}
