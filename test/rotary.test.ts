import { describe, expect, it } from 'vitest';
import { permute, rotary, rotaryTable, tensor, type DType, type RotaryOptions } from '../lib/index.ts';
import { checkGradients, noise, sizeOf } from './gradient_check.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { expectClose } from './tolerance.ts';

/** x [B, H, L, D]; positions [B][L]. */
function reference(
  x: Float64Array,
  [B, H, L, D]: readonly number[],
  dims: number,
  position: (b: number, l: number) => number,
  interleaved = false,
  base = 10000,
): Float64Array {
  const out = Float64Array.from(x);
  for (let row = 0; row < B * H * L; row++) {
    const [b, l] = [Math.floor(row / (H * L)), row % L];
    for (let i = 0; i < dims / 2; i++) {
      const angle = position(b, l) * base ** ((-2 * i) / dims);
      const [at, to] = interleaved ? [row * D + 2 * i, row * D + 2 * i + 1] : [row * D + i, row * D + i + dims / 2];
      out[at] = x[at] * Math.cos(angle) - x[to] * Math.sin(angle);
      out[to] = x[to] * Math.cos(angle) + x[at] * Math.sin(angle);
    }
  }
  return out;
}

describe.each(LEVELS)('on %s', (level) => {
  it.each([
    { D: 8, dims: 8, interleaved: false },
    { D: 8, dims: 4, interleaved: true },
    { D: 66, dims: 66, interleaved: true },
    { D: 70, dims: 34, interleaved: false },
    { D: 64, dims: 64, interleaved: true },
    { D: 2, dims: 2, interleaved: false },
  ])('agrees with the reference and finite differences for %o', ({ D, dims, interleaved }) => {
    atLevel(level, () => {
      const shape = [2, 2, 3, D];
      checkGradients({
        shapes: [shape],
        op: (x) => rotary(x, { dims, interleaved, offset: 3 }),
        reference: (x) => reference(x, shape, dims, (_, l) => l + 3, interleaved),
      });
    });
  });

  it.each<DType>(['bf16', 'f16'])('agrees in %s', (dtype) => {
    atLevel(level, () => {
      const shape = [1, 3, 5, 40];
      for (const interleaved of [false, true]) {
        const x = tensor(noise(sizeOf(shape)), shape, { dtype });
        const values = Float64Array.from(x.dataSync() as Float32Array);
        const expected = reference(values, shape, 36, (_, l) => l, interleaved);
        expectClose(rotary(x, { dims: 36, interleaved }).dataSync() as Float32Array, expected, dtype);
      }
    });
  });
});

describe('layouts and positions', () => {
  const shape = [2, 3, 4, 6];
  const x = tensor(noise(sizeOf(shape)), shape, { dtype: 'f32' });
  const values = noise(sizeOf(shape));

  it('takes [B, L, H, D] as the transposed view of the same rows', () => {
    const expected = reference(values, shape, 6, (_, l) => l);
    const turned = permute(x, [0, 2, 1, 3]);
    const out = rotary(turned, { layout: 'BLHD' });
    expect(out.shape).toEqual([2, 4, 3, 6]);
    expectClose(permute(out, [0, 2, 1, 3]).dataSync() as Float32Array, expected);
    const dense = tensor(turned.dataSync() as Float32Array, [2, 4, 3, 6]);
    expectClose(rotary(permute(dense, [0, 2, 1, 3])).dataSync() as Float32Array, expected);
  });

  it('takes ranks 2 and 3', () => {
    expectClose(
      rotary(tensor(values, [24, 6], { dtype: 'f32' })).dataSync() as Float32Array,
      reference(values, [1, 1, 24, 6], 6, (_, l) => l),
    );
    expectClose(
      rotary(tensor(values, [2, 12, 6], { dtype: 'f32' })).dataSync() as Float32Array,
      reference(values, [2, 1, 12, 6], 6, (_, l) => l),
    );
  });

  it('takes an offset per batch, positions, and a table of its own', () => {
    const check = (options: RotaryOptions, position: (b: number, l: number) => number, base = 10000): void =>
      expectClose(rotary(x, options).dataSync() as Float32Array, reference(values, shape, 6, position, false, base));
    check({ offset: [5, 2], base: 500 }, (b, l) => [5, 2][b] + l, 500);
    const table = rotaryTable(100, 6);
    const one = tensor(Int32Array.from([9, 0, 4, 4]));
    check({ table, positions: one }, (_, l) => [9, 0, 4, 4][l]);
    check({ table, positions: one, offset: 7 }, (_, l) => [9, 0, 4, 4][l] + 7);
    const each = tensor(Int32Array.from([1, 2, 3, 4, 50, 60, 70, 80]), [2, 4], { dtype: 'i64' });
    check({ table, positions: each }, (b, l) => [1, 2, 3, 4, 50, 60, 70, 80][b * 4 + l]);
  });

  it('keeps far positions accurate: angles are computed in double precision', () => {
    const row = tensor(values.slice(0, 6), [1, 6], { dtype: 'f32' });
    expectClose(
      rotary(row, { offset: 100_000 }).dataSync() as Float32Array,
      reference(values.slice(0, 6), [1, 1, 1, 6], 6, () => 100_000),
    );
  });

  it('rejects a position outside the table when awaited', async () => {
    const out = rotary(x, { table: rotaryTable(5, 6), offset: 2 });
    await expect(out.data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
    await expect(rotary(x, { offset: -1, table: rotaryTable(5, 6) }).data()).rejects.toMatchObject({
      code: 'ERR_INDEX',
    });
  });

  it('refuses what does not fit', () => {
    const code = (code: string): unknown => expect.objectContaining({ code });
    expect(() => rotary(tensor(noise(6), [6], { dtype: 'f32' }))).toThrow(code('ERR_SHAPE'));
    expect(() => rotary(x, { dims: 5 })).toThrow(code('ERR_ARGUMENT'));
    expect(() => rotary(x, { dims: 8 })).toThrow(code('ERR_SHAPE'));
    expect(() => rotary(x, { offset: [1] })).toThrow(code('ERR_ARGUMENT'));
    expect(() => rotary(x, { positions: tensor(Int32Array.from([1, 2, 3, 4])) })).toThrow(code('ERR_ARGUMENT'));
    expect(() => rotary(x, { table: rotaryTable(9, 6), positions: tensor(Int32Array.from([1])) })).toThrow(
      code('ERR_SHAPE'),
    );
  });

  it('gives the same bits for any number of threads', () => {
    const big = tensor(noise(4 * 300 * 48), [1, 4, 300, 48], { dtype: 'f32' });
    expectSameBitsForAnyThreads(() => rotary(big));
  });

  it('takes empty inputs', () => {
    expect(rotary(tensor(new Float32Array(0), [2, 0, 6])).shape).toEqual([2, 0, 6]);
  });
});
