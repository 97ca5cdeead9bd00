/**
 * ProbSparse attention: only the queries whose scores stand out attend; the others get the mean of the values (the running sum with causal).
 *
 * A query stands out by M = max - sum / keys over a sample of keys. Chosen queries are gathered, attended to by the engine and scattered back.
 *
 * Source: Zhou et al., "Informer", AAAI 2021, section 3.1. As released, the sum is divided by the number of keys, not of samples, and the
 * causal fallback is a sum, not a mean.
 */
import { FoveaError } from '../errors.ts';
import { noGrad } from '../autograd/tape.ts';
import { mul, sub } from '../ops/binary.ts';
import { le } from '../ops/compare.ts';
import { cast } from '../ops/copy.ts';
import { arange } from '../ops/creation.ts';
import { indexSelect } from '../ops/embedding.ts';
import { gather, scatter } from '../ops/gather.ts';
import { randint } from '../ops/random.ts';
import { max, mean, sum } from '../ops/reduce.ts';
import { cumsum } from '../ops/scan.ts';
import { selectTop } from '../ops/sort.ts';
import { expand, reshape, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectCount, expectCrossAttention, expectSelfAttention } from './checks.ts';
import { addCosts, fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';

export interface ProbSparseOptions {
  /** c of c ceil(ln length): sampled keys a query, and queries that attend. Default 5. */
  readonly factor?: number;
  /** Sampled keys of each query, i32 or i64 [lq, samples]. Default drawn by randint(). */
  readonly sample?: Tensor;
  /** Keys up to the query's own only. Default false. */
  readonly causal?: boolean;
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
}

const PROB_SPARSE_OPTIONS: OptionNames<ProbSparseOptions> = { factor: true, sample: true, causal: true, scale: true };

const count = (factor: number, length: number): number =>
  Math.min(length, factor * Math.max(1, Math.ceil(Math.log(Math.max(1, length)))));

/**
 * q [batch, heads, lq, dim], k [batch, heads, lk, dim], v [batch, heads, lk, dimV] to [batch, heads, lq, dimV]; f32, bf16 or f16;
 * differentiable in q, k, v, not through the choice. Causal needs lq = lk.
 *
 * @throws FoveaError ERR_SHAPE where shapes don't fit together, ERR_ARGUMENT for a factor below 1
 */
export function probSparseAttention(q: Tensor, k: Tensor, v: Tensor, options: ProbSparseOptions = {}): Tensor {
  expectOptions('probSparseAttention', options, PROB_SPARSE_OPTIONS);
  const { factor = 5, causal = false } = options;
  (causal ? expectSelfAttention : expectCrossAttention)('probSparseAttention', q, k, v);
  expectCount('probSparseAttention', 'factor', factor);
  const { scale = 1 / Math.sqrt(q.shape[3]) } = options;
  const [batch, heads, lq, dim] = q.shape;
  const lk = k.shape[2];
  if (lq === 0 || lk === 0) return attention(q, k, v, { scale });
  const { sample = randint(0, lk, [lq, count(factor, lk)], { device: k.device }) } = options;
  if (sample.rank !== 2 || sample.shape[0] !== lq)
    throw new FoveaError(
      'ERR_SHAPE',
      `probSparseAttention: sample ${shapeText(sample.shape)}, expected [${lq}, samples]`,
    );
  const chosen = noGrad(() => {
    const keys = reshape(indexSelect(k, 2, reshape(sample, [-1])), [batch, heads, lq, sample.shape[1], dim]);
    const scores = sum(mul(cast(unsqueeze(q, 3), 'f32'), cast(keys, 'f32')), 4);
    const standsOut = sub(max(scores, 3), mul(sum(scores, 3), 1 / lk));
    return unsqueeze(selectTop(standsOut, count(factor, lq)), 3);
  });
  const visible = causal
    ? { mask: le(reshape(arange(0, lk, 1, { dtype: 'i32', device: k.device }), [1, 1, 1, lk]), chosen) }
    : {};
  const attended = attention(gather(q, 2, chosen), k, v, { scale, ...visible });
  const rest = causal ? cumsum(v, 2) : expand(mean(v, 2, true), [batch, heads, lq, v.shape[3]]);
  return scatter(rest, 2, chosen, attended);
}

/** Cost of probSparseAttention. */
export function probSparseCost(sizes: CostSizes, options: ProbSparseOptions = {}): Cost {
  expectOptions('probSparseCost', options, PROB_SPARSE_OPTIONS);
  const { factor = 5 } = options;
  const { length, keys, dim } = fullSizes(sizes);
  const samples = count(factor, keys);
  const measuring = pairsCost({ ...sizes, dimV: 0 }, length * samples, length * samples * dim);
  return addCosts(measuring, pairsCost(sizes, count(factor, length) * keys));
}
