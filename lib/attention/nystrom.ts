/**
 * Nystrom attention: the map reconstructed from landmarks, F pinv(A) B v with
 *
 *     F = softmax(q ~k^T),   A = softmax(~q ~k^T),   B = softmax(~q k^T)
 *
 * ~q and ~k being means of segments. B v and F (...) are calls of the engine, pinv is six iterations of a third-order scheme on the small
 * A. A length within the number of landmarks is exact attention.
 *
 * Source: Xiong et al., "Nystromformer", AAAI 2021. As in CAB q and k are both divided by sqrt(dim), and pinv starts from one norm over the
 * whole tensor ('shared'), which couples batch and heads; 'each' gives every map its own.
 */
import { FoveaError } from '../errors.ts';
import { add, div, mul, sub } from '../ops/binary.ts';
import { cast } from '../ops/copy.ts';
import { eye } from '../ops/creation.ts';
import { matmul } from '../ops/matmul.ts';
import { pad } from '../ops/pad.ts';
import { max, sum } from '../ops/reduce.ts';
import { softmax } from '../ops/softmax.ts';
import { reshape, slice, transpose } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectCount, expectSelfAttention, expectValid } from './checks.ts';
import { addCosts, fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';
import { segmentMeans } from './landmarks.ts';

export interface NystromOptions {
  /** Default 16. */
  readonly landmarks?: number;
  /** Of q.k; default 1 / dim. */
  readonly scale?: number;
  /** Depth-wise convolution of v along tokens, [heads, kernel] with an odd kernel, added to the result. Default none. */
  readonly conv?: Tensor;
  /** bool [batch, length], true for real tokens. Others are not seen; as in CAB they count in the means of segments, as zeros. */
  readonly valid?: Tensor;
  /** Norm that pinv starts from. Default 'shared'. */
  readonly start?: 'shared' | 'each';
}

const NYSTROM_OPTIONS: OptionNames<NystromOptions> = {
  landmarks: true,
  scale: true,
  conv: true,
  valid: true,
  start: true,
};

/**
 * q, k [batch, heads, length, dim], v [batch, heads, length, dimV] to v's shape. f32, bf16 or f16 (the pseudo-inverse in f32); differentiable
 * in q, k, v, conv.
 *
 * @throws FoveaError ERR_SHAPE where q, k, v or conv don't fit together, ERR_ARGUMENT for landmarks below 1
 */
export function nystromAttention(q: Tensor, k: Tensor, v: Tensor, options: NystromOptions = {}): Tensor {
  expectOptions('nystromAttention', options, NYSTROM_OPTIONS);
  expectSelfAttention('nystromAttention', q, k, v);
  const { landmarks = 16, scale = 1 / q.shape[3], conv, valid, start = 'shared' } = options;
  const [batch, , length] = q.shape;
  expectValid('nystromAttention', valid, batch, length);
  expectCount('nystromAttention', 'landmarks', landmarks);
  if (conv && (conv.rank !== 2 || conv.shape[0] !== q.shape[1] || conv.shape[1] % 2 === 0))
    throw new FoveaError('ERR_SHAPE', `nystromAttention: conv ${shapeText(conv.shape)}, expected [heads, odd kernel]`);
  const [keys, values] = valid ? [k, v].map((t) => where(reshape(valid, [batch, 1, length, 1]), t, 0)) : [k, v];
  const seen = valid ? { scale, mask: reshape(valid, [batch, 1, 1, length]) } : { scale };
  const out =
    length <= landmarks ? attention(q, keys, values, seen) : approximate(q, keys, values, landmarks, start, seen);
  return conv ? add(out, convolve(values, conv)) : out;
}

interface Seen {
  readonly scale: number;
  readonly mask?: Tensor;
}

function approximate(q: Tensor, k: Tensor, v: Tensor, landmarks: number, start: string, seen: Seen): Tensor {
  const { scale } = seen;
  const [queries, keys] = [segmentMeans(q, landmarks), segmentMeans(k, landmarks)];
  const map = softmax(mul(matmul(queries, transpose(keys), { dtype: 'f32' }), scale));
  const gathered = cast(attention(queries, k, v, seen), 'f32');
  return attention(q, keys, cast(matmul(inverse(map, start), gathered), v.dtype), { scale });
}

/** The pseudo-inverse of row-stochastic matrices. */
function inverse(a: Tensor, start: string): Tensor {
  if (a.size === 0) return a;
  const identity = eye(a.shape[2], a.shape[2], { device: a.device });
  const columns = max(sum(a, -2, true), start === 'shared' ? null : -1, true);
  let v = div(transpose(a), start === 'shared' ? reshape(columns, [1, 1, 1, 1]) : columns);
  for (let i = 0; i < 6; i++) {
    const av = matmul(a, v);
    const inner = sub(mul(identity, 7), av);
    const middle = sub(mul(identity, 15), matmul(av, inner));
    v = mul(matmul(v, sub(mul(identity, 13), matmul(av, middle))), 0.25);
  }
  return v;
}

function convolve(v: Tensor, conv: Tensor): Tensor {
  const [heads, kernel] = conv.shape;
  const by = (kernel - 1) / 2;
  const wide = pad(v, [[0, 0], [0, 0], [by, by], [0, 0]]); // prettier-ignore
  const taps = Array.from({ length: kernel }, (_, i) =>
    mul(slice(wide, 2, i, i + v.shape[2]), reshape(slice(conv, 1, i, i + 1), [1, heads, 1, 1])),
  );
  return cast(taps.reduce((a, b) => add(a, b)), v.dtype); // prettier-ignore
}

/** Cost of nystromAttention. */
export function nystromCost(sizes: CostSizes, options: NystromOptions = {}): Cost {
  expectOptions('nystromCost', options, NYSTROM_OPTIONS);
  const { landmarks = 16 } = options;
  const { batch, heads, length, elementBytes } = fullSizes(sizes);
  const m = landmarks;
  const pinv = { flops: batch * heads * 6 * 8 * m ** 3, bytes: batch * heads * elementBytes * 8 * m ** 2 };
  return addCosts(pairsCost(sizes, 2 * length * m + m * m), pinv);
}
