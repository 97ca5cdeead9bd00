/** DaViT against timm's and the official one on tiny configurations, its gradients, and the parameter counts of the published networks. */
import { describe, expect, test } from 'vitest';
import { manualSeed, models } from '../../lib/index.ts';
import { checkGolden } from '../golden_case.ts';
import { MODEL } from '../layers.ts';
import { checkModelGradients, noisy } from './model_case.ts';

const { DaViT, DAVITS } = models;

interface Config {
  depths: number[];
  embed_dims: number[];
  num_heads: number[];
  window_size: number;
  mlp_ratio: number;
  num_classes: number;
}

function optionsOf(config: object): models.DaViTOptions {
  const c = config as Config;
  return {
    depths: c.depths,
    dims: c.embed_dims,
    heads: c.num_heads,
    window: c.window_size,
    mlpRatio: c.mlp_ratio,
    classes: c.num_classes,
  };
}

test.each(['davit_timm_tiny', 'davit_model_tiny'])('golden %s', (name) =>
  checkGolden(name, (g) => ({ y: g.module(new DaViT(optionsOf(g.config))).forward(g.input('x')) }), MODEL),
);

const SMALL = { depths: [1, 1], dims: [8, 16], heads: [2, 4], window: 3, mlpRatio: 2, classes: 3 } as const;

describe('gradients', () => {
  test.each([
    ['ragged windows', SMALL],
    ['Florence-2', { ...SMALL, channelForm: 'florence', overlappedPatch: true, positionGelu: true }],
    ['channels only, no feed-forward net, no bias', { ...SMALL, attention: ['channel'], feedForward: false, qkvBias: false }], // prettier-ignore
  ] as [string, models.DaViTOptions][])('%s', (_name, options) => {
    manualSeed(1);
    checkModelGradients(new DaViT(options).eval(), noisy([1, 3, 22, 30], 1));
  });
});

test.each([
  ['davit_tiny', 28_360_168],
  ['davit_small', 49_745_896],
  ['davit_base', 87_954_408],
] as const)('%s has %i parameters', (name, count) => {
  expect(new DaViT(DAVITS[name]).parameterCount()).toBe(count);
});
