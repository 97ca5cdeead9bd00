import { FoveaError } from '../errors.ts';

/** Throws ERR_ARGUMENT unless every option that was given is a whole number of at least `least`. */
export function expectCounts(options: Readonly<Record<string, unknown>>, least = 1): void {
  for (const [name, value] of Object.entries(options))
    if (value !== undefined && !(Number.isSafeInteger(value) && (value as number) >= least))
      throw new FoveaError(
        'ERR_ARGUMENT',
        `--${name} is ${String(value)}, expected a whole number of at least ${least}`,
      );
}
