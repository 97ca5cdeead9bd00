/**
 * Gradients of a bias and of the tables that score programs capture, on CUDA against the CPU in f32 from the same rounded inputs: every way to
 * broadcast a bias, every score of the library with a trained table, elements that many scores load and elements that one does.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { attention, cast, grad, tensor, type AttentionOptions, type DType, type Tensor } from '../../lib/index.ts';
import { planAttention } from '../../lib/attention/plan.ts';
import { mask, score, type Score } from '../../lib/mask/mask.ts';
import * as scores from '../../lib/mask/scores/index.ts';
import { build, CAPTURES, scoreText } from '../mask/grammar.ts';
import { random } from '../reference_matmul.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const values = (t: Tensor): ArrayLike<number> => cast(t.to('cpu'), 'f32').dataSync() as Float32Array;
const floats = (shape: readonly number[], seed: number): Tensor => random(shape, 'f32', seed).t;

interface Case {
  readonly name: string;
  /** [batch, query heads, key heads, queries, keys, dim] */
  readonly size: readonly [number, number, number, number, number, number];
  /** Shape of the trained tensor. */
  readonly trained: readonly number[];
  /** The call that uses it; tensors of a call are made on `place`. */
  readonly options: (trained: Tensor, place: (t: Tensor) => Tensor) => AttentionOptions;
}

/** Gradients of q, k, v and the trained tensor, of the operands rounded to `dtype`. */
function gradients(c: Case, dtype: DType, place: (t: Tensor) => Tensor): ArrayLike<number>[] {
  const [b, hq, hkv, lq, lk, d] = c.size;
  const rounded = (shape: readonly number[], seed: number): Tensor =>
    place(cast(cast(floats(shape, seed), dtype), place === on ? dtype : 'f32')).detach();
  const trained = place(floats(c.trained, 6)).detach();
  const leaves = [rounded([b, hq, lq, d], 1), rounded([b, hkv, lk, d], 2), rounded([b, hkv, lk, d], 3)] as const;
  for (const t of [...leaves, trained]) t.requiresGrad = true;
  const { out, lse } = attention(...leaves, { ...c.options(trained, place), returnLse: true });
  const seeds = [rounded([b, hq, lq, d], 4), place(floats([b, hq, lq], 5))];
  return (grad([out, lse], [...leaves, trained], { gradients: seeds }) as Tensor[]).map(values);
}

const on = (t: Tensor): Tensor => t.to('cuda');
const stay = (t: Tensor): Tensor => t;

function expectSame(c: Case, dtype: DType): void {
  const there = gradients(c, dtype, on);
  const here = gradients(c, dtype, stay);
  for (const [i, actual] of there.entries())
    expectClose([...Array.from(actual), 0.1], [...Array.from(here[i]), 0.1], dtype, 2);
}

const asBias = (
  size: Case['size'],
  trained: readonly number[],
  more: (place: (t: Tensor) => Tensor) => AttentionOptions = () => ({}),
): Case => ({
  name: `bias [${trained.join()}], call [${size.join()}]${more(stay).score ? ', score' : ''}${more(stay).mask ? ', mask' : ''}`,
  size,
  trained,
  options: (bias, place) => ({ bias, ...more(place) }),
});

const evens = mask(({ q, kv }) => q >= kv && (q + kv) % 3 !== 1);
const BIASES: readonly Case[] = [
  asBias([2, 2, 1, 70, 90, 64], [2, 2, 70, 90]),
  asBias([3, 2, 2, 66, 40, 32], [1, 2, 66, 40]),
  asBias([3, 2, 2, 66, 40, 32], [3, 1, 66, 40]),
  asBias([2, 2, 2, 80, 70, 128], [70]),
  asBias([2, 3, 1, 130, 70, 16], [3, 1, 70]),
  asBias([2, 2, 2, 80, 70, 64], [2, 80, 1]),
  asBias([2, 2, 2, 33, 35, 200], [1, 2, 1, 1]),
  asBias([2, 2, 2, 33, 35, 40], [1]),
  asBias([1, 1, 1, 1, 1, 1], [1, 1]),
  asBias([2, 2, 1, 40, 70, 24], [40, 70], () => ({ causal: 'bottom-right', kvLengths: [70, 33] })),
  asBias([1, 2, 2, 150, 150, 64], [150, 150], () => ({ cuSeqlens: [0, 5, 5, 100, 150], causal: true })),
  asBias([1, 2, 2, 150, 150, 64], [2, 1, 150], () => ({ cuSeqlens: [0, 5, 5, 100, 150], window: [20, 9] })),
  asBias([2, 2, 2, 80, 80, 64], [2, 80, 80], () => ({ mask: evens, score: scores.softcap(2) })),
  asBias([2, 2, 1, 80, 80, 32], [2, 80, 80], (place) => ({
    mask: place(
      cast(
        tensor(
          Uint8Array.from({ length: 6400 }, (_, i) => Number(i % 5 !== 2)),
          [80, 80],
        ),
        'bool',
      ),
    ),
    softcap: 3,
  })),
];

const hops = Array.from({ length: 80 }, (_, i) => Array.from({ length: 80 }, (_, j) => (i * j) % 6));
const asTable = (
  name: string,
  size: Case['size'],
  trained: readonly number[],
  of: (table: Tensor) => Score,
  options: AttentionOptions = {},
): Case => ({ name, size, trained, options: (table) => ({ score: of(table), ...options }) });

const TABLES: readonly Case[] = [
  asTable('alibi', [2, 2, 1, 70, 75, 32], [2], (slopes) => scores.alibi(slopes as never), { causal: 'bottom-right' }),
  asTable('relativeBias', [1, 2, 2, 70, 75, 64], [2, 15], (bias) => scores.relativeBias(bias as never, 7)),
  asTable('t5Bias', [1, 2, 2, 140, 75, 32], [2, 16], (bias) =>
    scores.t5Bias(bias as never, { bidirectional: true, buckets: 16, maxDistance: 30 }),
  ),
  asTable('graphormer', [1, 2, 2, 70, 75, 128], [2, 6], (bias) => scores.graphormer(bias as never, hops)),
  asTable('an element a score, dim 256', [1, 2, 2, 35, 40, 256], [2, 35, 40], (bias) =>
    score(({ s, h, q, kv }, { bias }) => s + (bias as unknown as number[][][])[h][q][kv], { bias }),
  ),
  asTable('an element of no score', [1, 1, 1, 4, 4, 8], [3], (x) =>
    score(({ s, q }, { x }) => (q < 0 ? s * (x as unknown as number[])[2] : s), { x }),
  ),
  asTable(
    'two loads of one table, beside softcap, mask and packed sequences',
    [1, 4, 2, 100, 100, 48],
    [100],
    (rate) =>
      score(
        ({ s, q, kv }, { rate }) =>
          Math.tanh(s * (rate as unknown as number[])[q]) + (rate as unknown as number[])[kv] * s,
        { rate },
      ),
    { softcap: 4, mask: evens, cuSeqlens: [0, 30, 31, 100] },
  ),
];

describe.skipIf(cuda.skip)('gradients of what is done to scores, on CUDA', () => {
  describe.each(['f32', 'bf16', 'f16'] as const)('%s', (dtype) => {
    test.each(BIASES)('$name', (c) => expectSame(c, dtype));
    test.each(TABLES)('table of $name', (c) => expectSame(c, dtype));
  });

  test.each(['f32', 'bf16'] as const)('through lists of queries and keys, %s', (dtype) => {
    const rows = (n: number, of: (i: number) => number): Tensor =>
      tensor(
        Int32Array.from({ length: n }, (_, i) => (i % 9 === 8 ? -1 : of(i))),
        [1, 1, n],
        { dtype: 'i32' },
      );
    const results = (place: (t: Tensor) => Tensor): ArrayLike<number>[] => {
      const of = (shape: readonly number[], seed: number): Tensor =>
        place(cast(cast(floats(shape, seed), dtype), place === on ? dtype : 'f32')).detach();
      const leaves = [of([2, 2, 40, 24], 1), of([2, 1, 30, 24], 2), of([2, 1, 30, 24], 3)] as const;
      const [bias, near] = [place(floats([2, 33, 70], 6)).detach(), place(floats([2, 9], 7)).detach()];
      for (const x of [...leaves, bias, near]) x.requiresGrad = true;
      const plan = {
        qRows: place(rows(33, (i) => (i * 7) % 40)),
        kvRows: place(rows(70, (i) => (i * i) % 30)),
      };
      const { out } = planAttention(...leaves, plan, { bias, score: scores.relativeBias(near as never, 4) });
      const gradients = grad([out], [...leaves, bias, near], { gradients: [of([2, 2, 40, 24], 4)] }) as Tensor[];
      return gradients.map(values);
    };
    const [there, here] = [results(on), results(stay)];
    for (const [i, actual] of there.entries()) expectClose(actual, here[i], dtype, 2);
  });

  // The grammar's values are unbounded and its tables small; tanh keeps logits where f32 can tell weights apart.
  test.each([
    ['f32', 40],
    ['bf16', 15],
  ] as const)('random programs, %s', { timeout: 300_000 }, (dtype, numRuns) => {
    const results = (text: string, place: (t: Tensor) => Tensor): ArrayLike<number>[] => {
      const of = (shape: readonly number[], seed: number): Tensor =>
        place(cast(cast(floats(shape, seed), dtype), place === on ? dtype : 'f32')).detach();
      const leaves = [of([1, 2, 21, 16], 1), of([1, 2, 26, 16], 2), of([1, 2, 26, 16], 3)] as const;
      const [t, bias] = [place(floats([4], 6)).detach(), place(floats([2, 3], 7)).detach()];
      for (const x of [...leaves, t, bias]) x.requiresGrad = true;
      const out = attention(...leaves, { score: score(build(text), { ...CAPTURES, t, bias } as never), scale: 1 });
      const gradients = grad([out], [...leaves, t, bias], { gradients: [of([1, 2, 21, 16], 4)] });
      return [out, ...gradients].map((x) => (x === null ? [] : values(x)));
    };
    fc.assert(
      fc.property(scoreText, (text) => {
        const bounded = text.replace(/ => (.*)$/s, (_, value: string) => ` => s + 3 * Math.tanh((${value}) / 8)`);
        const there = results(bounded, on);
        const here = results(bounded, stay);
        for (const [i, actual] of there.entries())
          expectClose([...Array.from(actual), 0.1], [...Array.from(here[i]), 0.1], dtype, dtype === 'f32' ? 5 : 2);
      }),
      { numRuns, seed: 11 },
    );
  });

  test.each([BIASES[4], TABLES[2], TABLES[3]])('equal calls give equal bits, $name', (c) => {
    expect(gradients(c, 'bf16', on)).toEqual(gradients(c, 'bf16', on));
  });

  test('a gradient that is not a number arrives, at its element alone', () => {
    const c = asTable('', [1, 1, 1, 20, 1, 4], [20], (x) =>
      score(({ s, q }, { x }) => s + Math.sqrt((x as unknown as number[])[q] * (q === 3 ? 0 : 1) + (q === 3 ? 0 : 2)), {
        x,
      }),
    );
    const [, , , there] = gradients(c, 'f32', on);
    expect(Array.from(there, Number.isNaN)).toEqual(Array.from({ length: 20 }, (_, i) => i === 3));
  });

  test('an element that every score loads', () => {
    const c = asTable('', [1, 1, 1, 700, 700, 8], [1], (x) =>
      score(({ s }, { x }) => s * (x as unknown as number[])[0], { x }),
    );
    const [, , , there] = gradients(c, 'f32', on);
    const [, , , here] = gradients(c, 'f32', stay);
    expectClose(there, here, 'f32', 4);
  });
});
