/**
 * Drawing for the examples. Every mechanism here is linear in its values, so with the identity matrix as values the output is the map itself:
 * row i holds what query i takes from each key.
 */
import { cos, eye, manualSeed, mul, randn, reshape, sin, stack, arange, type Tensor } from '../lib/index.ts';

const SHADES = ' .:-=+*#%@';

/** A matrix as rows of characters, two a cell; dark is large, by the square root. Scaled by the largest entry of each row, or of all. */
export function shade(values: ArrayLike<number>, rows: number, columns: number, byRow = true): string {
  const all = Math.max(...Array.from(values, Math.abs), 1e-30);
  const lines: string[] = [];
  for (let i = 0; i < rows; i++) {
    const row = Array.from({ length: columns }, (_, j) => values[i * columns + j]);
    const most = byRow ? Math.max(...row.map(Math.abs), 1e-30) : all;
    lines.push(
      row.map((x) => SHADES[Math.min(9, Math.floor(Math.sqrt(Math.abs(x) / most) * 9.99))].repeat(2)).join(''),
    );
  }
  return lines.join('\n');
}

/** Queries and keys [1, 1, length, dim] that resemble each other where positions are near, with some noise. */
export function tokens(length: number, dim = 16, seed = 1): { q: Tensor; k: Tensor } {
  manualSeed(seed);
  const angle = mul(arange(0, length, 1, { dtype: 'f32' }), Math.PI / length);
  const waves = Array.from({ length: dim / 2 }, (_, i) => {
    const turned = mul(angle, i + 1);
    return [cos(turned), sin(turned)];
  }).flat();
  const base = reshape(stack(waves, 1), [1, 1, length, dim]);
  const noisy = (): Tensor => mul(base.add(randn(base.shape).mul(0.3)), 1.5);
  return { q: noisy(), k: noisy() };
}

/** Draws the map of `op`, [1, 1, length, dim] each to [1, 1, length, length]. */
export function drawMap(title: string, length: number, op: (q: Tensor, k: Tensor, v: Tensor) => Tensor): void {
  const { q, k } = tokens(length);
  const map = op(q, k, reshape(eye(length), [1, 1, length, length]));
  console.log(`${title}: rows are queries, columns keys\n${shade(map.dataSync() as Float32Array, length, length)}\n`);
}
