/** neighborhoodAttention() against golden vectors and the double-precision reference. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  cast,
  explainNeighborhood,
  grad,
  mul,
  neighborhoodAttention,
  neighborhoodWork,
  permute,
  reshape,
  sum,
  tensor,
  type DType,
  type Tensor,
} from '../lib/index.ts';
import { LAYOUTS, laidOut, numbers, uniform } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { check, checkGoldens, GOLDENS, randomAxes, randomShiftAxes, sees, type Case } from './neighborhood_cases.ts';
import { expectClose } from './tolerance.ts';

describe.each(LEVELS)('goldens on %s', (level) => {
  test.each(GOLDENS)('%s', (name) => atLevel(level, () => checkGoldens(name)));
});

const base = { batch: 1, heads: 1, kvHeads: 1, dim: 8, dimV: 8 };
const cases: readonly (Case & { name: string })[] = [
  { ...base, name: 'one token', space: [1], options: { kernelSize: 1 } },
  { ...base, name: 'kernel 1', space: [5, 3], options: { kernelSize: 1 } },
  { ...base, name: 'whole axis', space: [7], options: { kernelSize: 7 } },
  { ...base, name: '1-D, more than a chunk of keys', space: [230], options: { kernelSize: 101 }, dim: 19, dimV: 37 },
  {
    ...base,
    name: '1-D, rows of whole vectors',
    space: [150],
    options: { kernelSize: 33 },
    heads: 2,
    dim: 64,
    dimV: 96,
  },
  {
    ...base,
    name: '1-D strided, long rows',
    space: [107],
    options: { kernelSize: 20, stride: 3, dilation: 2 },
    dim: 112,
    dimV: 80,
  },
  { ...base, name: '1-D causal, long', space: [130], options: { kernelSize: 40, causal: true }, batch: 2, heads: 2 },
  { ...base, name: '2-D', space: [13, 21], options: { kernelSize: 7 }, heads: 2, kvHeads: 2, dim: 32, dimV: 32 },
  { ...base, name: '2-D wide', space: [9, 40], options: { kernelSize: [3, 5] }, batch: 2, heads: 4, kvHeads: 2 },
  { ...base, name: '2-D bias', space: [9, 18], options: { kernelSize: 5 }, heads: 4, kvHeads: 2, bias: true },
  { ...base, name: 'dilated bias', space: [11, 37], options: { kernelSize: [3, 5], dilation: [3, 2] }, bias: true },
  { ...base, name: 'even kernel, 2-D', space: [12, 19], options: { kernelSize: [4, 6] } },
  { ...base, name: 'causal inner', space: [6, 33], options: { kernelSize: [3, 4], causal: [false, true] } },
  { ...base, name: 'causal both', space: [9, 34], options: { kernelSize: [4, 5], causal: true }, bias: true },
  { ...base, name: 'strided', space: [12, 18], options: { kernelSize: [4, 6], stride: [2, 6] } },
  { ...base, name: '3-D', space: [5, 6, 17], options: { kernelSize: [3, 4, 5] }, dim: 16, dimV: 24 },
  { ...base, name: '3-D dilated causal', space: [4, 9, 12], options: { kernelSize: [2, 3, 3], dilation: [1, 3, 2], causal: [true, false, true] } }, // prettier-ignore
  { ...base, name: 'dim 256', space: [4, 17], options: { kernelSize: 3 }, dim: 256, dimV: 256 },
  { ...base, name: 'bf16', space: [9, 19], options: { kernelSize: 5 }, dim: 32, dimV: 32, dtype: 'bf16' },
  {
    ...base,
    name: 'f16 bias',
    space: [9, 19],
    options: { kernelSize: 5 },
    dim: 32,
    dimV: 32,
    dtype: 'f16',
    bias: true,
  },
];

describe.each(LEVELS)('reference on %s', (level) => {
  test.each(cases)('$name', (c) => atLevel(level, () => check(c)));
});

/** The kernel that takes calls of these shapes. */
function kernelOf({ space, dim, dimV, options }: Pick<Case, 'space' | 'dim' | 'dimV' | 'options'>): string {
  const zeros = (d: number): Tensor => tensor(new Float32Array(space.reduce((n, x) => n * x, d)), [1, ...space, 1, d], { dtype: 'f32' }); // prettier-ignore
  return explainNeighborhood(zeros(dim), zeros(dim), zeros(dimV), options).kernel;
}

const shiftCases: readonly (Case & { name: string })[] = [
  { ...base, name: 'several tiles and bands, odd dims', space: [21, 30], options: { kernelSize: 7 }, dim: 33, dimV: 20 }, // prettier-ignore
  { ...base, name: 'groups of heads, batch, bias', space: [9, 14], options: { kernelSize: [5, 3] }, batch: 2, heads: 4, kvHeads: 2, bias: true }, // prettier-ignore
  { ...base, name: 'ragged groups', space: [23, 43], options: { kernelSize: [5, 4], dilation: [2, 3] }, bias: true },
  { ...base, name: 'causal last axis', space: [12, 30], options: { kernelSize: [4, 5], causal: [false, true] }, bias: true }, // prettier-ignore
  { ...base, name: 'causal, stride along the first axis', space: [18, 31], options: { kernelSize: [4, 3], stride: [3, 1], causal: true } }, // prettier-ignore
  { ...base, name: 'windows of whole rows', space: [7, 13], options: { kernelSize: [7, 13] }, bias: true },
  { ...base, name: 'many columns', space: [3, 100], options: { kernelSize: [2, 13] }, dim: 1, dimV: 70 },
  { ...base, name: 'planes', space: [5, 9, 13], options: { kernelSize: [3, 4, 5] }, dim: 20, dimV: 3, bias: true },
  { ...base, name: 'planes, dilated, causal', space: [4, 6, 22], options: { kernelSize: [2, 3, 3], dilation: [2, 1, 2], causal: [true, false, true] }, bias: true }, // prettier-ignore
  { ...base, name: 'bf16 bias', space: [11, 27], options: { kernelSize: 3 }, dim: 24, dtype: 'bf16', bias: true },
  { ...base, name: 'f16', space: [11, 27], options: { kernelSize: 3 }, dim: 24, dtype: 'f16' },
];

describe.each(LEVELS)('shift kernel on %s', (level) => {
  test.each(shiftCases)('$name', (c) => {
    expect(kernelOf(c)).toBe('cpu.shift');
    atLevel(level, () => check(c));
  });
});

test('random calls of the shift kernel', () => {
  fc.assert(
    fc.property(
      randomShiftAxes(300),
      fc.constantFrom([1, 1], [2, 1], [4, 2]),
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 40 }),
      fc.boolean(),
      fc.constantFrom(...LEVELS),
      (axes, [heads, kvHeads], dim, dimV, bias, level) => {
        fc.pre(kernelOf({ ...axes, dim, dimV }) === 'cpu.shift');
        atLevel(level, () => check({ batch: 1, ...axes, heads, kvHeads, dim, dimV, bias }));
      },
    ),
    { numRuns: 60 },
  );
}, 60_000);

test('both kernels give one result: axes in the other order are another call for the same attention', () => {
  const shape = [1, 9, 30, 2, 12];
  const turn = (t: Tensor): Tensor => permute(t, [0, 2, 1, 3, 4]);
  const leaf = (seed: number): Tensor =>
    tensor(uniform(9 * 30 * 24, seed), shape, { dtype: 'f32', requiresGrad: true });
  const [q, k, v, up] = [1, 2, 3, 4].map(leaf);
  const [rows, columns] = [
    { kernelSize: [5, 3], causal: [false, true] },
    { kernelSize: [3, 5], causal: [true, false] },
  ];
  expect(explainNeighborhood(q, k, v, rows).kernel).toBe('cpu.shift');
  expect(explainNeighborhood(turn(q), turn(k), turn(v), columns).kernel).toBe('cpu.tiles');
  const one = grad(sum(mul(neighborhoodAttention(q, k, v, rows), up)), [q, k, v]);
  const other = grad(sum(mul(neighborhoodAttention(turn(q), turn(k), turn(v), columns), turn(up))), [q, k, v]);
  one.forEach((g, i) => expectClose(numbers(g as Tensor), numbers(other[i] as Tensor), 'f32', 3));
});

test('random shapes and settings', () => {
  fc.assert(
    fc.property(
      randomAxes(260),
      fc.constantFrom([1, 1], [2, 1], [4, 2]),
      fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constantFrom(32, 64, 112)),
      fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constantFrom(32, 64, 112)),
      fc.boolean(),
      (axes, [heads, kvHeads], dim, dimV, bias) => check({ batch: 1, ...axes, heads, kvHeads, dim, dimV, bias }),
    ),
    { numRuns: 60 },
  );
}, 60_000);

test.each(LAYOUTS)('operands that are %s', (layout) => {
  const shape = [2, 9, 18, 2, 8];
  const values = [1, 2, 3].map((seed) => uniform(2 * 9 * 18 * 2 * 8, seed));
  const views = values.map((x) => laidOut(layout, shape, x, 'f32')) as [Tensor, Tensor, Tensor];
  const plain = views.map((t) => tensor(numbers(t), shape, { dtype: 'f32' })) as [Tensor, Tensor, Tensor];
  const options = { kernelSize: 5 };
  expectClose(numbers(neighborhoodAttention(...views, options)), numbers(neighborhoodAttention(...plain, options)));
});

test('the same bits for any number of threads, and in any batch', () => {
  const make = (seed: number): Tensor => tensor(uniform(2 * 20 * 33 * 2 * 16, seed), [2, 20, 33, 2, 16], { dtype: 'f32', requiresGrad: true }); // prettier-ignore
  const [q, k, v] = [make(1), make(2), make(3)];
  const run = (): Tensor => neighborhoodAttention(q, k, v, { kernelSize: 5, dilation: [2, 1] });
  expectSameBitsForAnyThreads(run);
  for (let i = 0; i < 3; i++) expectSameBitsForAnyThreads(() => grad(sum(mul(run(), run())), [q, k, v])[i] as Tensor);
  const rpb = tensor(uniform(2 * 5 * 5 * 3, 4), [2, 5, 5, 3], { dtype: 'f32', requiresGrad: true });
  const solid = (t: Tensor): Tensor => reshape(t, [2, 3, 10, 22, 2, 16]);
  const planes = (): Tensor => neighborhoodAttention(solid(q), solid(k), solid(v), { kernelSize: [3, 3, 2], rpb });
  for (let i = 0; i < 4; i++) expectSameBitsForAnyThreads(() => grad(sum(mul(planes(), planes())), [q, k, v, rpb])[i] as Tensor); // prettier-ignore
  const half = (t: Tensor): Tensor => tensor(numbers(t).slice(t.size / 2), [1, ...t.shape.slice(1)], { dtype: 'f32' });
  const alone = neighborhoodAttention(half(q), half(k), half(v), { kernelSize: 5, dilation: [2, 1] });
  expect(numbers(alone)).toEqual(numbers(run()).slice(alone.size));
});

test('large logits stay finite', () => {
  const big = tensor(uniform(20 * 32 * 8, 1, -300, 300), [1, 20, 32, 1, 8], { dtype: 'f32' });
  const out = numbers(neighborhoodAttention(big, big, big, { kernelSize: 7 }));
  expect(out.every(Number.isFinite)).toBe(true);
});

test('an empty batch gives an empty result', () => {
  const empty = tensor(new Float32Array(0), [0, 4, 2, 8], { dtype: 'f32', requiresGrad: true });
  const out = neighborhoodAttention(empty, empty, empty, { kernelSize: 3 });
  expect(out.shape).toEqual([0, 4, 2, 8]);
  expect((grad(sum(out), [empty])[0] as Tensor).shape).toEqual([0, 4, 2, 8]);
});

test('work counts the pairs that are seen', () => {
  fc.assert(
    fc.property(randomAxes(400), ({ space, options }) => {
      const tokens = space.reduce((n, x) => n * x, 1);
      const t = tensor(new Float32Array(tokens * 2), [1, ...space, 1, 2], { dtype: 'f32' });
      let pairs = 0;
      for (let q = 0; q < tokens; q++) for (let kv = 0; kv < tokens; kv++) pairs += Number(sees(space, options, q, kv));
      const work = neighborhoodWork(t, t, t, options);
      expect(work.pairs).toBe(pairs);
      expect(work.flops).toBe(8 * pairs);
    }),
    { numRuns: 30 },
  );
});

test('explain names the kernel', () => {
  const t = tensor(new Float32Array(56 * 56 * 32), [1, 56, 56, 1, 32], { dtype: 'f32' });
  const e = explainNeighborhood(t, t, t, { kernelSize: 7 });
  expect(e.flops).toBe(56 * 56 * 49 * 4 * 32);
  expect(e.kernel).toBe('cpu.shift');
  const none = { kernelSize: [1, 7] };
  expect(explainNeighborhood(t, t, t, none).refused).toEqual([{ kernel: 'cpu.shift', reason: expect.stringContaining('no window across rows') as string }]); // prettier-ignore
  const long = tensor(new Float32Array(3 * 520 * 256), [1, 3, 520, 1, 256], { dtype: 'f32' });
  expect(explainNeighborhood(long, long, long, { kernelSize: 3 }).refused[0].reason).toContain(
    'outgrow the third cache',
  );
  expect(String(e)).toContain(e.kernel);
  expect(e.tile).toHaveLength(2);
});

describe('refusals', () => {
  const t = (shape: readonly number[], dtype: DType = 'f32'): Tensor =>
    cast(tensor(new Float32Array(shape.reduce((n, x) => n * x, 1)), shape, { dtype: 'f32' }), dtype);
  const x = t([1, 6, 6, 2, 4]);
  const code = (fn: () => unknown): string => {
    try {
      fn();
    } catch (error) {
      return (error as { code: string }).code;
    }
    return 'none';
  };
  test.each<[string, string, () => unknown]>([
    ['kernel beyond the axis', 'ERR_ARGUMENT', () => neighborhoodAttention(x, x, x, { kernelSize: 7 })],
    ['kernel * dilation beyond the axis', 'ERR_ARGUMENT', () => neighborhoodAttention(x, x, x, { kernelSize: 3, dilation: 3 })], // prettier-ignore
    ['stride beyond the kernel', 'ERR_ARGUMENT', () => neighborhoodAttention(x, x, x, { kernelSize: 3, stride: 4 })],
    ['fraction', 'ERR_ARGUMENT', () => neighborhoodAttention(x, x, x, { kernelSize: 2.5 })],
    [
      'an option that does not exist',
      'ERR_ARGUMENT',
      () => neighborhoodAttention(x, x, x, { kernelSize: 3, kernel: 3 } as never),
    ],
    ['axes', 'ERR_ARGUMENT', () => neighborhoodAttention(x, x, x, { kernelSize: [3, 3, 3] })],
    ['rank', 'ERR_SHAPE', () => neighborhoodAttention(t([1, 2, 4]), x, x, { kernelSize: 3 })],
    ['space', 'ERR_SHAPE', () => neighborhoodAttention(x, t([1, 6, 5, 2, 4]), x, { kernelSize: 3 })],
    ['heads', 'ERR_SHAPE', () => neighborhoodAttention(x, t([1, 6, 6, 3, 4]), t([1, 6, 6, 3, 4]), { kernelSize: 3 })],
    ['dtype', 'ERR_DTYPE', () => neighborhoodAttention(x, t([1, 6, 6, 2, 4], 'bf16'), x, { kernelSize: 3 })],
    ['bias', 'ERR_SHAPE', () => neighborhoodAttention(x, x, x, { kernelSize: 3, rpb: t([2, 3, 5]) })],
    ['extra', 'ERR_SHAPE', () => neighborhoodAttention(x, x, x, { kernelSize: 3, extraKv: { k: t([1, 2, 1, 4]), v: t([1, 2, 1, 4]) } })], // prettier-ignore
  ])('%s', (_name, expected, fn) => expect(code(fn)).toBe(expected));
});

test('blocked windows are attention inside blocks; a view of heads is taken as it is', () => {
  const make = (seed: number): Tensor => tensor(uniform(3 * 4 * 2 * 8, seed), [1, 12, 2, 8], { dtype: 'f32' });
  const [q, k, v] = [make(1), make(2), make(3)];
  const blocked = neighborhoodAttention(q, k, v, { kernelSize: 4, stride: 4 });
  const apart = (t: Tensor): Tensor => reshape(t, [3, 4, 2, 8]);
  const whole = neighborhoodAttention(apart(q), apart(k), apart(v), { kernelSize: 4 });
  expectClose(numbers(blocked), numbers(whole));
  const swapped = (t: Tensor): Tensor => permute(tensor(numbers(permute(t, [0, 2, 1, 3])), [1, 2, 12, 8], { dtype: 'f32' }), [0, 2, 1, 3]); // prettier-ignore
  expectClose(numbers(neighborhoodAttention(swapped(q), swapped(k), swapped(v), { kernelSize: 4, stride: 4 })), numbers(blocked)); // prettier-ignore
});
