import { FoveaError } from '../errors.ts';
import { getMatmulPrecision, withMatmulPrecision } from '../ops/matmul_precision.ts';
import { Tensor } from '../tensor/tensor.ts';
import { accumulateGrad, attach, enableGrad, gradEnabled, noGrad, walk } from './tape.ts';

/**
 * Runs `fn(...inputs)` keeping none of its intermediate results; backward runs it again to have them. Trades one more forward for
 * memory. `fn` must compute the same again and return a tensor or an array of tensors. Gradients reach the inputs and, through
 * backward(), the parameters that `fn` uses.
 *
 * Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 4.
 */
export function checkpoint<R extends Tensor | Tensor[]>(fn: (...inputs: Tensor[]) => R, ...inputs: Tensor[]): R {
  const out = noGrad(() => fn(...inputs));
  const outputs: Tensor[] = out instanceof Tensor ? [out] : out;
  if (!Array.isArray(outputs) || outputs.some((t) => !(t instanceof Tensor))) {
    throw new FoveaError('ERR_ARGUMENT', 'checkpoint: fn must return a tensor or an array of tensors');
  }
  if (!gradEnabled()) return out;
  const precision = getMatmulPrecision();
  const rule = (grads: readonly (Tensor | null)[]): (Tensor | null)[] => {
    const copies = inputs.map((t) => {
      const copy = t.detach();
      if (t.requiresGrad) copy.requiresGrad = true;
      return copy;
    });
    const again = withMatmulPrecision(precision, () => enableGrad(() => fn(...copies)));
    const list: Tensor[] = again instanceof Tensor ? [again] : again;
    const flowing = list.flatMap((t, i) => {
      const gradient = grads[i];
      return gradient && t.requiresGrad ? [{ t, gradient }] : [];
    });
    const found = new Map<Tensor, Tensor>();
    walk(
      flowing.map(({ t }) => t),
      flowing.map(({ gradient }) => gradient),
      null,
      false,
      (leaf, gradient) => (copies.includes(leaf) ? found.set(leaf, gradient) : accumulateGrad(leaf, gradient)),
    );
    return copies.map((copy) => found.get(copy) ?? null);
  };
  attach('checkpoint', outputs, inputs, rule, inputs);
  return out;
}
