/** Matrix products on CUDA against double precision: every tile and layout of the kernels, TF32, and an inner axis cut into runs. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as F from '../../lib/index.ts';
import type { DType, MatmulPrecision, Tensor } from '../../lib/index.ts';
import { random, referenceActivation, referenceMatmul, referenceTranspose, valuesOf } from '../reference_matmul.ts';
import { expectClose } from '../tolerance.ts';
import { runScript, useCuda } from './device.ts';

// A device whose blocks have memory for the largest tile; it has four multiprocessors.
const cuda = useCuda({ CAPABILITY: '90' }, 0);

interface Kind {
  name: string;
  dtype: DType;
  precision?: MatmulPrecision;
}
const KINDS: readonly Kind[] = [
  { name: 'bf16', dtype: 'bf16' },
  { name: 'f16', dtype: 'f16' },
  { name: 'f32', dtype: 'f32' },
  { name: 'tf32', dtype: 'f32', precision: 'high' },
];

/** Sizes [m, k, n] for which each tile is chosen, in order from small to large. */
const SIZES = [
  [5, 200, 40],
  [70, 72, 104],
  [128, 64, 512],
  [200, 40, 304],
] as const;

/** f32 rounded to 10 bits of mantissa, ties away from zero. */
function toTf32(values: Float64Array): Float64Array {
  const floats = Float32Array.from(values);
  const bits = new Uint32Array(floats.buffer);
  bits.forEach((b, i) => (bits[i] = (b + 0x1000) & ~0x1fff));
  return Float64Array.from(floats);
}

const factors = (kind: Kind, values: Float64Array): Float64Array =>
  kind.precision === 'high' ? toTf32(values) : values;

type Lie = 'dense' | 'padded' | 'unaligned' | 'strided';

/** A matrix (or a batch of them) on the device in which a view [..., rows, columns] lies as told, and the view's values. */
function matrix(
  shape: readonly number[],
  dtype: DType,
  seed: number,
  turned = false,
  lie: Lie = 'dense',
): { t: Tensor; values: Float64Array } {
  const stored = turned ? shape.with(-1, shape.at(-2)!).with(-2, shape.at(-1)!) : shape;
  const width = stored.at(-1)!;
  const wide = { dense: width, padded: width + 8, unaligned: width + 1, strided: 2 * width }[lie];
  const whole = random(stored.with(-1, wide), dtype, seed).t.to('cuda');
  const start = lie === 'unaligned' ? 1 : 0;
  const end = lie === 'strided' ? wide : start + width;
  const view = F.slice(whole, -1, start, end, lie === 'strided' ? 2 : 1);
  const t = turned ? F.transpose(view) : view;
  return { t, values: valuesOf(F.cast(t, 'f64').to('cpu')) };
}

const fetched = (t: Tensor): Float64Array => valuesOf(t.to('cpu'));

describe.skipIf(cuda.skip)('matrix products on CUDA', () => {
  test.each(KINDS)('$name: all tiles and transpositions', (kind) => {
    for (const [m, k, n] of SIZES)
      for (const turned of [0, 1, 2, 3])
        F.scope(() => {
          const a = matrix([m, k], kind.dtype, 1, (turned & 1) > 0);
          const b = matrix([k, n], kind.dtype, 2, (turned & 2) > 0);
          const out = F.matmul(a.t, b.t, { precision: kind.precision });
          const expected = referenceMatmul(factors(kind, a.values), factors(kind, b.values), 1, m, k, n);
          expectClose(fetched(out), expected, kind.dtype);
        });
  });

  test.each(KINDS)('$name: odd sizes, unaligned and strided views, batches that broadcast', (kind) => {
    const size = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 60, max: 140 }));
    const lie = fc.constantFrom<Lie>('dense', 'padded', 'unaligned', 'strided');
    const operand = fc.record({ turned: fc.boolean(), lie, shared: fc.boolean() });
    const cases = fc.record({ m: size, k: size, n: size, left: operand, right: operand, wide: fc.boolean() });
    fc.assert(
      fc.property(cases, ({ m, k, n, left, right, wide }) => {
        F.scope(() => {
          const a = matrix([left.shared ? 1 : 2, m, k], kind.dtype, 3, left.turned, left.lie);
          const b = matrix([right.shared ? 1 : 2, k, n], kind.dtype, 4, right.turned, right.lie);
          const batch = left.shared && right.shared ? 1 : 2;
          const [x, y] = [a, b].map(({ values }) => {
            const rounded = factors(kind, values);
            return Float64Array.from({ length: batch * (values === a.values ? m * k : k * n) }, (_, i) => rounded[i % rounded.length]);
          });
          const out = F.matmul(a.t, b.t, { precision: kind.precision, dtype: wide ? 'f32' : undefined });
          expectClose(fetched(out), referenceMatmul(x, y, batch, m, k, n), wide ? 'f32' : kind.dtype);
        });
      }),
      { numRuns: 20 },
    );
  }); // prettier-ignore

  test.each(KINDS)('$name: bias and activation', (kind) => {
    for (const [rows, inner, features] of [
      [5, 72, 33],
      [70, 40, 90],
      [130, 24, 512],
    ])
      for (const activation of F.ACTIVATIONS)
        F.scope(() => {
          const [x, w] = [matrix([rows, inner], kind.dtype, 5), matrix([features, inner], kind.dtype, 6)];
          const bias = matrix([features], kind.dtype, 7);
          const out = F.linear(x.t, w.t, bias.t, activation, { precision: kind.precision });
          const turned = referenceTranspose(factors(kind, w.values), features, inner);
          const sums = referenceMatmul(factors(kind, x.values), turned, 1, rows, inner, features);
          const expected = sums.map((v, i) => referenceActivation(activation, v + bias.values[i % features]));
          expectClose(fetched(out), expected, kind.dtype);
        });
  });

  test('gradients of TF32 products are TF32 products', () => {
    const kind = KINDS[3];
    const [m, k, n] = [20, 36, 70];
    const run = (op: (a: Tensor, b: Tensor) => Tensor): void => {
      const [a, b, g] = [matrix([m, k], 'f32', 8), matrix([k, n], 'f32', 9), matrix([m, n], 'f32', 10)];
      a.t.requiresGrad = b.t.requiresGrad = true;
      const [da, db] = F.grad(op(a.t, b.t), [a.t, b.t], { gradients: [g.t] }) as Tensor[];
      const [x, y, z] = [a, b, g].map(({ values }) => factors(kind, values));
      expectClose(fetched(da), referenceMatmul(z, referenceTranspose(y, k, n), 1, m, n, k));
      expectClose(fetched(db), referenceMatmul(referenceTranspose(x, m, k), z, 1, k, m, n));
    };
    run((a, b) => F.matmul(a, b, { precision: 'high' }));
    run((a, b) => F.linear(a, F.transpose(b), null, 'none', { precision: 'high' }));
    run((a, b) => {
      const layer = new F.Linear(k, n, { bias: false, precision: 'high' });
      layer.weight = F.transpose(b);
      return layer.forward(a);
    });
    run((a, b) => F.withMatmulPrecision('high', () => F.matmul(a, b)));
    run((a, b) => F.withMatmulPrecision('high', () => F.checkpoint((x, y) => F.matmul(x, y), a, b)));
  });

  test.each(KINDS)('$name: a long inner axis, and the same bits for a row among few and among many', (kind) => {
    const [k, n] = [4200, 24];
    const options = { precision: kind.precision };
    const a = matrix([256, k], kind.dtype, 11);
    const b = matrix([k, n], kind.dtype, 12);
    const bias = matrix([n], kind.dtype, 13);
    const w = F.transpose(b.t);
    const all = F.linear(a.t, w, bias.t, 'relu', options);
    const few = F.linear(F.slice(a.t, 0, 0, 3), w, bias.t, 'relu', options);
    const sums = referenceMatmul(factors(kind, a.values), factors(kind, b.values), 1, 256, k, n);
    const expected = sums.map((v, i) => Math.max(0, v + bias.values[i % n]));
    expectClose(fetched(all), expected, kind.dtype);
    expect(fetched(few)).toEqual(fetched(all).subarray(0, 3 * n));
  });

  test.each(KINDS)('$name: a row has the same bits in every tile', (kind) => {
    const options = { precision: kind.precision };
    const a = matrix([200, 136], kind.dtype, 14);
    const b = matrix([136, 520], kind.dtype, 15);
    const all = fetched(F.matmul(a.t, b.t, options));
    for (const rows of [1, 20, 70, 128]) {
      const some = fetched(F.matmul(F.slice(a.t, 0, 0, rows), b.t, options));
      expect(some).toEqual(all.subarray(0, rows * 520));
    }
  });

  test('precision is checked, and means nothing to other dtypes', () => {
    const a = random([3, 4], 'bf16', 16).t.to('cuda');
    const b = random([4, 5], 'bf16', 17).t.to('cuda');
    expect(fetched(F.matmul(a, b, { precision: 'high' }))).toEqual(fetched(F.matmul(a, b)));
    const wrong = { precision: 'medium' as MatmulPrecision };
    const refused = expect.objectContaining({ code: 'ERR_ARGUMENT' });
    expect(() => F.matmul(a, b, wrong)).toThrow(refused);
    expect(() => F.linear(a, F.transpose(b), null, 'none', wrong)).toThrow(refused);
    expect(() => F.setMatmulPrecision('medium' as MatmulPrecision)).toThrow(refused);
    F.setMatmulPrecision('high');
    expect(F.getMatmulPrecision()).toBe('high');
    F.setMatmulPrecision('highest');
  });

  test.skipIf(cuda.gpu)('the last warp first, copies early', () => {
    const script = `const bits = [];
      for (const [dtype, precision] of [['bf16'], ['f32'], ['f32', 'high']])
        for (const [m, k, n] of [[5, 136, 40], [70, 72, 104], [128, 40, 512], [200, 40, 304], [9, 4200, 16]])
          for (const turned of [false, true]) {
            const a = fovea.randn([m, k], { seed: 1, dtype, device: 'cuda' }), b = fovea.randn(turned ? [n, k] : [k, n], { seed: 2, dtype, device: 'cuda' });
            const out = fovea.matmul(a, turned ? fovea.transpose(b) : b, { precision });
            bits.push(...(await fovea.cast(out, 'f32').data()));
          }
      give(bits.reduce((sum, x, i) => (sum * 31 + Math.round(x * 2 ** 20) + i) % (2 ** 31 - 1), 0));`;
    const run = (settings: Record<string, string>): unknown =>
      runScript(script, { CAPABILITY: '90', ...settings }).value;
    expect(run({ SCHEDULE: 'last', ASYNC: 'early' })).toBe(run({}));
  });

  test.skipIf(cuda.gpu)('every kernel runs, without bank conflicts, reading whole sectors', () => {
    const folder = mkdtempSync(join(tmpdir(), 'fovea-matmul-'));
    try {
      const REPORT = join(folder, 'report.json');
      runScript(
        `for (const dtype of ['bf16', 'f16', 'f32']) for (const precision of ['highest', 'high'])
           for (const [m, k, n] of [[16, 128, 64], [64, 128, 128], [128, 64, 512], [256, 64, 512], [16, 4224, 32]])
             for (const turned of [0, 1, 2, 3]) {
               const make = (rows, columns, t) => {
                 const x = fovea.ones(t ? [columns, rows] : [rows, columns], { dtype, device: 'cuda' });
                 return t ? fovea.transpose(x) : x;
               };
               const out = fovea.matmul(make(m, k, turned & 1), make(k, n, turned & 2), { precision });
               await out.data();
             }
         give(0);`,
        { CAPABILITY: '90', REPORT },
      );
      const report = JSON.parse(readFileSync(REPORT, 'utf8')) as Record<string, Counters>;
      const kernels = Object.keys(report).filter((name) => name.startsWith('matmul_'));
      const layouts = ['nn', 'nt', 'tn', 'tt'];
      const expected = [
        ...['bf16', 'f16', 'tf32'].flatMap((type) =>
          ['16x32', '64x64', '128x128', '128x256'].flatMap((tile) => layouts.map((l) => `matmul_${type}_${l}_${tile}`)),
        ),
        ...['16x32', '64x64'].flatMap((tile) => layouts.map((l) => `matmul_f32_${l}_${tile}`)),
        'matmul_f32_128x128',
        ...['bf16', 'f16', 'f32'].map((type) => `matmul_${type}_add_chunks`),
      ];
      expect(kernels.toSorted()).toEqual(expected.toSorted());
      for (const name of kernels) {
        const { sharedLoads, sharedStores, globalLoads } = report[name];
        const conflicts = sharedLoads.conflicts + sharedStores.conflicts;
        expect({ name, conflicts, read: globalLoads.sectors * 32 }).toEqual({ name, conflicts: 0, read: globalLoads.bytes });
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }); // prettier-ignore
});

interface Counters {
  sharedLoads: { conflicts: number };
  sharedStores: { conflicts: number };
  globalLoads: { sectors: number; bytes: number };
}
