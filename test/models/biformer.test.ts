/** BiFormer against the official networks on tiny configurations, its gradients, and the parameter counts of the published networks. */
import { describe, expect, test } from 'vitest';
import { manualSeed, models, type Tensor } from '../../lib/index.ts';
import { checkGolden, type GoldenCase } from '../golden_case.ts';
import { MODEL } from '../layers.ts';
import { checkModelGradients, noisy } from './model_case.ts';

const { BiFormer, BIFORMERS, BiFormerStl, BIFORMER_STL } = models;

interface Config {
  depth: number[];
  embed_dim: number[];
  mlp_ratios: number[];
  head_dim: number;
  topks: number[];
  side_dwconv: number;
  num_classes: number;
  n_win: number;
  n_wins: number[];
  qk_dims: number[];
  before_attn_dwconv: number;
}

function outputs(model: models.BiFormer | models.BiFormerStl, x: Tensor): Record<string, Tensor> {
  const stages = model.stageOutputs(x);
  const named = Object.fromEntries(stages.map((t, s) => [`stage${s}`, t]));
  return { ...named, y: model.classify(stages[stages.length - 1]) };
}

function common(g: GoldenCase) {
  const c = g.config as unknown as Config;
  const options = {
    depths: c.depth,
    dims: c.embed_dim,
    mlpRatios: c.mlp_ratios,
    headDim: c.head_dim,
    topK: c.topks,
    lepe: c.side_dwconv,
    classes: c.num_classes,
  };
  return { c, options };
}

test('golden biformer_model_tiny', () =>
  checkGolden(
    'biformer_model_tiny',
    (g) => {
      const { c, options } = common(g);
      const settings = { ...options, regions: c.n_win, qkDims: c.qk_dims, positionConv: c.before_attn_dwconv };
      return outputs(g.module(new BiFormer(settings)), g.input('x'));
    },
    MODEL,
  ));

test('golden biformer_stl_nchw_tiny', () =>
  checkGolden(
    'biformer_stl_nchw_tiny',
    (g) => {
      const { c, options } = common(g);
      return outputs(g.module(new BiFormerStl({ ...options, regions: c.n_wins })), g.input('x'));
    },
    MODEL,
  ));

const SMALL = { depths: [1, 1], dims: [8, 16], headDim: 4, topK: [2, -2], regions: 2, classes: 3 } as const;

describe('gradients', () => {
  test.each([
    ['as published', SMALL],
    ['padded, soft, scaled, post-norm', { ...SMALL, topK: [2, 3], autoPad: true, softRouting: true, diffRouting: true, routingProjection: true, layerScale: 0.5, preNorm: false, mlpConv: true, qkDims: [4, 8] }],
    ['convolutions, plain attention, no extras', { ...SMALL, topK: [0, -1], lepe: 0, positionConv: 0 }],
    ['pooled keys, no projection', { ...SMALL, topK: [1, 2], pooling: [{ mode: 'mean', size: 2 }, null], outProjection: false }],
  ] as [string, models.BiFormerOptions][])('%s', (_name, options) => {
    manualSeed(1);
    const side = options.autoPad ? 28 : 32;
    checkModelGradients(new BiFormer(options).eval(), noisy([1, 3, side, 32], 1));
  }); // prettier-ignore

  test('of BiFormerStl, ragged regions', () => {
    manualSeed(2);
    const model = new BiFormerStl({ ...SMALL, topK: [2, -1], regions: [3, 2] });
    checkModelGradients(model.eval(), noisy([1, 3, 32, 40], 1));
  });
});

test('images that are not whole regions are refused', () => {
  const model = new BiFormer({ ...SMALL, regions: 3 }).eval();
  expect(() => model.forward(noisy([1, 3, 32, 32], 1))).toThrow(
    expect.objectContaining({ code: 'ERR_SHAPE' }) as Error,
  );
});

test.each([
  ['biformer_tiny', 13_142_760],
  ['biformer_small', 25_536_232],
  ['biformer_base', 56_804_968],
] as const)('%s has %i parameters', (name, count) => {
  expect(new BiFormer(BIFORMERS[name]).parameterCount()).toBe(count);
});

test('BiFormerStl has 28 372 552 parameters', () => {
  expect(new BiFormerStl(BIFORMER_STL).parameterCount()).toBe(28_372_552);
});
