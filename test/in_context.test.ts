/** In-context attention and predictors against goldens and their identities. */
import { describe, expect, test } from 'vitest';
import { add, gradientStep, inContextAttention, manualSeed, mul, populationLoss, randn, tensor, twoHeadPrediction, type Regression, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, plainAttention, range, rowsOf, softmaxOf } from './plain_attention.ts';
import { expectClose } from './tolerance.ts';

/** x_q^T (X X^T + lambda I)^-1 X y in plain numbers. */
function ridge(x: number[][], y: number[], xq: number[], lambda: number): number {
  const d = x.length;
  const a = range(0, d).map((i) => [...range(0, d).map((j) => dot(x[i], x[j]) + (i === j ? lambda : 0)), dot(x[i], y)]);
  for (let p = 0; p < d; p++)
    for (let i = 0; i < d; i++) {
      if (i === p) continue;
      const factor = a[i][p] / a[p][p];
      for (let j = p; j <= d; j++) a[i][j] -= factor * a[p][j];
    }
  return xq.reduce((s, q, i) => s + (q * a[i][d]) / a[i][i], 0);
}

describe('goldens', () => {
  test.each(['icl_mha_softmax', 'icl_mha_softmax_h1'])('%s', (name) =>
    checkGolden(name, (g) => {
      const [q, k, v, o] = ['q', 'k', 'v', 'o'].map((part) => g.weight(`${part}_proj.weight`));
      return inContextAttention(g.input('z_q'), g.input('z'), { q, k, v, o });
    }),
  );

  test('icl_debiased_gd', () =>
    checkGolden('icl_debiased_gd', (g: GoldenCase) => {
      const [x, y, xq, omega, mu] = ['X', 'y', 'xq', 'omega', 'mu'].map((name) => g.input(name));
      const problem: Regression = { x, y, xq, omega, mu };
      const { sigma2, d } = g.config as unknown as { sigma2: number; d: number };
      const plain = ridge(rowsOf(numbers(x), x.shape[1]), [...numbers(y)], [...numbers(xq)], sigma2 * d);
      return {
        out: gradientStep(problem),
        gd: gradientStep(problem, { debiased: false }),
        two_head_softmax: twoHeadPrediction(problem),
        ridge: tensor(plain),
      };
    }));

  test('icl_gradient_flow', () =>
    checkGolden('icl_gradient_flow', (g) => {
      const { d, L, sigma2 } = g.config as unknown as { d: number; L: number; sigma2: number };
      return populationLoss(g.input('mu'), g.input('omega'), { dim: d, examples: L, noise: sigma2 });
    }));
});

test('double-precision reference, values and finite differences', () => {
  const [n, width, heads] = [6, 3, 2];
  const project = (x: ArrayLike<number>, w: ArrayLike<number>): number[][] =>
    rowsOf(x, width).map((row) => rowsOf(w, width).map((weights) => dot(weights, row)));
  checkGradients({
    shapes: [
      [1, 2, width],
      [1, n, width],
      ...Array.from({ length: 3 }, () => [heads * width, width]),
      [1, heads * width],
    ],
    op: (zq, z, q, k, v, o) => inContextAttention(zq, z, { q, k, v, o }),
    reference: (zq, z, wq, wk, wv, wo) => {
      const [q, k, v] = [project(zq, wq), project(z, wk), project(z, wv)];
      const head = (x: number[][], h: number): number[][] => x.map((row) => row.slice(h * width, (h + 1) * width));
      const outs = range(0, heads).map((h) =>
        plainAttention(head(q, h), head(k, h), head(v, h), (s) => s / Math.sqrt(width)),
      );
      return range(0, 2).map((i) => dot(outs.flatMap((out) => out[i]), [...wo])); // prettier-ignore
    },
  });
});

const problem = (omega: number, mu: number): Regression => {
  manualSeed(4);
  return { x: randn([5, 40]), y: randn([40]), xq: randn([5]), omega: tensor([omega]), mu: tensor([mu]) };
};
const value = (t: Tensor): number => numbers(t)[0];

describe('two heads of opposite sign', () => {
  const reference = (n: number) => (x: Float64Array, y: Float64Array, xq: Float64Array, omega: Float64Array, mu: Float64Array): number[] => {
    const logits = range(0, n).map((j) => omega[0] * xq.reduce((sum, value, d) => sum + value * x[d * n + j], 0));
    const head = (sign: number): number => dot(softmaxOf(logits.map((a) => sign * a)), [...y]);
    return [mu[0] * (head(1) - head(-1))];
  }; // prettier-ignore
  const [d, n] = [3, 7];

  test('double-precision reference, values and finite differences', () =>
    checkGradients({
      shapes: [[d, n], [n], [d], [1], [1]],
      op: (x, y, xq, omega, mu) => twoHeadPrediction({ x, y, xq, omega, mu }),
      reference: reference(n),
    }));

  test.each([1e-4, 0.5, 30])('omega %d keeps the digits', (omega) => {
    manualSeed(6);
    const p = { x: randn([d, n]), y: randn([n]), xq: randn([d]), omega: tensor([omega]), mu: tensor([1]) };
    const [x, y, xq] = [p.x, p.y, p.xq].map((t) => Float64Array.from(numbers(t)));
    const wanted = reference(n)(x, y, xq, Float64Array.of(Math.fround(omega)), Float64Array.of(1));
    expectClose([value(twoHeadPrediction(p))], wanted);
  });
});

test('two heads tend to the debiased step as omega falls, the third power leading', () => {
  const gap = (omega: number): number => {
    const p = problem(omega, 1 / omega);
    return Math.abs(value(twoHeadPrediction(p)) - value(gradientStep(p)));
  };
  expect(gap(0.4) / gap(0.2)).toBeGreaterThan(3);
  expect(gap(0.2) / gap(0.1)).toBeGreaterThan(3);
});

test('a constant added to all examples changes the biased step only', () => {
  const p = problem(0.3, 1);
  const moved = { ...p, x: add(p.x, mul(randn([5, 1]), 2)) };
  expectClose([value(gradientStep(moved))], [value(gradientStep(p))], 'f32', 10);
  expectClose([value(twoHeadPrediction(moved))], [value(twoHeadPrediction(p))], 'f32', 10);
  const biased = (q: Regression): number => value(gradientStep(q, { debiased: false }));
  expect(Math.abs(biased(moved) - biased(p))).toBeGreaterThan(1e-3);
});

test('shapes that do not fit are refused', () => {
  const w = randn([8, 4]);
  const weights = { q: w, k: w, v: w, o: randn([1, 8]) };
  expect(() => inContextAttention(randn([1, 1, 3]), randn([1, 5, 4]), weights)).toThrow(
    expect.objectContaining({ code: 'ERR_SHAPE' }) as Error,
  );
});
