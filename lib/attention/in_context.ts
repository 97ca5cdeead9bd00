/**
 * In-context regression: one layer of multi-head softmax attention that reads examples (x_l, y_l) and predicts y for a query, and the
 * predictors it is compared with.
 *
 * Every head has the full width of a token; the query token does not attend to itself. Trained, the heads implement one debiased step of
 * gradient descent: positive and negative heads of equal strength whose outputs subtract.
 *
 * Source: He, Pan, Chen and Yang, "In-Context Linear Regression Demystified", ICML 2025, sections 2 to 4.
 */
import { FoveaError } from '../errors.ts';
import { add, div, mul, sub } from '../ops/binary.ts';
import { lt } from '../ops/compare.ts';
import { linear } from '../ops/linear.ts';
import { matmul } from '../ops/matmul.ts';
import { max, mean, sum } from '../ops/reduce.ts';
import { softmax } from '../ops/softmax.ts';
import { abs, clamp, exp, expm1, neg } from '../ops/unary.ts';
import { permute, reshape, unsqueeze } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions } from '../options.ts';
import { expectObject, expectTensors } from '../tensor/expect.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { attention } from './attention.ts';
import { expectRank } from './checks.ts';
import { fullSizes, pairsCost, type Cost, type CostSizes } from './cost.ts';

export interface InContextWeights {
  /** [heads width, width]. */
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  /** [outputs, heads width]. */
  readonly o: Tensor;
}

/**
 * Query tokens zq [batch, queries, width] over examples z [batch, examples, width] to [batch, queries, outputs]. f32, bf16 or f16;
 * differentiable in all.
 *
 * @throws FoveaError ERR_SHAPE where shapes don't fit together
 */
export function inContextAttention(zq: Tensor, z: Tensor, weights: InContextWeights): Tensor {
  expectRank('inContextAttention', '[batch, tokens, width]', 3, { zq, z });
  const { q, k, v, o } = weights;
  expectTensors('inContextAttention', { q, k, v, o });
  const [batch, , width] = z.shape;
  const count = q.shape[0] / width;
  if (zq.shape[0] !== batch || zq.shape[2] !== width || !Number.isInteger(count))
    throw new FoveaError(
      'ERR_SHAPE',
      `inContextAttention: zq ${shapeText(zq.shape)}, z ${shapeText(z.shape)}, q ${shapeText(q.shape)}; expected one batch and ` +
        'width, and heads of that width',
    );
  if (![k, v].every((w) => sameShape(w.shape, q.shape)))
    throw new FoveaError(
      'ERR_SHAPE',
      `inContextAttention: weights q ${shapeText(q.shape)}, k ${shapeText(k.shape)}, v ${shapeText(v.shape)}; expected one shape`,
    );
  const heads = (t: Tensor, w: Tensor): Tensor =>
    permute(reshape(linear(t, w), [batch, t.shape[1], count, width]), [0, 2, 1, 3]);
  const out = attention(heads(zq, q), heads(z, k), heads(z, v));
  return linear(reshape(permute(out, [0, 2, 1, 3]), [batch, zq.shape[1], count * width]), o);
}

/** One regression problem: x [dim, examples], y [examples], xq [dim]; strength omega and mu [1]. */
export interface Regression {
  readonly x: Tensor;
  readonly y: Tensor;
  readonly xq: Tensor;
  readonly omega: Tensor;
  readonly mu: Tensor;
}

function tensorsOf(op: string, regression: Regression): Regression {
  expectObject(op, 'regression', regression);
  const { x, y, xq, omega, mu } = regression;
  expectTensors(op, { x, y, xq, omega, mu });
  return regression;
}

/** (2 omega mu / L) sum_l y_l x_l . xq, [1]; with `debiased`, x_l less the mean of the examples. */
export function gradientStep(regression: Regression, options: { readonly debiased?: boolean } = {}): Tensor {
  const { x, y, xq, omega, mu } = tensorsOf('gradientStep', regression);
  expectOptions('gradientStep', options, { debiased: true });
  const { debiased = true } = options;
  const inputs = debiased ? sub(x, mean(x, 1, true)) : x;
  const fit = sum(mul(y, matmul(unsqueeze(xq, 0), inputs)));
  return mul(mul(mul(omega, mu), fit), 2 / x.shape[1]);
}

/** Logits below which `twoHeadPrediction` takes the difference of its heads apart. */
const SMALL = 8;

/**
 * mu (y . softmax(omega x^T xq) - y . softmax(-omega x^T xq)), [1]: what two heads of opposite sign predict.
 *
 * Small logits a leave two nearly equal heads, whose difference would keep few digits. With s = sinh a, c = cosh a and their sums S, C that is
 * 2 (C y.s - S y.c) / (C + S)(C - S), which keeps them.
 */
export function twoHeadPrediction(regression: Regression): Tensor {
  const { x, y, xq, omega, mu } = tensorsOf('twoHeadPrediction', regression);
  const logits = mul(reshape(matmul(unsqueeze(xq, 0), x), [x.shape[1]]), omega);
  const head = (sign: number): Tensor => sum(mul(y, softmax(mul(logits, sign))));
  const a = clamp(logits, -SMALL, SMALL);
  const opposite = neg(a);
  const s = div(sub(expm1(a), expm1(opposite)), 2);
  const c = div(add(exp(a), exp(opposite)), 2);
  const odd = sub(mul(sum(c), sum(mul(y, s))), mul(sum(s), sum(mul(y, c))));
  const near = div(mul(odd, 2), mul(sum(exp(a)), sum(exp(opposite))));
  return mul(mu, where(lt(max(abs(logits)), SMALL), near, sub(head(1), head(-1))));
}

/**
 * The approximate population loss of heads with strengths mu, omega [heads], a scalar:
 *
 *     1/2 (1 + s2 - 2 mu.omega + mu^T (omega omega^T + (1 + s2)/L exp(d omega omega^T)) mu)
 */
export function populationLoss(
  mu: Tensor,
  omega: Tensor,
  options: { readonly dim: number; readonly examples: number; readonly noise: number },
): Tensor {
  expectOptions('populationLoss', options, { dim: true, examples: true, noise: true });
  const { dim, examples, noise } = options;
  const outer = mul(unsqueeze(omega, 1), unsqueeze(omega, 0));
  const map = add(outer, mul(exp(mul(outer, dim)), (1 + noise) / examples));
  const quadratic = sum(mul(mul(unsqueeze(mu, 1), unsqueeze(mu, 0)), map));
  return div(add(sub(quadratic, mul(sum(mul(mu, omega)), 2)), 1 + noise), 2);
}

/** Cost of inContextAttention: `length` queries over `keys` examples of width `dim`. */
export function inContextCost(sizes: CostSizes): Cost {
  const { batch, heads, length, keys, dim } = fullSizes(sizes);
  const core = pairsCost(sizes, length * keys);
  return { flops: core.flops + 4 * batch * heads * dim * dim * (length + keys), bytes: core.bytes };
}
