/** Whole models of the literature, under the names of their published checkpoints (docs/models.md). */
export {
  BIFORMER_STL,
  BiFormer,
  BIFORMERS,
  BiFormerStl,
  type BiFormerOptions,
  type BiFormerStlOptions,
} from './biformer.ts';
export { CARE_TRANSFORMERS, CareTransformer, type CareOptions } from './care.ts';
export { DAVITS, DaViT, type DaViTOptions } from './davit.ts';
export { HALONETS, HaloNet, type HaloNetAttention, type HaloNetBlock, type HaloNetOptions } from './halonet.ts';
export { MOH_TRANSNEXTS, MohTransNeXt, type MohTransNeXtOptions } from './moh_transnext.ts';
