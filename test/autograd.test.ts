import { describe, expect, it } from 'vitest';
import * as F from '../lib/index.ts';
import { checkpoint, grad, keep, memory, noGrad, scope, synchronizeSync, tensor, type Tensor } from '../lib/index.ts';
import { numbers } from './inputs.ts';

const code = (c: string) => expect.objectContaining({ name: 'FoveaError', code: c });
const leaf = (...values: number[]): Tensor => tensor(values, [values.length], { requiresGrad: true });
const gradOf = (t: Tensor): number[] => [...numbers(t.grad as Tensor)];

describe('backward', () => {
  it('follows the chain rule', () => {
    const x = leaf(1, 2, 3);
    x.square().mul(2).sum().backward();
    expect(gradOf(x)).toEqual([4, 8, 12]);
  });

  it('adds up over uses, paths and calls', () => {
    const x = leaf(2);
    const y = x.mul(x).add(x); // diamond: x^2 + x
    y.mul(y).sum().backward(); // 2 y (2x + 1) = 60
    expect(gradOf(x)).toEqual([60]);
    x.mul(3).sum().backward();
    expect(gradOf(x)).toEqual([63]);
  });

  it('gives each leaf a gradient in memory of its own', () => {
    const [x, y] = [leaf(1, 2), leaf(3, 4)];
    const gradient = tensor([5, 6]);
    x.add(y).backward({ gradient });
    F.copyFrom(x.grad as Tensor, tensor([0]));
    expect([gradOf(x), gradOf(y), [...numbers(gradient)]]).toEqual([[0, 0], [5, 6], [5, 6]]); // prettier-ignore
  });

  it('handles deep diamonds without repeating work', () => {
    const x = leaf(1);
    let y: Tensor = x;
    for (let i = 0; i < 50; i++) y = y.add(y).mul(0.5);
    y.sum().backward();
    expect(gradOf(x)).toEqual([1]);
  });

  it('handles chains longer than a recursion could', () => {
    scope(() => {
      const x = leaf(1);
      let y: Tensor = x;
      for (let i = 0; i < 20_000; i++) y = y.add(0);
      y.sum().backward();
      expect(gradOf(x)).toEqual([1]);
    });
  });

  it('takes a gradient for tensors that are not scalars', () => {
    const x = leaf(1, 2);
    x.mul(3).backward({ gradient: tensor([1, 10]) });
    expect(gradOf(x)).toEqual([3, 30]);
    expect(() => x.mul(3).backward()).toThrow(code('ERR_AUTOGRAD'));
    expect(() => x.mul(3).backward({ gradient: tensor([1]) })).toThrow(code('ERR_SHAPE'));
    expect(() => x.mul(3).backward({ gradient: [1, 1] as never })).toThrow(code('ERR_ARGUMENT'));
    expect(() => noGrad(async () => x.mul(3).data())).toThrow(code('ERR_ARGUMENT'));
  });

  it('of a leaf itself is 1', () => {
    const x = leaf(5);
    x.backward();
    x.backward();
    expect(gradOf(x)).toEqual([2]);
  });

  it('refuses a second pass through a freed graph, with the way out in the message', () => {
    const y = leaf(1).exp().sum();
    y.backward();
    expect(() => y.backward()).toThrow(code('ERR_AUTOGRAD'));
    expect(() => y.backward()).toThrow(/retainGraph/);
  });

  it('passes twice with retainGraph', () => {
    const x = leaf(3);
    const y = x.square().sum();
    y.backward({ retainGraph: true });
    y.backward();
    expect(gradOf(x)).toEqual([12]);
  });

  it('refuses tensors without a graph', () => {
    expect(() => tensor([1]).backward()).toThrow(code('ERR_AUTOGRAD'));
    const x = leaf(1);
    expect(() => x.detach().exp().sum().backward()).toThrow(code('ERR_AUTOGRAD'));
    expect(() => noGrad(() => x.exp().sum()).backward()).toThrow(code('ERR_AUTOGRAD'));
  });

  it('crosses dtypes and broadcasting', () => {
    const x = tensor([1, 2], [2, 1], { dtype: 'bf16', requiresGrad: true });
    const y = tensor([1, 1, 1], [3], { dtype: 'f32', requiresGrad: true });
    x.mul(y).sum().backward();
    expect([(x.grad as Tensor).dtype, (y.grad as Tensor).dtype]).toEqual(['bf16', 'f32']);
    expect([(x.grad as Tensor).shape, (y.grad as Tensor).shape]).toEqual([[2, 1], [3]]);
    expect([gradOf(x), gradOf(y)]).toEqual([[3, 3], [3, 3, 3]]); // prettier-ignore
  });

  it('goes through views', () => {
    const x = tensor([[1, 2, 3], [4, 5, 6]], null, { requiresGrad: true }); // prettier-ignore
    x.transpose().reshape([6]).expand([2, 6]).permute([1, 0]).mul(2).sum().backward();
    expect(gradOf(x)).toEqual([4, 4, 4, 4, 4, 4]);
  });
});

describe('grad', () => {
  it('gives gradients of leaves and of what was computed, and null for strangers', () => {
    const x = leaf(3);
    const y = x.square();
    const z = y.mul(2).sum();
    const [dx, dy, stranger] = grad(z, [x, y, leaf(1)]);
    expect([...numbers(dx as Tensor)]).toEqual([12]);
    expect([...numbers(dy as Tensor)]).toEqual([2]);
    expect(stranger).toBeNull();
    expect(x.grad).toBeNull();
  });

  it('sums over several outputs', () => {
    const x = leaf(2);
    const [dx] = grad([x.square().sum(), x.mul(5).sum()], [x]);
    expect([...numbers(dx as Tensor)]).toEqual([9]);
  });
});

describe('saved tensors', () => {
  it('may not change in place before they are used', () => {
    const x = leaf(1, 2);
    const w = tensor([3, 4]);
    const y = x.mul(w).sum();
    w.copyFrom(tensor([0, 0]));
    const run = (): void => y.backward({ retainGraph: true });
    expect(run).toThrow(code('ERR_AUTOGRAD'));
    expect(run).toThrow(/in place/);
  });

  it('change freely when the gradient does not need them', () => {
    const x = leaf(1, 2);
    const w = tensor([3, 4]);
    const y = x.add(w).sum();
    w.copyFrom(tensor([0, 0]));
    y.backward();
    expect(gradOf(x)).toEqual([1, 1]);
  });

  it('must be alive', () => {
    const x = leaf(1, 2);
    const w = tensor([3, 4]);
    const y = x.mul(w).sum();
    w.dispose();
    expect(() => y.backward()).toThrow(code('ERR_DISPOSED'));
  });

  it('a computed tensor cannot be written or lose its gradient', () => {
    const y = leaf(1).exp();
    expect(() => y.copyFrom(tensor([1]))).toThrow(code('ERR_AUTOGRAD'));
    expect(() => {
      y.requiresGrad = false;
    }).toThrow(code('ERR_AUTOGRAD'));
    expect(() => {
      tensor([1], [1], { dtype: 'i32' }).requiresGrad = true;
    }).toThrow(code('ERR_AUTOGRAD'));
  });
});

describe('noGrad', () => {
  it('records nothing and restores on errors', () => {
    const x = leaf(1);
    expect(noGrad(() => x.exp()).requiresGrad).toBe(false);
    expect(() =>
      noGrad(() => {
        throw new Error('x');
      }),
    ).toThrow('x');
    expect(x.exp().requiresGrad).toBe(true);
  });
});

describe('scope', () => {
  it('keeps what the gradient of its result needs', () => {
    const x = leaf(2);
    const y = scope(() => x.exp().mul(x.square()).sum());
    y.backward();
    expect(gradOf(x)[0]).toBeCloseTo(Math.exp(2) * (4 + 4), 3);
  });

  it('leaves gradients of parameters alive', () => {
    const x = leaf(2);
    for (let i = 0; i < 3; i++) scope(() => x.square().sum().backward());
    expect(gradOf(x)).toEqual([12]);
  });

  it('a training step leaves no memory behind', () => {
    const w = keep(tensor([[1, 2], [3, 4]], null, { requiresGrad: true })); // prettier-ignore
    const step = (): void =>
      scope(() => {
        w.softmax().log().mul(w.gelu()).sum().backward();
        w.grad?.dispose();
        w.grad = null;
      });
    step();
    synchronizeSync();
    const { liveBytes, tensors } = memory();
    for (let i = 0; i < 20; i++) step();
    synchronizeSync();
    expect(memory()).toMatchObject({ liveBytes, tensors });
    w.dispose();
  });
});

describe('checkpoint', () => {
  it('has the values and gradients of the plain call', () => {
    const plain = leaf(0.5, -1);
    const again = leaf(0.5, -1);
    const w = leaf(2, 3);
    const f = (x: Tensor): Tensor => x.tanh().mul(w).exp();
    f(plain).sum().backward();
    const expected = [gradOf(plain), gradOf(w)];
    w.grad = null;
    const out = checkpoint(f, again);
    expect([...numbers(out)]).toEqual([...numbers(f(plain))]);
    out.sum().backward();
    expect([gradOf(again), gradOf(w)]).toEqual(expected);
  });

  it('takes several inputs and outputs, some unused', () => {
    const [a, b] = [leaf(2), leaf(3)];
    const [p, q] = checkpoint((x, y) => [x.mul(y), y.square()], a, b);
    p.add(q).sum().backward();
    expect([gradOf(a), gradOf(b)]).toEqual([[3], [8]]);
    const [only] = checkpoint((x, y) => [x.mul(2), y.exp()], a, b);
    only.sum().backward();
    expect([gradOf(a), gradOf(b)]).toEqual([[5], [8]]);
  });

  it('draws the same random numbers again, and leaves the stream where it was', () => {
    const x = F.randn([1000], { seed: 1, requiresGrad: true });
    F.manualSeed(5);
    const out = checkpoint((t) => F.dropout(t, 0.5), x);
    F.randn([3]);
    const state = F.randomState();
    out.sum().backward();
    expect(F.randomState()).toEqual(state);
    expect(gradOf(x).map((g) => g !== 0)).toEqual([...numbers(out)].map((y) => y !== 0));
  });

  it('keeps nothing of the forward call but its results', () => {
    const x = F.randn([1 << 12], { seed: 1, requiresGrad: true });
    const { tensors } = memory();
    const out = checkpoint((t) => t.exp().mul(2).tanh().add(1), x);
    expect(memory().tensors).toBe(tensors + 1);
    out.sum().backward();
    expect(x.grad).not.toBeNull();
  });

  it('may return its inputs, what it found outside, and integers', () => {
    const x = leaf(3, 1);
    const constant = tensor([7]);
    const [same, other, order] = checkpoint((t) => [t, constant, F.argsort(t)], x);
    same.mul(2).sum().backward();
    expect(gradOf(x)).toEqual([2, 2]);
    expect([x.isLeaf, constant.requiresGrad, order.requiresGrad]).toEqual([true, false, false]);
    expect([...numbers(other)]).toEqual([7]);
  });

  it('gives gradients to tensors computed outside, once', () => {
    const gradient = (run: (f: (t: Tensor) => Tensor, t: Tensor) => Tensor): number[] => {
      const x = leaf(0.5, -1);
      const h = x.exp();
      const twice = run((t) => run((u) => u.mul(h), t.sin()), x).add(run((t) => t.mul(h), x));
      twice.add(h.mul(h)).sum().backward();
      return gradOf(x);
    };
    const expected = gradient((f, t) => f(t));
    gradient((f, t) => checkpoint(f, t)).forEach((g, i) => expect(g).toBeCloseTo(expected[i], 5));
  });

  it('is seen through by grad(), which leaves .grad alone', () => {
    const [x, w] = [leaf(2, 3), leaf(5, 7)];
    const h = w.mul(2);
    const [dx, dw, dh] = grad(checkpoint((t) => t.mul(h).mul(w), x).sum(), [x, w, h]);
    expect([dx, dw, dh].map((t) => [...numbers(t as Tensor)])).toEqual([[50, 98], [40, 84], [10, 21]]); // prettier-ignore
    expect([x.grad, w.grad]).toEqual([null, null]);
  });

  it('refuses functions that return no tensor', () => {
    expect(() => checkpoint(() => 1 as unknown as Tensor, leaf(1))).toThrow(code('ERR_ARGUMENT'));
  });
});

it('softmax and max have gradients that sum to what they must', () => {
  const x = leaf(0.3, -2, 1.5);
  F.softmax(x).sum().backward();
  for (const g of gradOf(x)) expect(Math.abs(g)).toBeLessThan(1e-7);
});
