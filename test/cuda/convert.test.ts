import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  arange,
  cast,
  contiguous,
  DTYPES,
  permute,
  reshape,
  slice,
  tensor,
  type DType,
  type Tensor,
} from '../../lib/index.ts';
import { useCuda } from './device.ts';

const cuda = useCuda({}, 0);

const special = [
  0, -0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3.99, 127, 128, 255, 256, 300, -300, 65504, 65520, 1e5, 2 ** 31 - 1, 2 ** 31, -(2 ** 31),
  -(2 ** 31) - 1, 2 ** 53, 1e19, -1e19, 1e-8, 6e-5, 6e-8, 1e-40, 3.4e38, 1e39, 1 / 3, 2.00390625, 2.01171875, NaN, Infinity, -Infinity,
]; // prettier-ignore

describe.skipIf(cuda.skip)('conversion on CUDA', () => {
  test.each(DTYPES.flatMap((from) => DTYPES.map((to) => [from, to] as const)))('%s to %s', async (from, to) => {
    const here = cast(tensor(special, null, { dtype: 'f64' }), from);
    const expected = await cast(here, to).data();
    const got = await cast(here.to('cuda'), to).data();
    expect(got).toEqual(expected);
  });

  test('every f32 near a rounding step of the 16-bit floats', async () => {
    const bits = Uint32Array.from({ length: 40_000 }, (_, i) => (0x3f7f_0000 + i * 7 + (i % 13) * 0x0100_0000) >>> 0);
    const here = tensor(new Float32Array(bits.buffer));
    for (const dtype of ['bf16', 'f16'] as const)
      expect(await cast(here.to('cuda'), dtype).bytes()).toEqual(await cast(here, dtype).bytes());
  });

  test('any view, any pair of dtypes', async () => {
    const dtypes = fc.constantFrom<DType>(...DTYPES);
    const shapes = fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(shapes, dtypes, dtypes, fc.nat(), async (shape, from, to, seed) => {
        const count = shape.reduce((n, extent) => n * extent, 1);
        const order = shape.map((_, i) => i).sort((a, b) => ((seed >> a) & 7) - ((seed >> b) & 7));
        const axis = seed % shape.length;
        const view = (t: Tensor): Tensor =>
          slice(permute(reshape(t, shape), order), axis, seed % 2, undefined, 1 + (seed % 3));
        const here = arange(0, count, 1, { dtype: from });
        const expected = cast(contiguous(view(here)), to);
        expect(await cast(view(here.to('cuda')), to).data()).toEqual(await expected.data());
      }),
      { numRuns: 60 },
    );
  });
});
