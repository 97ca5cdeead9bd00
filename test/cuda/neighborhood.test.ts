/** neighborhoodAttention() on CUDA against golden vectors and the double-precision reference. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  explainNeighborhood,
  grad,
  neighborhoodAttention,
  slice,
  tensor,
  type DType,
  type NeighborhoodOptions,
  type NeighborhoodWindow,
  type Tensor,
} from '../../lib/index.ts';
import { LAYOUTS, laidOut, numbers, uniform } from '../inputs.ts';
import {
  check,
  checkGoldens,
  checkLayer,
  GOLDENS,
  LAYER_GOLDENS,
  randomAxes,
  type Case,
} from '../neighborhood_cases.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const on = { device: 'cuda' } as const;

const base = { batch: 1, heads: 1, kvHeads: 1, dim: 8, dimV: 8 };
const cases: readonly (Case & { name: string })[] = [
  { ...base, name: 'one token', space: [1], options: { kernelSize: 1 } },
  { ...base, name: 'whole axis', space: [7], options: { kernelSize: 7 } },
  { ...base, name: '1-D, several boxes, odd dims', space: [230], options: { kernelSize: 101 }, dim: 19, dimV: 37 },
  { ...base, name: '1-D causal', space: [130], options: { kernelSize: 40, causal: true }, batch: 2, heads: 2 },
  { ...base, name: '2-D, grouped heads', space: [13, 21], options: { kernelSize: 7 }, batch: 2, heads: 4, kvHeads: 2, dim: 32, dimV: 32 }, // prettier-ignore
  { ...base, name: 'even kernel', space: [12, 19], options: { kernelSize: [4, 6] }, dim: 64, dimV: 64 },
  { ...base, name: 'blocked, every box in full', space: [16, 24], options: { kernelSize: 8, stride: 8 }, dim: 64, dimV: 48 }, // prettier-ignore
  { ...base, name: 'strided, ragged', space: [13, 19], options: { kernelSize: [4, 6], stride: [3, 5] } },
  { ...base, name: 'dilated bias', space: [11, 37], options: { kernelSize: [3, 5], dilation: [3, 2] }, bias: true },
  { ...base, name: 'causal bias', space: [9, 34], options: { kernelSize: [4, 5], causal: true }, heads: 2, kvHeads: 1, bias: true }, // prettier-ignore
  { ...base, name: '3-D dilated causal', space: [4, 9, 12], options: { kernelSize: [2, 3, 3], dilation: [1, 3, 2], causal: [true, false, true] } }, // prettier-ignore
  { ...base, name: '3-D', space: [5, 6, 9], options: { kernelSize: [3, 4, 5] }, dim: 100, dimV: 120 },
  { ...base, name: 'dim 256', space: [4, 17], options: { kernelSize: 3 }, dim: 256, dimV: 256 },
];

describe.skipIf(cuda.skip)('neighborhoodAttention on CUDA', () => {
  test.each(GOLDENS)('golden %s', (name) => checkGoldens(name, on));

  test.each(LAYER_GOLDENS)('golden layer %s', (name) => checkLayer(name, 'cuda'));

  describe.each(['f32', 'bf16', 'f16'] as const)('%s', (dtype) => {
    test.each(cases)('$name', (c) => check({ ...c, dtype }, on));
  });

  test('random shapes and settings', () => {
    fc.assert(
      fc.property(
        randomAxes(160),
        fc.constantFrom([1, 1], [4, 2]),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        fc.boolean(),
        fc.constantFrom('f32', 'bf16', 'f16'),
        (axes, [heads, kvHeads], dim, dimV, bias, dtype) =>
          check({ batch: 1, ...axes, heads, kvHeads, dim, dimV, bias, dtype }, on),
      ),
      { numRuns: 40 },
    );
  });

  const image = (seed: number): Tensor => tensor(uniform(90 * 2 * 16, seed), [1, 9, 10, 2, 16], { dtype: 'f32' });

  test.each(['f32', 'bf16'] as const)(
    'extra keys beside the lattice, more than a tile, and all gradients: %s',
    (dtype) => {
      const make = (place: (t: Tensor) => Tensor): ArrayLike<number>[] => {
        const leaves = [1, 2, 3]
          .map(image)
          .concat([4, 5].map((seed) => tensor(uniform(75 * 32, seed), [1, 75, 2, 16], { dtype: 'f32' })))
          .map((t) => place(t).detach()) as [Tensor, Tensor, Tensor, Tensor, Tensor];
        for (const t of leaves) t.requiresGrad = true;
        const [q, k, v, extraK, extraV] = leaves;
        const options: NeighborhoodOptions = {
          kernelSize: [3, 4],
          dilation: [2, 1],
          extraKv: { k: extraK, v: extraV },
        };
        const { out, lse } = neighborhoodAttention(q, k, v, { ...options, returnLse: true });
        const dlse = tensor(uniform(180, 7), [1, 9, 10, 2], { dtype: 'f32' }).to(q.device);
        const grads = grad([out, lse], leaves, { gradients: [place(image(6)), dlse] }) as Tensor[];
        return [out, lse, ...grads].map(numbers);
      };
      const [there, here] = [make((t) => t.to(dtype).to('cuda')), make((t) => t.to(dtype).to('f32'))];
      there.forEach((got, i) => expectClose(got, here[i], i === 1 ? 'f32' : dtype, 2));
    },
  );

  test('equal calls give equal bits, the gradient of the bias included', () => {
    const run = (): ArrayLike<number>[] => {
      const leaves = [1, 2, 3].map((seed) => image(seed).to('f16').to('cuda').detach()) as [Tensor, Tensor, Tensor];
      const rpb = tensor(uniform(2 * 81, 4), [2, 9, 9], { dtype: 'f32', device: 'cuda' });
      for (const t of [...leaves, rpb]) t.requiresGrad = true;
      const out = neighborhoodAttention(...leaves, { kernelSize: 5, rpb });
      const grads = grad(out, [...leaves, rpb], { gradients: [out.detach()] }) as Tensor[];
      return [out, ...grads].map(numbers);
    };
    expect(run()).toEqual(run());
  });

  // Enough boxes that the kernels for 128 queries take them.
  test.each<[string, DType, readonly number[], number, number, NeighborhoodWindow, boolean]>([
    ['1-D', 'bf16', [1, 2048], 16, 24, { kernelSize: 256 }, false],
    ['2-D, ragged', 'bf16', [5, 26, 30], 8, 40, { kernelSize: 12, causal: [false, true] }, false],
    ['dilated, bias, extra keys', 'f16', [3, 30, 34], 8, 8, { kernelSize: [13, 15], dilation: 2 }, true],
    ['dim over 64', 'bf16', [1, 2048], 16, 72, { kernelSize: 256, stride: 2 }, false],
  ])('many boxes, %s', (_name, dtype, [batch, ...space], heads, dim, window, more) => {
    const make = (seed: number, shape: readonly number[]): Tensor =>
      tensor(uniform(shape.reduce((n, x) => n * x, 1), seed), shape, { dtype }); // prettier-ignore
    const leaves = [1, 2, 3].map((seed) => make(seed, [batch, ...space, heads, dim]));
    if (more)
      leaves.push(
        ...[4, 5].map((seed) => make(seed, [batch, 70, heads, dim])),
        tensor(uniform(heads * 25 * 29, 6), [heads, 25, 29], { dtype: 'f32' }),
      );
    const run = (place: (t: Tensor) => Tensor): Float64Array[] => {
      const [q, k, v, extraK, extraV, rpb] = leaves.map(place);
      const options = { ...window, ...(more && { extraKv: { k: extraK, v: extraV }, rpb }), returnLse: true } as const;
      const { out, lse } = neighborhoodAttention(q, k, v, options);
      if (out.device !== 'cpu') expect(explainNeighborhood(q, k, v, options).tile.reduce((n, x) => n * x, 1)).toBe(128);
      return [out, lse].map(numbers);
    };
    const here = run((t) => t.to('f32'));
    run((t) => t.to('cuda')).forEach((got, i) => expectClose(got, here[i], i === 0 ? dtype : 'f32', 2));
  });

  test.each(LAYOUTS)('operands that are %s', (layout) => {
    const shape = [2, 5, 9, 2, 8];
    const values = [1, 2, 3].map((seed) => uniform(2 * 5 * 9 * 2 * 8, seed));
    const views = values.map((x) => laidOut(layout, shape, x, 'f32')) as [Tensor, Tensor, Tensor];
    const plain = numbers(neighborhoodAttention(...views, { kernelSize: 3 }));
    for (const dtype of ['f32', 'f16'] as const) {
      const there = values.map((x) => laidOut(layout, shape, x, dtype, 'cuda')) as [Tensor, Tensor, Tensor];
      expectClose(numbers(neighborhoodAttention(...there, { kernelSize: 3 })), plain, dtype);
    }
  });

  test('a negative scale, and large logits', () => {
    const big = tensor(uniform(90 * 32, 1, -200, 200), [1, 9, 10, 2, 16], { dtype: 'f32' });
    for (const scale of [-0.5, 0, 1]) {
      const here = numbers(neighborhoodAttention(big, big, image(1), { kernelSize: 5, scale }));
      const [q, v] = [big.to('cuda'), image(1).to('cuda')];
      const there = numbers(neighborhoodAttention(q, q, v, { kernelSize: 5, scale }));
      expect(there.every(Number.isFinite)).toBe(true);
      expectClose(there, here, 'f32', 20);
    }
  });

  test.each(['f32', 'bf16'] as const)('hidden keys may hold anything, their values anything finite: %s', (dtype) => {
    const early = (key: number, value: number): Float64Array => {
      const [q, k, v] = [1, 2, 3].map((seed) => uniform(70 * 8, seed)).map((x, operand) =>
        tensor(x.map((old, i) => (i < 40 * 8 || operand === 0 ? old : operand === 1 ? key : value)), [1, 70, 1, 8], { dtype, device: 'cuda' })); // prettier-ignore
      return numbers(slice(neighborhoodAttention(q, k, v, { kernelSize: 20, causal: true }), 1, 0, 40));
    };
    const plain = early(0, 0);
    expect(plain.every(Number.isFinite)).toBe(true);
    for (const key of [NaN, Infinity, 1e30]) expect(early(key, -1e30)).toEqual(plain);
  });

  test('an empty batch gives an empty result; explain names the kernel', () => {
    const empty = tensor(new Float32Array(0), [0, 4, 2, 8], { dtype: 'f32', device: 'cuda' });
    expect(neighborhoodAttention(empty, empty, empty, { kernelSize: 3 }).shape).toEqual([0, 4, 2, 8]);
    const x = image(1).to('cuda');
    const e = explainNeighborhood(x, x, x, { kernelSize: 5 });
    expect(e.kernel).toBe('cuda.boxes');
    expect(e.tile.reduce((n, side) => n * side, 1)).toBe(64);
    expect(() => neighborhoodAttention(x, image(2), x, { kernelSize: 3 })).toThrow(/cuda:0 and cpu/);
  });
});
