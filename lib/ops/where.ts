import { gradEnabled, record } from '../autograd/tape.ts';
import { native } from '../native.ts';
import { expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';
import { cast } from './copy.ts';
import { sumTo } from './view.ts';

/**
 * Elements of `a` where `condition` (bool) holds, of `b` elsewhere; all three broadcast, `a` and `b` may be numbers. Result dtype as in
 * arithmetic, f32 for two numbers. The gradient goes to whichever was chosen.
 * Throws ERR_DTYPE for another condition, ERR_SHAPE when shapes do not broadcast.
 */
export function where(condition: Tensor, a: Tensor | number, b: Tensor | number): Tensor {
  expectTensors('where', { condition });
  if (typeof a !== 'number') expectTensors('where', { a });
  if (typeof b !== 'number') expectTensors('where', { b });
  const [x, y] = [a, b].map((v) =>
    typeof v === 'number' ? { handle: null, number: v } : { handle: v.handle, number: 0 },
  );
  const out = new Tensor(native().where(condition.handle, x.handle, x.number, y.handle, y.number));
  const inputs = [a, b].filter((v) => typeof v !== 'number');
  if (!gradEnabled() || !inputs.some((t) => t.requiresGrad)) return out;
  const rule = ([g]: readonly (Tensor | null)[]): (Tensor | null)[] => {
    const grads: (Tensor | null)[] = [];
    const give = (t: Tensor | number, chosen: Tensor): void => {
      if (typeof t !== 'number') grads.push(cast(sumTo(chosen, t.shape), t.dtype));
    };
    give(a, where(condition, g as Tensor, 0));
    give(b, where(condition, 0, g as Tensor));
    return grads;
  };
  record('where', [out], inputs, rule, [condition]);
  return out;
}
