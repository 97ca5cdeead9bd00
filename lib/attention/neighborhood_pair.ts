/**
 * The two products of neighborhood attention by themselves, for those who need the weights between them. `neighborhoodAttention` computes
 * both with a softmax between and never stores the weights.
 *
 * Slot s of a query is key number s of its window, row-major over the axes of space. Three native products are each other's gradients: dot
 * (q and keys to slots), gather (slots and keys to rows), and scatter, the transpose of gather.
 */
import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { cast, contiguous } from '../ops/copy.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { axesOf, NEIGHBORHOOD_WINDOW, type NeighborhoodWindow } from './neighborhood.ts';

export interface NeighborhoodQkOptions extends NeighborhoodWindow {
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const QK_OPTIONS: OptionNames<NeighborhoodQkOptions> = { ...NEIGHBORHOOD_WINDOW, scale: true };

const plain = (t: Tensor): Tensor => contiguous(cast(t, 'f32'));
const headsOf = (t: Tensor): number => t.shape[t.rank - 2];

function check(op: string, tensors: Readonly<Record<string, Tensor>>): void {
  expectTensors(op, tensors);
  for (const t of Object.values(tensors))
    if (!['f32', 'bf16', 'f16'].includes(t.dtype))
      throw new FoveaError(
        'ERR_DTYPE',
        `${op}: got ${t.dtype} of shape ${shapeText(t.shape)}, expected f32, bf16 or f16`,
      );
}

/**
 * Logits of neighborhood attention: q [batch, ...space, heads, dim] and k [batch, ...space, heads_kv, dim] to
 * [batch, ...space, heads, slots], slots the product of the kernel sizes. Slots that a causal window cuts off hold -inf.
 *
 * Differentiable in q and k; the arithmetic and the result are f32 whatever the operands.
 *
 * @throws FoveaError as `neighborhoodAttention`
 */
export function neighborhoodQK(q: Tensor, k: Tensor, options: NeighborhoodQkOptions): Tensor {
  expectOptions('neighborhoodQK', options, QK_OPTIONS);
  check('neighborhoodQK', { q, k });
  const axes = axesOf('neighborhoodQK', q, options);
  const { scale = 1 / Math.sqrt(q.shape[q.rank - 1]) } = options;
  const [x, keys] = [plain(q), plain(k)];
  const handle = native().neighborhoodDot(x.handle, keys.handle, axes, scale, -Infinity);
  const heads = headsOf(keys);
  const saved = [x.detach(), keys.detach()] as const;
  return result(
    'neighborhoodQK',
    handle,
    [x, keys],
    (grad) => {
      const g = plain(grad).handle;
      const dq = native().neighborhoodGather(g, saved[1].handle, axes, scale);
      const dk = native().neighborhoodScatter(g, saved[0].handle, axes, scale, heads);
      return [new Tensor(dq), new Tensor(dk)];
    },
    saved,
  );
}

/**
 * Values weighted by slots: a [batch, ...space, heads, slots] and v [batch, ...space, heads_kv, dim] to [batch, ...space, heads, dim]. Slots
 * that a causal window cuts off are not read. Differentiable in a and v; the arithmetic and the result are f32 whatever the operands.
 *
 * @throws FoveaError as `neighborhoodAttention`
 */
export function neighborhoodAV(a: Tensor, v: Tensor, options: NeighborhoodWindow): Tensor {
  expectOptions('neighborhoodAV', options, NEIGHBORHOOD_WINDOW);
  check('neighborhoodAV', { a, v });
  const axes = axesOf('neighborhoodAV', a, options);
  const [weights, values] = [plain(a), plain(v)];
  const handle = native().neighborhoodGather(weights.handle, values.handle, axes, 1);
  const heads = headsOf(values);
  const saved = [weights.detach(), values.detach()] as const;
  return result(
    'neighborhoodAV',
    handle,
    [weights, values],
    (grad) => {
      const g = plain(grad).handle;
      const da = native().neighborhoodDot(g, saved[1].handle, axes, 1, 0);
      const dv = native().neighborhoodScatter(saved[0].handle, g, axes, 1, heads);
      return [new Tensor(da), new Tensor(dv)];
    },
    saved,
  );
}
