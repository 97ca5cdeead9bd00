/**
 * In-context regression: what a layer of two softmax heads predicts for a query from 40 examples, beside a debiased step of gradient descent and
 * the truth. The weights are those that training finds: heads of opposite sign that compare x and read y.
 */
import { concat, eye, gradientStep, inContextAttention, manualSeed, matmul, mul, pad, randn, reshape, tensor, transpose, unsqueeze } from '../lib/index.ts'; // prettier-ignore

manualSeed(3);
const [dim, examples, omega] = [5, 40, 0.3];
const width = dim + 1;
const mu = 1 / (2 * omega) / (1 + (1.1 * dim) / examples);

const compare = pad(eye(dim), [[0, 1], [0, 1]]).mul(omega * Math.sqrt(width)); // prettier-ignore
const read = (sign: number) => pad(tensor([[sign * mu]]), [[0, 0], [dim, 0]]); // prettier-ignore
const same = concat([eye(width), eye(width)], 0);
const weights = { q: concat([compare, mul(compare, -1)], 0), k: same, v: same, o: concat([read(1), read(-1)], 1) };

const bar = (y: number): string => ' '.repeat(Math.max(0, Math.round(20 + 12 * y))) + '*';
console.log('each star is a value of y: further right is larger\n');
for (let i = 0; i < 6; i++) {
  const [x, xq, beta] = [randn([dim, examples]), randn([dim]), randn([dim]).mul(1 / Math.sqrt(dim))];
  const y = matmul(beta, x).add(randn([examples]).mul(0.3));
  const z = unsqueeze(concat([transpose(x), reshape(y, [examples, 1])], 1), 0);
  const zq = reshape(pad(xq, [[0, 1]]), [1, 1, width]);
  const step = gradientStep({ x, y, xq, omega: tensor([omega]), mu: tensor([mu]) });
  console.log(`truth     ${bar(matmul(beta, xq).itemSync())}`);
  console.log(`layer     ${bar(inContextAttention(zq, z, weights).itemSync())}`);
  console.log(`step      ${bar(step.itemSync())}\n`);
}
