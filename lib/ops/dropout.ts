import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';
import { nextRandom } from './random.ts';

export interface DropoutOptions {
  /** false returns `t` itself. Default true. */
  training?: boolean;
  /** Makes this call reproducible on its own. */
  seed?: number;
}

const DROPOUT_OPTIONS: OptionNames<DropoutOptions> = { training: true, seed: true };

/**
 * Zeroes each element with probability `p` and scales the others by 1 / (1 - p). The mask is never stored: backward draws it again from the
 * call's place in the random stream. Throws ERR_ARGUMENT for p outside [0, 1], ERR_DTYPE unless f32, bf16 or f16.
 *
 * Source: Srivastava et al. 2014, "Dropout: A simple way to prevent neural networks from overfitting".
 */
export function dropout(t: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor {
  expectTensors('dropout', { t });
  expectOptions('dropout', options, DROPOUT_OPTIONS);
  if (typeof p !== 'number' || !(p >= 0 && p <= 1))
    throw new FoveaError('ERR_ARGUMENT', `dropout: p must be in [0, 1], got ${String(p)}`);
  if (options.training === false || p === 0) return t;
  const { seed, offset } = nextRandom('dropout', options.seed);
  const handle = native().dropout(t.handle, 1 - p, seed, offset);
  return result('dropout', handle, [t], (g) => [new Tensor(native().dropout(g.handle, 1 - p, seed, offset))]);
}
