import { describe, expect, it } from 'vitest';
import {
  AdamW,
  add,
  clipGradNorm,
  cosineSchedule,
  linearSchedule,
  mul,
  SGD,
  sum,
  tensor,
  type AdamWSettings,
  type DType,
  type SgdSettings,
  type Tensor,
} from '../lib/index.ts';
import { noise } from './gradient_check.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { expectClose } from './tolerance.ts';

const code = (code: string): unknown => expect.objectContaining({ code });
const SIZES = [1, 17, 100, 40_000];

function makeParams(dtype: DType = 'f32'): Tensor[] {
  return SIZES.map((n, i) => tensor(noise(n, i + 1), [n], { dtype, requiresGrad: true }));
}

function giveGrads(params: readonly Tensor[], step: number): Float64Array[] {
  return params.map((t, i) => {
    const g = noise(t.size, 10 * step + i + 50);
    t.grad?.dispose();
    t.grad = tensor(g, t.shape, { dtype: t.dtype });
    return Float64Array.from(t.grad.dataSync() as Float32Array);
  });
}

function adamw(p: Float64Array, g: Float64Array, m: Float64Array, v: Float64Array, t: number, s: AdamWSettings): void {
  const [b1, b2] = s.betas;
  for (let i = 0; i < p.length; i++) {
    p[i] *= 1 - s.lr * s.weightDecay;
    m[i] = b1 * m[i] + (1 - b1) * g[i];
    v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
    p[i] -= ((s.lr / (1 - b1 ** t)) * m[i]) / (Math.sqrt(v[i] / (1 - b2 ** t)) + s.eps);
  }
}

function sgd(p: Float64Array, grad: Float64Array, m: Float64Array, first: boolean, s: SgdSettings): void {
  for (let i = 0; i < p.length; i++) {
    const g = grad[i] + s.weightDecay * p[i];
    m[i] = first ? g : s.momentum * m[i] + g;
    p[i] -= s.lr * (s.momentum === 0 ? g : s.nesterov ? g + s.momentum * m[i] : m[i]);
  }
}

describe.each(LEVELS)('on %s', (level) => {
  it.each<[DType, Partial<AdamWSettings>]>([
    ['f32', {}],
    ['f32', { lr: 0.05, betas: [0.8, 0.95], eps: 1e-3, weightDecay: 0.3 }],
    ['bf16', { lr: 0.02 }],
    ['f16', { lr: 0.02 }],
  ])('AdamW follows its reference over several steps in %s %o', (dtype, settings) => {
    atLevel(level, () => {
      const params = makeParams(dtype);
      const full = { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, ...settings } as const;
      const expected = params.map((t) => Float64Array.from(t.dataSync() as Float32Array));
      const [m, v] = [0, 1].map(() => params.map((t) => new Float64Array(t.size)));
      const optimizer = new AdamW(params, settings);
      for (let step = 1; step <= 6; step++) {
        const grads = giveGrads(params, step);
        optimizer.step();
        expected.forEach((p, i) => adamw(p, grads[i], m[i], v[i], step, full));
      }
      params.forEach((t, i) => expectClose(t.dataSync() as Float32Array, expected[i], dtype));
    });
  });

  it.each<Partial<SgdSettings>>([
    {},
    { lr: 0.1, momentum: 0.9 },
    { lr: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.1 },
    { weightDecay: 0.5 },
  ])('SGD follows its reference over several steps with %o', (settings) => {
    atLevel(level, () => {
      const params = makeParams();
      const full = { lr: 1e-2, momentum: 0, nesterov: false, weightDecay: 0, ...settings };
      const expected = params.map((t) => Float64Array.from(t.dataSync() as Float32Array));
      const m = params.map((t) => new Float64Array(t.size));
      const optimizer = new SGD(params, settings);
      for (let step = 1; step <= 5; step++) {
        const grads = giveGrads(params, step);
        optimizer.step();
        expected.forEach((p, i) => sgd(p, grads[i], m[i], step === 1, full));
      }
      params.forEach((t, i) => expectClose(t.dataSync() as Float32Array, expected[i]));
    });
  });

  it('clipGradNorm returns the norm and scales only what is above', () => {
    atLevel(level, () => {
      const params = makeParams();
      const grads = giveGrads(params, 1);
      const norm = Math.sqrt(grads.flatMap((g) => [...g]).reduce((s, x) => s + x * x, 0));
      expectClose([clipGradNorm(params, 1e6).itemSync()], [norm]);
      params.forEach((t, i) => expect([...(t.grad?.dataSync() as Float32Array)]).toEqual([...grads[i]]));
      expectClose([clipGradNorm(params, 2).itemSync()], [norm]);
      params.forEach((t, i) =>
        expectClose(
          t.grad?.dataSync() as Float32Array,
          grads[i].map((x) => (x * 2) / norm),
        ),
      );
    });
  });
});

describe('optimizers', () => {
  it('keep small updates of bf16 parameters in their f32 masters', () => {
    const param = tensor([1], null, { dtype: 'bf16', requiresGrad: true });
    const optimizer = new SGD([param], { lr: 1e-3 });
    for (let i = 0; i < 100; i++) {
      param.grad = tensor([1], null, { dtype: 'bf16' });
      optimizer.step();
    }
    expect(Number(param.dataSync()[0])).toBeCloseTo(0.9, 2);
  });

  it('leave parameters without a gradient alone, and count their steps apart', () => {
    const [a, b] = [tensor([1], null, { requiresGrad: true }), tensor([1], null, { requiresGrad: true })];
    const optimizer = new AdamW([a, b], { lr: 0.1, weightDecay: 0 });
    const give = (t: Tensor): void => void (t.grad = tensor([0.5]));
    for (let i = 0; i < 3; i++) {
      give(a);
      optimizer.step();
    }
    expect(b.dataSync()[0]).toBe(1);
    optimizer.zeroGrad();
    expect(a.grad).toBeNull();
    give(b);
    optimizer.step();
    expect(Number(b.dataSync()[0])).toBeCloseTo(0.9, 6);
    expect(optimizer.stateDict().steps).toEqual([3, 1]);
  });

  it('take groups with settings of their own, and a new learning rate', () => {
    const [a, b] = [tensor([1], null, { requiresGrad: true }), tensor([1], null, { requiresGrad: true })];
    const optimizer = new SGD([{ params: [a] }, { params: [b], lr: 0.5 }], { lr: 0.1 });
    const step = (): void => {
      for (const t of [a, b]) t.grad = tensor([1]);
      optimizer.step();
    };
    step();
    expect([a, b].map((t) => Number(t.dataSync()[0]).toFixed(4))).toEqual(['0.9000', '0.5000']);
    optimizer.setLearningRate(0.2);
    step();
    expect([a, b].map((t) => Number(t.dataSync()[0]).toFixed(4))).toEqual(['0.7000', '0.3000']);
  });

  it.each([
    [AdamW, { lr: 0.1 }],
    [SGD, { lr: 0.1, momentum: 0.5 }],
  ] as const)('go on from a saved state', (Kind, settings) => {
    const train = (optimizer: AdamW | SGD, params: readonly Tensor[], from: number, to: number): void => {
      for (let step = from; step < to; step++) {
        giveGrads(params, step);
        optimizer.step();
      }
    };
    const whole = makeParams('bf16');
    train(new Kind(whole, settings), whole, 0, 6);
    const first = makeParams('bf16');
    const before = new Kind(first, settings);
    train(before, first, 0, 3);
    const second = first.map((t) =>
      tensor(t.dataSync() as Float32Array, t.shape, { dtype: 'bf16', requiresGrad: true }),
    );
    const after = new Kind(second, { lr: 99 });
    after.loadStateDict(before.stateDict() as never);
    train(after, second, 3, 6);
    second.forEach((t, i) =>
      expect([...(t.dataSync() as Float32Array)]).toEqual([...(whole[i].dataSync() as Float32Array)]),
    );
    expect(() => new Kind(second.slice(1)).loadStateDict(before.stateDict() as never)).toThrow(code('ERR_ARGUMENT'));
  });

  it('raise the version, so that a stale graph is refused', () => {
    const p = tensor([1, 2], null, { requiresGrad: true });
    const loss = sum(mul(p, p));
    p.grad = tensor([1, 1]);
    new SGD([p]).step();
    expect(() => loss.backward()).toThrow(code('ERR_AUTOGRAD'));
  });

  it('refuse what is not a parameter', () => {
    const p = tensor([1], null, { requiresGrad: true });
    expect(() => new SGD([])).toThrow(code('ERR_ARGUMENT'));
    expect(() => new SGD([p, p])).toThrow(code('ERR_ARGUMENT'));
    expect(() => new SGD([tensor([1])])).toThrow(code('ERR_ARGUMENT'));
    expect(() => new SGD([mul(p, 2)])).toThrow(code('ERR_ARGUMENT'));
    expect(() => new SGD([p], { nesterov: true })).toThrow(code('ERR_ARGUMENT'));
    for (const settings of [{ lr: -1 }, { lr: NaN }, { momentum: Infinity }, { weightDecay: -0.1 }])
      expect(() => new SGD([p], settings)).toThrow(code('ERR_ARGUMENT'));
    for (const settings of [{ lr: NaN }, { betas: [0.9, 1] as const }, { eps: -1 }])
      expect(() => new AdamW([{ params: [p], ...settings }])).toThrow(code('ERR_ARGUMENT'));
    expect(() => new SGD([p]).setLearningRate(NaN)).toThrow(code('ERR_ARGUMENT'));
    expect(() => clipGradNorm([p], 1)).toThrow(code('ERR_ARGUMENT'));
  });

  it('clipGradNorm scales each gradient once, whatever autograd passed on', () => {
    const [a, b, c] = [3, 4, 5].map((x) => tensor([x], null, { requiresGrad: true }));
    sum(mul(add(a, b), 10)).backward(); // one tensor is the gradient of both
    sum(c).backward(); // an expanded one
    const norm = Math.sqrt(201);
    expectClose([clipGradNorm([a, b, c], 1).itemSync()], [norm]);
    for (const [t, g] of [
      [a, 10],
      [b, 10],
      [c, 1],
    ] as const)
      // prettier-ignore
      expectClose(t.grad?.dataSync() as Float32Array, [g / norm]);
  });

  it('refuse tensors that share memory, and leave them', () => {
    const whole = tensor([1, 2, 3], null, { requiresGrad: true });
    const parts = [whole.detach().slice(0, 0, 2), whole.detach().slice(0, 1, 3)];
    for (const part of parts) {
      part.requiresGrad = true;
      part.grad = tensor([1, 1]);
    }
    const [left, right] = [whole.detach().slice(0, 0, 1), whole.detach().slice(0, 1, 3)];
    left.requiresGrad = right.requiresGrad = true;
    [left.grad, right.grad] = [tensor([1]), tensor([1, 1])];
    const refused = new SGD(parts);
    expect(() => refused.step()).toThrow(code('ERR_ARGUMENT'));
    expect(refused.stateDict().steps).toEqual([0, 0]);
    expect(() => clipGradNorm([left, left], 1)).toThrow(code('ERR_ARGUMENT'));
    expect([...(whole.dataSync() as Float32Array)]).toEqual([1, 2, 3]);
    new SGD([left, right], { lr: 1 }).step();
    expect([...(whole.dataSync() as Float32Array)]).toEqual([0, 1, 2]);
  });

  it('give the same bits for any number of threads', () => {
    expectSameBitsForAnyThreads(() => {
      const params = makeParams();
      giveGrads(params, 1);
      clipGradNorm(params, 1);
      new AdamW(params).step();
      return params[3];
    });
  });
});

describe('schedules', () => {
  it('rise, fall and stay', () => {
    const cosine = cosineSchedule({ lr: 1, steps: 110, warmup: 10, minLr: 0.1 });
    expect(cosine(0)).toBeCloseTo(0.1);
    expect(cosine(9)).toBe(1);
    expect(cosine(60)).toBeCloseTo(0.55);
    expect(cosine(110)).toBeCloseTo(0.1);
    expect(cosine(1e6)).toBeCloseTo(0.1);
    const line = linearSchedule({ lr: 2, steps: 4 });
    expect([0, 1, 2, 3, 4, 5].map(line)).toEqual([2, 1.5, 1, 0.5, 0, 0]);
    expect(() => linearSchedule({ lr: 1, steps: 5, warmup: 6 })).toThrow(code('ERR_ARGUMENT'));
  });
});
