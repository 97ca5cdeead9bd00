/** HaloNet against timm's on tiny configurations, its gradients, and the parameter counts of the published networks. */
import { describe, expect, test } from 'vitest';
import { BatchNorm, manualSeed, models } from '../../lib/index.ts';
import { checkGolden } from '../golden_case.ts';
import { MODEL } from '../layers.ts';
import { checkModelGradients, noisy } from './model_case.ts';

const { HALONETS, HaloNet } = models;

const attends = (width: number, stride: number, bottleRatio: number) => ({ type: 'self_attn', width, stride, bottleRatio }) as const; // prettier-ignore
const bottle = (width: number, stride: number, bottleRatio: number) => ({ type: 'bottle', width, stride, bottleRatio }) as const; // prettier-ignore

const TINY = {
  halonet26t_tiny: {
    stages: [[bottle(16, 1, 0.5)], [bottle(24, 2, 0.5)], [bottle(32, 2, 0.5), attends(32, 1, 0.5)], [attends(32, 2, 0.5)]],
    stem: { type: 'tiered', width: 8, pool: true },
    attention: { blockSize: 2, haloSize: 1, heads: 2 },
    classes: 10,
  },
  halonet_h1_tiny: {
    stages: [[attends(16, 1, 1)], [attends(16, 2, 1), attends(16, 1, 1)], [attends(24, 2, 1)], [attends(32, 2, 1)]],
    stem: { type: '7x7', width: 16, pool: true },
    attention: { blockSize: 4, haloSize: 2, heads: 2 },
    classes: 10,
  },
} as const satisfies Record<string, models.HaloNetOptions>; // prettier-ignore

test.each(['halonet26t_tiny', 'halonet_h1_tiny'] as const)('golden %s', (name) =>
  checkGolden(name, (g) => ({ y: g.module(new HaloNet(TINY[name])).forward(g.input('x')) }), MODEL),
);

describe('gradients', () => {
  test.each([
    ['relu, attention with strides', 64, TINY.halonet26t_tiny],
    ['silu, gates, groups, odd blocks averaged', 24, {
      stages: [[bottle(16, 1, 0.5)], [{ ...bottle(32, 2, 1), groupSize: 8 }, attends(32, 2, 0.5)]],
      stem: { type: '3x3', width: 8, pool: false },
      attention: { blockSize: 3, haloSize: 1, heads: 2, headDim: 4, qkvBias: true, scaleRelative: true },
      activation: 'silu', channelGate: 'eca', features: 16, classes: 3,
    }],
    ['no projected shortcut, squeeze and excitation', 16, {
      stages: [[bottle(16, 2, 1), bottle(16, 1, 2)]],
      stem: { type: 'tiered', width: 16, pool: false },
      activation: 'silu', channelGate: 'se', seRatio: 0.25, projectedShortcut: false, bottleIn: true, linearOut: true, classes: 3,
    }],
  ] as const satisfies [string, number, models.HaloNetOptions][])('%s', (_name, side, options) => {
    manualSeed(1);
    checkModelGradients(new HaloNet(options).eval(), noisy([1, 3, side, side], 1));
  }); // prettier-ignore
});

test.each([
  ['halonet26t', 12_480_288],
  ['sehalonet33ts', 13_691_712],
  ['halonet50ts', 22_733_280],
  ['eca_halonext26ts', 10_756_885],
  ['haloregnetz_b', 11_680_072],
  ['halonet_h1', 8_100_056],
] as const)('%s has %i parameters', (name, count) => {
  expect(new HaloNet(HALONETS[name]).parameterCount()).toBe(count);
});

test('training: statistics of the batch, whole branches dropped', () => {
  const model = new HaloNet({ ...TINY.halonet_h1_tiny, dropPath: 0.5 });
  const x = noisy([2, 3, 128, 128], 2);
  manualSeed(3);
  model.forward(x).sum().backward();
  expect(model.parameters().filter((t) => t.grad === null)).toEqual([]);
  expect(Number(model.stem.stateDict()['conv1.bn.num_batches_tracked'].dataSync()[0])).toBe(1);
});

test('norms set to training inside a network in evaluation follow the batch', () => {
  const model = new HaloNet(TINY.halonet_h1_tiny).eval();
  for (const [, module] of model.namedModules()) if (module instanceof BatchNorm) module.train();
  model.forward(noisy([1, 3, 128, 128], 2));
  expect(Number(model.stem.stateDict()['conv1.bn.num_batches_tracked'].dataSync()[0])).toBe(1);
});
