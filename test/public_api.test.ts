/** The names that docs/design.md promises are exported, and the files of a model go through them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import * as fovea from '../lib/index.ts';

const FUNCTIONS = `
  tensor zeros ones full arange eye rand randn randint scope noGrad memory devices setDevice manualSeed setNumThreads synchronize grad checkpoint
  attention explain mergeAttentions mask score blockMask and or not offset
  neighborhoodAttention neighborhoodQK neighborhoodAV haloAttention biLevelRoutingAttention routingAttention superlinearAttention spanSearch
  spanAttention combinerAttention dualTriangleAttention reversedAttention channelAttention linearAttention mixtureOfHeads softPag
  loadSafetensors saveSafetensors loadNpy saveNpy Module`;
const MASKS =
  'causal slidingWindow prefixLM document dilated globalWindow natten blockDiffusion sharedPrefix flamingo tile';
const SCORES = 'alibi softcap relativeBias t5Bias sandwich graphormer';
const METHODS = 'data dataSync item toArray backward';

const words = (text: string): string[] => text.trim().split(/\s+/);
const kinds = (of: object, names: string): string[] =>
  words(names).filter((name) => typeof (of as Record<string, unknown>)[name] !== 'function');

test('every promised name is there', () => {
  expect(kinds(fovea, FUNCTIONS)).toEqual([]);
  expect(kinds(fovea.masks, MASKS)).toEqual([]);
  expect(kinds(fovea.scores, SCORES)).toEqual([]);
  expect(kinds(fovea.Tensor.prototype, METHODS)).toEqual([]);
});

test('a module saved and loaded', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'fovea-api-'));
  try {
    const [from, to] = [new fovea.Linear(3, 2), new fovea.Linear(3, 2)];
    const path = join(folder, 'linear.safetensors');
    await fovea.saveSafetensors(path, from.stateDict(), { step: '7' });
    using file = fovea.loadSafetensors(path);
    to.loadStateDict(file.record());
    expect([file.metadata.step, to.weight.dataSync()]).toEqual(['7', from.weight.dataSync()]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
