import { score, type Score } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * The inner product of sinusoidal position vectors as a bias, narrower for the first heads: like ALiBi, but logarithmic far away.
 *
 *   s + (sum_{i=1}^{dim/2} cos(|q - kv| / 10000^(2i/dim)) - dim/2) / (8 (h + 1) / heads)
 *
 * @param heads number of query heads
 * @param dim width of the position vectors, even; the paper's default is 128
 * @param maxLength largest distance told apart plus one; the sequence may be longer, distances beyond share the last value
 *
 * Source: Chi et al., "Dissecting Transformer Length Extrapolation via the Lens of Receptive Field Analysis", 2023, section 5.
 */
export function sandwich(heads: number, dim = 128, maxLength = 4096): Score {
  expectWhole('sandwich', { heads, maxLength }, 1);
  expectWhole('sandwich', { dim }, 2);
  const kernel = Float32Array.from({ length: maxLength }, (_, distance) => {
    let sum = -dim / 2;
    for (let i = 1; i <= dim / 2; ++i) sum += Math.cos(distance / 10000 ** ((2 * i) / dim));
    return sum;
  });
  const sharpness = Float32Array.from({ length: heads }, (_, h) => heads / (8 * (h + 1)));
  return score(
    ({ s, h, q, kv }, { kernel, sharpness, far }) => s + sharpness[h] * kernel[Math.min(Math.abs(q - kv), far)],
    { kernel, sharpness, far: maxLength - 1 },
  );
}
