/** Depth-wise convolution: every channel of an image with a small filter of its own, the image keeping its size. */
import { result } from '../autograd/tape.ts';
import { native } from '../native.ts';
import { expectOptionalTensors, expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';
import { cast } from './copy.ts';

/**
 * y[b, i, j, c] = bias[c] + sum_rs weight[c, 0, r, s] x[b, i + r - rows/2, j + s - columns/2, c], zeros outside the image.
 *
 * x [batch, height, width, channels], weight [channels, 1, rows, columns] with odd rows and columns, bias [channels]; one dtype of f32,
 * bf16, f16, sums in f32. Differentiable in all three. Throws ERR_SHAPE or ERR_DTYPE.
 */
export function depthwiseConv(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  expectTensors('depthwiseConv', { x, weight });
  expectOptionalTensors('depthwiseConv', { bias });
  const handle = native().depthwiseConv(x.handle, weight.handle, bias?.handle ?? null, false);
  const rule = (g: Tensor): (Tensor | null)[] => {
    const h = native();
    const [rows, columns] = weight.shape.slice(2);
    const dx = x.requiresGrad ? new Tensor(h.depthwiseConv(g.handle, weight.handle, null, true)) : null;
    const dw = weight.requiresGrad
      ? cast(new Tensor(h.depthwiseConvWeight(x.handle, g.handle, rows, columns)), weight.dtype)
      : null;
    const db = bias?.requiresGrad ? new Tensor(h.sum(g.handle, [0, 1, 2], false)) : null;
    return bias ? [dx, dw, db] : [dx, dw];
  };
  return result('depthwiseConv', handle, bias ? [x, weight, bias] : [x, weight], rule, [x, weight]);
}
