import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectTensorList, kindText } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';

/**
 * Scales all gradients of `params`, in place, so that their norm as one vector is at most `maxNorm`; returns the norm before, a scalar f32
 * tensor (nothing waits for it). Parameters without a gradient are passed over. Throws ERR_ARGUMENT for a negative maxNorm, when no
 * parameter has a gradient, and when gradients share memory (a parameter given twice).
 *
 * Source: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
 */
export function clipGradNorm(params: Iterable<Tensor>, maxNorm: number): Tensor {
  if (!(maxNorm >= 0)) throw new FoveaError('ERR_ARGUMENT', `clipGradNorm: maxNorm must be >= 0, got ${maxNorm}`);
  if (typeof params?.[Symbol.iterator] !== 'function')
    throw new FoveaError('ERR_ARGUMENT', `clipGradNorm: got ${kindText(params)}, expected parameters`);
  const list = [...params];
  expectTensorList('clipGradNorm', 'params', list);
  const grads = list.flatMap((t) => (t.grad ? [t.grad.handle] : []));
  if (grads.length === 0)
    throw new FoveaError('ERR_ARGUMENT', 'clipGradNorm: no parameter has a gradient; call backward() first');
  return new Tensor(native().clipGradNorm(grads, maxNorm));
}
