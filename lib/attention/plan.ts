/**
 * The plans of routed mechanisms: attention whose rows of q, k, v are picked by lists instead of lying one after the other. Lists are i32
 * tensors, so a router's result goes to the engine without passing through JavaScript; contents out of range reject with ERR_INDEX.
 */
import type { Tensor } from '../tensor/tensor.ts';
import { bindAttention, OPERANDS, type AttentionOptions } from './arguments.ts';
import { runAttention, type AttentionResult } from './attention.ts';

export interface AttentionPlan {
  /**
   * Rows of q [1 or batch, 1 or heads, n], -1 = none, no row twice: logical query i is row qRows[i], and its result is row qRows[i] of out
   * and lse. Rows that no list names give out 0 and lse -inf.
   */
  readonly qRows?: Tensor;
  /**
   * The result of logical query i is row i of out and lse, which have as many rows as the list; `qRows` may then name a row several times.
   * On the CPU alone, and without gradient.
   */
  readonly outInOrder?: boolean;
  /** Rows of k and v [1 or batch, 1 or kv heads, n], -1 = none; a row may be listed several times. */
  readonly kvRows?: Tensor;
  /** Keys [begin, end) of each logical query: [1 or batch, 1 or heads, queries, 2]. */
  readonly keyRanges?: Tensor;
}

/** Attention of q over k, v through the lists of `plan`; `cuSeqlens`, causality, masks and scores count logical positions. */
export function planAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  plan: AttentionPlan,
  options: AttentionOptions = {},
): AttentionResult {
  const call = bindAttention(q, k, v, options);
  const operands = call.operands.map((t, i) => {
    const name = OPERANDS[i];
    return name === 'qRows' || name === 'kvRows' || name === 'keyRanges' ? (plan[name] ?? null) : t;
  });
  const integers = plan.outInOrder ? [...call.integers.slice(0, -1), 1] : call.integers;
  return runAttention({ ...call, operands, integers }, options.signal);
}
