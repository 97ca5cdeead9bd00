import { gradEnabled, record } from '../autograd/tape.ts';
import { native } from '../native.ts';
import { expectTensors } from '../tensor/expect.ts';
import { axisOf } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';

function normalised(name: string, t: Tensor, axis: number, log: boolean): Tensor {
  expectTensors(name, { t });
  const at = axisOf(name, axis, t.rank);
  const out = new Tensor(native().softmax(t.handle, at, log));
  if (!gradEnabled() || !t.requiresGrad) return out;
  const rule = ([g]: readonly (Tensor | null)[]): Tensor[] => [
    new Tensor(native().softmaxBackward((g as Tensor).handle, out.handle, at, log)),
  ];
  record(name, [out], [t], rule, [out]);
  return out;
}

/**
 * exp(t) over its sum along `axis` (default the last), without overflow. A row of -Infinity alone gives NaN.
 * Throws ERR_DTYPE for integers, ERR_ARGUMENT for an axis out of range.
 */
export function softmax(t: Tensor, axis = -1): Tensor {
  return normalised('softmax', t, axis, false);
}

/** log(softmax(t, axis)), accurate where the softmax is tiny. */
export function logSoftmax(t: Tensor, axis = -1): Tensor {
  return normalised('logSoftmax', t, axis, true);
}
