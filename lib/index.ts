/// <reference lib="esnext.disposable" preserve="true" />
export { FoveaError, type ErrorCode } from './errors.ts';
export {
  abortable,
  devices,
  getNumThreads,
  memory,
  resetPeakMemory,
  setMemoryLimit,
  setNumThreads,
  synchronize,
  synchronizeSync,
  trimMemory,
  type DeviceMemoryReport,
  type DeviceReport,
  type MemoryReport,
} from './runtime.ts';

export { getDevice, setDevice, type DeviceName } from './tensor/device.ts';
export { DTYPES, DTYPE_BYTES, type ArrayDType, type DataOf, type DType, type TensorData } from './tensor/dtype.ts';
export { receive, Tensor, type BackwardOptions, type NestedNumbers, type SharedTensor } from './tensor/tensor.ts';
export { Stream, StreamEvent } from './stream.ts';
export { keep, scope } from './tensor/scope.ts';
export { fromBytes, tensor, type FromDataOptions, type NestedData, type TensorOptions } from './tensor/create.ts';

export { grad, noGrad, type GradOptions } from './autograd/tape.ts';
export { checkpoint } from './autograd/checkpoint.ts';

export { cast, contiguous, copyFrom, to } from './ops/copy.ts';
export { add, atan2, div, maximum, minimum, mul, pow, remainder, sub, type Operand } from './ops/binary.ts';
export { eq, ge, gt, le, logicalAnd, logicalNot, logicalOr, logicalXor, lt, ne } from './ops/compare.ts';
export { where } from './ops/where.ts';
export {
  abs,
  ceil,
  clamp,
  cos,
  erf,
  exp,
  expm1,
  floor,
  gelu,
  geluTanh,
  leakyRelu,
  log,
  log1p,
  neg,
  reciprocal,
  relu,
  round,
  rsqrt,
  sigmoid,
  sign,
  silu,
  sin,
  softplus,
  sqrt,
  square,
  tanh,
} from './ops/unary.ts';
export {
  all,
  any,
  argMax,
  argMin,
  logSumExp,
  max,
  mean,
  min,
  norm,
  prod,
  std,
  sum,
  variance,
  type Axes,
} from './ops/reduce.ts';
export { cummax } from './ops/cummax.ts';
export { cumsum } from './ops/scan.ts';
export { logSoftmax, softmax } from './ops/softmax.ts';
export { expand, flatten, permute, reshape, select, slice, squeeze, transpose, unsqueeze } from './ops/view.ts';
import './tensor/methods.ts';
export { assignment } from './ops/assignment.ts';
export { batchNorm, batchStatistics, type BatchNormOptions, type BatchStatistics } from './ops/batch_norm.ts';
export { conv2d, type Conv2dOptions } from './ops/conv2d.ts';
export { depthwiseConv } from './ops/depthwise_conv.ts';
export type { ImageLayout, Pair, WindowOptions } from './ops/image_windows.ts';
export { avgPool2d, maxPool2d, type AvgPoolOptions, type PoolOptions } from './ops/pool2d.ts';
export { ACTIVATIONS, linear, type Activation } from './ops/linear.ts';
export { matmul, type MatmulOptions } from './ops/matmul.ts';
export {
  getMatmulPrecision,
  MATMUL_PRECISIONS,
  setMatmulPrecision,
  withMatmulPrecision,
  type MatmulPrecision,
  type PrecisionOptions,
} from './ops/matmul_precision.ts';

export { attention, type AttentionResult } from './attention/attention.ts';
export { mergeAttentions } from './attention/merge.ts';
export {
  biLevelRoutingAttention,
  biLevelRoutingCost,
  padToRegions,
  type BiLevelRoutingOptions,
  type RegionRouting,
} from './attention/bi_level_routing.ts';
export { routingAttention, routingCost, type RoutingOptions, type RoutingResult } from './attention/routing.ts';
export {
  superlinearAttention,
  superlinearCost,
  type SuperlinearOptions,
  type SuperlinearResult,
} from './attention/superlinear.ts';
export { spanAttention, type SpanAttentionOptions } from './attention/span_attention.ts';
export { spanSearch, type SpanSearchOptions, type SpanSearchResult } from './attention/span_search.ts';
export {
  headGates,
  headGatesByNorm,
  mixtureCost,
  mixtureOfHeads,
  type HeadGates,
  type HeadRouterOptions,
  type HeadRouterWeights,
  type MixtureOptions,
} from './attention/mixture_of_heads.ts';
export { commitmentLoss, kmeansAssign, kmeansInit, kmeansStep, kmeansUpdate } from './attention/kmeans.ts';
export type { RegionPooling } from './attention/region_pool.ts';
export { regionalAttention, type RegionalOptions } from './attention/regional.ts';
export {
  explainNeighborhood,
  neighborhoodAttention,
  neighborhoodCost,
  neighborhoodWork,
  type NeighborhoodExplanation,
  type NeighborhoodOptions,
  type NeighborhoodWindow,
  type NeighborhoodWork,
} from './attention/neighborhood.ts';
export { addCosts, denseCost, type Cost, type CostSizes } from './attention/cost.ts';
export { explainMechanism, MECHANISMS, type MechanismExplanation, type MechanismName } from './attention/costs.ts';
export { abcAttention, abcCost, type AbcOptions } from './attention/bounded_memory.ts';
export { cosformerAttention, cosformerCost, type CosformerOptions } from './attention/cosformer.ts';
export { laraAttention, laraCost, type LaraOptions } from './attention/lara.ts';
export {
  causalLongShortAttention,
  causalLongShortCost,
  chunkProjection,
  type CausalLongShortOptions,
} from './attention/causal_long_short.ts';
export { dynamicProjection, longShortAttention, longShortCost, type LongShortOptions } from './attention/long_short.ts';
export { nystromAttention, nystromCost, type NystromOptions } from './attention/nystrom.ts';
export {
  orthogonalProjection,
  performerAttention,
  performerCost,
  type PerformerOptions,
} from './attention/performer.ts';
export { probSparseAttention, probSparseCost, type ProbSparseOptions } from './attention/prob_sparse.ts';
export { runningMean } from './attention/running_mean.ts';
export { s4d, s4dCost, s4dKernel, type S4dParameters } from './attention/s4d.ts';
export { channelAttention, channelCost, type ChannelOptions } from './attention/channel.ts';
export { combinerAttention, combinerCost, type CombinerOptions } from './attention/combiner.ts';
export {
  positionlessAttention,
  positionlessCost,
  streamAttention,
  taylorAttention,
  taylorCost,
  type StreamWeights,
  type TaylorOptions,
} from './attention/deconstructed.ts';
export { dualTriangleAttention, dualTriangleCost, type DualTriangleOptions } from './attention/dual_triangle.ts';
export { fluxAttention, fluxCost, fluxSparseMask, type FluxOptions, type FluxSparsity } from './attention/flux.ts';
export {
  gradientStep,
  inContextAttention,
  inContextCost,
  populationLoss,
  twoHeadPrediction,
  type InContextWeights,
  type Regression,
} from './attention/in_context.ts';
export {
  linearAttention,
  linearAttentionStep,
  linearCost,
  type LinearAttentionOptions,
  type LinearState,
} from './attention/linear.ts';
export { mixedAttentionMask, type MixedMaskOptions } from './attention/mixed_mask.ts';
export { pointerAttention, pointerCost, type PointerOptions } from './attention/pointer.ts';
export {
  promptMask,
  promptMaskedAttention,
  promptMaskedCost,
  promptPool,
  type PoolMatch,
  type PromptMaskedOptions,
  type PromptRoles,
} from './attention/prompt_masked.ts';
export { dependencyMask, reversedAttention, reversedCost, type ReversedOptions } from './attention/reversed.ts';
export {
  combineGuidance,
  guidanceAt,
  softPag,
  softPagCost,
  type Guidance,
  type GuidanceRange,
  type SoftPagOptions,
} from './attention/soft_pag.ts';
export { PAG_TARGETS, type PagTarget } from './attention/damaged_map.ts';
export {
  headHunter,
  type HeadHunterOptions,
  type HeadHunterResult,
  type HeadHunterState,
} from './attention/head_hunter.ts';
export { tanhAttention, tanhCost, type TanhOptions } from './attention/tanh.ts';
export { aggregatedAttention, aggregatedCost, type AggregatedOptions } from './attention/aggregated.ts';
export { neighborhoodAV, neighborhoodQK, type NeighborhoodQkOptions } from './attention/neighborhood_pair.ts';
export { haloAttention, haloCost, type HaloOptions } from './attention/halo.ts';
export { explain, type AttentionExplanation, type RefusedKernel } from './attention/explain.ts';
export type { AttentionMask, AttentionOptions, IntegerList } from './attention/arguments.ts';
export { arange, eye, full, fullLike, linspace, ones, onesLike, zeros, zerosLike } from './ops/creation.ts';
export {
  bernoulli,
  manualSeed,
  rand,
  randint,
  randn,
  randomState,
  setRandomState,
  type NormalOptions,
  type RandomOptions,
  type RandomState,
  type UniformOptions,
} from './ops/random.ts';
export { chunk, concat, split, stack } from './ops/concat.ts';
export { dropout, type DropoutOptions } from './ops/dropout.ts';
export { gather, oneHot, scatter, scatterAdd, scatterMean } from './ops/gather.ts';
export { argsort, sort, topK, type Sorted } from './ops/sort.ts';
export { flip, repeat, repeatInterleave, roll } from './ops/rearrange.ts';
export { pad, type PadOptions } from './ops/pad.ts';
export { tril, triu } from './ops/triangle.ts';
export { embedding, indexSelect } from './ops/embedding.ts';
export { layerNorm, rmsNorm, type NormOptions } from './ops/layer_norm.ts';
export { crossEntropy, type CrossEntropyOptions, type Reduction } from './ops/cross_entropy.ts';
export { mse } from './ops/mse.ts';
export { rotary, rotaryTable, type RotaryOptions, type RotaryTable } from './ops/rotary.ts';

export { Optimizer, type Group, type OptimizerState, type ParameterGroup } from './optim/optimizer.ts';
export { AdamW, type AdamWSettings } from './optim/adamw.ts';
export { SGD, type SgdSettings } from './optim/sgd.ts';
export { clipGradNorm } from './optim/clip_grad_norm.ts';
export { cosineSchedule, linearSchedule, type Schedule, type ScheduleOptions } from './optim/schedule.ts';

export { mask, score, type Coordinates, type Mask, type Score, type ScoreCoordinates } from './mask/mask.ts';
export { and, chain, not, offset, or } from './mask/compose.ts';
export { blockMask } from './ops/block_mask.ts';
export { BlockMask, type BlockMaskStats } from './mask/block_mask.ts';
export { blockMaskFromAdjacency, blockMaskFromBlocks, blockMaskFromBoolean } from './mask/sources.ts';
export type { BlockMaskSizes } from './mask/build.ts';
export type { BlockMaskOptions } from './ops/block_mask.ts';
export type { ShowOptions, SvgOptions } from './mask/show.ts';
export * as masks from './mask/masks/index.ts';
export * as scores from './mask/scores/index.ts';
export {
  inspectSafetensors,
  loadSafetensors,
  saveSafetensors,
  type Safetensors,
  type SafetensorsEntry,
  type SafetensorsHeader,
} from './io/safetensors.ts';
export { encodeNpy, loadNpy, saveNpy } from './io/npy.ts';
export { buffer, Module, parameter, type LoadOptions } from './nn/module.ts';
export { Linear, type LinearOptions } from './nn/linear.ts';
export { Embedding } from './nn/embedding.ts';
export { BatchNorm, type BatchNormLayerOptions } from './nn/batch_norm.ts';
export { Conv2d, type Conv2dLayerOptions } from './nn/conv.ts';
export { LayerNorm, RMSNorm } from './nn/norm.ts';
export { Dropout } from './nn/dropout.ts';
export { DropPath } from './nn/drop_path.ts';
export { HaloAttention, type HaloLayerOptions } from './nn/halo.ts';
export { FluxRouter, type FluxDecision, type FluxRouterOptions } from './nn/flux_router.ts';
export { FluxSparsityLoss } from './nn/flux_sparsity_loss.ts';
export {
  assignTokens,
  replaceTokens,
  tokenDistances,
  TokenPool,
  type AssignTokensOptions,
  type TokenMetric,
} from './nn/token_pool.ts';
export { Sequential, type Layer } from './nn/sequential.ts';
export { KvCache, type KvCacheOptions } from './nn/kv_cache.ts';
export {
  MultiHeadAttention,
  type AttentionInput,
  type MultiHeadAttentionOptions,
  type RotarySettings,
} from './nn/attention.ts';
export {
  NeighborhoodAttention1D,
  NeighborhoodAttention2D,
  NeighborhoodAttention3D,
  type NeighborhoodLayerOptions,
} from './nn/neighborhood.ts';
export { Mlp, TransformerBlock, type MlpOptions, type TransformerBlockOptions } from './nn/transformer.ts';
export * as models from './models/index.ts';
