/** The CARE transformer against the official one on a tiny configuration, its gradients, and the parameter counts of the published networks. */
import { describe, expect, test } from 'vitest';
import { manualSeed, models } from '../../lib/index.ts';
import { checkGolden } from '../golden_case.ts';
import { MODEL } from '../layers.ts';
import { checkModelGradients, noisy } from './model_case.ts';

const { CareTransformer, CARE_TRANSFORMERS } = models;

interface Config {
  depths: number[];
  feat_dims: number[];
  mem_dims: number[];
  ratios: [number, number][];
  att_head_dim: number[];
  num_classes: number;
}

test('golden care_model_tiny', () =>
  checkGolden(
    'care_model_tiny',
    (g) => {
      const c = g.config as unknown as Config;
      const options = { depths: c.depths, featDims: c.feat_dims, memDims: c.mem_dims, ratios: c.ratios, headDims: c.att_head_dim, classes: c.num_classes }; // prettier-ignore
      const model = g.module(new CareTransformer(options));
      const { head, distHead } = model.heads(g.input('x'));
      return { y: model.forward(g.input('x')), head, dist_head: distHead };
    },
    MODEL,
  ));

describe('gradients', () => {
  test.each([
    ['convolutions, then attention', 1],
    ['attention everywhere', 0],
  ])('%s', (_name, attentionFrom) => {
    manualSeed(1);
    const model = new CareTransformer({ depths: [1, 2], featDims: [12, 12], memDims: [4, 6], ratios: [[2, 2], [2, 3]], headDims: [2, 4], attentionFrom, layerScale: 0.5, classes: 3 }); // prettier-ignore
    checkModelGradients(model.eval(), noisy([1, 3, 24, 16], 1));
  });
});

test.each([
  ['care_s0', 7_340_000],
  ['care_s1', 9_602_424],
  ['care_s2', 19_481_288],
] as const)('%s has %i parameters', (name, count) => {
  expect(new CareTransformer(CARE_TRANSFORMERS[name]).parameterCount()).toBe(count);
});
