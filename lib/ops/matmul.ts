import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { dtypeCode, type DType } from '../tensor/dtype.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { reshape, squeeze, sumTo, transpose, unsqueeze } from './view.ts';

export interface MatmulOptions {
  /** Of the result: that of the operands (default) or, for bf16 and f16, 'f32'. */
  dtype?: DType;
}

/** Gradient of `b` in a @ b. One matrix shared by a whole batch gets one product over all rows, not a sum of one product per batch entry. */
function rightGradient(a: Tensor, b: Tensor, g: Tensor): Tensor {
  const dtype = b.dtype;
  if (a.rank > 2 && b.size === b.shape[b.rank - 2] * b.shape[b.rank - 1]) {
    const rows = a.shape.slice(0, -1).reduce((count, extent) => count * extent, 1);
    const [flatA, flatG] = [a, g].map((t) => reshape(t, [rows, t.shape[t.rank - 1]]));
    return reshape(product(transpose(flatA), flatG, dtype), b.shape);
  }
  return sumTo(product(transpose(a), g, dtype), b.shape);
}

function product(a: Tensor, b: Tensor, dtype: DType): Tensor {
  return new Tensor(native().matmul(a.handle, b.handle, dtypeCode(dtype)));
}

/**
 * Matrix product a @ b with NumPy's rules: `[..., m, k] @ [..., k, n]` gives `[..., m, n]`, leading axes broadcast; a vector is a row on
 * the left and a column on the right, and that axis is dropped from the result. Operands are f32, bf16, f16 or f64 of one dtype, with any
 * strides; accumulation is in f32 (f64 in f64). Bits of a row do not depend on the other rows, the batch or the number of threads.
 * Throws ERR_SHAPE when sizes do not fit, ERR_DTYPE for other or mixed dtypes.
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  if (a.rank === 0 || b.rank === 0) {
    throw new FoveaError(
      'ERR_SHAPE',
      `matmul: got shapes ${shapeText(a.shape)} and ${shapeText(b.shape)}, expected at least one axis each`,
    );
  }
  if (a.rank === 1) return squeeze(matmul(unsqueeze(a, 0), b, options), b.rank === 1 ? 0 : -2);
  if (b.rank === 1) return squeeze(matmul(a, unsqueeze(b, 1), options), -1);
  const handle = native().matmul(a.handle, b.handle, dtypeCode(options.dtype ?? a.dtype));
  return result(
    'matmul',
    handle,
    [a, b],
    (grad) => {
      const g = grad.dtype === a.dtype ? grad : new Tensor(native().cast(grad.handle, dtypeCode(a.dtype)));
      return [
        a.requiresGrad ? sumTo(product(g, transpose(b), a.dtype), a.shape) : null,
        b.requiresGrad ? rightGradient(a, b, g) : null,
      ];
    },
    [a, b],
  );
}
