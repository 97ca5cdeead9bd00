/** The layer router against goldens, and the two branches of fluxAttention. */
import { describe, expect, test } from 'vitest';
import { attention, cast, concat, FluxRouter, FluxSparsityLoss, fluxAttention, fluxCost, fluxSparseMask, grad, manualSeed, randn, reshape, slice, sum, tensor, zeros, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden } from './golden_case.ts';
import { numbers } from './inputs.ts';
import { headsOf, plainAttention } from './plain_attention.ts';
import { expectClose } from './tolerance.ts';

describe('goldens', () => {
  test.each(['flux_router_softmax', 'flux_router_sigmoid'])('%s', (name) =>
    checkGolden(name, (g) => {
      const config = g.config as unknown as { pool_size: number; tau: number; use_softmax: boolean };
      const q = g.input('q');
      const router = new FluxRouter(q.shape[3], { poolSize: config.pool_size, useSoftmax: config.use_softmax }).eval();
      // The golden's own tensors stand in for the parameters, so that gradients reach them.
      const layers = { cls_feat_extractor: [0, 2], cls_router_head_agnostic: [0, 2, 4] } as const;
      for (const [list, places] of Object.entries(layers) as [keyof typeof layers, readonly number[]][])
        for (const i of places) {
          const layer = router[list][i]!;
          expect(Object.keys(router.stateDict())).toContain(`${list}.${i}.weight`);
          layer.weight = g.weight(`${list}.${i}.weight`);
          layer.bias = g.weight(`${list}.${i}.bias`);
        }
      const flat = numbers(g.input('range'));
      const ranges = Array.from({ length: flat.length / 2 }, (_, b) => [flat[2 * b], flat[2 * b + 1]] as const);
      const { logits, probability, z } = router.forward(q, { ranges, tau: config.tau });
      return { out: probability, logits, full_attention: z };
    }),
  );
});

test('starts with full attention everywhere; padding to the right changes nothing', () => {
  manualSeed(1);
  const router = new FluxRouter(8, { poolSize: 3 });
  const q = randn([2, 12, 4, 8]);
  expect([...numbers(router.forward(q).z)]).toEqual([1, 1]);
  router.eval();
  const ranges = [[0, 9], [2, 11]] as const; // prettier-ignore
  const padded = concat([q, randn([2, 5, 4, 8])], 1);
  expect([...numbers(router.forward(padded, { ranges }).logits)]).toEqual([
    ...numbers(router.forward(q, { ranges }).logits),
  ]);
  expect(numbers(router.forward(q, { ranges: [[5, 4], [5, 4]] }).logits).every(Number.isFinite)).toBe(true); // prettier-ignore
});

test('the decision is hard, its gradient that of the probability', () => {
  manualSeed(2);
  const router = new FluxRouter(4, { poolSize: 2 }).eval();
  for (const p of router.parameters()) p.copyFrom(randn(p.shape));
  const q = randn([3, 6, 2, 4], { requiresGrad: true });
  const { z, probability } = router.forward(q, { tau: 2 });
  expect([...numbers(z)].every((x) => x === 0 || x === 1)).toBe(true);
  const [a] = grad(sum(z), [q], { retainGraph: true });
  const [b] = grad(sum(probability), [q]);
  expect([...numbers(a as Tensor)]).toEqual([...numbers(b as Tensor)]);
});

test('a tie is sparse, as arg-max and > 0.5 say', () => {
  for (const useSoftmax of [true, false]) {
    const router = new FluxRouter(4, { useSoftmax }).eval();
    for (const p of router.parameters()) p.copyFrom(zeros(p.shape));
    expect([...numbers(router.forward(randn([1, 3, 2, 4])).z)]).toEqual([0]);
  }
});

const inputs = (length: number): [Tensor, Tensor, Tensor] => {
  manualSeed(length);
  return [1, 2, 3].map(() => randn([2, 2, length, 8])) as [Tensor, Tensor, Tensor];
};

test.each([
  [{ sink: 3, local: 6, block: 1 }, (i: number, j: number) => j < 3 || i - j < 6],
  [{ sink: 5, local: 9, block: 8 }, (i: number, j: number) => j < 8 || (i >> 3) - (j >> 3) < 2],
  [{ sink: 3, local: 6, block: 1, last: 4 }, (i: number, j: number) => j < 3 || i - j < 6 || i >= 36],
] as const)('sparse branch %j', (options, sees) => {
  const [q, k, v] = inputs(40);
  const out = headsOf(numbers(fluxAttention(q, k, v, { full: false, ...options })), 4, 8);
  const [qs, ks, vs] = [q, k, v].map((t) => headsOf(numbers(t), 4, 8));
  const expected = qs.map((rows, h) =>
    plainAttention(rows, ks[h], vs[h], (s, i, j) => (j <= i && sees(i, j) ? s / Math.sqrt(8) : -Infinity)),
  );
  expectClose(out.flat(2), expected.flat(2));
});

test('a window over everything is full attention; z mixes, with gradients', () => {
  const [q, k, v] = inputs(70);
  const full = numbers(fluxAttention(q, k, v, { full: true }));
  expectClose(full, numbers(attention(q, k, v, { causal: true })));
  expectClose(numbers(fluxAttention(q, k, v, { full: false })), full);
  const z = tensor([[1], [0]], null, { requiresGrad: true });
  const options = { sink: 2, local: 3, block: 1 };
  const mixed = fluxAttention(q, k, v, { full: z, ...options });
  const sparse = fluxAttention(q, k, v, { full: false, ...options });
  expectClose(numbers(slice(mixed, 0, 0, 1)), full.slice(0, full.length / 2));
  expectClose(numbers(slice(mixed, 0, 1)), numbers(slice(sparse, 0, 1)));
  const [dz] = grad(sum(mixed), [z]);
  const difference = full.map((x, i) => x - numbers(sparse)[i]);
  const half = difference.length / 2;
  const total = (x: Float64Array): number => x.reduce((a, b) => a + b, 0);
  expectClose(numbers(dz as Tensor), [total(difference.slice(0, half)), total(difference.slice(half))], 'f32', 20);
});

test('bf16, the mask is kept, errors, cost', () => {
  const [q, k, v] = inputs(40).map((t) => cast(t, 'bf16'));
  expect(fluxAttention(q, k, v, { full: false, sink: 2, local: 4, block: 1 }).dtype).toBe('bf16');
  expect(fluxSparseMask(100)).toBe(fluxSparseMask(200));
  const code = (name: string) => expect.objectContaining({ code: name }) as Error;
  expect(() => fluxSparseMask(10, { local: 0 })).toThrow(code('ERR_ARGUMENT'));
  expect(() => fluxAttention(q, k, v, { full: reshape(randn([3]), [3, 1]) })).toThrow(code('ERR_SHAPE'));
  const flops = (length: number): number => fluxCost({ length, dim: 64 }).flops;
  expect(flops(262144) / flops(65536)).toBeLessThan(4.2);
  expect(fluxCost({ length: 4096, dim: 64 }, { full: true }).flops).toBeGreaterThan(flops(4096));
});

describe('sparsity loss', () => {
  const decisions = [[1, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1]]; // prettier-ignore

  test('zero at the target, the mean distance elsewhere', () => {
    const z = tensor(decisions);
    const loss = new FluxSparsityLoss();
    expect(numbers(loss.forward(z, [0.25, 0.75, 0.5]))[0]).toBeCloseTo(0, 6);
    expect(numbers(loss.forward(z, 0.5))[0]).toBeCloseTo((0.25 + 0.25 + 0) / 3, 6);
  });

  test('tasks weigh alike whatever their prompts; gradients reach decisions and multipliers', () => {
    const loss = new FluxSparsityLoss(3);
    expect([...loss.namedParameters()].map(([name]) => name)).toEqual(['lambda1', 'lambda2']);
    const z = tensor(decisions, [3, 4], { requiresGrad: true });
    const [first, second] = [loss.lambda1, loss.lambda2].map((t) => numbers(t as Tensor));
    const short = [0.25, 0.75, 0.5].map((s) => s - 0.4);
    const term = (i: number, task: number): number => first[task] * Math.abs(short[i]) + second[task] * short[i] ** 2;
    const total = loss.forward(z, 0.4, [2, 0, 2]);
    expect(numbers(total)[0]).toBeCloseTo(((term(0, 2) + term(2, 2)) / 2 + term(1, 0)) / 2, 6);
    const [dz, d1, d2] = grad(total, [z, loss.lambda1 as Tensor, loss.lambda2 as Tensor]).map((g) => numbers(g as Tensor)); // prettier-ignore
    const slope = (i: number, task: number): number => first[task] * Math.sign(short[i]) + 2 * second[task] * short[i];
    expectClose(dz, [[0, 2, 0.25], [1, 0, 0.5], [2, 2, 0.25]].flatMap(([i, task, share]) => Array<number>(4).fill((-share * slope(i, task)) / 4)), 'f32'); // prettier-ignore
    expectClose(d1, [Math.abs(short[1]) / 2, 0, (Math.abs(short[0]) + Math.abs(short[2])) / 4], 'f32');
    expectClose(d2, [short[1] ** 2 / 2, 0, (short[0] ** 2 + short[2] ** 2) / 4], 'f32');
  });

  test('refuses lists that do not fit', () => {
    const z = tensor(decisions);
    const refused = (code: string, fn: () => unknown): void =>
      expect(fn).toThrow(expect.objectContaining({ code }) as Error);
    refused('ERR_SHAPE', () => new FluxSparsityLoss().forward(z, [0.5]));
    refused('ERR_SHAPE', () => new FluxSparsityLoss(2).forward(z, 0.5));
    refused('ERR_ARGUMENT', () => new FluxSparsityLoss(2).forward(z, 0.5, [0, 1, 2]));
  });
});
