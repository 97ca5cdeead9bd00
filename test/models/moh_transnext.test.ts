/** MoH-TransNeXt against the official network on a tiny configuration, its gradients, and the parameter counts of the published networks. */
import { describe, expect, test } from 'vitest';
import { manualSeed, models } from '../../lib/index.ts';
import { checkGolden } from '../golden_case.ts';
import { numbers } from '../inputs.ts';
import { MODEL } from '../layers.ts';
import { checkModelGradients, noisy } from './model_case.ts';

const { MohTransNeXt, MOH_TRANSNEXTS } = models;

interface Config {
  embed_dims: number[];
  num_heads: number[];
  depths: number[];
  shared_head: number[];
  routed_head: number[];
  img_size: number;
  window_size: (number | null)[];
  patch_size: number;
  mlp_ratios: number[];
  qkv_bias: boolean;
  num_classes: number;
  sr_ratios: number[];
}

test('golden moh_transnext_tiny', () =>
  checkGolden(
    'moh_transnext_tiny',
    (g) => {
      const c = g.config as unknown as Config;
      const model = new MohTransNeXt({
        dims: c.embed_dims,
        heads: c.num_heads,
        depths: c.depths,
        shared: c.shared_head,
        routed: c.routed_head,
        imageSize: c.img_size,
        windows: c.window_size,
        patchSize: c.patch_size,
        mlpRatios: c.mlp_ratios,
        qkvBias: c.qkv_bias,
        classes: c.num_classes,
        poolRatios: c.sr_ratios,
      });
      return { y: g.module(model).forward(g.input('x')) };
    },
    MODEL,
  ));

const SMALL = { dims: [8, 12], heads: [2, 3], depths: [1, 1], shared: [1, 2], routed: [1, 1], poolRatios: [2, 1], mlpRatios: [2, 2], imageSize: [16, 24], classes: 3 } as const; // prettier-ignore

describe('gradients', () => {
  test.each([
    ['one head of those routed', SMALL],
    ['no routed heads, wide window, other pretraining size', { ...SMALL, shared: [2, 3], routed: [0, 0], windows: [5, null], pretrainSize: 32, qkvBias: false }],
    ['no shared heads', { ...SMALL, shared: [0, 0], routed: [1, 2] }],
  ] as [string, models.MohTransNeXtOptions][])('%s', (_name, options) => {
    manualSeed(1);
    checkModelGradients(new MohTransNeXt(options).eval(), noisy([1, 3, 16, 24], 1));
  }); // prettier-ignore
});

test('the balance loss is that of the blocks that route', () => {
  manualSeed(1);
  const x = noisy([2, 3, 16, 24], 1);
  const loss = (options: models.MohTransNeXtOptions): number =>
    numbers(new MohTransNeXt(options).withBalance(x).balanceLoss)[0];
  expect(loss({ ...SMALL, shared: [2, 3], routed: [0, 0] })).toBe(0);
  // One of one: every token takes it.
  expect(loss({ ...SMALL, shared: [2, 2], routed: [0, 1] })).toBeCloseTo(1, 6);
});

test('images of another size are refused', () => {
  const refused = (code: string, fn: () => unknown): void =>
    expect(fn).toThrow(expect.objectContaining({ code }) as Error);
  refused('ERR_SHAPE', () => new MohTransNeXt(SMALL).forward(noisy([1, 3, 24, 24], 1)));
  refused('ERR_ARGUMENT', () => new MohTransNeXt({ ...SMALL, imageSize: 20 }));
  refused('ERR_ARGUMENT', () => new MohTransNeXt({ ...SMALL, heads: [3, 3] }));
});

test.each([
  ['moh_transnext_base_75', 90_020_632],
  ['moh_transnext_base_50', 90_023_512],
  ['moh_transnext_small_80', 49_910_548],
  ['moh_transnext_small_75', 49_910_548],
] as const)('%s has %i parameters', (name, count) => {
  expect(new MohTransNeXt(MOH_TRANSNEXTS[name]).parameterCount()).toBe(count);
});
