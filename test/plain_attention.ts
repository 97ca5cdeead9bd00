/** Double-precision pieces that the references of mechanisms share: one head, rows of plain numbers. */

export type Rows = number[][];

export const range = (from: number, to: number): number[] =>
  Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);

/** Row-major values as rows of `width`. */
export function rowsOf(x: ArrayLike<number>, width: number): Rows {
  return range(0, x.length / width).map((i) => range(0, width).map((c) => x[i * width + c]));
}

export const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, x, c) => sum + x * b[c], 0);

export function softmaxOf(logits: readonly number[]): number[] {
  const high = Math.max(...logits);
  if (high === -Infinity) return logits.map(() => 0);
  const weights = logits.map((x) => Math.exp(x - high));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

/** sum_j weights[j] rows[j]. */
export function weighted(weights: readonly number[], rows: Rows): number[] {
  return rows[0].map((_, c) => weights.reduce((sum, w, j) => sum + w * rows[j][c], 0));
}

/** softmax over the visible keys, for each query. */
export function plainAttention(q: Rows, k: Rows, v: Rows, logit: (dot: number, i: number, j: number) => number): Rows {
  return q.map((query, i) => weighted(softmaxOf(k.map((key, j) => logit(dot(query, key), i, j))), v));
}

/** A row-major [heads, length, dim] as a list of heads. */
export function headsOf(x: ArrayLike<number>, heads: number, dim: number): Rows[] {
  const all = rowsOf(x, dim);
  const length = all.length / heads;
  return range(0, heads).map((h) => all.slice(h * length, (h + 1) * length));
}
