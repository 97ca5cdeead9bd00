/** Tensor ops on CUDA against the CPU: random shapes, axes, strides and dtypes, results and gradients. */
import fc from 'fast-check';
import { describe, test } from 'vitest';
import * as F from '../../lib/index.ts';
import type { Tensor } from '../../lib/index.ts';
import { LAYOUTS } from '../inputs.ts';
import { BINARY_ROWS, REDUCTION_ROWS, UNARY_ROWS } from '../ops_table.ts';
import { useCuda } from './device.ts';
import { check, ids, type OpCase } from './op_case.ts';

const cuda = useCuda({}, 0);

const extent = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 1, max: 9 }) },
  { weight: 2, arbitrary: fc.constantFrom(31, 33, 65, 130) },
  { weight: 1, arbitrary: fc.constant(0) },
);
const positive = extent.filter((n) => n > 0);
const shapeOf = (min: number, max: number, size = extent): fc.Arbitrary<number[]> =>
  fc
    .array(size, { minLength: min, maxLength: max })
    .filter((shape) => shape.reduce((n, extent) => n * Math.max(extent, 1), 1) <= 20_000);
const layouts = fc.array(fc.constantFrom(...LAYOUTS), { minLength: 3, maxLength: 3 });
const dtypes = fc.constantFrom('f32', 'bf16', 'f16').map((dtype) => [dtype] as const);

/** A shape of at least one axis, and an axis of it, from either end. */
const shapeAndAxis = (max = 4, size = extent): fc.Arbitrary<readonly [number[], number]> =>
  shapeOf(1, max, size).chain((shape) =>
    fc.tuple(fc.constant(shape), fc.integer({ min: -shape.length, max: shape.length - 1 })),
  );

/** `count` indices below `size`, the same for equal arguments. */
const indices = (count: number, size: number): number[] =>
  Array.from({ length: count }, (_, i) => (i * i + 5 * i) % size);

/** shape with 1 where a bit of `bits` is set, leading ones cut off. */
function thinned(shape: readonly number[], bits: number): number[] {
  const out = shape.map((n, i) => ((bits >> i) & 1 ? 1 : n));
  return bits & 64 ? out.slice(1) : out;
}

const FAMILIES: Readonly<Record<string, fc.Arbitrary<OpCase>>> = {
  'functions of one tensor': fc.tuple(fc.constantFrom(...UNARY_ROWS), shapeOf(0, 4)).map(([row, shape]) => ({
    shapes: [shape], op: row.op, domain: row.domain, avoid: row.kinks, factor: 4,
  })),
  'functions of two tensors, broadcast': fc
    .tuple(fc.constantFrom(...BINARY_ROWS), shapeOf(1, 4), fc.nat(), fc.nat())
    .map(([row, shape, a, b]) => ({
      shapes: [thinned(shape, a), thinned(shape, b)], op: row.op, domain: row.domain, gradient: row.gradient ?? true, factor: 4,
    })),
  reductions: fc
    .tuple(fc.constantFrom(...REDUCTION_ROWS), shapeAndAxis(4, positive), fc.boolean(), fc.constantFrom(...LAYOUTS.filter((l) => l !== 'expanded')))
    .map(([row, [shape, axis], keepDims, distinct]) => ({
      shapes: [shape],
      op: (t) => row.op(t, row.single ? (axis as unknown as number[]) : [axis], keepDims),
      domain: row.domain,
      // The deviation of equal values has no derivative, and that of their variance is rounding alone.
      layouts: /std|variance/.test(row.name) ? [distinct] : undefined,
      gradient: (row.gradient ?? false) && shape.at(axis) !== 1, factor: 4,
    })),
  softmax: shapeAndAxis(4, positive).map(([shape, axis]) => ({ shapes: [shape], op: (x) => F.softmax(x, axis) })),
  logSoftmax: shapeAndAxis(4, positive).map(([shape, axis]) => ({ shapes: [shape], op: (x) => F.logSoftmax(x, axis) })),
  cumsum: shapeAndAxis().map(([shape, axis]) => ({ shapes: [shape], op: (x) => F.cumsum(x, axis), factor: 4 })),
  matmul: fc
    .tuple(shapeOf(0, 2, fc.integer({ min: 1, max: 3 })), positive, extent, positive, fc.nat({ max: 3 }), fc.nat())
    .map(([batch, m, k, n, transposed, thin]) => ({
      shapes: [
        [...thinned(batch, thin), ...(transposed & 1 ? [k, m] : [m, k])],
        [...batch, ...(transposed & 2 ? [n, k] : [k, n])],
      ],
      op: (a, b) => F.matmul(transposed & 1 ? F.transpose(a) : a, transposed & 2 ? F.transpose(b) : b),
      factor: 4,
    })),
  linear: fc
    .tuple(shapeOf(1, 3), positive, positive, fc.constantFrom(...F.ACTIVATIONS))
    .map(([rows, from, to, activation]) => ({
      shapes: [[...rows, from], [to, from], [to]], op: (x, w, b) => F.linear(x, w, b, activation), factor: 8,
    })),
  layerNorm: fc.tuple(shapeOf(1, 3), fc.integer({ min: 2, max: 300 })).map(([rows, n]) => ({
    shapes: [[...rows, n], [n], [n]], op: (x, w, b) => F.layerNorm(x, w, b, { eps: 0.01 }), factor: 8,
  })),
  rmsNorm: fc.tuple(shapeOf(1, 3), fc.integer({ min: 1, max: 300 })).map(([rows, n]) => ({
    shapes: [[...rows, n], [n]], op: (x, w) => F.rmsNorm(x, w, { eps: 0.01 }), factor: 8,
  })),
  embedding: fc.tuple(positive, extent, shapeOf(1, 3)).map(([rows, width, shape]) => ({
    shapes: [[rows, width]],
    op: (t) => F.embedding(t, ids(indices(shape.reduce((n, x) => n * x, 1), rows), shape, t)),
    factor: 4,
  })),
  indexSelect: fc.tuple(shapeAndAxis(4, positive), extent).map(([[shape, axis], count]) => ({
    shapes: [shape], op: (t) => F.indexSelect(t, axis, ids(indices(count, shape.at(axis) as number), null, t)), factor: 4,
  })),
  ...Object.fromEntries(
    (['gather', 'scatterAdd'] as const).map((name): [string, fc.Arbitrary<OpCase>] => [
      name,
      fc.tuple(shapeAndAxis(3, positive), extent).map(([[shape, axis], count]) => {
        const at = (axis + shape.length) % shape.length;
        const picked = shape.with(at, count);
        const index = (t: Tensor): Tensor =>
          ids(indices(picked.reduce((n, x) => n * x, 1), shape[at]), picked, t); // prettier-ignore
        return name === 'gather'
          ? { shapes: [shape], op: (t) => F.gather(t, axis, index(t)), factor: 4 }
          : { shapes: [shape, picked], op: (t, src) => F.scatterAdd(t, axis, index(t), src), factor: 4 };
      }),
    ]),
  ),
  'sort and topK': fc.tuple(shapeAndAxis(3, positive), fc.boolean(), fc.nat()).map(([[shape, axis], up, k]) => ({
    shapes: [shape],
    op: (x) =>
      F.concat(
        [
          F.sort(x, axis, { descending: !up }).values,
          F.topK(x, 1 + (k % (shape.at(axis) as number)), axis, { largest: up }).values,
        ],
        axis,
      ),
  })),
  'concat, roll, flip, repeat': fc.tuple(shapeAndAxis(3, positive), fc.integer({ min: -5, max: 5 })).map(([[shape, axis], n]) => ({
    shapes: [shape, shape],
    op: (a, b) => F.repeatInterleave(F.concat([F.roll(a, n, axis), F.flip(b, [axis])], axis), 2, axis),
  })),
  'tril and triu': fc.tuple(shapeOf(2, 4), fc.integer({ min: -9, max: 9 })).map(([shape, diagonal]) => ({
    shapes: [shape, shape], op: (a, b) => F.add(F.tril(a, diagonal), F.triu(b, -diagonal)),
  })),
  pad: shapeAndAxis(3).map(([shape, axis]) => ({
    shapes: [shape], op: (x) => F.pad(x, shape.map((_, i) => (i === axis ? [2, 1] : [0, i]) as [number, number])),
  })),
  rotary: fc
    .tuple(shapeOf(1, 2, fc.integer({ min: 1, max: 3 })), positive, fc.integer({ min: 1, max: 20 }), fc.boolean(), fc.nat({ max: 40 }))
    .map(([batch, length, half, interleaved, offset]) => ({
      shapes: [[...batch, length, 2 * half]], op: (x) => F.rotary(x, { interleaved, offset }),
    })),
  crossEntropy: fc
    .tuple(positive, fc.integer({ min: 1, max: 300 }), fc.constantFrom('mean', 'sum', 'none'), fc.constantFrom(0, 0.2))
    .map(([rows, classes, reduction, labelSmoothing]) => ({
      shapes: [[rows, classes]],
      op: (x) => F.crossEntropy(x, ids(indices(rows, classes), null, x), { reduction, labelSmoothing }),
      factor: 4,
    })),
  dropout: shapeOf(1, 3).map((shape) => ({ shapes: [shape], op: (x) => F.dropout(x, 0.4, { seed: 3 }) })),
}; // prettier-ignore

describe.skipIf(cuda.skip)('tensor ops of any shape on CUDA', () => {
  test.each(Object.keys(FAMILIES))('%s', async (name) => {
    const cases = fc.tuple(FAMILIES[name], layouts, dtypes);
    await fc.assert(
      fc.asyncProperty(cases, ([c, lie, dtype]) => check({ ...c, layouts: c.layouts ?? lie, dtypes: dtype })),
      { numRuns: 25 },
    );
  });
});
