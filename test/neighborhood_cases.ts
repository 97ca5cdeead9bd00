/** What the tests of neighborhoodAttention() on all devices share: golden files of the op and its layers, a case against the reference, random windows. */
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { expect } from 'vitest';
import {
  cast,
  grad,
  neighborhoodAttention,
  NeighborhoodAttention1D,
  NeighborhoodAttention2D,
  NeighborhoodAttention3D,
  tensor,
  type DeviceName,
  type DType,
  type NeighborhoodOptions,
  type Tensor,
} from '../lib/index.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { numbers, uniform } from './inputs.ts';
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

export const GOLDENS = ['na1d_all', 'na2d_all', 'na3d_all', 'na_extra_kv', 'na_gqa_2d'] as const;

/** Where a check runs, and what it leaves out. */
export interface CheckOptions {
  readonly device?: DeviceName;
  /** Whether gradients are checked; default true. */
  readonly gradients?: boolean;
}

/** Every case of a golden file: out, lse and all gradients. */
export function checkGoldens(name: string, { device = 'cpu', gradients = true }: CheckOptions = {}): void {
  using golden = load(name);
  const cases = JSON.parse(golden.metadata.cases) as GoldenCase[];
  expect(cases.length).toBeGreaterThan(3);
  for (const c of cases) {
    const at = (key: string): string => `${String(c.case).padStart(3, '0')}.${key}`;
    const input = (key: string): Tensor => {
      const t = cast(golden.get(at(`input.${key}`)), 'f32')
        .to(device)
        .detach();
      t.requiresGrad = gradients;
      return t;
    };
    const [q, k, v] = ['q', 'k', 'v'].map(input);
    const extra = golden.has(at('input.extra_k')) ? { k: input('extra_k'), v: input('extra_v') } : undefined;
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
    if (!gradients) continue;
    const inputs = [q, k, v, ...(extra ? [extra.k, extra.v] : [])];
    const names = ['q', 'k', 'v', 'extra_k', 'extra_v'];
    const grads = grad(out, inputs, { gradients: [cast(golden.get(at('cotangent.output.y')), 'f32').to(device)] });
    grads.forEach((g, i) =>
      expectClose(numbers(g as Tensor), numbers(golden.get(at(`grad.input.${names[i]}`))), 'f32', 2),
    );
  }
}

export interface Case {
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
export function sees(space: readonly number[], o: NeighborhoodOptions, q: number, kv: number): boolean {
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

/** Values and gradients of a case against the double-precision reference. */
export function check(c: Case, { device = 'cpu', gradients = true }: CheckOptions = {}): void {
  const { batch, space, heads, kvHeads, dim, dimV, options, dtype = 'f32' } = c;
  const tokens = space.reduce((n, x) => n * x, 1);
  const each = <T>(x: T | readonly T[]): T[] => (Array.isArray(x) ? [...(x as T[])] : space.map(() => x as T));
  const kernel = each(options.kernelSize);
  const dilation = each(options.dilation ?? 1);
  const make = (h: number, d: number, seed: number): Tensor => {
    const values = uniform(batch * tokens * h * d, seed);
    const t = tensor(values, [batch, ...space, h, d], { dtype, device });
    t.requiresGrad = gradients;
    return t;
  };
  const [q, k, v] = [make(heads, dim, 1), make(kvHeads, dim, 2), make(kvHeads, dimV, 3)];
  const size = kernel.reduce((n, x) => n * (2 * x - 1), 1);
  const table = uniform(heads * size, 4);
  const rpb = c.bias
    ? tensor(table, [heads, ...kernel.map((x) => 2 * x - 1)], { dtype: 'f32', device, requiresGrad: gradients })
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
  const up = tensor(weights, out.shape, { dtype, device });
  const got = grad([out, lse], inputs, { gradients: [up, tensor(lseWeights, lse.shape, { dtype: 'f32', device })] });
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

interface Axis {
  readonly kernel: number;
  readonly dilation: number;
  readonly stride: number;
  readonly length: number;
  readonly causal: boolean;
}

const callOf = (axes: readonly Axis[]): Pick<Case, 'space' | 'options'> => ({
  space: axes.map((a) => a.length),
  options: {
    kernelSize: axes.map((a) => a.kernel),
    stride: axes.map((a) => a.stride),
    dilation: axes.map((a) => a.dilation),
    causal: axes.map((a) => a.causal),
  },
});

const within = (tokens: number, axes: readonly Axis[]): boolean => axes.reduce((n, a) => n * a.length, 1) <= tokens;

/** Random axes whose product of extents is at most `tokens`, as space and options. */
export const randomAxes = (tokens: number): fc.Arbitrary<Pick<Case, 'space' | 'options'>> =>
  fc
    .array(axis, { minLength: 1, maxLength: 3 })
    .filter((axes) => within(tokens, axes))
    .map(callOf);

/** The same with last axes that kernels along rows take: stride 1, groups about as long as one or two vectors. */
export const randomShiftAxes = (tokens: number): fc.Arbitrary<Pick<Case, 'space' | 'options'>> => {
  const last = fc.record({
    kernel: fc.integer({ min: 1, max: 10 }),
    dilation: fc.integer({ min: 1, max: 2 }),
    stride: fc.constant(1),
    group: fc.oneof(fc.integer({ min: 10, max: 16 }), fc.integer({ min: 20, max: 35 })),
    ragged: fc.integer({ min: 0, max: 1 }),
    causal: fc.boolean(),
  });
  return fc
    .tuple(fc.array(axis, { minLength: 1, maxLength: 2 }), last)
    .map(([outer, { group, ragged, ...x }]) => [...outer, { ...x, length: (group + ragged) * x.dilation - ragged }])
    .filter((axes) => within(tokens, axes))
    .map(callOf);
};

const layers = [NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D];
export const LAYER_GOLDENS = [
  'na_module_1d',
  'na_module_2d',
  'na_module_3d',
  'nat_attn_rpb_k3',
  'nat_attn_rpb_k3_d2',
  'nat_attn_rpb_pad',
];

interface LayerConfig {
  dim?: number;
  embed_dim?: number;
  num_heads: number;
  kernel_size: number | number[];
  stride?: number[];
  dilation: number | number[];
  is_causal?: boolean[];
  rpb?: boolean;
}

/** A golden file of a layer: output, and gradients of the input and the bias table. */
export function checkLayer(name: string, device: DeviceName = 'cpu'): void {
  using golden = load(name);
  const config = JSON.parse(golden.metadata.config) as LayerConfig;
  const x = golden.get('input.x').to(device).detach();
  x.requiresGrad = true;
  const Layer = layers[x.rank - 3];
  const layer = new Layer((config.dim ?? config.embed_dim) as number, {
    heads: config.num_heads,
    kernelSize: config.kernel_size,
    dilation: config.dilation,
    ...(config.stride && { stride: config.stride }),
    ...(config.is_causal && { causal: config.is_causal }),
    ...(config.rpb && { rpb: true }),
  });
  const keys = Object.keys(layer.stateDict());
  expect(keys.includes('rpb')).toBe(golden.has('weights.rpb'));
  layer.loadStateDict(Object.fromEntries(keys.map((key) => [key, golden.get(`weights.${key}`)])));
  layer.to(device);
  const y = layer.forward(x);
  expectClose(numbers(y), numbers(golden.get('output.y')));
  const inputs = [x, ...(layer.rpb ? [layer.rpb] : [])];
  const grads = grad(y, inputs, { gradients: [golden.get('cotangent.output.y').to(device)] });
  expectClose(numbers(grads[0] as Tensor), numbers(golden.get('grad.input.x')), 'f32', 2);
  if (layer.rpb) expectClose(numbers(grads[1] as Tensor), numbers(golden.get('grad.weights.rpb')), 'f32', 2);
}
