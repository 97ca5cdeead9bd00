import { describe, expect, it } from 'vitest';
import {
  arange,
  bernoulli,
  dropout,
  eye,
  full,
  fullLike,
  grad,
  linspace,
  manualSeed,
  ones,
  onesLike,
  rand,
  randint,
  randn,
  randomState,
  setRandomState,
  tensor,
  zeros,
  zerosLike,
  type DType,
  type Tensor,
} from '../lib/index.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';

const code = (code: string): unknown => expect.objectContaining({ code });
const numbers = (t: Tensor): number[] => [...t.dataSync()].map(Number);

/** Philox 4x32-10 in plain arithmetic. */
function philox(counter: readonly number[], key: readonly number[]): number[] {
  let [c0, c1, c2, c3] = counter.map(BigInt);
  let [k0, k1] = key.map(BigInt);
  const low = 0xffffffffn;
  for (let round = 0; round < 10; round++) {
    const [a, b] = [0xd2511f53n * c0, 0xcd9e8d57n * c2];
    [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & low, (a >> 32n) ^ c3 ^ k1, a & low];
    k0 = (k0 + 0x9e3779b9n) & low;
    k1 = (k1 + 0xbb67ae85n) & low;
  }
  return [c0, c1, c2, c3].map(Number);
}

/** Word i of call (seed, offset). */
function words(count: number, seed: number, offset: number): number[] {
  const split = (x: number): number[] => [x % 2 ** 32, Math.floor(x / 2 ** 32)];
  return Array.from({ length: Math.ceil(count / 4) }, (_, block) =>
    philox([...split(block), ...split(offset)], split(seed)),
  )
    .flat()
    .slice(0, count);
}

describe('the reference generator', () => {
  it('agrees with the known answers of Random123', () => {
    const hex = (list: number[]): string => list.map((x) => x.toString(16).padStart(8, '0')).join(' ');
    const all = 0xffffffff;
    expect(hex(philox([0, 0, 0, 0], [0, 0]))).toBe('6627e8d5 e169c58d bc57ac4c 9b00dbd8');
    expect(hex(philox([all, all, all, all], [all, all]))).toBe('408f276d 41c83b0e a20bc7c6 6d5451fd');
    expect(hex(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]))).toBe(
      'd16cfe09 94fdcceb 5001e420 24126ea1',
    );
  });
});

describe.each(LEVELS)('on %s', (level) => {
  it.each([0, 1, 123456789, 2 ** 45 + 17])('draws the words of Philox for seed %i', (seed) => {
    atLevel(level, () => {
      manualSeed(seed);
      for (let offset = 0; offset < 3; offset++) {
        const n = [1, 67, 40_000][offset];
        const expected = words(n, seed, offset);
        expect(numbers(randint(0, 2 ** 32, [n], { dtype: 'i64' }))).toEqual(expected);
      }
      expect(randomState()).toEqual({ seed, offset: 3 });
    });
  });

  it('makes uniforms, normals, integers and coins of them by the documented formulas', () => {
    atLevel(level, () => {
      const w = words(1001, 5, 0);
      const options = { seed: 5 };
      expect(numbers(rand([1001], options))).toEqual(w.map((x) => (x >>> 8) / 2 ** 24));
      expect(numbers(rand([1001], { ...options, dtype: 'bf16' }))).toEqual(w.map((x) => (x >>> 24) / 2 ** 8));
      expect(numbers(rand([1001], { ...options, dtype: 'f16' }))).toEqual(w.map((x) => (x >>> 21) / 2 ** 11));
      expect(numbers(rand([1001], { ...options, dtype: 'f64' }))).toEqual(w.map((x) => x / 2 ** 32));
      expect(numbers(randint(-3, 7, [1001], options))).toEqual(w.map((x) => -3 + Math.floor((x * 10) / 2 ** 32)));
      expect(numbers(bernoulli(0.25, [1001], options))).toEqual(w.map((x) => Number(x < 2 ** 30)));
      numbers(randn([1001], options)).forEach((z, i) => {
        const [u, v] = [w[i - (i % 2)], words(1004, 5, 0)[i - (i % 2) + 1]];
        const r = Math.sqrt(-2 * Math.log(((u >>> 8) + 1) / 2 ** 24));
        const a = (2 * Math.PI * (v >>> 8)) / 2 ** 24;
        expect(Math.abs(z - r * (i % 2 ? Math.sin(a) : Math.cos(a)))).toBeLessThan(1e-5);
      });
    });
  });

  it.each<DType>(['f32', 'bf16', 'f16'])(
    'dropout keeps, scales and has the gradient of its own mask in %s',
    (dtype) => {
      atLevel(level, () => {
        const n = 20_003;
        const x = tensor(new Float32Array(n).fill(3), [n], { dtype, requiresGrad: true });
        const out = dropout(x, 0.25, { seed: 11 });
        const kept = words(n, 11, 0).map((word) => Number(word < 0.75 * 2 ** 32));
        expect(numbers(out)).toEqual(
          numbers(
            tensor(
              kept.map((k) => (k * 3) / 0.75),
              null,
              { dtype },
            ),
          ),
        );
        const [g] = grad(out, [x], { gradients: [tensor(new Float32Array(n).fill(3), [n], { dtype })] });
        expect(numbers(g as Tensor)).toEqual(numbers(out));
      });
    },
  );
});

describe('the generator', () => {
  it('has the moments it should', () => {
    manualSeed(2);
    const moments = (x: number[]): number[] => {
      const mean = x.reduce((a, b) => a + b, 0) / x.length;
      return [mean, x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length];
    };
    const [m, v] = moments(numbers(randn([200_000])));
    expect(Math.abs(m)).toBeLessThan(0.01);
    expect(Math.abs(v - 1)).toBeLessThan(0.02);
    const [mu, vu] = moments(numbers(rand([200_000], { low: -2, high: 4 })));
    expect(Math.abs(mu - 1)).toBeLessThan(0.02);
    expect(Math.abs(vu - 3)).toBeLessThan(0.05);
    const [ms, vs] = moments(numbers(randn([200_000], { mean: 5, std: 0.5 })));
    expect(Math.abs(ms - 5)).toBeLessThan(0.01);
    expect(Math.abs(vs - 0.25)).toBeLessThan(0.01);
  });

  it('gives the same numbers after the same seed, others without it, and never twice the same', () => {
    manualSeed(9);
    const first = [numbers(rand([5])), numbers(rand([5]))];
    expect(first[0]).not.toEqual(first[1]);
    const saved = randomState();
    const third = numbers(randn([5]));
    setRandomState(saved);
    expect(numbers(randn([5]))).toEqual(third);
    manualSeed(9);
    expect([numbers(rand([5])), numbers(rand([5]))]).toEqual(first);
    const before = randomState();
    rand([3], { seed: 1 });
    expect(randomState()).toEqual(before);
  });

  it('gives the same bits for any number of threads', () => {
    expectSameBitsForAnyThreads(() => randn([100_000], { seed: 4 }));
    expectSameBitsForAnyThreads(() => dropout(ones([100_000]), 0.5, { seed: 4 }));
  });

  it('dropout passes through at p 0 or outside training, and drops all at 1', () => {
    const x = ones([4]);
    expect(dropout(x, 0)).toBe(x);
    expect(dropout(x, 0.9, { training: false })).toBe(x);
    expect(numbers(dropout(x, 1))).toEqual([0, 0, 0, 0]);
  });

  it('refuses what it cannot do', () => {
    expect(() => manualSeed(0.5)).toThrow(code('ERR_ARGUMENT'));
    expect(() => rand([2], { dtype: 'i32' })).toThrow(code('ERR_DTYPE'));
    expect(() => rand([-1])).toThrow(code('ERR_SHAPE'));
    expect(() => randint(3, 3, [1])).toThrow(code('ERR_ARGUMENT'));
    expect(() => randint(0, 2 ** 33, [1])).toThrow(code('ERR_ARGUMENT'));
    expect(() => randint(0, 2, [1], { dtype: 'f32' })).toThrow(code('ERR_DTYPE'));
    expect(() => bernoulli(2, [1])).toThrow(code('ERR_ARGUMENT'));
    expect(() => dropout(ones([1]), -0.1)).toThrow(code('ERR_ARGUMENT'));
    expect(() => dropout(ones([1], { dtype: 'f64' }), 0.5)).toThrow(code('ERR_DTYPE'));
  });
});

describe('creation', () => {
  it.each<DType>(['f32', 'bf16', 'f16', 'f64', 'i32', 'i64', 'u8', 'bool'])('fills %s', (dtype) => {
    for (const n of [0, 1, 7, 70_001]) {
      expect(numbers(zeros([n], { dtype }))).toEqual(Array(n).fill(0));
      expect(numbers(ones([n], { dtype }))).toEqual(Array(n).fill(1));
    }
    expect(numbers(full([3], 200, { dtype }))).toEqual(Array(3).fill(dtype === 'bool' ? 1 : 200));
    const like = full([2, 2], 1, { dtype });
    expect([zerosLike(like), onesLike(like), fullLike(like, 1)].map((t) => t.dtype)).toEqual([dtype, dtype, dtype]);
    expect(numbers(eye(2, 3, { dtype }))).toEqual([1, 0, 0, 0, 1, 0]);
  });

  it('keeps negative zero, infinity and NaN', () => {
    expect([-0, Infinity, NaN].map((x) => full([1], x).dataSync()[0])).toEqual([-0, Infinity, NaN]);
  });

  it('counts', () => {
    expect(numbers(arange(4))).toEqual([0, 1, 2, 3]);
    expect(arange(4).dtype).toBe('i32');
    expect(numbers(arange(2, 8, 3))).toEqual([2, 5]);
    expect(numbers(arange(3, 0, -1))).toEqual([3, 2, 1]);
    expect(arange(0, 1, 0.25).dtype).toBe('f32');
    expect(numbers(arange(0, 1, 0.25))).toEqual([0, 0.25, 0.5, 0.75]);
    expect(numbers(arange(0, 300, 100, { dtype: 'bf16' }))).toEqual([0, 100, 200]);
    expect(arange(5, 1).shape).toEqual([0]);
    expect(numbers(linspace(0, 1, 5))).toEqual([0, 0.25, 0.5, 0.75, 1]);
    expect(numbers(linspace(3, 9, 1))).toEqual([3]);
    expect(eye(0).shape).toEqual([0, 0]);
  });

  it('refuses what it cannot do', () => {
    expect(() => zeros([1.5])).toThrow(code('ERR_SHAPE'));
    expect(() => arange(0, 1, 0)).toThrow(code('ERR_ARGUMENT'));
    expect(() => linspace(0, 1, -1)).toThrow(code('ERR_ARGUMENT'));
    expect(() => zeros([1], { device: 'cuda:9' })).toThrow(code('ERR_DEVICE'));
    expect(() => zeros([1], { dtype: 'i32', requiresGrad: true })).toThrow(code('ERR_AUTOGRAD'));
    expect(ones([1], { requiresGrad: true }).requiresGrad).toBe(true);
  });
});
