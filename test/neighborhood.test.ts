/** neighborhoodAttention() against golden vectors and the double-precision reference. */
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  cast,
  explainNeighborhood,
  grad,
  mul,
  neighborhoodAttention,
  neighborhoodWork,
  permute,
  reshape,
  sum,
  tensor,
  type DType,
  type NeighborhoodOptions,
  type Tensor,
} from '../lib/index.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { LAYOUTS, laidOut, numbers, uniform } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { referenceAttention, referenceGradients, type Problem } from './reference_attention.ts';
import { expectClose } from './tolerance.ts';

const load = (name: string): ReturnType<typeof loadSafetensors> =>
  loadSafetensors(fileURLToPath(new URL(`./goldens/${name}.safetensors`, import.meta.url)));

interface GoldenCase {
  readonly case: number;
  readonly kernel: number[];
  readonly stride: number[];
  readonly dilation: number[];
  readonly causal: number[];
}

describe.each(LEVELS)('goldens on %s', (level) => {
  test.each(['na1d_all', 'na2d_all', 'na3d_all', 'na_extra_kv', 'na_gqa_2d'])('%s', (name) => {
    using golden = load(name);
    const cases = JSON.parse(golden.metadata.cases) as GoldenCase[];
    expect(cases.length).toBeGreaterThan(3);
    for (const c of cases) {
      const at = (key: string): string => `${String(c.case).padStart(3, '0')}.${key}`;
      const input = (key: string): Tensor => {
        const t = cast(golden.get(at(`input.${key}`)), 'f32');
        t.requiresGrad = true;
        return t;
      };
      const [q, k, v] = ['q', 'k', 'v'].map(input);
      const extra = golden.has(at('input.extra_k')) ? { k: input('extra_k'), v: input('extra_v') } : undefined;
      atLevel(level, () => {
        const { out, lse } = neighborhoodAttention(q, k, v, {
          kernelSize: c.kernel,
          stride: c.stride,
          dilation: c.dilation,
          causal: c.causal.map(Boolean),
          ...(extra && { extraKv: extra }),
          returnLse: true,
        });
        expectClose(numbers(out), numbers(golden.get(at('output.y'))));
        expectClose(numbers(lse), numbers(golden.get(at('output.lse'))));
        const inputs = [q, k, v, ...(extra ? [extra.k, extra.v] : [])];
        const names = ['q', 'k', 'v', 'extra_k', 'extra_v'];
        const grads = grad(out, inputs, { gradients: [cast(golden.get(at('cotangent.output.y')), 'f32')] });
        grads.forEach((g, i) =>
          expectClose(numbers(g as Tensor), numbers(golden.get(at(`grad.input.${names[i]}`))), 'f32', 2),
        );
      });
    }
  });
});

interface Case {
  readonly batch: number;
  readonly space: readonly number[];
  readonly heads: number;
  readonly kvHeads: number;
  readonly dim: number;
  readonly dimV: number;
  readonly options: NeighborhoodOptions;
  readonly bias?: boolean;
  readonly dtype?: DType;
}

/** Whether flat token q sees flat token kv, axis by axis from the definition. */
function sees(space: readonly number[], o: NeighborhoodOptions, q: number, kv: number): boolean {
  const of = <T extends number | boolean>(x: T | readonly T[] | undefined, a: number, other: T): T =>
    x === undefined ? other : typeof x === 'object' ? x[a] : x;
  let inner = 1;
  for (let a = space.length - 1; a >= 0; a--) {
    const [n, kernel, stride, step] = [space[a], of(o.kernelSize, a, 1), of(o.stride, a, 1), of(o.dilation, a, 1)];
    const [x, y] = [Math.floor(q / inner) % n, Math.floor(kv / inner) % n];
    inner *= n;
    if (x % step !== y % step) return false;
    const [i, j] = [Math.floor(x / step), Math.floor(y / step)];
    const size = Math.ceil((n - (x % step)) / step);
    const first = i - (i % stride);
    if (of(o.causal, a, false)) {
      if (j > i || j <= Math.min(first + stride - 1, size - 1) - kernel) return false;
      continue;
    }
    const leader = Math.min(first + Math.floor(stride / 2), size - 1);
    let start = Math.max(leader - Math.floor(kernel / 2), 0);
    if (start + kernel > size) start = size - kernel;
    if (j < start || j >= start + kernel) return false;
  }
  return true;
}

/** [batch, tokens, heads, dim] as [batch, heads, tokens, dim]. */
function headsFirst(values: ArrayLike<number>, b: number, n: number, h: number, d: number): Float64Array {
  const out = new Float64Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const [x, y, z, w] = [i % d, Math.floor(i / d) % h, Math.floor(i / (d * h)) % n, Math.floor(i / (d * h * n))];
    out[((w * h + y) * n + z) * d + x] = values[i];
  }
  expect(values.length).toBe(b * n * h * d);
  return out;
}

/** Index into one head of the bias table, for flat token indices. */
function biasIndex(c: Case, kernel: readonly number[], dilation: readonly number[], q: number, kv: number): number {
  let [index, inner, size] = [0, 1, 1];
  for (let a = c.space.length - 1; a >= 0; a--) {
    const [x, y] = [Math.floor(q / inner) % c.space[a], Math.floor(kv / inner) % c.space[a]];
    index += ((y - x) / dilation[a] + kernel[a] - 1) * size;
    inner *= c.space[a];
    size *= 2 * kernel[a] - 1;
  }
  return index;
}

function check(c: Case, { gradients = true } = {}): void {
  const { batch, space, heads, kvHeads, dim, dimV, options, dtype = 'f32' } = c;
  const tokens = space.reduce((n, x) => n * x, 1);
  const each = <T>(x: T | readonly T[]): T[] => (Array.isArray(x) ? [...(x as T[])] : space.map(() => x as T));
  const kernel = each(options.kernelSize);
  const dilation = each(options.dilation ?? 1);
  const make = (h: number, d: number, seed: number): Tensor => {
    const t = cast(tensor(uniform(batch * tokens * h * d, seed), [batch, ...space, h, d], { dtype: 'f32' }), dtype);
    t.requiresGrad = true;
    return t;
  };
  const [q, k, v] = [make(heads, dim, 1), make(kvHeads, dim, 2), make(kvHeads, dimV, 3)];
  const size = kernel.reduce((n, x) => n * (2 * x - 1), 1);
  const table = uniform(heads * size, 4);
  const rpb = c.bias
    ? tensor(table, [heads, ...kernel.map((x) => 2 * x - 1)], { dtype: 'f32', requiresGrad: true })
    : undefined;
  const flat = (t: Tensor, h: number, d: number): Float64Array => headsFirst(numbers(t), batch, tokens, h, d);
  const problem: Problem = {
    b: batch,
    hq: heads,
    hkv: kvHeads,
    lq: tokens,
    lk: tokens,
    d: dim,
    dv: dimV,
    q: flat(q, heads, dim),
    k: flat(k, kvHeads, dim),
    v: flat(v, kvHeads, dimV),
    visible: (_b, _h, i, j) => sees(c.space, options, i, j),
    ...(rpb && {
      logit: (s: number, _b: number, h: number, i: number, j: number) =>
        s + Math.fround(table[h * size + biasIndex(c, kernel, dilation, i, j)]),
    }),
  };
  const { out, lse } = neighborhoodAttention(q, k, v, { ...options, ...(rpb && { rpb }), returnLse: true });
  const expected = referenceAttention(problem);
  expectClose(flat(out, heads, dimV), expected.out, dtype);
  expectClose(flat(lse, heads, 1), expected.lse);
  if (!gradients) return;
  const [weights, lseWeights] = [uniform(out.size, 5), uniform(lse.size, 6)];
  const inputs = [q, k, v, ...(rpb ? [rpb] : [])];
  const up = cast(tensor(weights, out.shape, { dtype: 'f32' }), dtype);
  const got = grad([out, lse], inputs, { gradients: [up, tensor(lseWeights, lse.shape, { dtype: 'f32' })] });
  const want = referenceGradients(
    problem,
    headsFirst(numbers(up), batch, tokens, heads, dimV),
    headsFirst(Float64Array.from(lseWeights, Math.fround), batch, tokens, heads, 1),
  );
  // A gradient may vanish (one key); errors are then measured against inputs of order 1.
  const near = (a: Float64Array, b: Float64Array, as: DType): void => expectClose([...a, 0.2], [...b, 0.2], as, 3);
  near(flat(got[0] as Tensor, heads, dim), want.dq, dtype);
  near(flat(got[1] as Tensor, kvHeads, dim), want.dk, dtype);
  near(flat(got[2] as Tensor, kvHeads, dimV), want.dv, dtype);
  if (!rpb) return;
  const dtable = new Float64Array(heads * size);
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < tokens; i++)
        for (let j = 0; j < tokens; j++) {
          const dt = want.dt[((b * heads + h) * tokens + i) * tokens + j];
          if (dt !== 0) dtable[h * size + biasIndex(c, kernel, dilation, i, j)] += dt;
        }
  near(numbers(got[3] as Tensor), dtable, dtype);
}

const base = { batch: 1, heads: 1, kvHeads: 1, dim: 8, dimV: 8 };
const cases: readonly (Case & { name: string })[] = [
  { ...base, name: 'one token', space: [1], options: { kernelSize: 1 } },
  { ...base, name: 'kernel 1', space: [5, 3], options: { kernelSize: 1 } },
  { ...base, name: 'whole axis', space: [7], options: { kernelSize: 7 } },
  { ...base, name: '1-D, more than a chunk of keys', space: [230], options: { kernelSize: 101 }, dim: 19, dimV: 37 },
  { ...base, name: '1-D causal, long', space: [130], options: { kernelSize: 40, causal: true }, batch: 2, heads: 2 },
  { ...base, name: '2-D', space: [13, 21], options: { kernelSize: 7 }, heads: 2, kvHeads: 2, dim: 32, dimV: 32 },
  { ...base, name: '2-D wide', space: [9, 40], options: { kernelSize: [3, 5] }, batch: 2, heads: 4, kvHeads: 2 },
  { ...base, name: '2-D bias', space: [9, 18], options: { kernelSize: 5 }, heads: 4, kvHeads: 2, bias: true },
  { ...base, name: 'dilated bias', space: [11, 37], options: { kernelSize: [3, 5], dilation: [3, 2] }, bias: true },
  { ...base, name: 'even kernel, 2-D', space: [12, 19], options: { kernelSize: [4, 6] } },
  { ...base, name: 'causal inner', space: [6, 33], options: { kernelSize: [3, 4], causal: [false, true] } },
  { ...base, name: 'causal both', space: [9, 34], options: { kernelSize: [4, 5], causal: true }, bias: true },
  { ...base, name: 'strided', space: [12, 18], options: { kernelSize: [4, 6], stride: [2, 6] } },
  { ...base, name: '3-D', space: [5, 6, 17], options: { kernelSize: [3, 4, 5] }, dim: 16, dimV: 24 },
  { ...base, name: '3-D dilated causal', space: [4, 9, 12], options: { kernelSize: [2, 3, 3], dilation: [1, 3, 2], causal: [true, false, true] } }, // prettier-ignore
  { ...base, name: 'dim 256', space: [4, 17], options: { kernelSize: 3 }, dim: 256, dimV: 256 },
  { ...base, name: 'bf16', space: [9, 19], options: { kernelSize: 5 }, dim: 32, dimV: 32, dtype: 'bf16' },
  {
    ...base,
    name: 'f16 bias',
    space: [9, 19],
    options: { kernelSize: 5 },
    dim: 32,
    dimV: 32,
    dtype: 'f16',
    bias: true,
  },
];

describe.each(LEVELS)('reference on %s', (level) => {
  test.each(cases)('$name', (c) => atLevel(level, () => check(c)));
});

const axis = fc
  .record({ kernel: fc.integer({ min: 1, max: 6 }), dilation: fc.integer({ min: 1, max: 3 }) })
  .chain(({ kernel, dilation }) =>
    fc.record({
      kernel: fc.constant(kernel),
      dilation: fc.constant(dilation),
      stride: fc.integer({ min: 1, max: kernel }),
      length: fc.integer({ min: kernel * dilation, max: kernel * dilation + 9 }),
      causal: fc.boolean(),
    }),
  );

test('random shapes and settings', () => {
  fc.assert(
    fc.property(
      fc.array(axis, { minLength: 1, maxLength: 3 }).filter((a) => a.reduce((n, x) => n * x.length, 1) <= 260),
      fc.constantFrom([1, 1], [2, 1], [4, 2]),
      fc.integer({ min: 1, max: 20 }),
      fc.integer({ min: 1, max: 20 }),
      fc.boolean(),
      (axes, [heads, kvHeads], dim, dimV, bias) => {
        const options = {
          kernelSize: axes.map((a) => a.kernel),
          stride: axes.map((a) => a.stride),
          dilation: axes.map((a) => a.dilation),
          causal: axes.map((a) => a.causal),
        };
        check({ batch: 1, space: axes.map((a) => a.length), heads, kvHeads, dim, dimV, options, bias });
      },
    ),
    { numRuns: 60 },
  );
}, 60_000);

test.each(LAYOUTS)('operands that are %s', (layout) => {
  const shape = [2, 9, 18, 2, 8];
  const values = [1, 2, 3].map((seed) => uniform(2 * 9 * 18 * 2 * 8, seed));
  const views = values.map((x) => laidOut(layout, shape, x, 'f32')) as [Tensor, Tensor, Tensor];
  const plain = views.map((t) => tensor(numbers(t), shape, { dtype: 'f32' })) as [Tensor, Tensor, Tensor];
  const options = { kernelSize: 5 };
  expectClose(numbers(neighborhoodAttention(...views, options)), numbers(neighborhoodAttention(...plain, options)));
});

test('the same bits for any number of threads, and in any batch', () => {
  const make = (seed: number): Tensor => tensor(uniform(2 * 20 * 33 * 2 * 16, seed), [2, 20, 33, 2, 16], { dtype: 'f32', requiresGrad: true }); // prettier-ignore
  const [q, k, v] = [make(1), make(2), make(3)];
  const run = (): Tensor => neighborhoodAttention(q, k, v, { kernelSize: 5, dilation: [2, 1] });
  expectSameBitsForAnyThreads(run);
  for (let i = 0; i < 3; i++) expectSameBitsForAnyThreads(() => grad(sum(mul(run(), run())), [q, k, v])[i] as Tensor);
  const half = (t: Tensor): Tensor => tensor(numbers(t).slice(t.size / 2), [1, ...t.shape.slice(1)], { dtype: 'f32' });
  const alone = neighborhoodAttention(half(q), half(k), half(v), { kernelSize: 5, dilation: [2, 1] });
  expect(numbers(alone)).toEqual(numbers(run()).slice(alone.size));
});

test('large logits stay finite', () => {
  const big = tensor(uniform(20 * 32 * 8, 1, -300, 300), [1, 20, 32, 1, 8], { dtype: 'f32' });
  const out = numbers(neighborhoodAttention(big, big, big, { kernelSize: 7 }));
  expect(out.every(Number.isFinite)).toBe(true);
});

test('an empty batch gives an empty result', () => {
  const empty = tensor(new Float32Array(0), [0, 4, 2, 8], { dtype: 'f32', requiresGrad: true });
  const out = neighborhoodAttention(empty, empty, empty, { kernelSize: 3 });
  expect(out.shape).toEqual([0, 4, 2, 8]);
  expect((grad(sum(out), [empty])[0] as Tensor).shape).toEqual([0, 4, 2, 8]);
});

test('work counts the pairs that are seen', () => {
  fc.assert(
    fc.property(fc.array(axis, { minLength: 1, maxLength: 2 }), (axes) => {
      const space = axes.map((a) => a.length);
      const options = {
        kernelSize: axes.map((a) => a.kernel),
        stride: axes.map((a) => a.stride),
        dilation: axes.map((a) => a.dilation),
        causal: axes.map((a) => a.causal),
      };
      const tokens = space.reduce((n, x) => n * x, 1);
      const t = tensor(new Float32Array(tokens * 2), [1, ...space, 1, 2], { dtype: 'f32' });
      let pairs = 0;
      for (let q = 0; q < tokens; q++) for (let kv = 0; kv < tokens; kv++) pairs += Number(sees(space, options, q, kv));
      const work = neighborhoodWork(t, t, t, options);
      expect(work.pairs).toBe(pairs);
      expect(work.flops).toBe(8 * pairs);
    }),
    { numRuns: 30 },
  );
});

test('explain names the kernel', () => {
  const t = tensor(new Float32Array(56 * 56 * 32), [1, 56, 56, 1, 32], { dtype: 'f32' });
  const e = explainNeighborhood(t, t, t, { kernelSize: 7 });
  expect(e.flops).toBe(56 * 56 * 49 * 4 * 32);
  expect(e.kernel).toMatch(/^cpu\./);
  expect(String(e)).toContain(e.kernel);
  expect(e.tile).toHaveLength(2);
});

describe('refusals', () => {
  const t = (shape: readonly number[], dtype: DType = 'f32'): Tensor =>
    cast(tensor(new Float32Array(shape.reduce((n, x) => n * x, 1)), shape, { dtype: 'f32' }), dtype);
  const x = t([1, 6, 6, 2, 4]);
  const code = (fn: () => unknown): string => {
    try {
      fn();
    } catch (error) {
      return (error as { code: string }).code;
    }
    return 'none';
  };
  test.each<[string, string, () => unknown]>([
    ['kernel beyond the axis', 'ERR_ARGUMENT', () => neighborhoodAttention(x, x, x, { kernelSize: 7 })],
    ['kernel * dilation beyond the axis', 'ERR_ARGUMENT', () => neighborhoodAttention(x, x, x, { kernelSize: 3, dilation: 3 })], // prettier-ignore
    ['stride beyond the kernel', 'ERR_ARGUMENT', () => neighborhoodAttention(x, x, x, { kernelSize: 3, stride: 4 })],
    ['fraction', 'ERR_ARGUMENT', () => neighborhoodAttention(x, x, x, { kernelSize: 2.5 })],
    ['axes', 'ERR_ARGUMENT', () => neighborhoodAttention(x, x, x, { kernelSize: [3, 3, 3] })],
    ['rank', 'ERR_SHAPE', () => neighborhoodAttention(t([1, 2, 4]), x, x, { kernelSize: 3 })],
    ['space', 'ERR_SHAPE', () => neighborhoodAttention(x, t([1, 6, 5, 2, 4]), x, { kernelSize: 3 })],
    ['heads', 'ERR_SHAPE', () => neighborhoodAttention(x, t([1, 6, 6, 3, 4]), t([1, 6, 6, 3, 4]), { kernelSize: 3 })],
    ['dtype', 'ERR_DTYPE', () => neighborhoodAttention(x, t([1, 6, 6, 2, 4], 'bf16'), x, { kernelSize: 3 })],
    ['bias', 'ERR_SHAPE', () => neighborhoodAttention(x, x, x, { kernelSize: 3, rpb: t([2, 3, 5]) })],
    ['extra', 'ERR_SHAPE', () => neighborhoodAttention(x, x, x, { kernelSize: 3, extraKv: { k: t([1, 2, 1, 4]), v: t([1, 2, 1, 4]) } })], // prettier-ignore
  ])('%s', (_name, expected, fn) => expect(code(fn)).toBe(expected));
});

test('blocked windows are attention inside blocks; a view of heads is taken as it is', () => {
  const make = (seed: number): Tensor => tensor(uniform(3 * 4 * 2 * 8, seed), [1, 12, 2, 8], { dtype: 'f32' });
  const [q, k, v] = [make(1), make(2), make(3)];
  const blocked = neighborhoodAttention(q, k, v, { kernelSize: 4, stride: 4 });
  const apart = (t: Tensor): Tensor => reshape(t, [3, 4, 2, 8]);
  const whole = neighborhoodAttention(apart(q), apart(k), apart(v), { kernelSize: 4 });
  expectClose(numbers(blocked), numbers(whole));
  const swapped = (t: Tensor): Tensor => permute(tensor(numbers(permute(t, [0, 2, 1, 3])), [1, 2, 12, 8], { dtype: 'f32' }), [0, 2, 1, 3]); // prettier-ignore
  expectClose(numbers(neighborhoodAttention(swapped(q), swapped(k), swapped(v), { kernelSize: 4, stride: 4 })), numbers(blocked)); // prettier-ignore
});
