/** What routed mechanisms do beside attention, on CUDA: tokens of heads, averages by token, spans joined with a window. */
import { describe, expect, test } from 'vitest';
import { cast, grad, tensor, type DType } from '../../lib/index.ts';
import { native } from '../../lib/native.ts';
import { meanRows } from '../../lib/ops/mean_rows.ts';
import { Tensor } from '../../lib/tensor/tensor.ts';
import { numbers, uniform } from '../inputs.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const back = (t: Tensor): Float64Array => numbers(cast(t, 'f32').to('cpu'));
const on = (t: Tensor): Tensor => t.to('cuda');

describe.skipIf(cuda.skip)('on CUDA', () => {
  test.each([
    [2, 12, 5, 9],
    [3, 2500, 33, 7],
    [1, 40, 300, 50],
    [1, 1, 1, 1],
    [2, 0, 4, 3],
  ])('meanRows: averages of %d x %d rows of %d by %d ids, with gradients', (groups, count, width, size) => {
    for (const dtype of ['f32', 'bf16'] as DType[]) {
      const ids = tensor(Int32Array.from(uniform(groups * count, 4, 0, size), Math.floor), [groups, count]);
      const results = (place: (t: Tensor) => Tensor): Float64Array[] => {
        const src = place(tensor(uniform(groups * count * width, 3), [groups, count, width], { dtype })).detach();
        src.requiresGrad = true;
        const mean = meanRows(src, place(ids), size, 1e-5);
        const g = place(tensor(uniform(mean.size, 5), mean.shape, { dtype }));
        return [mean, ...(grad([mean], [src], { gradients: [g] }) as Tensor[])].map(back);
      };
      const [here, there] = [results((t) => t), results(on)];
      there.forEach((t, i) => expectClose(t, here[i], dtype));
    }
  });

  test('meanRows: an id out of range rejects', async () => {
    const ids = on(tensor(Int32Array.from([0, 5, 1]), [1, 3]));
    const mean = meanRows(on(tensor(uniform(6, 1), [1, 3, 2], { dtype: 'f32' })), ids, 3, 1);
    await expect(mean.data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
  });

  test.each([
    [2, 700, 3],
    [1, 5, 40],
    [1, 256, 1],
  ])('headRows: batch %d, %d tokens, %d heads', (batch, tokens, heads) => {
    const active = tensor(Uint8Array.from(uniform(batch * tokens * heads, 6, 0, 1.6), Math.floor), [batch, tokens, heads], { dtype: 'bool' }); // prettier-ignore
    const rows = (t: Tensor): Float64Array => back(new Tensor(native().headRows(t.handle)));
    expect(rows(on(active))).toEqual(rows(active));
  });

  test.each([true, false])('mixSpans: spans in another order, window %s', (windowed) => {
    const [rows, spans, dim] = [37, 3, 40];
    const pairs = tensor(
      Int32Array.from({ length: rows * spans }, (_, i) => (i * 40) % (rows * spans)),
      [rows * spans],
    );
    const lse = uniform(rows * spans, 8, -3, 3).map((x, i) => (i % 11 === 4 ? -Infinity : x));
    for (const dtype of ['f32', 'bf16'] as DType[]) {
      const inputs = [
        tensor(uniform(rows * spans * dim, 7), [rows * spans, dim], { dtype }),
        tensor(lse, [rows * spans], { dtype: 'f32' }),
        pairs,
        tensor(uniform(rows * spans, 9, 0, 0.3), [rows, spans], { dtype: 'f32' }),
        tensor(uniform(rows * dim, 10), [rows, dim], { dtype }),
        tensor(uniform(rows, 11, -3, 3), [rows], { dtype: 'f32' }),
      ];
      const mixed = (place: (t: Tensor) => Tensor): Float64Array => {
        const [out, sums, order, gate, near, nearLse] = inputs.map((t) => place(t));
        const window = windowed ? [near.handle, nearLse.handle] : [null, null];
        return back(new Tensor(native().mixSpans(out.handle, sums.handle, order.handle, gate.handle, window[0], window[1]))); // prettier-ignore
      };
      expectClose(
        mixed(on),
        mixed((t) => t),
        dtype,
      );
    }
  });

  test('mixSpans: a pair out of range rejects', async () => {
    const [out, lse, gate] = [[2, 4], [2], [1, 2]].map((shape) => on(tensor(uniform(shape.reduce((a, b) => a * b), 1), shape, { dtype: 'f32' }))); // prettier-ignore
    const pairs = on(tensor(Int32Array.from([1, 2]), [2]));
    const mixed = new Tensor(native().mixSpans(out.handle, lse.handle, pairs.handle, gate.handle, null, null));
    await expect(mixed.data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
  });
});
