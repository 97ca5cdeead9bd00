/** The costs of all mechanisms by name, and their comparison with dense attention. */
import { FoveaError } from '../errors.ts';
import { abcCost } from './bounded_memory.ts';
import { causalLongShortCost } from './causal_long_short.ts';
import { channelCost } from './channel.ts';
import { combinerCost } from './combiner.ts';
import { cosformerCost } from './cosformer.ts';
import { denseCost, type Cost, type CostSizes } from './cost.ts';
import { positionlessCost, taylorCost } from './deconstructed.ts';
import { dualTriangleCost } from './dual_triangle.ts';
import { fluxCost } from './flux.ts';
import { inContextCost } from './in_context.ts';
import { laraCost } from './lara.ts';
import { linearCost } from './linear.ts';
import { longShortCost } from './long_short.ts';
import { nystromCost } from './nystrom.ts';
import { performerCost } from './performer.ts';
import { pointerCost } from './pointer.ts';
import { probSparseCost } from './prob_sparse.ts';
import { promptMaskedCost } from './prompt_masked.ts';
import { reversedCost } from './reversed.ts';
import { s4dCost } from './s4d.ts';
import { softPagCost } from './soft_pag.ts';
import { tanhCost } from './tanh.ts';

const COSTS = {
  abc: abcCost,
  causalLongShort: causalLongShortCost,
  channel: channelCost,
  combiner: combinerCost,
  cosformer: cosformerCost,
  dense: denseCost,
  dualTriangle: dualTriangleCost,
  flux: fluxCost,
  inContext: inContextCost,
  lara: laraCost,
  linear: linearCost,
  longShort: longShortCost,
  nystrom: nystromCost,
  performer: performerCost,
  pointer: pointerCost,
  positionless: positionlessCost,
  probSparse: probSparseCost,
  promptMasked: promptMaskedCost,
  reversed: reversedCost,
  s4d: s4dCost,
  softPag: softPagCost,
  tanh: tanhCost,
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
