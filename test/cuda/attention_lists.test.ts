/**
 * Attention through lists on CUDA: rows of queries and keys by list, key ranges, packed lists; outputs and gradients against the CPU, and
 * equal bits from equal calls.
 */
import { describe, expect, test } from 'vitest';
import { planAttention, type AttentionPlan } from '../../lib/attention/plan.ts';
import { cast, grad, tensor, type AttentionOptions, type DType, type Tensor } from '../../lib/index.ts';
import { expectUnnamedRowsIgnored } from '../missing_rows.ts';
import { random } from '../reference_matmul.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const values = (t: Tensor): ArrayLike<number> => cast(t.to('cpu'), 'f32').dataSync() as Float32Array;
const on = (t: Tensor): Tensor => t.to('cuda');

/** A list of shape [b, h, n] whose entries are at(i), -1 every `hole`-th. */
const list = (shape: readonly number[], at: (i: number) => number, hole = Infinity): Tensor =>
  tensor(
    Int32Array.from({ length: shape.reduce((n, x) => n * x, 1) }, (_, i) => (i % hole === hole - 1 ? -1 : at(i))),
    shape,
    { dtype: 'i32' },
  );

/** Permutes 0 .. n - 1 by a step that shares no factor with n. */
const stepped =
  (n: number, step: number) =>
  (i: number): number =>
    (i * step) % n;

interface Case {
  readonly name: string;
  /** [batch, query heads, key heads, rows of q, rows of k, dim] */
  readonly size: readonly [number, number, number, number, number, number];
  readonly plan: AttentionPlan;
  readonly options?: AttentionOptions;
}

const cases: readonly Case[] = [
  {
    name: 'queries by list with holes, per head',
    size: [2, 2, 1, 50, 40, 24],
    plan: { qRows: list([2, 2, 37], (i) => (7 * (i % 37)) % 50, 6) },
  },
  {
    name: 'keys by list, repeated and missing',
    size: [2, 4, 2, 30, 23, 64],
    plan: { kvRows: list([2, 2, 150], (i) => (i * i + 3 * i) % 23, 9) },
  },
  {
    name: 'a long list of few rows, per head',
    size: [1, 2, 2, 10, 37, 16],
    plan: { kvRows: list([1, 2, 2300], (i) => (i * i + 5 * i) % 35, 7) },
  },
  {
    name: 'no key of the list is there',
    size: [1, 1, 1, 5, 8, 16],
    plan: { kvRows: list([1, 1, 40], () => -1) },
  },
  {
    name: 'both lists, shared by batch and heads, causal, dim 128',
    size: [2, 2, 2, 70, 90, 128],
    plan: { qRows: list([1, 1, 70], stepped(70, 27), 11), kvRows: list([1, 1, 80], stepped(90, 7), 13) },
    options: { causal: true },
  },
  {
    name: 'both lists with key ranges, dim 200',
    size: [1, 2, 1, 20, 40, 200],
    plan: {
      qRows: list([1, 2, 20], (i) => (i % 20) * 1),
      kvRows: list([1, 1, 70], (i) => (i * 3) % 40),
      keyRanges: list([1, 2, 20, 2], (i) => (i % 2 ? 20 + i : i >> 1)),
    },
  },
  {
    name: 'packed lists that share key rows',
    size: [1, 2, 1, 60, 50, 32],
    plan: { qRows: list([1, 1, 60], stepped(60, 7)), kvRows: list([1, 1, 120], (i) => (i * 7) % 50, 17) },
    options: { cuSeqlens: { q: [0, 10, 10, 60], kv: [0, 30, 50, 120] } },
  },
];

describe.skipIf(cuda.skip).each(['f32', 'bf16', 'f16'] as const)('attention through lists on CUDA, %s', (dtype) => {
  const results = (c: Case, place: (t: Tensor) => Tensor): ArrayLike<number>[] => {
    const [b, hq, hkv, lq, lk, d] = c.size;
    const of = (shape: number[], seed: number): Tensor =>
      place(cast(random(shape, 'f32', seed).t, dtype as DType)).detach();
    const leaves = [of([b, hq, lq, d], 1), of([b, hkv, lk, d], 2), of([b, hkv, lk, d], 3)] as const;
    for (const t of leaves) t.requiresGrad = true;
    const move = (t: Tensor): Tensor => (leaves[0].device === 'cpu' ? t : on(t));
    const plan = Object.fromEntries(Object.entries(c.plan).map(([name, t]) => [name, move(t as Tensor)]));
    const { out, lse } = planAttention(...leaves, plan, c.options);
    const dlse = move(random([b, hq, lq], 'f32', 5).t);
    const gradients = grad([out, lse], [...leaves], { gradients: [of([b, hq, lq, d], 4), dlse] }) as Tensor[];
    return [out, lse, ...gradients].map(values);
  };

  test.each(cases)('$name', (c) => {
    const there = results(c, on);
    const here = results(c, (t) => cast(t, 'f32'));
    for (const [i, actual] of there.entries())
      expectClose(
        [...Array.from(actual), 0.1],
        [...Array.from(here[i]), 0.1],
        i === 1 ? 'f32' : dtype,
        i === 1 ? 10 : 2,
      );
  });

  test('rows that nobody names may hold anything', () => {
    for (const queries of [1, 20]) expectUnnamedRowsIgnored('cuda', dtype, queries);
  });

  test('equal calls give equal bits', () => {
    const [first, second] = [0, 1].map(() => results(cases[1], on));
    expect(first).toEqual(second);
  });
});
