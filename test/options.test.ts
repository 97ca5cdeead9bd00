/**
 * Every object of options refuses a name that it does not have.
 *
 * test/public_options.ts lists what there is; the table below has a call for each, made without and with a misspelt name among its options. A
 * function that is new fails the first test until its call is here.
 */
import { describe, expect, test } from 'vitest';
import * as fovea from '../lib/index.ts';
import { expectOptions } from '../lib/options.ts';
import { publicOptions } from './public_options.ts';

const { masks, models, rand, scores, tensor } = fovea;

/** Types that are operands and results, not options: what they lack is missed, and what else lies in them may be of use to others. */
const OPERANDS = new Set([
  'AttentionResult',
  'BatchStatistics',
  'BlockMaskParts',
  'CapturedTensor',
  'Cost',
  'HeadHunterState',
  'HeadRouterWeights',
  'InContextWeights',
  'Layer',
  'LinearState',
  'Mask',
  'OptimizerState',
  'PromptRoles',
  'RandomState',
  'Regression',
  'RotaryTable',
  'S4dParameters',
  'Score',
  'SharedTensor',
  'StreamWeights',
  // Layers with a weight and a bias.
  'BiLevelRoutingOptions.lepe',
  'BiLevelRoutingOptions.routingProjection',
  // Internal.
  'Safetensors.parts',
]);

const q = rand([1, 2, 8, 4]);
const image = rand([1, 4, 4, 8]);
const pixels = rand([1, 4, 4, 2, 4]);
const vector = rand([4]);
const sizes = { length: 64, dim: 8 };
const blocks = fovea.blockMask(masks.causal(), { q: 16 });
const centroids = rand([2, 2, 4]);
const ranges = tensor(new Int32Array(32), [1, 2, 8, 1, 2]);
const labels = tensor(new Int32Array(8), [1, 8]);
const loss = (): fovea.Tensor => fovea.sum(rand([2], { requiresGrad: true }));
const stage = { depths: [1], dims: [32] };

/** Calls with `more` among the options of one of their objects. */
const calls: Readonly<Record<string, (more: object) => unknown>> = {
  'Tensor.backward.options': (more) => loss().backward(more),
  'grad.options': (more) => fovea.grad(loss(), [], more),
  'tensor.options': (more) => tensor([1], null, more),
  'fromBytes.options': (more) => fovea.fromBytes(new Uint8Array(4), 'f32', [1], more),
  'full.options': (more) => fovea.full([1], 0, more),
  'fullLike.options': (more) => fovea.fullLike(q, 0, more),
  'zeros.options': (more) => fovea.zeros([1], more),
  'zerosLike.options': (more) => fovea.zerosLike(q, more),
  'ones.options': (more) => fovea.ones([1], more),
  'onesLike.options': (more) => fovea.onesLike(q, more),
  'arange.options': (more) => fovea.arange(0, 1, 1, more),
  'linspace.options': (more) => fovea.linspace(0, 1, 2, more),
  'eye.options': (more) => fovea.eye(2, 2, more),
  'rand.options': (more) => rand([1], more),
  'randn.options': (more) => fovea.randn([1], more),
  'randint.options': (more) => fovea.randint(0, 1, [1], more),
  'bernoulli.options': (more) => fovea.bernoulli(0.5, [1], more),
  'dropout.options': (more) => fovea.dropout(q, 0.5, more),
  'sort.options': (more) => fovea.sort(q, -1, more),
  'argsort.options': (more) => fovea.argsort(q, -1, more),
  'topK.options': (more) => fovea.topK(q, 1, -1, more),
  'pad.options': (more) => fovea.pad(vector, [1, 1], more),
  'matmul.options': (more) => fovea.matmul(vector, vector, more),
  'linear.options': (more) => fovea.linear(q, rand([4, 4]), null, 'none', more),
  'layerNorm.options': (more) => fovea.layerNorm(q, null, null, more),
  'rmsNorm.options': (more) => fovea.rmsNorm(q, null, more),
  'batchNorm.options': (more) => fovea.batchNorm(q, fovea.batchStatistics(q), null, null, more),
  'conv2d.options': (more) => fovea.conv2d(image, rand([1, 4, 1, 1]), null, more),
  'avgPool2d.options': (more) => fovea.avgPool2d(image, 2, more),
  'maxPool2d.options': (more) => fovea.maxPool2d(image, 2, more),
  'crossEntropy.options': (more) => fovea.crossEntropy(rand([8, 4]), fovea.reshape(labels, [8]), more),
  'mse.options': (more) => fovea.mse(q, q, more),
  'rotary.options': (more) => fovea.rotary(q, more),

  'attention.options': (more) => fovea.attention(q, q, q, more),
  'AttentionOptions.cuSeqlens': (more) => fovea.attention(q, q, q, { cuSeqlens: { q: [0, 8], kv: [0, 8], ...more } }),
  'explain.options': (more) => fovea.explain(q, q, q, more),
  'neighborhoodAttention.options': (more) =>
    fovea.neighborhoodAttention(pixels, pixels, pixels, { kernelSize: 3, ...more }),
  'NeighborhoodOptions.extraKv': (more) =>
    fovea.neighborhoodAttention(pixels, pixels, pixels, {
      kernelSize: 3,
      extraKv: { k: rand([1, 1, 2, 4]), v: rand([1, 1, 2, 4]), ...more },
    }),
  'explainNeighborhood.options': (more) =>
    fovea.explainNeighborhood(pixels, pixels, pixels, { kernelSize: 3, ...more }),
  'neighborhoodWork.options': (more) => fovea.neighborhoodWork(pixels, pixels, pixels, { kernelSize: 3, ...more }),
  'neighborhoodQK.options': (more) => fovea.neighborhoodQK(pixels, pixels, { kernelSize: 3, ...more }),
  'neighborhoodAV.options': (more) => fovea.neighborhoodAV(rand([1, 4, 4, 2, 9]), pixels, { kernelSize: 3, ...more }),
  'haloAttention.options': (more) => fovea.haloAttention(pixels, pixels, pixels, { blockSize: 2, ...more }),
  'HaloOptions.relative': (more) =>
    fovea.haloAttention(pixels, pixels, pixels, {
      blockSize: 2,
      relative: { height: rand([3, 4]), width: rand([3, 4]), ...more },
    }),
  'biLevelRoutingAttention.options': (more) =>
    fovea.biLevelRoutingAttention(image, image, image, { heads: 2, regions: 2, topK: 1, ...more }),
  'BiLevelRoutingOptions.pooling': (more) =>
    fovea.biLevelRoutingAttention(image, image, image, {
      heads: 2,
      regions: 2,
      topK: 1,
      pooling: { mode: 'mean', ratio: 2, ...more },
    }),
  'regionalAttention.options': (more) =>
    fovea.regionalAttention(image, image, image, tensor(new Int32Array(4), [1, 1, 4, 1]), {
      heads: 2,
      regionSize: 2,
      ...more,
    }),
  'routingAttention.options': (more) => fovea.routingAttention(q, null, q, { centroids, window: 4, ...more }),
  'RoutingOptions.local': (more) =>
    fovea.routingAttention(q, null, q, {
      centroids: rand([1, 2, 4]),
      window: 4,
      local: { heads: 1, window: 2, ...more },
    }),
  'RoutingOptions.memory': (more) =>
    fovea.routingAttention(q, null, q, {
      centroids,
      window: 4,
      memory: { key: rand([2, 2, 1, 4]), value: rand([2, 2, 1, 4]), ...more },
    }),
  'kmeansInit.options': (more) => fovea.kmeansInit(q, 2, more),
  'kmeansUpdate.options': (more) => fovea.kmeansUpdate(q, centroids, more),
  'superlinearAttention.options': (more) => fovea.superlinearAttention(q, q, q, q, more),
  'spanSearch.options': (more) => fovea.spanSearch(q, q, more),
  'spanAttention.options': (more) => fovea.spanAttention(q, q, q, ranges, more),
  'headGates.options': (more) =>
    fovea.headGates(rand([1, 8, 4]), { routed: rand([2, 4]) }, { heads: 2, shared: 0, active: 1, ...more }),
  'headGatesByNorm.options': (more) => fovea.headGatesByNorm(q, { shared: 0, active: 1, ...more }),
  'mixtureOfHeads.options': (more) => fovea.mixtureOfHeads(q, q, q, rand([1, 8, 2]), more),
  'abcAttention.options': (more) =>
    fovea.abcAttention(q, q, q, { compressK: rand([4, 2]), compressV: rand([4, 2]), ...more }),
  'cosformerAttention.options': (more) => fovea.cosformerAttention(q, q, q, more),
  'laraAttention.options': (more) => fovea.laraAttention(q, q, q, more),
  'causalLongShortAttention.options': (more) =>
    fovea.causalLongShortAttention(q, q, q, { landmarkK: q, landmarkV: q, chunk: 1, window: 2, ...more }),
  'longShortAttention.options': (more) =>
    fovea.longShortAttention(q, q, q, { landmarkK: q, landmarkV: q, window: 2, ...more }),
  'nystromAttention.options': (more) => fovea.nystromAttention(q, q, q, more),
  'performerAttention.options': (more) => fovea.performerAttention(q, q, q, { projection: rand([3, 4]), ...more }),
  'probSparseAttention.options': (more) => fovea.probSparseAttention(q, q, q, more),
  's4d.options': (more) =>
    fovea.s4d(
      rand([1, 4, 8]),
      { c: rand([1, 4, 2, 2]), logDt: vector, logWReal: rand([1, 2]), wImag: rand([1, 2]), d: rand([1, 4]) },
      more,
    ),
  'channelAttention.options': (more) => fovea.channelAttention(q, q, q, more),
  'combinerAttention.options': (more) => fovea.combinerAttention(q, q, q, more),
  'positionlessAttention.options': (more) => fovea.positionlessAttention(q, q, q, more),
  'taylorAttention.options': (more) => fovea.taylorAttention(q, q, q, more),
  'dualTriangleAttention.options': (more) => fovea.dualTriangleAttention(q, q, q, more),
  'fluxAttention.options': (more) => fovea.fluxAttention(q, q, q, { full: true, ...more }),
  'fluxSparseMask.options': (more) => fovea.fluxSparseMask(8, more),
  'gradientStep.options': (more) =>
    fovea.gradientStep({ x: rand([2, 4]), y: vector, xq: rand([2]), omega: rand([1]), mu: rand([1]) }, more),
  'populationLoss.options': (more) => fovea.populationLoss(vector, vector, { dim: 2, examples: 4, noise: 0, ...more }),
  'linearAttention.options': (more) => fovea.linearAttention(q, q, q, more),
  'linearAttentionStep.options': (more) => {
    const token = rand([1, 2, 1, 4]);
    return fovea.linearAttentionStep(token, token, token, null, more);
  },
  'mixedAttentionMask.options': (more) => fovea.mixedAttentionMask({ labels, ...more }),
  'pointerAttention.options': (more) => fovea.pointerAttention(rand([1, 8, 4]), rand([1, 2, 4]), vector, more),
  'promptMaskedAttention.options': (more) => fovea.promptMaskedAttention(q, q, q, { allowed: masks.causal(), ...more }),
  'reversedAttention.options': (more) => fovea.reversedAttention(q, q, q, more),
  'dependencyMask.options': (more) => fovea.dependencyMask(q, q, more),
  'softPag.options': (more) => fovea.softPag(q, q, q, more),
  'DamageOptions.imageTokens': (more) =>
    fovea.softPag(q, q, q, { target: 'maskedIdentity', imageTokens: { start: 0, count: 4, ...more } }),
  'combineGuidance.guidance': (more) => fovea.combineGuidance({ cond: q, perturbed: q, w: 1, ...more }),
  'guidanceAt.range': (more) => fovea.guidanceAt(1, { w: 1, ...more }),
  'headHunter.options': (more) => fovea.headHunter({ candidates: [1], evaluate: () => 0, k: 1, rounds: 1, ...more }),
  'tanhAttention.options': (more) => fovea.tanhAttention(q, q, q, more),
  'aggregatedAttention.options': (more) =>
    fovea.aggregatedAttention(pixels, pixels, pixels, { pooledK: q, pooledV: q, ...more }),
  'AggregatedOptions.tokens': (more) =>
    fovea.aggregatedAttention(pixels, pixels, pixels, {
      pooledK: q,
      pooledV: q,
      tokens: { queries: pixels, keys: rand([2, 4, 9]), bias: rand([2, 9]), ...more },
    }),

  'explainMechanism.sizes': (more) => fovea.explainMechanism('dense', { ...sizes, ...more }),
  'explainMechanism.options': (more) => fovea.explainMechanism('channel', sizes, more as never),
  'biLevelRoutingCost.sizes': (more) =>
    fovea.biLevelRoutingCost({ height: 8, width: 8, channels: 8, heads: 1, regions: 2, topK: 1, ...more }),
  'mixtureCost.sizes': (more) => fovea.mixtureCost({ ...sizes, heads: 2, active: 1, ...more }),
  'routingCost.sizes': (more) => fovea.routingCost({ ...sizes, clusters: 8, window: 8, ...more }),
  'superlinearCost.sizes': (more) => fovea.superlinearCost({ ...sizes, ...more }),
  'abcCost.sizes': (more) => fovea.abcCost({ ...sizes, ...more }),
  'abcCost.options': (more) => fovea.abcCost(sizes, more),
  'aggregatedCost.sizes': (more) => fovea.aggregatedCost({ ...sizes, ...more }),
  'aggregatedCost.options': (more) => fovea.aggregatedCost(sizes, more),
  'causalLongShortCost.sizes': (more) => fovea.causalLongShortCost({ ...sizes, ...more }),
  'causalLongShortCost.options': (more) => fovea.causalLongShortCost(sizes, more),
  'channelCost.sizes': (more) => fovea.channelCost({ ...sizes, ...more }),
  'combinerCost.sizes': (more) => fovea.combinerCost({ ...sizes, ...more }),
  'combinerCost.options': (more) => fovea.combinerCost(sizes, more),
  'cosformerCost.sizes': (more) => fovea.cosformerCost({ ...sizes, ...more }),
  'cosformerCost.options': (more) => fovea.cosformerCost(sizes, more),
  'denseCost.sizes': (more) => fovea.denseCost({ ...sizes, ...more }),
  'denseCost.options': (more) => fovea.denseCost(sizes, more),
  'dualTriangleCost.sizes': (more) => fovea.dualTriangleCost({ ...sizes, ...more }),
  'dualTriangleCost.options': (more) => fovea.dualTriangleCost(sizes, more),
  'fluxCost.sizes': (more) => fovea.fluxCost({ ...sizes, ...more }),
  'fluxCost.options': (more) => fovea.fluxCost(sizes, more),
  'haloCost.sizes': (more) => fovea.haloCost({ ...sizes, ...more }),
  'haloCost.options': (more) => fovea.haloCost(sizes, more),
  'inContextCost.sizes': (more) => fovea.inContextCost({ ...sizes, ...more }),
  'laraCost.sizes': (more) => fovea.laraCost({ ...sizes, ...more }),
  'laraCost.options': (more) => fovea.laraCost(sizes, more),
  'linearCost.sizes': (more) => fovea.linearCost({ ...sizes, ...more }),
  'linearCost.options': (more) => fovea.linearCost(sizes, more),
  'longShortCost.sizes': (more) => fovea.longShortCost({ ...sizes, ...more }),
  'longShortCost.options': (more) => fovea.longShortCost(sizes, more),
  'neighborhoodCost.sizes': (more) => fovea.neighborhoodCost({ ...sizes, ...more }),
  'neighborhoodCost.options': (more) => fovea.neighborhoodCost(sizes, more),
  'nystromCost.sizes': (more) => fovea.nystromCost({ ...sizes, ...more }),
  'nystromCost.options': (more) => fovea.nystromCost(sizes, more),
  'performerCost.sizes': (more) => fovea.performerCost({ ...sizes, ...more }),
  'performerCost.options': (more) => fovea.performerCost(sizes, more),
  'pointerCost.sizes': (more) => fovea.pointerCost({ ...sizes, ...more }),
  'positionlessCost.sizes': (more) => fovea.positionlessCost({ ...sizes, ...more }),
  'probSparseCost.sizes': (more) => fovea.probSparseCost({ ...sizes, ...more }),
  'probSparseCost.options': (more) => fovea.probSparseCost(sizes, more),
  'promptMaskedCost.sizes': (more) => fovea.promptMaskedCost({ ...sizes, ...more }),
  'promptMaskedCost.options': (more) => fovea.promptMaskedCost(sizes, more),
  'reversedCost.sizes': (more) => fovea.reversedCost({ ...sizes, ...more }),
  's4dCost.sizes': (more) => fovea.s4dCost({ ...sizes, ...more }),
  's4dCost.options': (more) => fovea.s4dCost(sizes, more),
  'softPagCost.sizes': (more) => fovea.softPagCost({ ...sizes, ...more }),
  'softPagCost.options': (more) => fovea.softPagCost(sizes, more),
  'tanhCost.sizes': (more) => fovea.tanhCost({ ...sizes, ...more }),
  'taylorCost.sizes': (more) => fovea.taylorCost({ ...sizes, ...more }),
  'taylorCost.options': (more) => fovea.taylorCost(sizes, more),

  'offset.shift': (more) => fovea.offset(masks.causal(), more),
  'blockMask.options': (more) => fovea.blockMask(masks.causal(), { q: 16, ...more }),
  'BlockMask.slice.ranges': (more) => blocks.slice(more),
  'BlockMask.show.options': (more) => blocks.show(more),
  'BlockMask.toSVG.options': (more) => blocks.toSVG(more),
  'blockMaskFromAdjacency.sizes': (more) => fovea.blockMaskFromAdjacency([0, 1], [0], more),
  'blockMaskFromBlocks.sizes': (more) => fovea.blockMaskFromBlocks([[0]], { q: 16, ...more }),
  'blockMaskFromBoolean.sizes': (more) => fovea.blockMaskFromBoolean([1], [1, 1], { q: 16, ...more }),
  'natten.options': (more) => masks.natten({ shape: [8], kernelSize: 3, ...more }),
  'tile.options': (more) => masks.tile({ tiles: [1, 1, 1], window: [1, 1, 1], tileTokens: 1, ...more }),
  't5Bias.options': (more) => scores.t5Bias([new Array<number>(32).fill(0)], more),

  'Module.loadStateDict.options': (more) => new fovea.Dropout().loadStateDict({}, more),
  'Linear.options': (more) => new fovea.Linear(1, 1, more),
  'Embedding.options': (more) => new fovea.Embedding(1, 1, more),
  'BatchNorm.options': (more) => new fovea.BatchNorm(1, more),
  'Conv2d.options': (more) => new fovea.Conv2d(1, 1, 1, more),
  'LayerNorm.options': (more) => new fovea.LayerNorm(1, more),
  'RMSNorm.options': (more) => new fovea.RMSNorm(1, more),
  'HaloAttention.options': (more) => new fovea.HaloAttention(64, more),
  'FluxRouter.options': (more) => new fovea.FluxRouter(2, more),
  'FluxRouter.forward.options': (more) => new fovea.FluxRouter(4).forward(rand([1, 8, 2, 4]), more),
  'assignTokens.options': (more) => fovea.assignTokens(rand([2, 4]), rand([2, 4]), more),
  'TokenPool.options': (more) => new fovea.TokenPool(2, 4, more),
  'KvCache.options': (more) => new fovea.KvCache({ batch: 1, heads: 1, maxLength: 1, dim: 1, ...more }),
  'MultiHeadAttention.options': (more) => new fovea.MultiHeadAttention(4, { heads: 2, ...more }),
  'MultiHeadAttentionOptions.rotary': (more) => new fovea.MultiHeadAttention(4, { heads: 2, rotary: more }),
  'MultiHeadAttention.forward.input': (more) =>
    new fovea.MultiHeadAttention(4, { heads: 2 }).forward(rand([1, 8, 4]), more),
  'NeighborhoodAttention1D.options': (more) =>
    new fovea.NeighborhoodAttention1D(4, { heads: 2, kernelSize: 3, ...more }),
  'NeighborhoodAttention2D.options': (more) =>
    new fovea.NeighborhoodAttention2D(4, { heads: 2, kernelSize: 3, ...more }),
  'NeighborhoodAttention3D.options': (more) =>
    new fovea.NeighborhoodAttention3D(4, { heads: 2, kernelSize: 3, ...more }),
  'Mlp.options': (more) => new fovea.Mlp(4, more),
  'TransformerBlock.options': (more) => new fovea.TransformerBlock(4, { heads: 2, ...more }),
  'TransformerBlockOptions.mlp': (more) => new fovea.TransformerBlock(4, { heads: 2, mlp: more }),
  'TransformerBlock.forward.options': (more) =>
    new fovea.TransformerBlock(4, { heads: 2 }).forward(rand([1, 8, 4]), more),
  'AdamW.settings': (more) => new fovea.AdamW([rand([1], { requiresGrad: true })], more),
  'AdamW.params': (more) => new fovea.AdamW([{ params: [rand([1], { requiresGrad: true })], ...more }]),
  'SGD.settings': (more) => new fovea.SGD([rand([1], { requiresGrad: true })], more),
  'SGD.params': (more) => new fovea.SGD([{ params: [rand([1], { requiresGrad: true })], ...more }]),
  'cosineSchedule.options': (more) => fovea.cosineSchedule({ lr: 1, steps: 1, ...more }),
  'linearSchedule.options': (more) => fovea.linearSchedule({ lr: 1, steps: 1, ...more }),

  'BiFormer.options': (more) => new models.BiFormer({ ...stage, topK: [1], ...more }),
  'BiFormerOptions.pooling': (more) => {
    const routed = { ...stage, topK: [1], mlpRatios: [1], pooling: [{ mode: 'mean', ratio: 2, ...more } as const] };
    return new models.BiFormer(routed).forward(rand([1, 3, 56, 56]));
  },
  'BiFormerStl.options': (more) => new models.BiFormerStl({ ...stage, topK: [1], ...more }),
  'CareTransformer.options': (more) =>
    new models.CareTransformer({ depths: [1], featDims: [24], memDims: [8], ratios: [[1, 1]], ...more }),
  'DaViT.options': (more) => new models.DaViT({ ...stage, heads: [1], ...more }),
  'DaViT.loadStateDict.options': (more) => {
    const model = new models.DaViT({ ...stage, heads: [1] });
    return model.loadStateDict(model.stateDict(), more);
  },
  'HaloNet.options': (more) => haloNet({}, {}, {}, more),
  'HaloNetOptions.stages': (more) => haloNet(more, {}, {}, {}),
  'HaloNetBlock.attention': (more) => haloNet({ attention: more }, {}, {}, {}),
  'HaloNetOptions.stem': (more) => haloNet({}, more, {}, {}),
  'HaloNetOptions.attention': (more) => haloNet({}, {}, more, {}),
  'MohTransNeXt.options': (more) =>
    new models.MohTransNeXt({
      ...stage,
      heads: [1],
      shared: [1],
      routed: [0],
      mlpRatios: [1],
      poolRatios: [1],
      ...more,
    }),
};

function haloNet(block: object, stem: object, attention: object, more: object): unknown {
  return new models.HaloNet({
    stages: [[{ type: 'self_attn', width: 64, bottleRatio: 1, ...block }]],
    stem: { type: '3x3', width: 8, pool: false, ...stem },
    attention,
    ...more,
  });
}

test('every public object of options has a call here', () => {
  const there = publicOptions(OPERANDS);
  const named = new Set(Object.keys(calls));
  expect({
    'no call': [...there].filter((name) => !named.has(name)),
    'not there': [...named].filter((name) => !there.has(name)),
  }).toEqual({ 'no call': [], 'not there': [] });
});

/** The names that a call knows, from how it refuses another. */
async function knownTo(call: (more: object) => unknown): Promise<string[]> {
  const refusal = await Promise.resolve({ misspelt: undefined })
    .then(call)
    .catch((error: unknown) => error);
  return /expected some of (.*)$/.exec(String(refusal))?.[1].split(', ') ?? [];
}

test.each(Object.entries(calls))('%s: a BigInt is no option', async (_object, call) => {
  for (const name of await knownTo(call))
    await expect((async () => call({ [name]: 1n }))()).rejects.toMatchObject({
      name: 'FoveaError',
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(new RegExp(`: ${name} is the BigInt 1n, expected no BigInt`)) as unknown,
    });
});

describe('a misspelt option is refused, and nothing without it', () => {
  test.each(Object.entries(calls))('%s', async (_name, call) => {
    await call({});
    await expect((async () => call({ misspelt: undefined }))()).rejects.toMatchObject({
      name: 'FoveaError',
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(/there is no option misspelt, expected (some of \w|none)/) as unknown,
    });
  });
});

test.each(fovea.MECHANISMS)('the cost of %s has no option that is misspelt', (mechanism) => {
  expect(() => fovea.explainMechanism(mechanism, sizes, { misspelt: 1 } as never)).toThrow(
    'there is no option misspelt',
  );
});

describe('expectOptions', () => {
  const known = { scale: true, causal: true } as const;
  const ask = (options: unknown): void =>
    expectOptions<Partial<Record<keyof typeof known, unknown>>>('f', options as object, known);

  test('takes known names, whatever their values, and none', () => {
    for (const options of [{}, { scale: 1 }, { scale: undefined, causal: null }, Object.create({ causal: true })])
      expect(() => ask(options)).not.toThrow();
  });

  test('refuses others, inherited ones and those of every object too', () => {
    for (const options of [{ casual: true }, { constructor: 1 }, { toString: 1 }, Object.create({ casual: true })])
      expect(() => ask(options)).toThrow(
        /^f: there is no option (casual|constructor|toString), expected some of scale, causal$/,
      );
  });

  test('refuses what is no object', () => {
    for (const options of [null, true, 'causal', 3])
      expect(() => ask(options)).toThrow(`f: options are ${options}, expected an object`);
  });
});
