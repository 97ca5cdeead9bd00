import { gradEnabled, record, type Gradients } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions } from '../options.ts';
import { dtypeCode } from '../tensor/dtype.ts';
import { expectOptionalTensors, expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';
import { PRECISION_OPTIONS, precisionCode, type PrecisionOptions } from './matmul_precision.ts';
import { reshape, transpose } from './view.ts';

/** Activations a linear layer can fuse: GELU exact ('gelu') or in its tanh form ('geluTanh'), SiLU, ReLU. */
export const ACTIVATIONS = ['none', 'relu', 'gelu', 'geluTanh', 'silu'] as const;
export type Activation = (typeof ACTIVATIONS)[number];

/** The number the addon knows an activation by. Throws ERR_ARGUMENT for an unknown name. */
export function activationCode(op: string, activation: Activation): number {
  const code = ACTIVATIONS.indexOf(activation);
  if (code < 0)
    throw new FoveaError(
      'ERR_ARGUMENT',
      `${op}: unknown activation '${String(activation)}'; expected one of ${ACTIVATIONS.join(', ')}`,
    );
  return code;
}

/**
 * activation(x @ weight^T + bias) in one kernel: x `[..., in]`, weight `[out, in]`, bias `[out]`, result `[..., out]`. One dtype of f32,
 * bf16, f16, f64; accumulation, bias and activation are in f32 before the one rounding. A row's bits do not depend on the rows beside it.
 * `precision` allows TF32 for f32 on CUDA. Throws ERR_SHAPE, ERR_DTYPE, or ERR_ARGUMENT for an unknown activation or precision.
 */
export function linear(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  activation: Activation = 'none',
  options: PrecisionOptions = {},
): Tensor {
  expectTensors('linear', { x, weight });
  expectOptionalTensors('linear', { bias });
  expectOptions('linear', options, PRECISION_OPTIONS);
  const code = activationCode('linear', activation);
  const precision = precisionCode(options.precision, 'linear');
  const inputs = bias ? [x, weight, bias] : [x, weight];
  const records = gradEnabled() && inputs.some((t) => t.requiresGrad);
  // ReLU's derivative can be read off its own output; the others need the value before.
  const wantPre = records && activation !== 'none' && activation !== 'relu';
  const [handle, preHandle] = native().linear(x.handle, weight.handle, bias?.handle ?? null, code, wantPre, precision);
  const out = new Tensor(handle);
  if (!records) return out;
  const saved = wantPre ? new Tensor(preHandle) : activation === 'relu' ? out.detach() : null;
  const rule = ([grad]: Gradients): Gradients => {
    const g = grad as Tensor;
    const dz = saved ? new Tensor(native().activationGrad(g.handle, saved.handle, code)) : g;
    return backward(dz, x, weight, bias, precision);
  };
  record('linear', [out], inputs, rule, saved ? [x, weight, saved] : [x, weight]);
  return out;
}

function backward(dz: Tensor, x: Tensor, weight: Tensor, bias: Tensor | null, precision: number): (Tensor | null)[] {
  const h = native();
  const [features, inner] = weight.shape;
  const count = x.shape.slice(0, -1).reduce((n, extent) => n * extent, 1);
  const rows = reshape(dz, [count, features]);
  const code = dtypeCode(x.dtype);
  const dx = x.requiresGrad
    ? reshape(new Tensor(h.matmul(rows.handle, weight.handle, code, precision)), x.shape)
    : null;
  const dw = weight.requiresGrad
    ? new Tensor(h.matmul(transpose(rows).handle, reshape(x, [count, inner]).handle, code, precision))
    : null;
  const db = bias?.requiresGrad ? new Tensor(h.sum(rows.handle, [0], false)) : null;
  return bias ? [dx, dw, db] : [dx, dw];
}
