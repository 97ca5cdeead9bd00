import { describe, expect, it } from 'vitest';
import {
  chunk,
  concat,
  flip,
  grad,
  pad,
  permute,
  repeat,
  repeatInterleave,
  roll,
  slice,
  split,
  stack,
  sum,
  tensor,
  tril,
  triu,
  type DType,
  type PadOptions,
  type Tensor,
} from '../lib/index.ts';
import { checkGradients, sizeOf } from './gradient_check.ts';
import { atLevel, LEVELS } from './levels.ts';

type Shape = readonly number[];
const code = (code: string): unknown => expect.objectContaining({ code });
const numbers = (t: Tensor): number[] => [...t.dataSync()].map(Number);
/** 0, 1, 2, ... */
const count = (shape: Shape, dtype: DType = 'f32'): Tensor =>
  tensor(
    Int32Array.from({ length: sizeOf(shape) }, (_, i) => i),
    shape,
    { dtype },
  );

function positionOf(flat: number, shape: Shape): number[] {
  return shape.map((n, i) => Math.floor(flat / sizeOf(shape.slice(i + 1))) % n);
}
const flatOf = (at: Shape, shape: Shape): number => at.reduce((sum, x, i) => sum * shape[i] + x, 0);

/** The reference of an op that only moves elements: `source` gives the input position of an output position, null for 0. */
function moves(from: Shape, to: Shape, source: (at: number[]) => number[] | null): (x: Float64Array) => Float64Array {
  return (x) =>
    Float64Array.from({ length: sizeOf(to) }, (_, i) => {
      const at = source(positionOf(i, to));
      return at ? x[flatOf(at, from)] : 0;
    });
}

describe.each(LEVELS)('on %s', (level) => {
  it('gradients of everything that moves elements', () => {
    atLevel(level, () => {
      const check = (
        from: Shape,
        to: Shape,
        op: (t: Tensor) => Tensor,
        source: (at: number[]) => number[] | null,
      ): void => checkGradients({ shapes: [from], op, reference: moves(from, to, source) });
      check(
        [3, 4],
        [3, 4],
        (t) => roll(t, [1, -6], [0, 1]),
        ([i, j]) => [(i + 2) % 3, (j + 6) % 4],
      );
      check(
        [2, 3, 2],
        [2, 3, 2],
        (t) => flip(t, [0, 2]),
        ([i, j, k]) => [1 - i, j, 1 - k],
      );
      check(
        [3, 2],
        [2, 6, 2],
        (t) => repeat(t, [2, 2, 1]),
        ([, j, k]) => [j % 3, k],
      );
      check(
        [2, 3],
        [2, 6],
        (t) => repeatInterleave(t, 2, 1),
        ([i, j]) => [i, Math.floor(j / 2)],
      );
      check(
        [2, 3, 4],
        [2, 3, 4],
        (t) => tril(t, 1),
        ([b, i, j]) => (j - i <= 1 ? [b, i, j] : null),
      );
      check(
        [4, 3],
        [4, 3],
        (t) => triu(t, -1),
        ([i, j]) => (j - i >= -1 ? [i, j] : null),
      );
      check(
        [2, 3],
        [5, 4],
        (t) =>
          pad(t, [
            [1, 2],
            [0, 1],
          ]),
        ([i, j]) => (i >= 1 && i < 3 && j < 3 ? [i - 1, j] : null),
      );
      const mirrored = (mode: PadOptions['mode'], f: (i: number) => number): void =>
        check(
          [1, 4],
          [1, 9],
          (t) =>
            pad(
              t,
              [
                [0, 0],
                [3, 2],
              ],
              { mode },
            ),
          ([i, j]) => [i, f(j - 3)],
        );
      mirrored('reflect', (j) => (j < 0 ? -j : j > 3 ? 6 - j : j));
      mirrored('replicate', (j) => Math.min(3, Math.max(0, j)));
      mirrored('circular', (j) => (j + 4) % 4);
      check(
        [7, 3],
        [2, 3],
        (t) => slice(t, 0, 1, 6, 4),
        ([i, j]) => [1 + 4 * i, j],
      );
    });
  });

  it.each<DType>(['f32', 'bf16', 'f16', 'f64', 'i32', 'i64', 'u8', 'bool'])('moves %s', (dtype) => {
    atLevel(level, () => {
      const t = tensor(Int32Array.from([1, 0, 1, 1, 0, 0]), [2, 3], { dtype });
      expect(numbers(roll(t, 1, 1))).toEqual([1, 1, 0, 0, 1, 0]);
      expect(numbers(flip(t))).toEqual([0, 0, 1, 1, 0, 1]);
      expect(numbers(pad(t, [0, 1], { value: 1 }))).toEqual([1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1]);
      expect(numbers(tril(t))).toEqual([1, 0, 0, 1, 0, 0]);
      expect(numbers(concat([t, t], 1))).toEqual([1, 0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0]);
    });
  });
});

describe('joining and cutting', () => {
  it('concat and stack have the gradients of placing', () => {
    checkGradients({
      shapes: [
        [2, 3],
        [2, 1],
        [2, 2],
      ],
      op: (...parts) => concat(parts, 1),
      reference: (a, b, c) => [
        ...a.subarray(0, 3),
        b[0],
        ...c.subarray(0, 2),
        ...a.subarray(3),
        b[1],
        ...c.subarray(2),
      ],
    });
    checkGradients({
      shapes: [
        [2, 2],
        [2, 2],
      ],
      op: (...parts) => stack(parts, 1),
      reference: (a, b) => [a[0], a[1], b[0], b[1], a[2], a[3], b[2], b[3]],
    });
  });

  it('concat takes views and empty parts', () => {
    const t = permute(count([2, 3]), [1, 0]);
    expect(numbers(concat([t, count([0, 2]), slice(t, 0, 0, 1)]))).toEqual([0, 3, 1, 4, 2, 5, 0, 3]);
    expect(concat([count([0, 2]), count([0, 2])]).shape).toEqual([0, 2]);
  });

  it('split and chunk give views that cover the axis', () => {
    const t = count([2, 7]);
    expect(split(t, 3, 1).map((part) => part.shape[1])).toEqual([3, 3, 1]);
    expect(split(t, [2, 0, 5], -1).map(numbers)).toEqual([[0, 1, 7, 8], [], [2, 3, 4, 5, 6, 9, 10, 11, 12, 13]]);
    expect(chunk(t, 4, 1).map((part) => part.shape[1])).toEqual([2, 2, 2, 1]);
    expect(chunk(count([5]), 4).map((part) => part.size)).toEqual([2, 2, 1]);
  });

  it('split joins the gradients of its parts, zeros where a part was not used', () => {
    const t = tensor([1, 2, 3, 4, 5], null, { requiresGrad: true });
    const [a, , c] = split(t, [2, 1, 2]);
    const loss = sum(a.mul(2)).add(sum(c.mul(c)));
    expect(numbers(grad(loss, [t])[0] as Tensor)).toEqual([2, 2, 0, 8, 10]);
  });

  it('refuse what does not fit', () => {
    expect(() => concat([])).toThrow(code('ERR_ARGUMENT'));
    expect(() => concat([count([2, 3]), count([3, 2])])).toThrow(code('ERR_SHAPE'));
    expect(() => concat([count([2]), count([2], 'i32')])).toThrow(code('ERR_DTYPE'));
    expect(() => stack([count([2]), count([3])])).toThrow(code('ERR_SHAPE'));
    expect(() => split(count([5]), [2, 2])).toThrow(code('ERR_SHAPE'));
    expect(() => split(count([5]), 0)).toThrow(code('ERR_ARGUMENT'));
    expect(() => pad(count([2, 2]), [[1, 1]])).toThrow(code('ERR_SHAPE'));
    expect(() => pad(count([2]), [-1, 0])).toThrow(code('ERR_ARGUMENT'));
    expect(() => pad(count([2]), [2, 0], { mode: 'reflect' })).toThrow(code('ERR_SHAPE'));
    expect(() => roll(count([2]), [1, 2], 0)).toThrow(code('ERR_ARGUMENT'));
    expect(() => repeat(count([2, 2]), [2])).toThrow(code('ERR_ARGUMENT'));
    expect(() => tril(count([2]))).toThrow(code('ERR_SHAPE'));
  });

  it('takes empty inputs', () => {
    expect(roll(count([0, 3]), 1, 0).shape).toEqual([0, 3]);
    expect(flip(count([0, 3])).shape).toEqual([0, 3]);
    expect(numbers(pad(count([0]), [1, 1], { value: 7 }))).toEqual([7, 7]);
    expect(repeat(count([2]), [0]).shape).toEqual([0]);
    expect(tril(count([0, 3])).shape).toEqual([0, 3]);
    expect(numbers(tril(count([2, 2]), -9))).toEqual([0, 0, 0, 0]);
    expect(numbers(triu(count([2, 2]), -9))).toEqual([0, 1, 2, 3]);
  });
});
