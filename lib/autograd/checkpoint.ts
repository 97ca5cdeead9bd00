import { FoveaError } from '../errors.ts';
import { getMatmulPrecision, withMatmulPrecision } from '../ops/matmul_precision.ts';
import { randomState, withRandomState } from '../ops/random.ts';
import { expectFunction, expectTensorList } from '../tensor/expect.ts';
import { scope } from '../tensor/scope.ts';
import { Tensor } from '../tensor/tensor.ts';
import { attach, enableGrad, gradEnabled, nextNodeId, noGrad, walk, type FoundGradients } from './tape.ts';

/**
 * Runs `fn(...inputs)` keeping none of its intermediate results; backward runs it again to have them. Trades one more forward for
 * memory. `fn` must be synchronous, compute the same again and return a tensor or an array of tensors; what it draws from the thread's random
 * stream (dropout) is the same the second time. Tensors made inside die with the call unless returned or given to `keep`. Gradients reach the
 * inputs and whatever else with requiresGrad `fn` uses: parameters, and tensors computed outside, which must then still live.
 *
 * @throws FoveaError ERR_ARGUMENT where fn is no function or returns something else, and for an input that is no tensor
 *
 * Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 4.
 */
export function checkpoint<R extends Tensor | Tensor[]>(fn: (...inputs: Tensor[]) => R, ...inputs: Tensor[]): R {
  expectFunction('checkpoint', 'fn', fn);
  expectTensorList('checkpoint', 'inputs', inputs);
  const [precision, random] = [getMatmulPrecision(), randomState()];
  let single = false;
  // Detached, since fn may return an input, or what it found outside: those have a place in the graph already.
  const outputs = noGrad(() =>
    scope(() => {
      const out = fn(...inputs);
      single = out instanceof Tensor;
      return listOf(out).map((t) => t.detach());
    }),
  );
  const floating = outputs.map((t) => ['f32', 'f64', 'bf16', 'f16'].includes(t.dtype));
  const rule = (grads: readonly (Tensor | null)[]): FoundGradients => {
    const copies = inputs.map((t) => {
      const copy = t.detach();
      if (t.requiresGrad) copy.requiresGrad = true;
      return copy;
    });
    const since = nextNodeId();
    const again = withRandomState(random, () =>
      withMatmulPrecision(precision, () => enableGrad(() => listOf(fn(...copies)))),
    );
    const flowing = again
      .filter((_, i) => floating[i])
      .flatMap((tensor, i) => (grads[i] && tensor.requiresGrad ? [{ tensor, gradient: grads[i] }] : []));
    const found = new Map<Tensor, Tensor>();
    walk(
      flowing.map(({ tensor }) => tensor),
      flowing.map(({ gradient }) => gradient),
      null,
      false,
      (leaf, gradient) => found.set(leaf, gradient),
      since,
    );
    const outside = [...found].filter(([tensor]) => !copies.includes(tensor));
    return {
      inputs: copies.map((copy) => found.get(copy) ?? null),
      others: outside.map(([tensor, grad]) => ({ tensor, grad })),
    };
  };
  if (gradEnabled()) attach('checkpoint', outputs.filter((_, i) => floating[i]), inputs, rule, inputs); // prettier-ignore
  return (single ? outputs[0] : outputs) as R;
}

function listOf(out: Tensor | readonly Tensor[]): readonly Tensor[] {
  const list: unknown = out instanceof Tensor ? [out] : out;
  if (!Array.isArray(list) || list.some((t) => !(t instanceof Tensor)))
    throw new FoveaError('ERR_ARGUMENT', 'checkpoint: fn must return a tensor or an array of tensors');
  return list as Tensor[];
}
