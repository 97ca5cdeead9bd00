/**
 * Spherical k-means beside attention: tokens are unit vectors, centroids are moved towards the tokens nearest to them and never see a
 * gradient (Roy, Saffar, Vaswani, Grangier, TACL 2021, section 4).
 *
 * Tokens x are [batch, heads, length, dim]; centroids [heads, clusters, dim], one set a head.
 */
import { noGrad } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { add, div, maximum, mul, sub } from '../ops/binary.ts';
import { gt } from '../ops/compare.ts';
import { cast } from '../ops/copy.ts';
import { full } from '../ops/creation.ts';
import { embedding } from '../ops/embedding.ts';
import { gather } from '../ops/gather.ts';
import { matmul } from '../ops/matmul.ts';
import { rand } from '../ops/random.ts';
import { argMax, mean, norm } from '../ops/reduce.ts';
import { rowStarts } from '../ops/row_starts.ts';
import { rowSums } from '../ops/row_sums.ts';
import { topK } from '../ops/sort.ts';
import { square } from '../ops/unary.ts';
import { expand, permute, reshape, transpose, unsqueeze } from '../ops/view.ts';
import { where } from '../ops/where.ts';
import { expectOptions } from '../options.ts';
import { scope } from '../tensor/scope.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { expectCount, expectRank } from './checks.ts';

const SMALLEST_NORM = 1e-12;

/** x / |x| along the last axis. */
export function unitVectors(x: Tensor): Tensor {
  return div(x, maximum(norm(x, -1, true), SMALLEST_NORM));
}

/** Throws ERR_SHAPE unless centroids are [heads, clusters, dim] for x. */
export function expectCentroids(op: string, centroids: Tensor, x: Tensor): void {
  expectRank(op, '[batch, heads, length, dim]', 4, { x });
  expectRank(op, '[heads, clusters, dim]', 3, { centroids });
  const [heads, , dim] = centroids.shape;
  if (heads !== x.shape[1] || dim !== x.shape[3])
    throw new FoveaError(
      'ERR_SHAPE',
      `${op}: centroids ${shapeText(centroids.shape)} for tokens ${shapeText(x.shape)}; expected [${x.shape[1]}, clusters, ${x.shape[3]}]`,
    );
}

/** Similarity of unit vectors to the centroids: [batch, heads, clusters, length]. */
export function clusterSimilarity(unit: Tensor, centroids: Tensor): Tensor {
  return matmul(unsqueeze(cast(centroids, unit.dtype), 0), transpose(unit, 2, 3));
}

/**
 * The `count` tokens of x whose direction is nearest to each centroid, in time order: i32 [batch, heads, clusters, count]. Of tokens equally
 * near the first are taken. Similarities are f32 whatever the dtype of x.
 */
export function clusterTop(x: Tensor, centroids: Tensor, count: number): Tensor {
  expectCentroids('clusterTop', centroids, x);
  const table = cast(centroids.detach(), 'f32');
  return new Tensor(native().clusterTop(x.handle, table.handle, count));
}

/** The nearest centroid of each token of x: i32 [batch, heads, length]. */
export function kmeansAssign(x: Tensor, centroids: Tensor): Tensor {
  expectCentroids('kmeansAssign', centroids, x);
  return noGrad(() => cast(argMax(clusterSimilarity(unitVectors(x.detach()), centroids), 2), 'i32'));
}

/** The row of each token's centroid in a table [heads * clusters, dim]. */
function centroidRows(buckets: Tensor, clusters: number): Tensor {
  const heads = buckets.shape[1];
  const first = reshape(rowStarts(heads, clusters, buckets.device), [1, heads, 1]);
  return reshape(add(buckets, first), [buckets.size]);
}

/** mean((x / |x| - nearest centroid)^2) over all elements: what pulls tokens towards their clusters. Differentiable in x. */
export function commitmentLoss(x: Tensor, centroids: Tensor): Tensor {
  const buckets = kmeansAssign(x, centroids);
  const [heads, clusters, dim] = centroids.shape;
  const table = reshape(cast(centroids.detach(), x.dtype), [heads * clusters, dim]);
  const nearest = reshape(embedding(table, centroidRows(buckets, clusters)), x.shape);
  return mean(square(sub(unitVectors(x), nearest)));
}

/**
 * Centroids to begin with: `clusters` random tokens of each head, as unit vectors, and ten Lloyd steps (or `steps`). f32 [heads, clusters, dim].
 *
 * @throws FoveaError ERR_ARGUMENT where a head has fewer tokens than clusters
 */
export function kmeansInit(
  x: Tensor,
  clusters: number,
  options: { readonly steps?: number; readonly seed?: number } = {},
): Tensor {
  expectOptions('kmeansInit', options, { steps: true, seed: true });
  const { steps = 10, seed } = options;
  expectRank('kmeansInit', '[batch, heads, length, dim]', 4, { x });
  expectCount('kmeansInit', 'clusters', clusters);
  expectCount('kmeansInit', 'steps', steps, 0);
  const [batch, heads, length, dim] = x.shape;
  const tokens = batch * length;
  if (tokens < clusters)
    throw new FoveaError('ERR_ARGUMENT', `kmeansInit: ${clusters} clusters for ${tokens} tokens a head`);
  return noGrad(() =>
    scope(() => {
      const lots = rand([heads, tokens], { device: x.device, ...(seed !== undefined && { seed }) });
      const drawn = unsqueeze(topK(lots, clusters).indices, 2);
      const perHead = reshape(permute(cast(x.detach(), 'f32'), [1, 0, 2, 3]), [heads, tokens, dim]);
      let centroids = unitVectors(gather(perHead, 1, drawn));
      for (let i = 0; i < steps; i++) centroids = kmeansStep(x, centroids);
      return centroids;
    }),
  );
}

/**
 * One Lloyd step: centroids that are the unit vectors of the sums of the tokens assigned to them; a centroid without tokens stays as it is.
 * f32 [heads, clusters, dim].
 */
export function kmeansStep(x: Tensor, centroids: Tensor): Tensor {
  return noGrad(() => {
    const buckets = kmeansAssign(x, centroids);
    const [heads, clusters, dim] = centroids.shape;
    const rows = centroidRows(buckets, clusters);
    const unit = cast(unitVectors(x.detach()), 'f32');
    const sums = rowSums(reshape(unit, [rows.size, dim]), rows, heads * clusters);
    const moved = reshape(unitVectors(sums), centroids.shape);
    const counts = countRows(rows, heads * clusters);
    return where(gt(reshape(counts, [heads, clusters, 1]), 0), moved, cast(centroids, 'f32'));
  });
}

/** How often each id occurs: f32 [count]. */
export function countRows(ids: Tensor, count: number): Tensor {
  return reshape(rowSums(expand(full([1, 1], 1, { device: ids.device }), [ids.size, 1]), ids, count), [count]);
}

/** Centroids moved a part of the way to the result of a Lloyd step: decay * centroids + (1 - decay) * step (not normalised again). */
export function kmeansUpdate(x: Tensor, centroids: Tensor, options: { readonly decay?: number } = {}): Tensor {
  expectOptions('kmeansUpdate', options, { decay: true });
  const { decay = 0.999 } = options;
  return noGrad(() => add(mul(cast(centroids, 'f32'), decay), mul(kmeansStep(x, centroids), 1 - decay)));
}
