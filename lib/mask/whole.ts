import { FoveaError } from '../errors.ts';

/** Throws ERR_ARGUMENT unless every value is a whole number of at least `least` (and at most 2^30, as all positions). */
export function expectWhole(op: string, values: Readonly<Record<string, number>>, least = 0): void {
  for (const [name, value] of Object.entries(values))
    if (!Number.isInteger(value) || value < least || value > 2 ** 30)
      throw new FoveaError(
        'ERR_ARGUMENT',
        `${op}: ${name} is ${value}, expected a whole number of at least ${least} and at most 2^30`,
      );
}
