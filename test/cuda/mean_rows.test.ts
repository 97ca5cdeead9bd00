/** Routing of k-means attention on CUDA, where it is a composition: what the CPU's kernels give. */
import { describe, expect, test } from 'vitest';
import { tensor, type Tensor } from '../../lib/index.ts';
import { clusterTop } from '../../lib/attention/kmeans.ts';
import { meanRows } from '../../lib/ops/mean_rows.ts';
import { numbers, uniform } from '../inputs.ts';
import { relativeError } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const back = (t: Tensor): Float64Array => numbers(t.to('cpu'));

describe.skipIf(cuda.skip)('on CUDA', () => {
  test('clusterTop: lists of the CPU', () => {
    const x = tensor(uniform(2 * 2 * 21 * 6, 1), [2, 2, 21, 6], { dtype: 'f32' });
    const centroids = tensor(uniform(2 * 3 * 6, 2), [2, 3, 6], { dtype: 'f32' });
    expect(back(clusterTop(x.to('cuda'), centroids.to('cuda'), 5))).toEqual(numbers(clusterTop(x, centroids, 5)));
  });

  test('meanRows: averages of the CPU', () => {
    const src = tensor(uniform(2 * 12 * 5, 3), [2, 12, 5], { dtype: 'f32' });
    const ids = tensor(Int32Array.from(uniform(24, 4, 0, 7), Math.floor), [2, 12], { dtype: 'i32' });
    const mean = meanRows(src.to('cuda'), ids.to('cuda'), 9, 1e-5);
    expect(mean.shape).toEqual([2, 9, 5]);
    expect(relativeError(back(mean), numbers(meanRows(src, ids, 9, 1e-5)))).toBeLessThan(1e-6);
  });
});
