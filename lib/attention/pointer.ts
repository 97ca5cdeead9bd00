/**
 * Pointer attention: the weights over the inputs are the output distribution.
 *
 *     u[t, j] = v . tanh(keys_j + queries_t)      log p[t, :] = log softmax of u[t, :] over the allowed j
 *
 * keys = W1 e_j are made once for a sequence, queries = W2 d_t once for a step. Log-probabilities come from one log-softmax, exact where the
 * probability is tiny, and -Infinity where a key is not allowed.
 *
 * Source: Vinyals, Fortunato and Jaitly, "Pointer Networks", NIPS 2015, equation 3.
 */
import { FoveaError } from '../errors.ts';
import { add } from '../ops/binary.ts';
import { concat } from '../ops/concat.ts';
import { cast } from '../ops/copy.ts';
import { matmul } from '../ops/matmul.ts';
import { logSoftmax } from '../ops/softmax.ts';
import { tanh } from '../ops/unary.ts';
import { slice, unsqueeze } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { expectRank } from './checks.ts';
import { fullSizes, type Cost, type CostSizes } from './cost.ts';

export interface PointerOptions {
  /** bool, broadcastable to [batch, steps, inputs]: true where the step may point. Every step needs one. Default all. */
  readonly allowed?: Tensor;
}

const POINTER_OPTIONS: OptionNames<PointerOptions> = { allowed: true };

/** Elements of a band's [batch, steps, inputs, hidden]. */
const BAND = 1 << 22;

/**
 * keys [batch, inputs, hidden], queries [batch, steps, hidden], v [hidden] to log-probabilities [batch, steps, inputs], f32. f32, bf16, f16;
 * differentiable in all three.
 *
 * @throws FoveaError ERR_SHAPE where shapes don't fit together
 */
export function pointerAttention(keys: Tensor, queries: Tensor, v: Tensor, options: PointerOptions = {}): Tensor {
  expectOptions('pointerAttention', options, POINTER_OPTIONS);
  const { allowed } = options;
  expectRank('pointerAttention', '[batch, length, hidden]', 3, { keys, queries });
  expectTensors('pointerAttention', { v });
  const [batch, inputs, hidden] = keys.shape;
  if (queries.shape[0] !== batch || queries.shape[2] !== hidden || v.rank !== 1 || v.shape[0] !== hidden)
    throw new FoveaError(
      'ERR_SHAPE',
      `pointerAttention: keys ${shapeText(keys.shape)}, queries ${shapeText(queries.shape)}, v ${shapeText(v.shape)}; expected one batch ` +
        'and hidden size',
    );
  const steps = queries.shape[1];
  const band = Math.max(1, Math.floor(BAND / Math.max(1, batch * inputs * hidden)));
  const bands: Tensor[] = [];
  for (let from = 0; from === 0 || from < steps; from += band) {
    const part = unsqueeze(slice(queries, 1, from, from + band), 2);
    bands.push(matmul(tanh(add(unsqueeze(keys, 1), part)), v));
  }
  const logits = cast(bands.length === 1 ? bands[0] : concat(bands, 1), 'f32');
  return logSoftmax(allowed ? where(allowed, logits, -Infinity) : logits);
}

/** Cost of pointerAttention; `length` steps, `keys` inputs, `dim` the hidden size; a tanh counts 10 operations. */
export function pointerCost(sizes: CostSizes): Cost {
  const { batch, length, keys, dim, elementBytes } = fullSizes(sizes);
  return {
    flops: batch * length * keys * (13 * dim + 5),
    bytes: batch * elementBytes * ((length + keys) * dim + length * keys * (2 * dim + 1)),
  };
}
