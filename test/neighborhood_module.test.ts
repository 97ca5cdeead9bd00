/** The neighborhood attention layers against golden vectors: the published layouts with and without relative position bias. */
import { expect, test } from 'vitest';
import { NeighborhoodAttention2D, zeros } from '../lib/index.ts';
import { checkLayer, LAYER_GOLDENS } from './neighborhood_cases.ts';

test.each(LAYER_GOLDENS)('%s', (name) => checkLayer(name));

test('refusals', () => {
  expect(() => new NeighborhoodAttention2D(8, { heads: 3, kernelSize: 3 })).toThrow(/3 heads do not divide/);
  expect(() => new NeighborhoodAttention2D(8, { heads: 2, kernelSize: 4, rpb: true })).toThrow(/odd/);
  const layer = new NeighborhoodAttention2D(8, { heads: 2, kernelSize: 3 });
  expect(() => layer.forward(zeros([1, 5, 8]))).toThrow(/2 axes of space/);
  expect(() => layer.forward(zeros([1, 2, 5, 8]))).toThrow(/kernel size/);
});
