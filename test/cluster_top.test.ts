import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { add, cast, mul, tensor, type DType, type Tensor } from '../lib/index.ts';
import { clusterTop } from '../lib/attention/kmeans.ts';
import { noise } from './gradient_check.ts';
import { laidOut, LAYOUTS, numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { sizeOf } from './reference.ts';

/** Lists must rise, and nothing left out may be clearly nearer than something taken. */
function expectNearest(x: Tensor, centroids: Tensor, count: number, tolerance = 2e-6): void {
  const [batch, heads, length, dim] = x.shape;
  const clusters = centroids.shape[1];
  const [tokens, table] = [numbers(x), numbers(centroids)];
  const lists = clusterTop(x, centroids, count);
  expect(lists.shape).toEqual([batch, heads, clusters, count]);
  const found = numbers(lists);
  for (let list = 0; list < batch * heads * clusters; list++) {
    const [c, h, b] = [list % clusters, Math.floor(list / clusters) % heads, Math.floor(list / clusters / heads)];
    const similarity = Array.from({ length }, (_, t) => {
      const token = tokens.subarray(((b * heads + h) * length + t) * dim).subarray(0, dim);
      const norm = Math.max(Math.hypot(...token), 1e-12);
      return token.reduce((sum, value, d) => sum + (value / norm) * table[(h * clusters + c) * dim + d], 0);
    });
    const taken = [...found.subarray(list * count, (list + 1) * count)];
    expect(taken).toEqual([...new Set(taken)].toSorted((i, j) => i - j));
    const chosen = new Set(taken);
    const others = similarity.filter((_, t) => !chosen.has(t));
    const least = Math.min(...taken.map((t) => similarity[t]));
    expect(Math.max(-Infinity, ...others)).toBeLessThanOrEqual(least + tolerance);
  }
}

describe.each(LEVELS)('clusterTop on %s', (level) => {
  it('takes the tokens of nearest direction, for any sizes', () => {
    const sizes = fc.tuple(fc.nat(1), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 130 }), fc.integer({ min: 1, max: 19 }), fc.integer({ min: 1, max: 70 }), fc.nat()); // prettier-ignore
    atLevel(level, () => {
      fc.assert(
        fc.property(sizes, ([b, heads, length, clusters, dim, seed]) => {
          const shape = [b + 1, heads, length, dim];
          const x = tensor(noise(sizeOf(shape), seed), shape, { dtype: 'f32' });
          const centroids = tensor(noise(heads * clusters * dim, seed + 1), [heads, clusters, dim], { dtype: 'f32' });
          expectNearest(x, centroids, 1 + (seed % length));
        }),
        { numRuns: 25 },
      );
    });
  });

  it('reads any layout and 16-bit tokens', () => {
    atLevel(level, () => {
      const shape = [2, 2, 37, 20];
      const centroids = tensor(noise(2 * 5 * 20, 4), [2, 5, 20], { dtype: 'f32' });
      for (const layout of LAYOUTS)
        for (const dtype of ['f32', 'bf16', 'f16'] as DType[])
          expectNearest(laidOut(layout, shape, noise(sizeOf(shape), 3), dtype), centroids, 9);
    });
  });

  it('of equals takes the first; a token without direction is similar to nothing', () => {
    atLevel(level, () => {
      const token = [3, -1, 2, 0.5];
      const rows = Array.from({ length: 60 }, (_, t) => (t % 3 === 0 ? [0, 0, 0, 0] : token));
      const x = tensor(rows.flat(), [1, 1, 60, 4]);
      const list = (centroid: number[]): number[] => [...numbers(clusterTop(x, tensor(centroid, [1, 1, 4]), 5))];
      expect(list(token)).toEqual([1, 2, 4, 5, 7]);
      expect(list(token.map((v) => -v))).toEqual([0, 3, 6, 9, 12]);
    });
  });

  it('selects from long rows', () => {
    atLevel(level, () => {
      const x = tensor(noise(3000 * 16, 8), [1, 1, 3000, 16], { dtype: 'f32' });
      const centroids = tensor(noise(9 * 16, 9), [1, 9, 16], { dtype: 'f32' });
      for (const count of [1, 55, 1700, 3000]) expectNearest(x, centroids, count);
    });
  });

  it('takes tokens that are no numbers first', () => {
    atLevel(level, () => {
      const [length, dim, count] = [3000, 16, 55];
      const centroids = tensor(noise(3 * dim, 9), [1, 3, dim], { dtype: 'f32' });
      for (const missing of [[7, 1000, 2999], Array.from({ length: 2000 }, (_, i) => i + 500)]) {
        const tokens = noise(length * dim, 8);
        for (const t of missing) tokens[t * dim + 3] = NaN;
        const lists = numbers(clusterTop(tensor(tokens, [1, 1, length, dim], { dtype: 'f32' }), centroids, count));
        for (let c = 0; c < 3; c++) {
          const list = [...lists.subarray(c * count, (c + 1) * count)];
          expect(list).toEqual(expect.arrayContaining(missing.slice(0, count)));
          expect(list).toEqual([...new Set(list)].toSorted((i, j) => i - j));
        }
      }
    });
  });
});

it.each([500, 2500])('gives the same lists of %d tokens for any number of threads', (length) => {
  const x = tensor(noise(2 * 2 * length * 24), [2, 2, length, 24], { dtype: 'f32' });
  const centroids = tensor(noise(2 * 11 * 24, 2), [2, 11, 24], { dtype: 'f32' });
  expectSameBitsForAnyThreads(() => clusterTop(x, centroids, 40));
});

describe.skipIf(!LEVELS.includes('amx'))('the tile unit', () => {
  const expectSame = (x: Tensor, centroids: Tensor, count: number): void => {
    const [tiles, vectors] = ['amx', 'avx512'].map((level) => atLevel(level, () => numbers(clusterTop(x, centroids, count)))); // prettier-ignore
    expect(tiles).toEqual(vectors);
  };
  const [heads, dim, clusters] = [2, 24, 35];
  const table = tensor(noise(heads * clusters * dim, 5), [heads, clusters, dim], { dtype: 'f32' });
  const tokens = (length: number, seed = 6): Tensor => tensor(noise(heads * length * dim, seed), [1, heads, length, dim], { dtype: 'f32' }); // prettier-ignore

  it.each(['f32', 'bf16', 'f16'] as DType[])('selects exactly what vectors do of %s', (dtype) => {
    for (const length of [2048, 2113, 3100])
      for (const count of [1, 77, 1300, length]) expectSame(cast(tokens(length), dtype), table, count);
  });

  it.each([
    [2048, 1, 1, 1],
    [2049, 33, 33, 700],
    [2200, 5, 300, 90],
    [3071, 65, 31, 1900],
  ])('fills its tiles or not: %d tokens, %d clusters, dim %d, %d taken', (length, many, width, count) => {
    const drawn = noise(length * width, 9);
    const ties = drawn.map((value, i) => Math.sign(value) * ((i * 7) % 3));
    const centroids = tensor(noise(many * width, 10), [1, many, width], { dtype: 'f32' });
    for (const values of [drawn, ties])
      expectSame(tensor(values, [1, 1, length, width], { dtype: 'f32' }), centroids, count);
  });

  it('tells tokens apart that it can not', () => {
    const [length, one] = [2300, tokens(1, 7)];
    for (const spread of [0, 1e-7, 1e-5, 1e-3]) expectSame(add(mul(tokens(length), spread), one), table, 100);
  });

  it('leaves numbers to vectors that it does not hold', () => {
    const x = tokens(2300);
    for (const [factor, of] of [
      [1e-39, 1],
      [1e-25, 1e-20],
      [1e-12, 1e14],
      [1e16, 1e20],
      [1e30, 1],
      [1, 1e-42],
      [1, 0],
    ])
      // prettier-ignore
      expectSame(mul(x, factor), mul(table, of), 100);
    const some = noise(heads * 2300 * dim, 8);
    [some[7 * dim + 3], some[1000 * dim], some[2100 * dim + 5]] = [NaN, 1e25, Infinity];
    expectSame(tensor(some, x.shape, { dtype: 'f32' }), table, 100);
  });
});

it('refuses what does not fit', () => {
  const x = tensor(noise(40), [1, 2, 5, 4], { dtype: 'f32' });
  const fails = (centroids: Tensor, count: number, code: string): void =>
    expect(() => clusterTop(x, centroids, count)).toThrow(expect.objectContaining({ code }));
  fails(tensor(noise(12), [1, 3, 4], { dtype: 'f32' }), 2, 'ERR_SHAPE');
  fails(tensor(noise(24), [2, 3, 4], { dtype: 'f32' }), 6, 'ERR_ARGUMENT');
});
