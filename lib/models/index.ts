/** Whole models of the literature, under the names of their published checkpoints (docs/models.md). */
export { DAVITS, DaViT, type DaViTOptions } from './davit.ts';
export { HALONETS, HaloNet, type HaloNetBlock, type HaloNetOptions } from './halonet.ts';
