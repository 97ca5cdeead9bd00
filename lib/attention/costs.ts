/** The costs of all mechanisms by name, and their comparison with dense attention. */
import { FoveaError } from '../errors.ts';
import { expectOptions } from '../options.ts';
import { biLevelRoutingCost } from './bi_level_routing.ts';
import { aggregatedCost } from './aggregated.ts';
import { abcCost } from './bounded_memory.ts';
import { causalLongShortCost } from './causal_long_short.ts';
import { channelCost } from './channel.ts';
import { combinerCost } from './combiner.ts';
import { cosformerCost } from './cosformer.ts';
import { denseCost, type Cost, type CostSizes } from './cost.ts';
import { positionlessCost, taylorCost } from './deconstructed.ts';
import { dualTriangleCost } from './dual_triangle.ts';
import { fluxCost } from './flux.ts';
import { haloCost } from './halo.ts';
import { inContextCost } from './in_context.ts';
import { laraCost } from './lara.ts';
import { linearCost } from './linear.ts';
import { longShortCost } from './long_short.ts';
import { mixtureCost } from './mixture_of_heads.ts';
import { neighborhoodCost } from './neighborhood.ts';
import { nystromCost } from './nystrom.ts';
import { performerCost } from './performer.ts';
import { pointerCost } from './pointer.ts';
import { probSparseCost } from './prob_sparse.ts';
import { promptMaskedCost } from './prompt_masked.ts';
import { reversedCost } from './reversed.ts';
import { routingCost } from './routing.ts';
import { s4dCost } from './s4d.ts';
import { softPagCost } from './soft_pag.ts';
import type { SpanSearchOptions } from './span_search.ts';
import { superlinearCost } from './superlinear.ts';
import { tanhCost } from './tanh.ts';

/** A square image of `length` pixels, its heads side by side. */
function biLevelOfLength(sizes: CostSizes, options: { readonly regions?: number; readonly topK?: number } = {}): Cost {
  expectOptions('biLevelRoutingCost', options, { regions: true, topK: true });
  const { regions = 7, topK = 4 } = options;
  const { batch, heads = 1, length, dim, elementBytes } = sizes;
  const side = Math.sqrt(length);
  return biLevelRoutingCost({
    batch,
    heads,
    height: side,
    width: side,
    channels: heads * dim,
    regions,
    topK,
    elementBytes,
  });
}

/** By default as many clusters as tokens of a cluster. */
function routingOfLength(
  sizes: CostSizes,
  options: { readonly clusters?: number; readonly window?: number } = {},
): Cost {
  expectOptions('routingCost', options, { clusters: true, window: true });
  const { clusters = Math.round(Math.sqrt(sizes.length)), window = Math.ceil(sizes.length / clusters) } = options;
  return routingCost({ ...sizes, clusters, window });
}

const superlinearOfLength = (sizes: CostSizes, options: SpanSearchOptions = {}): Cost =>
  superlinearCost({ ...sizes, ...options });

function mixtureOfLength(sizes: CostSizes, options: { readonly active?: number } = {}): Cost {
  expectOptions('mixtureCost', options, { active: true });
  const { heads = 1 } = sizes;
  return mixtureCost({ ...sizes, heads, active: options.active ?? Math.ceil(heads / 2) });
}

/** A cost of sizes alone. */
const sizesAlone =
  (cost: (sizes: CostSizes) => Cost) =>
  (sizes: CostSizes, options: Readonly<Record<string, never>> = {}): Cost => {
    expectOptions('explainMechanism', options, {});
    return cost(sizes);
  };

const COSTS = {
  abc: abcCost,
  aggregated: aggregatedCost,
  biLevelRouting: biLevelOfLength,
  causalLongShort: causalLongShortCost,
  channel: sizesAlone(channelCost),
  combiner: combinerCost,
  cosformer: cosformerCost,
  dense: denseCost,
  dualTriangle: dualTriangleCost,
  flux: fluxCost,
  halo: haloCost,
  inContext: sizesAlone(inContextCost),
  lara: laraCost,
  linear: linearCost,
  longShort: longShortCost,
  mixtureOfHeads: mixtureOfLength,
  neighborhood: neighborhoodCost,
  nystrom: nystromCost,
  performer: performerCost,
  pointer: sizesAlone(pointerCost),
  positionless: sizesAlone(positionlessCost),
  probSparse: probSparseCost,
  promptMasked: promptMaskedCost,
  reversed: sizesAlone(reversedCost),
  routing: routingOfLength,
  s4d: s4dCost,
  softPag: softPagCost,
  superlinear: superlinearOfLength,
  tanh: sizesAlone(tanhCost),
  taylor: taylorCost,
} as const;

export type MechanismName = keyof typeof COSTS;

/** Names that explainMechanism knows. */
export const MECHANISMS = Object.freeze(Object.keys(COSTS)) as readonly MechanismName[];

export interface MechanismExplanation extends Cost {
  readonly mechanism: MechanismName;
  /** Of dense attention of the same sizes, causal where the option says so. */
  readonly dense: Cost;
  toString(): string;
}

/**
 * What a forward call of a mechanism costs, without running it, beside dense attention. `options` are those of its cost function (combinerCost
 * and so on).
 *
 * @throws FoveaError ERR_ARGUMENT for an unknown mechanism
 */
export function explainMechanism<N extends MechanismName>(
  mechanism: N,
  sizes: CostSizes,
  options?: Parameters<(typeof COSTS)[N]>[1],
): MechanismExplanation {
  if (!Object.hasOwn(COSTS, mechanism))
    throw new FoveaError(
      'ERR_ARGUMENT',
      `explainMechanism: unknown mechanism '${mechanism}'; expected one of ${MECHANISMS.join(', ')}`,
    );
  const cost = (COSTS[mechanism] as (sizes: CostSizes, options?: unknown) => Cost)(sizes, options);
  const causal = (options as { causal?: boolean } | undefined)?.causal ?? false;
  const dense = denseCost(sizes, { causal });
  const text =
    `${mechanism}: length ${sizes.length}, dim ${sizes.dim}\n` +
    `  flops    ${cost.flops.toExponential(2)} of ${dense.flops.toExponential(2)} dense (${(dense.flops / cost.flops).toPrecision(3)} x fewer)\n` +
    `  bytes    ${cost.bytes.toExponential(2)} of ${dense.bytes.toExponential(2)} dense`;
  return Object.freeze({ mechanism, ...cost, dense, toString: () => text });
}
