/** pointerAttention against the golden networks (with an LSTM of this file around it) and a double-precision reference. */
import { describe, expect, test } from 'vitest';
import { add, cast, concat, exp, expand, gather, linear, manualSeed, mul, pointerAttention, randn, reshape, select, sigmoid, slice, split, stack, sum, tanh, tensor, where, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { range, rowsOf, softmaxOf } from './plain_attention.ts';
import { expectClose } from './tolerance.ts';

interface Cell {
  readonly h: Tensor;
  readonly c: Tensor;
}

/** One step of an LSTM with the gates in the order i, f, g, o. */
function lstm(x: Tensor, { h, c }: Cell, wih: Tensor, whh: Tensor, bih: Tensor, bhh: Tensor): Cell {
  const [i, f, g, o] = split(add(linear(x, wih, bih), linear(h, whh, bhh)), h.shape[1], 1);
  const next = add(mul(sigmoid(f), c), mul(sigmoid(i), tanh(g)));
  return { h: mul(sigmoid(o), tanh(next)), c: next };
}

function network(g: GoldenCase): Record<string, Tensor> {
  const { hidden, no_repeat: once } = g.config as unknown as { hidden: number; no_repeat: boolean };
  const x = g.input('x');
  const [batch, n] = x.shape;
  const lengths = numbers(g.input('lengths'));
  const target = rowsOf(numbers(g.input('target')), n + 1);
  const weights = (name: string, suffix: string): [Tensor, Tensor, Tensor, Tensor] =>
    ['weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'].map((part) => g.weight(`${name}.${part}${suffix}`)) as [Tensor, Tensor, Tensor, Tensor]; // prettier-ignore
  const none = mul(expand(reshape(g.weight('end'), [1, hidden]), [batch, hidden]), 0);
  const states: Cell[] = [{ h: none, c: none }];
  for (let t = 0; t < n; t++) states.push(lstm(select(x, 1, t), states[t], ...weights('encoder', '_l0')));
  const lastOf = (part: 'h' | 'c'): Tensor =>
    stack(range(0, batch).map((b) => select(states[lengths[b]][part], 0, b)), 0); // prettier-ignore
  const end = expand(reshape(g.weight('end'), [1, 1, hidden]), [batch, 1, hidden]);
  const memory = concat([end, stack(states.slice(1).map(({ h }) => h), 1)], 1); // prettier-ignore
  let cell: Cell = { h: lastOf('h'), c: lastOf('c') };
  let input = expand(reshape(g.weight('start'), [1, 2]), [batch, 2]);
  const outputs: Tensor[] = [];
  for (let t = 0; t <= n; t++) {
    cell = lstm(input, cell, ...weights('decoder', ''));
    outputs.push(cell.h);
    const at = tensor(target.map((row) => Math.max(0, row[t] - 1)), [batch, 1, 1], { dtype: 'i32' }); // prettier-ignore
    const stopped = tensor(target.map((row) => [row[t] === 0])); // prettier-ignore
    input = where(
      stopped,
      expand(reshape(g.weight('start'), [1, 2]), [batch, 2]),
      select(gather(x, 1, expand(at, [batch, 1, 2])), 1, 0),
    );
  }
  const done = target.map((row) => range(0, n + 1).map((t) => row.slice(0, t).includes(0)));
  const allowed = range(0, batch).map((b) =>
    range(0, n + 1).map((t) =>
      range(0, n + 1).map((j) => j === 0 || (j <= lengths[b] && !(once && target[b].slice(0, t).includes(j)))),
    ),
  );
  const logprob = pointerAttention(
    linear(memory, g.weight('W1.weight')),
    linear(stack(outputs, 1), g.weight('W2.weight')),
    g.weight('v'),
    { allowed: tensor(allowed) },
  );
  const counts = tensor(allowed.map((steps, b) => steps.map((row, t) => row.map((ok) => ok && !done[b][t]))));
  const out = where(counts, logprob, 0);
  const chosen = gather(logprob, 2, tensor(target, [batch, n + 1, 1], { dtype: 'i32' }));
  const live = tensor(done.map((row) => row.map((is) => [!is])));
  const total = sum(where(live, chosen, 0));
  return { out, logprob, loss: mul(total, -1 / done.flat().filter((is) => !is).length) };
}

describe('goldens', () => {
  test.each(['ptrnet_tiny', 'ptrnet_norepeat'])('%s', (name) => checkGolden(name, network));
});

test('double-precision reference, values and finite differences', () => {
  const [inputs, steps, h] = [5, 3, 4];
  const allowed = range(0, steps).map((t) => range(0, inputs).map((j) => (t + j) % 4 !== 0 || j === 1));
  checkGradients({
    shapes: [[1, inputs, h], [1, steps, h], [h]],
    // Probabilities, so that the forbidden ones compare as 0.
    op: (keys, queries, v) => exp(pointerAttention(keys, queries, v, { allowed: tensor([allowed]) })),
    reference: (keys, queries, v) =>
      rowsOf(queries, h).flatMap((d, t) =>
        softmaxOf(
          rowsOf(keys, h).map((e, j) =>
            allowed[t][j] ? e.reduce((s, x, c) => s + v[c] * Math.tanh(x + d[c]), 0) : -Infinity,
          ),
        ),
      ),
  }); // prettier-ignore
});

test('rows of probabilities sum to 1, forbidden inputs have none, bf16', () => {
  manualSeed(1);
  const [keys, queries, v] = [randn([2, 9, 16]), randn([2, 4, 16]), randn([16])];
  const allowed = reshape(tensor(range(0, 18).map((i) => i % 5 !== 2)), [2, 1, 9]);
  const logp = pointerAttention(keys, queries, v, { allowed });
  expectClose(numbers(sum(exp(logp), -1)), new Float64Array(8).fill(1));
  expect(numbers(slice(logp, 2, 2, 3)).slice(0, 4)).toEqual(new Float64Array(4).fill(-Infinity));
  const [a, b, c] = [keys, queries, v].map((t) => cast(t, 'bf16'));
  expectClose(numbers(exp(pointerAttention(a, b, c, { allowed }))), numbers(exp(logp)), 'bf16', 5);
});

test('shapes that do not fit are refused', () => {
  expect(() => pointerAttention(randn([1, 3, 4]), randn([1, 2, 5]), randn([4]))).toThrow(
    expect.objectContaining({ code: 'ERR_SHAPE' }) as Error,
  );
});
