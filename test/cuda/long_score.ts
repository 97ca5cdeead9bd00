/** Score functions of any length. */
import type { Tensor } from '../../lib/index.ts';
import { score, type Score } from '../../lib/mask/mask.ts';

/** The function that a text is. */
export const functionOf = (text: string): never => new Function(`return ${text}`)() as never;

/** s bent once for each step: a chain that nothing shortens, with slopes from 0.94 to 1. */
export function bentScore(steps: number, captures: { readonly bend: Float32Array | Tensor }): Score {
  const lines = Array.from({ length: steps }, (_, i) => `const x${i + 1} = x${i} * 0.97 + 0.03 * Math.abs(x${i} - ${(i % 9) - 4.3}) + bend[(q + kv) % 40] * ${(i % 9) + 1}e-4;`); // prettier-ignore
  return score(functionOf(`({ q, kv, s }, { bend }) => { const x0 = s; ${lines.join(' ')} return x${steps}; }`), captures); // prettier-ignore
}
