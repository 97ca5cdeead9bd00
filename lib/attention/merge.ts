/** Composition of partial attention results by their log-sum-exp. */
import { gradEnabled, record, type Gradients } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AttentionResult } from './attention.ts';

/**
 * The attention over the union of disjoint key sets, from the attention over each:
 *
 *     lse = log sum_i exp(lse_i),   out = sum_i exp(lse_i - lse) out_i
 *
 * Every part has `out` [..., dim] (f32, bf16 or f16) and `lse` [...] f32, all of one shape; a part that saw nothing (lse -inf) adds
 * nothing. Differentiable in every out and lse. Parts are added in the order given.
 *
 * @throws FoveaError ERR_ARGUMENT for an empty list, ERR_SHAPE or ERR_DTYPE where parts differ
 */
export function mergeAttentions(parts: readonly AttentionResult[]): AttentionResult {
  if (!Array.isArray(parts) || parts.length === 0)
    throw new FoveaError('ERR_ARGUMENT', 'mergeAttentions: expected a list of { out, lse }, at least one');
  parts.forEach((part, i) => expectTensors('mergeAttentions', { [`out of part ${i}`]: part?.out, [`lse of part ${i}`]: part?.lse })); // prettier-ignore
  const outs = parts.map((part) => part.out);
  const lses = parts.map((part) => part.lse);
  const [outHandle, lseHandle] = native().mergeAttentions(handles(outs), handles(lses));
  const out = new Tensor(outHandle);
  const lse = new Tensor(lseHandle);
  const inputs = [...outs, ...lses];
  if (gradEnabled() && inputs.some((t) => t.requiresGrad)) {
    const saved = [out.detach(), lse.detach()] as const;
    const rule = ([dout, dlse]: Gradients): Gradients =>
      native()
        .mergeAttentionsBackward(
          handles(outs),
          handles(lses),
          [saved[0].handle, saved[1].handle],
          [dout?.handle ?? null, dlse?.handle ?? null],
        )
        .map((handle) => new Tensor(handle));
    record('mergeAttentions', [out, lse], inputs, rule, [...inputs, ...saved]);
  }
  return { out, lse };
}

const handles = (tensors: readonly Tensor[]): number[] => tensors.map((t) => t.handle);
