/** Pointer attention learns to sort: five numbers, pointed at in rising order, from their values alone. */
import { AdamW, exp, Linear, manualSeed, parameter, pointerAttention, rand, randn, scope, tensor, gather, mean, neg, reshape } from '../lib/index.ts'; // prettier-ignore
import { shade } from './draw.ts';

manualSeed(1);
const [n, hidden, batch] = [5, 32, 64];
const embed = new Linear(1, hidden, { activation: 'gelu' });
const keysOf = new Linear(hidden, hidden);
const [steps, v] = [parameter(randn([1, n, hidden])), parameter(randn([hidden]).mul(0.3))];
const optimizer = new AdamW([...embed.parameters(), ...keysOf.parameters(), steps, v], { lr: 5e-3 });

function probabilities(x: ReturnType<typeof rand>) {
  const keys = keysOf.forward(embed.forward(reshape(x, [...x.shape, 1])));
  return pointerAttention(keys, steps.expand([x.shape[0], n, hidden]), v);
}

for (let step = 0; step <= 300; step++)
  scope(() => {
    const x = rand([batch, n]);
    const values = x.dataSync() as Float32Array;
    const order = Array.from({ length: batch }, (_, b) =>
      Array.from({ length: n }, (__, i) => i).sort((i, j) => values[b * n + i] - values[b * n + j]),
    );
    const loss = neg(mean(gather(probabilities(x), 2, tensor(order, [batch, n, 1], { dtype: 'i32' }))));
    if (step % 100 === 0)
      console.log(`step ${step}: loss ${loss.itemSync().toFixed(3)} (chance ${Math.log(n).toFixed(3)})`);
    loss.backward();
    optimizer.step();
    optimizer.zeroGrad();
  });

const x = tensor([[0.9, 0.1, 0.5, 0.7, 0.3]]);
console.log(
  `\n0.9 0.1 0.5 0.7 0.3: rows are ranks, columns inputs\n${shade(exp(probabilities(x)).dataSync() as Float32Array, n, n)}`,
);
