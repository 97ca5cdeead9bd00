/** Options of models that have an entry for each stage. */
import { expect, test } from 'vitest';
import { models } from '../../lib/index.ts';

const { BiFormer, BiFormerStl, BIFORMERS, BIFORMER_STL, CareTransformer, CARE_TRANSFORMERS } = models;
const { DaViT, DAVITS, MohTransNeXt, MOH_TRANSNEXTS } = models;

test.each<[string, string, () => unknown]>([
  ['BiFormer', 'topK', () => new BiFormer({ ...BIFORMERS.biformer_tiny, topK: [1, 4] })],
  ['BiFormer', 'topK', () => new BiFormer({ depths: [1, 1], dims: [32, 64] })],
  ['BiFormer', 'qkDims', () => new BiFormer({ ...BIFORMERS.biformer_tiny, qkDims: [64] })],
  ['BiFormerStl', 'regions', () => new BiFormerStl({ ...BIFORMER_STL, regions: [7, 7, 7] })],
  ['CareTransformer', 'memDims', () => new CareTransformer({ ...CARE_TRANSFORMERS.care_s0, memDims: [] })],
  ['DaViT', 'heads', () => new DaViT({ ...DAVITS.davit_tiny, heads: [3, 6, 12] })],
  ['MohTransNeXt', 'poolRatios', () => new MohTransNeXt({ ...MOH_TRANSNEXTS.moh_transnext_small_80, poolRatios: [8] })],
])('%s refuses %s of another number of stages', (model, name, make) => {
  expect(make).toThrow(
    expect.objectContaining({
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(`^${model}: ${name} has`) as string,
    }) as Error,
  );
});
