/**
 * S4D: a convolution over the whole sequence whose kernel is a sum of decaying complex exponentials,
 *
 *     K[l] = 2 Re sum_n C_n (e^{w_n dt} - 1) / w_n e^{w_n dt l}       y = K * u + D u
 *
 * Kernels of a chunk are Toeplitz matrices; what lies before a chunk is carried by one complex state for each exponential, so cost and memory
 * are linear in length. Backward in time a second kernel is added at lag distance - 1.
 *
 * Source: Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", NeurIPS 2022; keys and layout as in CAB.
 */
import { FoveaError } from '../errors.ts';
import { add, div, mul, sub } from '../ops/binary.ts';
import { concat } from '../ops/concat.ts';
import { arange, zeros } from '../ops/creation.ts';
import { indexSelect } from '../ops/embedding.ts';
import { matmul } from '../ops/matmul.ts';
import { pad } from '../ops/pad.ts';
import { flip } from '../ops/rearrange.ts';
import { tril } from '../ops/triangle.ts';
import { cos, exp, neg, sin, square } from '../ops/unary.ts';
import { reshape, select, slice, transpose, unsqueeze } from '../ops/view.ts';
import { expectOptions } from '../options.ts';
import { tensor } from '../tensor/create.ts';
import { expectObject, expectTensors } from '../tensor/expect.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { fullSizes, type Cost, type CostSizes } from './cost.ts';

export interface S4dParameters {
  /** [channels (times 2 when bidirectional), features, states, 2]: real and imaginary parts. */
  readonly c: Tensor;
  /** Log of the step of each feature, [features]. */
  readonly logDt: Tensor;
  /** w = -exp(logWReal) + i wImag, [1 or features, states]. */
  readonly logWReal: Tensor;
  readonly wImag: Tensor;
  /** [channels, features]. */
  readonly d: Tensor;
}

interface Complex {
  readonly re: Tensor;
  readonly im: Tensor;
}

const times = (a: Complex, b: Complex): Complex => ({
  re: sub(mul(a.re, b.re), mul(a.im, b.im)),
  im: add(mul(a.re, b.im), mul(a.im, b.re)),
});

/** e^{w dt l} for l [count], as [features, states, count]. */
function powers({ re, im }: Complex, l: Tensor): Complex {
  const size = exp(mul(unsqueeze(re, 2), l));
  const angle = mul(unsqueeze(im, 2), l);
  return { re: mul(size, cos(angle)), im: mul(size, sin(angle)) };
}

/** w dt [features, states] and 2 C (e^{w dt} - 1) / w [channels, features, states]. */
function prepare({ c, logDt, logWReal, wImag }: S4dParameters): { rate: Complex; gain: Complex } {
  const dt = unsqueeze(exp(logDt), 1);
  const w: Complex = { re: neg(exp(logWReal)), im: wImag };
  const rate: Complex = { re: mul(w.re, dt), im: mul(w.im, dt) };
  const size = exp(rate.re);
  const step: Complex = { re: sub(mul(size, cos(rate.im)), 1), im: mul(size, sin(rate.im)) };
  const length = add(square(w.re), square(w.im));
  const inverse: Complex = { re: div(w.re, length), im: neg(div(w.im, length)) };
  const part = (i: number): Tensor => mul(select(c, 3, i), 2);
  return { rate, gain: times({ re: part(0), im: part(1) }, times(step, inverse)) };
}

/** The kernel at lags 0..length-1: [channels, features, length]. Differentiable in c, logDt, logWReal, wImag. */
export function s4dKernel(parameters: S4dParameters, length: number): Tensor {
  expectObject('s4dKernel', 'parameters', parameters);
  const { c, logDt, logWReal, wImag } = parameters;
  expectTensors('s4dKernel', { c, logDt, logWReal, wImag });
  const { rate, gain } = prepare(parameters);
  return kernelAt(rate, gain, length);
}

function kernelAt(rate: Complex, gain: Complex, length: number): Tensor {
  const p = powers(rate, arange(0, length, 1, { dtype: 'f32', device: rate.re.device }));
  // Re(gain p) summed over states: [C, H, 1, N] @ [H, N, length].
  const product = (g: Tensor, x: Tensor): Tensor => select(matmul(unsqueeze(g, 2), x), 2, 0);
  return sub(product(gain.re, p.re), product(gain.im, p.im));
}

const CHUNK = 64;

/**
 * u [batch, features, length] to [batch, channels, features, length], f32; differentiable in u and all parameters. With `bidirectional` the
 * second half of c's channels looks ahead.
 *
 * @throws FoveaError ERR_SHAPE where u and the parameters don't fit together
 */
export function s4d(u: Tensor, parameters: S4dParameters, options: { readonly bidirectional?: boolean } = {}): Tensor {
  expectOptions('s4d', options, { bidirectional: true });
  const { bidirectional = false } = options;
  expectObject('s4d', 'parameters', parameters);
  const { c, d, logDt, logWReal, wImag } = parameters;
  expectTensors('s4d', { u, c, d, logDt, logWReal, wImag });
  const channels = c.shape[0] / (bidirectional ? 2 : 1);
  const features = u.shape[1];
  const states = c.shape[2];
  const fits =
    u.rank === 3 &&
    sameShape(c.shape, [channels * (bidirectional ? 2 : 1), features, states, 2]) &&
    sameShape(d.shape, [channels, features]) &&
    sameShape(logDt.shape, [features]) &&
    [logWReal, wImag].every((w) => w.rank === 2 && [1, features].includes(w.shape[0]) && w.shape[1] === states);
  if (!fits || !Number.isInteger(channels))
    throw new FoveaError(
      'ERR_SHAPE',
      `s4d: u ${shapeText(u.shape)}, c ${shapeText(c.shape)}, d ${shapeText(d.shape)}, logDt ${shapeText(logDt.shape)}, logWReal ` +
        `${shapeText(logWReal.shape)}, wImag ${shapeText(wImag.shape)}; expected [batch, features, length], [channels, features, states, 2], ` +
        '[channels, features], [features] and twice [1 or features, states]',
    );
  const { rate, gain } = prepare(parameters);
  const half = (from: number): Complex => ({
    re: slice(gain.re, 0, from, from + channels),
    im: slice(gain.im, 0, from, from + channels),
  });
  let y = add(convolve(u, rate, half(0)), mul(unsqueeze(u, 1), unsqueeze(d, 2)));
  if (bidirectional && u.shape[2] > 1) {
    // Ahead at distance 1 is lag 0: the reversed sequence, moved by one.
    const ahead = flip(convolve(flip(slice(u, 2, 1), 2), rate, half(channels)), 3);
    y = add(y, pad(ahead, [[0, 0], [0, 0], [0, 0], [0, 1]])); // prettier-ignore
  }
  return y;
}

/** Causal convolution, chunk by chunk. */
function convolve(u: Tensor, rate: Complex, gain: Complex): Tensor {
  const [batch, features, length] = u.shape;
  const size = Math.min(CHUNK, Math.max(1, length));
  const chunks = Math.ceil(length / size);
  const padded = pad(u, [[0, 0], [0, 0], [0, chunks * size - length]]); // prettier-ignore
  const parts = reshape(padded, [batch, 1, features, chunks, size]);
  const inside = matmul(parts, toeplitz(kernelAt(rate, gain, size), size));
  const carried = chunks > 1 ? add(inside, carry(parts, rate, gain, size)) : inside;
  return slice(reshape(carried, [batch, carried.shape[1], features, chunks * size]), 3, 0, length);
}

/** [C, H, size] as [C, H, size, size] with element (j, i) = kernel[i - j] for i >= j. */
function toeplitz(kernel: Tensor, size: number): Tensor {
  const lags = Int32Array.from({ length: size * size }, (_, at) => Math.max(0, (at % size) - Math.floor(at / size)));
  const square = reshape(indexSelect(kernel, 2, tensor(lags, null, { device: kernel.device })), [
    ...kernel.shape.slice(0, 2),
    size,
    size,
  ]);
  return transpose(tril(transpose(square)));
}

/** What earlier chunks add: states at each chunk's start, and their kernel inside it. */
function carry(parts: Tensor, rate: Complex, gain: Complex, size: number): Tensor {
  const [batch, , features, chunks] = parts.shape;
  const states = rate.re.shape[1];
  const like = { dtype: 'f32', device: parts.device } as const;
  // A chunk's own contribution to the state behind it: sum_j u_j e^{w dt (size - j)}.
  const reach = powers(rate, arange(size, 0, -1, like));
  const input = reshape(parts, [batch, features, chunks, size]);
  const added = { re: matmul(input, transpose(reach.re)), im: matmul(input, transpose(reach.im)) };
  const across = powers(rate, tensor([size], null, like));
  const decay = { re: reshape(across.re, [features, states]), im: reshape(across.im, [features, states]) };
  const none = zeros([batch, features, states], like);
  let state: Complex = { re: none, im: none };
  const starts: Complex[] = [];
  for (let i = 0; i < chunks; i++) {
    starts.push(state);
    const moved = times(state, decay);
    state = { re: add(moved.re, select(added.re, 2, i)), im: add(moved.im, select(added.im, 2, i)) };
  }
  const all = (part: 're' | 'im'): Tensor => concat(starts.map((s) => unsqueeze(s[part], 2)), 2); // prettier-ignore
  const [re, im] = [unsqueeze(all('re'), 1), unsqueeze(all('im'), 1)];
  const p = powers(rate, arange(0, size, 1, like));
  const g = { re: unsqueeze(gain.re, 3), im: unsqueeze(gain.im, 3) };
  const kernel = times(g, p);
  return sub(matmul(re, kernel.re), matmul(im, kernel.im));
}

/** Cost of s4d with `dim` features, for `channels` and complex `states`. */
export function s4dCost(
  sizes: CostSizes,
  options: { readonly channels?: number; readonly states?: number } = {},
): Cost {
  expectOptions('s4dCost', options, { channels: true, states: true });
  const { channels = 1, states = 8 } = options;
  const { batch, length, dim, elementBytes } = fullSizes(sizes);
  return {
    flops: batch * length * dim * (2 * channels * CHUNK + 4 * states + 4 * channels * states),
    bytes: batch * elementBytes * length * dim * (1 + channels) + elementBytes * channels * dim * CHUNK ** 2,
  };
}
