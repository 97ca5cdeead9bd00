/** Curves through measured points (length, time). */

export type Point = readonly [x: number, y: number];

/** Coefficients c of the polynomial c[0] + c[1] x + .. of least squares. */
export function polynomial(points: readonly Point[], degree: number): number[] {
  const n = degree + 1;
  const unit = Math.max(...points.map(([x]) => x));
  const system = Array.from({ length: n }, (_, i) => [
    ...Array.from({ length: n }, (_, j) => points.reduce((sum, [x]) => sum + (x / unit) ** (i + j), 0)),
    points.reduce((sum, [x, y]) => sum + y * (x / unit) ** i, 0),
  ]);
  for (let i = 0; i < n; i++)
    for (let row = 0; row < n; row++) {
      if (row === i) continue;
      const factor = system[row][i] / system[i][i];
      system[row] = system[row].map((value, j) => value - factor * system[i][j]);
    }
  return system.map((row, i) => row[n] / row[i] / unit ** i);
}

/** The power p of y ~ x^p. */
export function exponent(points: readonly Point[]): number {
  return polynomial(
    points.map(([x, y]) => [Math.log(x), Math.log(y)]),
    1,
  )[1];
}

/**
 * Where a line through the times of an efficient attention (its first point left out) meets a parabola through those of dense attention:
 * the efficiency length of CAB (Zhang et al., ICML 2023). NaN where they do not meet.
 */
export function efficiencyLength(dense: readonly Point[], efficient: readonly Point[]): number {
  const [c, b, a] = polynomial(dense, 2);
  const [e, d] = polynomial(efficient.slice(1), 1);
  const half = (b - d) / (2 * a);
  return -half + Math.sqrt(half * half - (c - e) / a);
}

/**
 * The least x from which on y of `a` stays below that of `b`, both measured at the same places: between two of them on a straight line
 * through logarithms. Null where it is not below at the last.
 */
export function crossing(a: readonly Point[], b: readonly Point[]): number | null {
  const lead = a.map(([x, y], i) => [Math.log(x), Math.log(y / b[i][1])] as const);
  const behind = lead.findLastIndex(([, y]) => y >= 0);
  if (behind === lead.length - 1) return null;
  if (behind < 0) return a[0][0];
  const [[x0, y0], [x1, y1]] = [lead[behind], lead[behind + 1]];
  return Math.exp(x0 + (y0 / (y0 - y1)) * (x1 - x0));
}
