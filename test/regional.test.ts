/** regionalAttention against a double-precision reference: ragged images, keys of another size, graphs for all heads or each. */
import { describe, expect, test } from 'vitest';
import { biLevelRoutingAttention, cast, manualSeed, randn, regionalAttention, tensor, unsqueeze, zeros, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, range, softmaxOf, weighted } from './plain_attention.ts';
import { expectClose } from './tolerance.ts';

interface Case {
  readonly batch: number;
  readonly q: readonly [rows: number, columns: number];
  readonly k: readonly [rows: number, columns: number];
  readonly regionSize: readonly [number, number];
  readonly keyRegionSize: readonly [number, number];
  readonly heads: number;
  readonly graphs: number;
  readonly n: number;
}

const DIM = 2;
const counts = (
  [rows, columns]: readonly number[],
  [high, wide]: readonly number[],
): [down: number, across: number] => [Math.ceil(rows / high), Math.ceil(columns / wide)];

function graphOf(c: Case): number[] {
  const [regions, keys] = [counts(c.q, c.regionSize), counts(c.k, c.keyRegionSize)].map(([a, b]) => a * b);
  return range(0, c.batch * c.graphs * regions * c.n).map((i) => (i * 7 + (i % 3)) % keys);
}

function reference(c: Case, q: Float64Array, k: Float64Array, v: Float64Array): number[] {
  const width = c.heads * DIM;
  const [across, acrossKeys] = [counts(c.q, c.regionSize)[1], counts(c.k, c.keyRegionSize)[1]];
  const regions = counts(c.q, c.regionSize)[0] * across;
  const graph = graphOf(c);
  const pixel = (
    x: Float64Array,
    [rows, columns]: readonly number[],
    b: number,
    i: number,
    j: number,
    h: number,
  ): number[] =>
    i < rows && j < columns
      ? [...x.subarray((((b * rows + i) * columns + j) * c.heads + h) * DIM).subarray(0, DIM)]
      : [0, 0];
  const out: number[] = [];
  for (let b = 0; b < c.batch; b++)
    for (let i = 0; i < c.q[0]; i++)
      for (let j = 0; j < c.q[1]; j++)
        for (let h = 0; h < c.heads; h++) {
          const region = Math.floor(i / c.regionSize[0]) * across + Math.floor(j / c.regionSize[1]);
          const at = ((b * c.graphs + (c.graphs === 1 ? 0 : h)) * regions + region) * c.n;
          const places = graph
            .slice(at, at + c.n)
            .flatMap((r) =>
              range(0, c.keyRegionSize[0]).flatMap((u) =>
                range(0, c.keyRegionSize[1]).map((w) => [
                  Math.floor(r / acrossKeys) * c.keyRegionSize[0] + u,
                  (r % acrossKeys) * c.keyRegionSize[1] + w,
                ]),
              ),
            );
          const query = pixel(q, c.q, b, i, j, h);
          const logits = places.map(([y, x]) => dot(query, pixel(k, c.k, b, y, x, h)) / Math.sqrt(DIM));
          out.push(
            ...weighted(
              softmaxOf(logits),
              places.map(([y, x]) => pixel(v, c.k, b, y, x, h)),
            ),
          );
        }
  expect(out).toHaveLength(c.batch * c.q[0] * c.q[1] * width);
  return out;
}

const cases: readonly Case[] = [
  { batch: 2, q: [4, 4], k: [4, 4], regionSize: [2, 2], keyRegionSize: [2, 2], heads: 2, graphs: 1, n: 2 },
  { batch: 1, q: [5, 3], k: [3, 4], regionSize: [2, 2], keyRegionSize: [2, 1], heads: 2, graphs: 2, n: 3 },
  { batch: 2, q: [3, 3], k: [2, 5], regionSize: [3, 1], keyRegionSize: [1, 3], heads: 1, graphs: 1, n: 1 },
];

test.each(cases)('values and finite differences: %o', (c) => {
  const regions = counts(c.q, c.regionSize).reduce((a, b) => a * b);
  const graph = tensor(Int32Array.from(graphOf(c)), [c.batch, c.graphs, regions, c.n]);
  const { heads, regionSize, keyRegionSize } = c;
  const shape = (size: readonly number[]): number[] => [c.batch, ...size, heads * DIM];
  checkGradients({
    shapes: [shape(c.q), shape(c.k), shape(c.k)],
    op: (q, k, v) => regionalAttention(q, k, v, graph, { heads, regionSize, keyRegionSize }),
    reference: (q, k, v) => reference(c, q, k, v),
  });
});

const images = (): [Tensor, Tensor, Tensor] => {
  manualSeed(1);
  return [1, 2, 3].map(() => randn([2, 6, 6, 8])) as [Tensor, Tensor, Tensor];
};

test('is the attention of bi-level routing over the regions that it chose; bf16', () => {
  const [q, k, v] = images();
  const { out, routing } = biLevelRoutingAttention(q, k, v, { heads: 2, regions: 3, topK: 4, returnRouting: true });
  const graph = unsqueeze(routing.indices, 1);
  const options = { heads: 2, regionSize: 2, scale: 1 / Math.sqrt(8) };
  expect(numbers(regionalAttention(q, k, v, graph, options))).toEqual(numbers(out));
  const narrow = regionalAttention(cast(q, 'bf16'), cast(k, 'bf16'), cast(v, 'bf16'), cast(graph, 'i64'), options);
  expect(narrow.dtype).toBe('bf16');
  expectClose(numbers(cast(narrow, 'f32')), numbers(out), 'bf16', 2);
});

describe('refusals', () => {
  const [q, k, v] = images();
  const graph = (...shape: number[]): Tensor => zeros(shape, { dtype: 'i32' });
  test.each<[string, string, () => unknown]>([
    ['a graph of other heads', 'ERR_SHAPE', () => regionalAttention(q, k, v, graph(2, 3, 9, 1), { heads: 2, regionSize: 2 })],
    ['a graph of other regions', 'ERR_SHAPE', () => regionalAttention(q, k, v, graph(2, 1, 8, 1), { heads: 2, regionSize: 2 })],
    ['heads that do not divide', 'ERR_SHAPE', () => regionalAttention(q, k, v, graph(2, 1, 9, 1), { heads: 3, regionSize: 2 })],
    ['no region', 'ERR_ARGUMENT', () => regionalAttention(q, k, v, graph(2, 1, 9, 1), { heads: 2, regionSize: 0 })],
  ])('%s', (_name, code, fn) => expect(fn).toThrow(expect.objectContaining({ code }) as Error)); // prettier-ignore

  test('a region of the next image', async () => {
    const beyond = tensor(Int32Array.from({ length: 18 }, (_, i) => (i === 3 ? 9 : 0)), [2, 1, 9, 1]); // prettier-ignore
    const out = regionalAttention(q, k, v, beyond, { heads: 2, regionSize: 2 });
    await expect(out.data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
  });
});
