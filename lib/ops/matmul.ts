import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { dtypeCode, type DType } from '../tensor/dtype.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { PRECISION_OPTIONS, precisionCode, type PrecisionOptions } from './matmul_precision.ts';
import { reshape, squeeze, sumTo, transpose, unsqueeze } from './view.ts';

export interface MatmulOptions extends PrecisionOptions {
  /** Of the result: that of the operands (default) or, for bf16 and f16, 'f32'. */
  dtype?: DType;
}

const MATMUL_OPTIONS: OptionNames<MatmulOptions> = { ...PRECISION_OPTIONS, dtype: true };

/** Gradient of `b` in a @ b. One matrix shared by a whole batch gets one product over all rows, not a sum of one product per batch entry. */
function rightGradient(a: Tensor, b: Tensor, g: Tensor, precision: number): Tensor {
  const dtype = b.dtype;
  if (a.rank > 2 && b.shape.slice(0, -2).every((extent) => extent === 1)) {
    const rows = a.shape.slice(0, -1).reduce((count, extent) => count * extent, 1);
    const [flatA, flatG] = [a, g].map((t) => reshape(t, [rows, t.shape[t.rank - 1]]));
    return reshape(product(transpose(flatA), flatG, dtype, precision), b.shape);
  }
  return sumTo(product(transpose(a), g, dtype, precision), b.shape);
}

function product(a: Tensor, b: Tensor, dtype: DType, precision: number): Tensor {
  return new Tensor(native().matmul(a.handle, b.handle, dtypeCode(dtype), precision));
}

/**
 * Matrix product a @ b with NumPy's rules: `[..., m, k] @ [..., k, n]` gives `[..., m, n]`, leading axes broadcast; a vector is a row on
 * the left and a column on the right, and that axis is dropped from the result. Operands are f32, bf16, f16 or f64 of one dtype, with any
 * strides; accumulation is in f32 (f64 in f64). Bits of a row do not depend on the other rows, the batch or the number of threads.
 * `precision` allows TF32 for f32 on CUDA. Throws ERR_SHAPE when sizes do not fit, ERR_DTYPE for other or mixed dtypes, ERR_ARGUMENT for an
 * unknown precision.
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  expectTensors('matmul', { a, b });
  if (a.rank === 0 || b.rank === 0) {
    throw new FoveaError(
      'ERR_SHAPE',
      `matmul: got shapes ${shapeText(a.shape)} and ${shapeText(b.shape)}, expected at least one axis each`,
    );
  }
  if (a.rank === 1) return squeeze(matmul(unsqueeze(a, 0), b, options), b.rank === 1 ? 0 : -2);
  if (b.rank === 1) return squeeze(matmul(a, unsqueeze(b, 1), options), -1);
  expectOptions('matmul', options, MATMUL_OPTIONS);
  const precision = precisionCode(options.precision, 'matmul');
  return result(
    'matmul',
    native().matmul(a.handle, b.handle, dtypeCode(options.dtype ?? a.dtype), precision),
    [a, b],
    (grad) => {
      const g = grad.dtype === a.dtype ? grad : new Tensor(native().cast(grad.handle, dtypeCode(a.dtype)));
      return [
        a.requiresGrad ? sumTo(product(g, transpose(b), a.dtype, precision), a.shape) : null,
        b.requiresGrad ? rightGradient(a, b, g, precision) : null,
      ];
    },
    [a, b],
  );
}
