/**
 * What mechanisms still lack on CUDA: tests by the part of the error message that names the missing piece. Such a test expects
 * ERR_UNSUPPORTED with that text on CUDA; once the piece is there it fails, and its title has to leave this list.
 */
import { expect } from 'vitest';

const MISSING: Readonly<Record<string, readonly string[]>> = {
  'mergeAttentions: there is no CUDA kernel': [
    'biformer_bra_qkdim_soft',
    'cab_longshort_self',
    'cab_longshort_pad',
    'cab_causal_longshort',
    'combiner_fixed_causal',
    'combiner_fixed_bidir',
    'combiner_log_12',
    'combiner_log_16',
    'combiner_axial_mixture',
    'combiner_axial_mixture_sq',
    'combiner_axial_rowmajor',
    'dta_single_softmax',
    'routing_kmeans_causal',
    'routing_kmeans_sharedqk_causal',
    'routing_kmeans_mask',
    'superlinear_basic',
    'superlinear_fwd',
    'superlinear_decode',
    'superlinear_gqa_mask',
    'bi-level routing, soft',
    'k-means routing, causal, separate keys with memory',
    'k-means routing, causal, queries are the keys',
    'Combiner, fixed',
    'Combiner, fixed, both ways, means',
    'Combiner, log',
    'Combiner, rows',
    'Combiner, vertical',
    'Combiner, horizontal',
    'Combiner, mixture',
    'dual triangle, one softmax',
    'ABC, causal',
    'long-short',
    'long-short, causal',
    'long-short, causal, with positions',
    'positionless',
  ],
  'the gradient of a bias has no CUDA kernel': [
    'cab_abc_causal_as_coded',
    'abc_causal_recurrent',
    'cab_lara_eval',
    'decon_nonapprox',
    'dependencyvit_revattn',
    'dependencyvit_revattn_m',
    'mixture of heads with a bias',
    'reversed',
    'LARA',
    'ABC, the newest write alone',
  ],
  'gradients of score programs have no CUDA kernel': [
    'decon_taylor by score',
    'k-means routing, queries are the keys',
    'Taylor by score',
  ],
  'neighborhoodQK: there is no CUDA kernel': ['golden: moh_vit_aggregated', 'aggregated'],
};

/** Runs the part of the current test that is on CUDA; where the list has the test, the error is expected instead. */
export function expectOnCuda(run: () => void): void {
  const title = expect.getState().currentTestName?.split(' > ').at(-1) ?? '';
  const [missing] = Object.entries(MISSING).find(([, titles]) => titles.includes(title)) ?? [null];
  if (missing === null) return run();
  expect(run, `${title} on CUDA`).toThrow(
    expect.objectContaining({ code: 'ERR_UNSUPPORTED', message: expect.stringContaining(missing) as string }),
  );
}
