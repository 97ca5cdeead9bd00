/**
 * Scaled dot-product attention: softmax(scale * q k^T, changed and masked) v, forward and backward, without the L x L matrix.
 *
 * The tape keeps q, k, v, out and lse; backward recomputes the weights tile by tile and makes all wanted gradients in one native call.
 */
import { gradEnabled, record, type Gradients } from '../autograd/tape.ts';
import { differentiate } from '../mask/differentiate.ts';
import { encodeProgram, type Program } from '../mask/program.ts';
import { native } from '../native.ts';
import { cast, contiguous, to } from '../ops/copy.ts';
import { abortable } from '../runtime.ts';
import { dtypeCode } from '../tensor/dtype.ts';
import { scope } from '../tensor/scope.ts';
import { Tensor } from '../tensor/tensor.ts';
import { bindAttention, nativeCall, type AttentionCall, type AttentionOptions } from './arguments.ts';

/** A partial result of attention: `out` [batch, heads, q, dim] and `lse` [batch, heads, q], the natural log of the softmax's denominator. */
/** Attention over some keys, and what it takes to join it with that over others (mergeAttentions). */
export interface AttentionResult {
  /** Weighted values [..., queries, dim_v], in the dtype of q. */
  readonly out: Tensor;
  /** Natural logarithm of the sum of exponentials of each query's logits, f32; -Infinity where it saw no key. */
  readonly lse: Tensor;
}

/**
 * Attention of queries `q` [batch, heads, lq, dim] over keys `k` [batch, heads_kv, lkv, dim] and values `v` [batch, heads_kv, lkv, dim_v]:
 *
 *     out[i] = sum_j softmax_j(t[i, j]) v[j],   t = bias + score(softcap(scale * q[i] . k[j]))   over the visible j
 *
 * Any strides; f32, bf16 or f16 with f32 accumulation; dims 1 to 256; heads a multiple of heads_kv (query head h uses key head
 * floor(h / (heads / heads_kv))). A query that sees nothing gives out 0, lse -inf and gradients 0. Differentiable in q, k, v, bias, captured
 * tensors of the score, and through lse.
 *
 * @returns out [batch, heads, lq, dim_v], or { out, lse } with `returnLse`
 * @throws FoveaError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT for operands and options that do not fit; ERR_MASK_INDEX where a mask would read a
 * captured table out of range; results reject with ERR_ABORTED when `signal` fires and with ERR_SHAPE for bad lists in tensors
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions & { readonly returnLse: true },
): AttentionResult;
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: AttentionOptions & { readonly returnLse?: false },
): Tensor;
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions & { readonly returnLse?: boolean } = {},
): Tensor | AttentionResult {
  return scope(() => {
    const call = bindAttention(q, k, v, options);
    const result = runAttention(call, options.signal);
    return options.returnLse ? result : result.out;
  });
}

/** Runs a bound call and records it. */
export function runAttention(call: AttentionCall, signal?: AbortSignal): AttentionResult {
  const [outHandle, lseHandle] = abortable(signal, () => native().attention(...nativeCall(call)));
  const out = new Tensor(outHandle);
  const lse = new Tensor(lseHandle);
  const [q, k, v, bias] = call.operands as [Tensor, Tensor, Tensor, Tensor | null];
  const inputs = [q, k, v, ...(bias ? [bias] : []), ...call.tables];
  if (gradEnabled() && inputs.some((t) => t.requiresGrad)) {
    const saved = { out: out.detach(), lse: lse.detach() };
    const held = [...call.operands.filter((t) => t !== null), ...call.block, ...call.tables, saved.out, saved.lse];
    const rule = (grads: Gradients): Gradients => backward(call, saved, grads, signal);
    record('attention', [out, lse], inputs, rule, held);
  }
  return { out, lse };
}

const derivatives = new WeakMap<Program, Map<string, Int32Array>>();

/** The encoded derivative of a score program with respect to the score and the given tables. */
function derivativeOf(program: Program, tables: readonly number[]): Int32Array {
  let of = derivatives.get(program);
  if (!of) derivatives.set(program, (of = new Map()));
  const key = tables.join();
  let encoded = of.get(key);
  if (!encoded) of.set(key, (encoded = encodeProgram(differentiate(program, tables))));
  return encoded;
}

function backward(
  call: AttentionCall,
  saved: AttentionResult,
  [dout, dlse]: Gradients,
  signal: AbortSignal | undefined,
): Gradients {
  const [q, k, v, bias] = call.operands as [Tensor, Tensor, Tensor, Tensor | null];
  const flags = [q, k, v, bias, ...call.tables].map((t) => (t?.requiresGrad ? 1 : 0));
  const trainable = call.tables.flatMap((t, i) => (t.requiresGrad ? [i] : []));
  const [operands, block, tables, program, uniforms, integers, scale, softcap] = nativeCall(call);
  const derivative = call.score ? derivativeOf(call.score, trainable) : null;
  const upstream = dout ?? zerosLike(saved.out);
  const handles = abortable(signal, () =>
    native().attentionBackward(
      operands,
      block,
      tables,
      program,
      derivative,
      uniforms,
      integers,
      scale,
      softcap,
      [saved.out.handle, saved.lse.handle, upstream.handle, dlse ? contiguous(dlse).handle : null],
      flags,
    ),
  );
  const grads = handles.map((handle) => (handle === null ? null : new Tensor(handle)));
  const dbias = grads[3] && bias ? cast(grads[3], bias.dtype) : null;
  return [grads[0], grads[1], grads[2], ...(bias ? [dbias] : []), ...grads.slice(4)];
}

function zerosLike(t: Tensor): Tensor {
  const zero = new Tensor(
    native().fromBytes(
      new Float32Array(1),
      dtypeCode('f32'),
      t.shape.map(() => 1),
    ),
  );
  const one = cast(to(zero, t.device), t.dtype);
  return new Tensor(native().view(one.handle, t.shape, t.shape.map(() => 0), 0)); // prettier-ignore
}
