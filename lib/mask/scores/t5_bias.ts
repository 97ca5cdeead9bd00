import { FoveaError } from '../../errors.ts';
import { expectOptions, type OptionNames } from '../../options.ts';
import { expectNumbers } from '../../tensor/expect.ts';
import { score, type Score } from '../mask.ts';
import { seen, type FloatTable2 } from './table.ts';

export interface T5BiasOptions {
  /** Whether keys after the query have buckets of their own (encoders); default false. */
  readonly bidirectional?: boolean;
  /** Number of buckets, the second extent of the bias; default 32. */
  readonly buckets?: number;
  /** Distance from which on everything falls into the last bucket; default 128. */
  readonly maxDistance?: number;
}

const T5_BIAS_OPTIONS: OptionNames<T5BiasOptions> = { bidirectional: true, buckets: true, maxDistance: true };

/**
 * A learned bias per head and bucket of relative position: half of the buckets are single distances, the others grow logarithmically.
 *
 * @param bias [heads, buckets]; a tensor is trained
 *
 * Source: Raffel et al., "Exploring the Limits of Transfer Learning", 2020, section 2.1.
 */
export function t5Bias(bias: FloatTable2, options: T5BiasOptions = {}): Score {
  expectOptions('t5Bias', options, T5_BIAS_OPTIONS);
  const { bidirectional = false, buckets = 32, maxDistance = 128 } = options;
  const bucket = t5Buckets(bidirectional ? buckets / 2 : buckets, maxDistance);
  if (!bidirectional)
    return score(({ s, h, q, kv }, { bias, bucket, far }) => s + bias[h][bucket[Math.min(Math.max(q - kv, 0), far)]], {
      bias: seen(bias),
      bucket,
      far: maxDistance,
    });
  return score(
    ({ s, h, q, kv }, { bias, bucket, far, half }) =>
      s + bias[h][bucket[Math.min(Math.abs(q - kv), far)] + (kv > q ? half : 0)],
    { bias: seen(bias), bucket, far: maxDistance, half: buckets / 2 },
  );
}

/** Bucket of each distance 0 to `maxDistance`, computed in single precision as the published models do. */
export function t5Buckets(buckets: number, maxDistance: number): Int32Array {
  expectNumbers('t5Bias', { buckets, maxDistance });
  const exact = Math.floor(buckets / 2);
  if (!Number.isInteger(buckets) || buckets < 2 || maxDistance <= exact)
    throw new FoveaError('ERR_ARGUMENT', `t5Bias: ${buckets} buckets a side up to distance ${maxDistance}`);
  const span = Math.fround(Math.log(maxDistance / exact));
  return Int32Array.from({ length: maxDistance + 1 }, (_, distance) => {
    if (distance < exact) return distance;
    const part = Math.fround(Math.fround(Math.log(Math.fround(distance / exact))) / span);
    return Math.min(exact + Math.trunc(Math.fround(part * (buckets - exact))), buckets - 1);
  });
}
