/** In-context regression: predictions of two softmax heads and of gradient steps, against the true value. */
import { gradientStep, manualSeed, matmul, randn, tensor, twoHeadPrediction } from '../lib/index.ts';

manualSeed(3);
const [dim, examples, omega] = [5, 40, 0.3];
const mu = 1 / (2 * omega) / (1 + (1.1 * dim) / examples);
const bar = (x: number): string => ' '.repeat(Math.max(0, Math.round(20 + 12 * x))) + '*';
const at = (t: ReturnType<typeof tensor>): number => Number(t.dataSync()[0]);
for (let i = 0; i < 6; i++) {
  const [x, xq, beta] = [randn([dim, examples]), randn([dim]), randn([dim]).mul(1 / Math.sqrt(dim))];
  const y = matmul(beta, x).add(randn([examples]).mul(0.3));
  const problem = { x, y, xq, omega: tensor([omega]), mu: tensor([mu]) };
  console.log(`truth      ${bar(at(matmul(beta, xq)))}`);
  console.log(`two heads  ${bar(at(twoHeadPrediction(problem)))}`);
  console.log(`step       ${bar(at(gradientStep(problem)))}\n`);
}
