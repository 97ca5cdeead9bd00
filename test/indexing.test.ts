import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  embedding,
  expand,
  gather,
  grad,
  indexSelect,
  oneHot,
  permute,
  scatter,
  scatterAdd,
  scatterMean,
  tensor,
  zeros,
  type DType,
  type Tensor,
} from '../lib/index.ts';
import { checkGradients, noise, sizeOf } from './gradient_check.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { expectClose } from './tolerance.ts';

type Shape = readonly number[];

/** Calls f(flat position in the index, flat position in the tensor) for every element of an index of the tensor's shape off the axis. */
function visit(
  shape: Shape,
  axis: number,
  count: number,
  index: ArrayLike<number>,
  f: (at: number, to: number) => void,
): void {
  const [outer, inner] = [sizeOf(shape.slice(0, axis)), sizeOf(shape.slice(axis + 1))];
  for (let o = 0; o < outer; o++)
    for (let j = 0; j < count; j++)
      for (let i = 0; i < inner; i++) {
        const at = (o * count + j) * inner + i;
        f(at, (o * shape[axis] + index[at]) * inner + i);
      }
}

function ids(values: Iterable<number>, shape: Shape, dtype: DType = 'i32'): Tensor {
  return tensor(Int32Array.from(values), shape, { dtype });
}

function randomIds(count: number, limit: number, seed: number): number[] {
  return [...noise(count, seed)].map((x) => Math.min(limit - 1, Math.floor(((x + 1) / 2) * limit)));
}

const CASES: { shape: Shape; axis: number; count: number }[] = [
  { shape: [7], axis: 0, count: 12 },
  { shape: [4, 5], axis: 0, count: 6 },
  { shape: [4, 5], axis: 1, count: 3 },
  { shape: [2, 3, 70], axis: 1, count: 8 },
  { shape: [2, 3, 4], axis: 2, count: 9 },
];

describe.each(LEVELS)('on %s', (level) => {
  it.each([1, 5, 16, 33, 130, 256])('embedding and its gradient, rows of %i', (width) => {
    atLevel(level, () => {
      const rows = [3, 0, 3, 3, 6, 1, 0];
      checkGradients({
        shapes: [[8, width]],
        op: (w) => embedding(w, ids(rows, [7])),
        reference: (w) => rows.flatMap((r) => [...w.subarray(r * width, (r + 1) * width)]),
      });
    });
  });

  it.each(CASES)('gather, scatter, scatterAdd, scatterMean with duplicates for %o', ({ shape, axis, count }) => {
    atLevel(level, () => {
      const at = shape.with(axis, count);
      const list = randomIds(sizeOf(at), shape[axis], 5);
      const index = ids(list, at);
      checkGradients({
        shapes: [shape],
        op: (t) => gather(t, axis, index),
        reference: (t) => {
          const out = new Float64Array(sizeOf(at));
          visit(shape, axis, count, list, (i, to) => (out[i] = t[to]));
          return out;
        },
      });
      checkGradients({
        shapes: [shape, at],
        op: (t, src) => scatter(t, axis, index, src),
        reference: (t, src) => {
          const out = t.slice();
          visit(shape, axis, count, list, (i, to) => (out[to] = src[i]));
          return out;
        },
      });
      checkGradients({
        shapes: [shape, at],
        op: (t, src) => scatterAdd(t, axis, index, src),
        reference: (t, src) => {
          const out = t.slice();
          visit(shape, axis, count, list, (i, to) => (out[to] += src[i]));
          return out;
        },
      });
      checkGradients({
        shapes: [at],
        op: (src) => scatterMean(src, axis, index, shape[axis]),
        reference: (src) => {
          const [out, counts] = [new Float64Array(sizeOf(shape)), new Float64Array(sizeOf(shape))];
          visit(shape, axis, count, list, (i, to) => {
            out[to] += src[i];
            counts[to]++;
          });
          return out.map((x, i) => x / Math.max(1, counts[i]));
        },
      });
    });
  });

  it('takes one index for whole rows, given small or expanded', () => {
    atLevel(level, () => {
      const list = [2, 0, 2, 1];
      const small = ids(list, [1, 4, 1]);
      const src = noise(2 * 4 * 70);
      const expected = new Float64Array(2 * 3 * 70);
      const full = Array.from({ length: 2 * 4 * 70 }, (_, i) => list[Math.floor(i / 70) % 4]);
      visit([2, 3, 70], 1, 4, full, (i, to) => (expected[to] += src[i]));
      const source = tensor(src, [2, 4, 70], { dtype: 'f32' });
      for (const index of [small, expand(small, [2, 4, 70]), ids(full, [2, 4, 70])]) {
        expectClose(scatterAdd(zeros([2, 3, 70]), 1, index, source).dataSync() as Float32Array, expected);
        expectClose(
          scatterMean(source, 1, index, 3).dataSync() as Float32Array,
          expected.map((x, i) => x / [1, 1, 2][Math.floor(i / 70) % 3]),
        );
        expect(gather(source, 1, index).shape).toEqual([2, 4, 70]);
      }
    });
  });

  it.each<DType>(['f32', 'bf16', 'f16', 'f64', 'i32', 'i64', 'u8', 'bool'])('moves %s', (dtype) => {
    atLevel(level, () => {
      const t = tensor(
        Int32Array.from({ length: 12 }, (_, i) => i % 2),
        [3, 4],
        { dtype },
      );
      const index = ids([2, 0], [2], 'i64');
      const got = [...indexSelect(t, 0, index).dataSync()].map(Number);
      expect(got).toEqual([0, 1, 0, 1, 0, 1, 0, 1]);
      const one = tensor(new Int32Array([1]), [1, 1], { dtype });
      expect([...scatter(t, 1, ids([0, 2, 0], [3, 1], 'u8'), one).dataSync()].map(Number)).toEqual([
        1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 0, 1,
      ]);
      expect([...gather(t, 1, ids([3, 1, 0], [3, 1])).dataSync()].map(Number)).toEqual([1, 1, 0]);
    });
  });

  it('adds many duplicates of 16-bit rows in f32', () => {
    atLevel(level, () => {
      const table = zeros([2, 40], { dtype: 'bf16', requiresGrad: true });
      const out = embedding(table, ids(Array(1000).fill(1), [1000]));
      const [g] = grad(out, [table], {
        gradients: [tensor(new Float32Array(40_000).fill(1), [1000, 40], { dtype: 'bf16' })],
      });
      expect([...(g?.dataSync() as Float32Array)]).toEqual([...Array(40).fill(0), ...Array(40).fill(1000)]);
    });
  });
});

describe('shapes and bounds', () => {
  it('embedding takes ids of any rank and byte ids', () => {
    const table = tensor(noise(256 * 3), [256, 3], { dtype: 'f32' });
    expect(embedding(table, tensor(Uint8Array.from([1, 255, 7, 9]), [2, 2])).shape).toEqual([2, 2, 3]);
    expect(embedding(table, ids([], [0])).shape).toEqual([0, 3]);
    expect(embedding(table, tensor(new Int32Array([5]), [])).shape).toEqual([3]);
  });

  it('takes strided views', () => {
    const t = permute(tensor(noise(12), [3, 4], { dtype: 'f32' }), [1, 0]);
    const plain = tensor(t.dataSync() as Float32Array, [4, 3]);
    const index = permute(ids([3, 1, 0, 2], [2, 2]), [1, 0]);
    expect([...gather(t, 0, expand(index.slice(1, 0, 1), [2, 3])).dataSync()]).toEqual([
      ...gather(plain, 0, ids([3, 3, 3, 1, 1, 1], [2, 3])).dataSync(),
    ]);
    expect([...indexSelect(t, 1, ids([2, 0], [2])).dataSync()]).toEqual([
      ...indexSelect(plain, 1, ids([2, 0], [2])).dataSync(),
    ]);
  });

  it.each([
    ['embedding', (i: Tensor) => embedding(zeros([5, 2]), i)],
    ['indexSelect', (i: Tensor) => indexSelect(zeros([5, 2]), 0, i)],
    ['gather', (i: Tensor) => gather(zeros([5]), 0, i)],
    ['scatter', (i: Tensor) => scatter(zeros([5]), 0, i, zeros([1]))],
    ['scatterAdd', (i: Tensor) => scatterAdd(zeros([5]), 0, i, zeros([1]))],
    ['scatterMean', (i: Tensor) => scatterMean(zeros([4]), 0, i, 5)],
  ] as const)('%s rejects an index out of range, naming index, position and bounds', async (name, run) => {
    for (const bad of [5, -1, 2 ** 31 - 1]) {
      const message = expect.stringMatching(new RegExp(`${name}: index ${bad} at position \\[2\\].*0 to 4`)) as string;
      await expect(run(ids([0, 4, bad, bad], [4])).data()).rejects.toMatchObject({ code: 'ERR_INDEX', message });
    }
  });

  it('refuses wrong dtypes and shapes at once', () => {
    const code = (code: string): unknown => expect.objectContaining({ code });
    expect(() => embedding(zeros([5, 2]), zeros([2]))).toThrow(code('ERR_DTYPE'));
    expect(() => embedding(zeros([5]), ids([1], [1]))).toThrow(code('ERR_SHAPE'));
    expect(() => indexSelect(zeros([5]), 0, ids([1], [1, 1]))).toThrow(code('ERR_SHAPE'));
    expect(() => indexSelect(zeros([5]), 1, ids([1], [1]))).toThrow(code('ERR_ARGUMENT'));
    expect(() => gather(zeros([5, 2]), 0, ids([1], [1]))).toThrow(code('ERR_SHAPE'));
    expect(() => gather(zeros([5, 2]), 0, ids([1, 1, 1], [1, 3]))).toThrow(code('ERR_SHAPE'));
    expect(() => scatter(zeros([5]), 0, ids([1], [1]), zeros([1], { dtype: 'i32' }))).toThrow(code('ERR_DTYPE'));
    expect(() => scatterAdd(zeros([5], { dtype: 'i32' }), 0, ids([1], [1]), zeros([1]))).toThrow(code('ERR_DTYPE'));
  });

  it('takes empty inputs', () => {
    expect(gather(zeros([0, 3]), 0, ids([], [0, 3])).shape).toEqual([0, 3]);
    expect([...scatterAdd(zeros([2]), 0, ids([], [0]), zeros([0])).dataSync()]).toEqual([0, 0]);
    expect([...scatterMean(zeros([0, 2]), 0, ids([], [0, 2]), 2).dataSync()]).toEqual([0, 0, 0, 0]);
  });

  it('oneHot', async () => {
    expect([...oneHot(ids([2, 0], [2]), 3).dataSync()]).toEqual([0, 0, 1, 1, 0, 0]);
    expect(oneHot(ids([1], [1, 1]), 2, 'bool').dtype).toBe('bool');
    await expect(oneHot(ids([3], [1]), 3).data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
  });
});

describe('determinism', () => {
  it('gives the same bits for any number of threads, duplicates included', () => {
    const list = randomIds(6000, 37, 8);
    const rows = tensor(noise(6000 * 70), [6000, 70], { dtype: 'f32' });
    const table = tensor(noise(37 * 70), [37, 70], { dtype: 'f32', requiresGrad: true });
    expectSameBitsForAnyThreads(
      () => grad(embedding(table, ids(list, [6000])), [table], { gradients: [rows] })[0] as Tensor,
    );
    expectSameBitsForAnyThreads(() => scatterAdd(zeros([37, 70]), 0, ids(list, [6000, 1]), rows));
    expectSameBitsForAnyThreads(() => scatterMean(rows, 0, ids(list, [6000, 1]), 37));
    expectSameBitsForAnyThreads(() => embedding(table, ids(list, [6000])));
  });

  it('the gradient of embedding is scatterAdd, for any ids', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 60 }),
        fc.integer({ min: 1, max: 40 }),
        (list, width) => {
          const table = zeros([10, width], { requiresGrad: true });
          const g = tensor(noise(list.length * width), [list.length, width], { dtype: 'f32' });
          const [got] = grad(embedding(table, ids(list, [list.length])), [table], { gradients: [g] });
          const expected = scatterAdd(zeros([10, width]), 0, ids(list, [list.length, 1]), g);
          expectClose(got?.dataSync() as Float32Array, expected.dataSync() as Float32Array);
        },
      ),
      { numRuns: 40 },
    );
  });
});
