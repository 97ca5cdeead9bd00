/** The neighborhood attention layers against golden vectors: the published layouts with and without relative position bias. */
import { expect, test } from 'vitest';
import { manualSeed, NeighborhoodAttention2D, pad, randn, slice, zeros } from '../lib/index.ts';
import { numbers } from './inputs.ts';
import { checkLayer, LAYER_GOLDENS } from './neighborhood_cases.ts';

test.each(LAYER_GOLDENS)('%s', (name) => checkLayer(name));

test('an axis shorter than the window is padded before the projection', () => {
  manualSeed(1);
  const layer = new NeighborhoodAttention2D(8, { heads: 2, kernelSize: 3, dilation: [1, 2], pad: true });
  const x = randn([1, 2, 5, 8]);
  const wide = layer.forward(pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]])); // prettier-ignore
  const cropped = slice(slice(wide, 1, 0, 2), 2, 0, 5);
  expect(numbers(layer.forward(x))).toEqual(numbers(cropped));
});

test('refusals', () => {
  expect(() => new NeighborhoodAttention2D(8, { heads: 3, kernelSize: 3 })).toThrow(/3 heads do not divide/);
  expect(() => new NeighborhoodAttention2D(8, { heads: 2, kernelSize: 4, rpb: true })).toThrow(/odd/);
  const layer = new NeighborhoodAttention2D(8, { heads: 2, kernelSize: 3 });
  expect(() => layer.forward(zeros([1, 5, 8]))).toThrow(/2 axes of space/);
  expect(() => layer.forward(zeros([1, 2, 5, 8]))).toThrow(/kernel size/);
});
