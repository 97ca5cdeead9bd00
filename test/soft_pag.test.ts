/** softPag and combineGuidance against goldens, a double-precision reference, and the limits of its strength. */
import { describe, expect, test } from 'vitest';
import { attention, bernoulli, cast, combineGuidance, guidanceAt, manualSeed, masks, PAG_TARGETS, randn, softPag, tensor, type PagTarget, type SoftPagOptions, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, headsOf, plainAttention, range, softmaxOf, weighted } from './plain_attention.ts';
import { expectClose } from './tolerance.ts';

interface Config {
  heads: number;
  selected_heads: number[];
  u: number;
  n_text: number;
  N: number;
  pag_scale: number;
  cfg_scale: number;
  tau: number;
  w: number;
}

const strengthsOf = ({ heads, selected_heads: chosen, u }: Config, strength = u): number[] =>
  range(0, heads).map((h) => (chosen.includes(h) ? strength : 0));
const operands = (g: GoldenCase, names = ['q', 'k', 'v']): [Tensor, Tensor, Tensor] =>
  names.map((name) => g.input(name)) as [Tensor, Tensor, Tensor];

describe('goldens', () => {
  test.each(['softpag.self_attention', 'softpag.joint_attention'])('%s', (name) =>
    checkGolden(
      name,
      (g) => {
        const [q, k, v] = operands(g, ['query', 'key', 'value']);
        const { image_tokens_first: count } = g.config as unknown as { image_tokens_first: number | null };
        const strength = [...numbers(g.input('head_strength'))];
        const joint = count === null ? {} : { target: 'maskedIdentity' as const, imageTokens: { start: 0, count } };
        return { attention: softPag(q, k, v, { strength, ...joint }), unperturbed_attention: attention(q, k, v) };
      },
      { leave: ['probabilities'] },
    ),
  );

  test.each(['softpag_self', 'softpag_joint'])('%s', (name) =>
    checkGolden(name, (g) => {
      const config = g.config as unknown as Config;
      const [q, k, v] = operands(g);
      const joint =
        config.n_text > 0
          ? { target: 'maskedIdentity' as const, imageTokens: { start: 0, count: config.N - config.n_text } }
          : {};
      const [cond, perturbed, uncond] = operands(g, ['eps_cond', 'eps_perturbed', 'eps_uncond']);
      return {
        base: attention(q, k, v),
        pag: softPag(q, k, v, { strength: strengthsOf(config, 1), ...joint }),
        softpag: softPag(q, k, v, { strength: strengthsOf(config), ...joint }),
        guided_pag: combineGuidance({ cond, perturbed, w: config.pag_scale }),
        guided_cfg_pag: combineGuidance({ cond, perturbed, uncond, w: config.pag_scale, cfg: config.cfg_scale }),
      };
    }),
  );

  test('softpag_family', () =>
    checkGolden('softpag_family', (g) => {
      const config = g.config as unknown as Config;
      const [q, k, v] = operands(g);
      const soft = (target: PagTarget): Tensor => softPag(q, k, v, { target, strength: strengthsOf(config) });
      return {
        base: attention(q, k, v),
        soft_uniform: soft('uniform'),
        soft_seg_mean_query: soft('meanQuery'),
        soft_max: soft('max'),
        soft_identity: soft('identity'),
        temperature: softPag(q, k, v, {
          target: 'temperature',
          temperature: config.tau,
          strength: strengthsOf(config, 1),
        }),
      };
    }));

  test('softpag.guidance', () =>
    checkGolden('softpag.guidance', (g) => {
      const { w, cfg_scale: cfg } = g.config as unknown as Config;
      const [cond, perturbed, uncond] = operands(g, ['conditional', 'perturbed', 'unconditional']);
      return {
        pag_only: combineGuidance({ cond, perturbed, w }),
        cfg_and_pag: combineGuidance({ cond, perturbed, uncond, w, cfg }),
      };
    }));
});

describe('double-precision reference, values and finite differences', () => {
  const [H, n, d, seed] = [3, 6, 4, 7];
  const strength = [0.3, 0, 1];
  const scale = 1 / Math.sqrt(d);
  const inImage = (i: number): boolean => i >= 2 && i < 5;
  const kept = [...numbers(bernoulli(0.6, [1, H, n, n], { seed }))];
  const noise = [...numbers(randn([1, H, n, n], { seed, std: 0.2 }))];
  const gaussian = [-2, -1, 0, 1, 2].map((x) => Math.exp(-0.5 * (x / 0.8) ** 2));
  const total = gaussian.reduce((x, y) => x + y);
  const reflect = (i: number): number => (i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i);

  /** A map blurred as an image by `taps` on both axes; what lies outside is `at`. */
  function blurred(map: number[][], taps: readonly number[], at: (i: number, j: number) => number): number[][] {
    const by = (taps.length - 1) / 2;
    return map.map((row, i) =>
      row.map((_, j) =>
        taps.reduce((s, x, a) => s + taps.reduce((t, y, b) => t + x * y * at(i + a - by, j + b - by), 0), 0),
      ),
    );
  }

  /** The damaged map of a head from its logits. */
  function mapOf(target: PagTarget, h: number, logits: number[][], ofMean: number[], sigma?: number): number[][] {
    const plain = logits.map((row) => softmaxOf(row));
    const stays = (i: number, j: number): number => kept[(h * n + i) * n + j];
    const edit = (row: number[], f: (x: number, j: number) => number): number[] => softmaxOf(row.map(f));
    const maps: Record<PagTarget, () => number[][]> = {
      identity: () => logits.map((row, i) => row.map((_, j) => Number(i === j))),
      maskedIdentity: () =>
        logits.map((row, i) => edit(row, (x, j) => (inImage(i) && inImage(j) && i !== j ? -Infinity : x))),
      uniform: () => logits.map((row) => row.map(() => 1 / n)),
      meanQuery: () => logits.map(() => softmaxOf(ofMean)),
      max: () => logits.map((row) => row.map((x) => Number(x === Math.max(...row)))),
      temperature: () => logits.map((row) => edit(row, (x) => x * 2)),
      drop: () => plain.map((row, i) => row.map((x, j) => x * stays(i, j))),
      hide: () => logits.map((row, i) => edit(row, (x, j) => (stays(i, j) || i === j ? x : -Infinity))),
      blur: () =>
        sigma === undefined
          ? blurred(plain, [1 / 3, 1 / 3, 1 / 3], (i, j) => plain[i]?.[j] ?? 0)
          : blurred(plain, gaussian.map((x) => x / total), (i, j) => plain[reflect(i)][reflect(j)]), // prettier-ignore
      noise: () => plain.map((row, i) => row.map((x, j) => x + noise[(h * n + i) * n + j])),
    };
    return maps[target]();
  }

  test.each([...PAG_TARGETS.map((target) => [target, undefined] as const), ['blur', 0.8] as const])(
    '%s %s',
    (target, sigma) => {
      const shape = [1, H, n, d];
      const options = { temperature: 0.5, imageTokens: { start: 2, count: 3 }, rate: 0.4, noise: 0.2, seed };
      checkGradients({
        shapes: [shape, shape, shape],
        op: (q, k, v) => softPag(q, k, v, { strength, target, ...options, ...(sigma && { sigma }) }),
        reference: (...flat) => {
          const [q, k, v] = flat.map((x) => headsOf(x, H, d));
          return range(0, H).flatMap((h) => {
            const base = plainAttention(q[h], k[h], v[h], (s) => s * scale);
            const center = q[h][0].map((_, c) => q[h].reduce((s, row) => s + row[c], 0) / n);
            const logitsOf = (query: number[]): number[] => k[h].map((key) => dot(query, key) * scale);
            const map = mapOf(target, h, q[h].map(logitsOf), logitsOf(center), sigma);
            return base.flatMap((row, i) => {
              const damaged = weighted(map[i], v[h]);
              return row.map((x, c) => (1 - strength[h]) * x + strength[h] * damaged[c]);
            });
          });
        },
      });
    },
  );
});

describe('with a mask', () => {
  test.each(['identity', 'uniform', 'meanQuery', 'temperature', 'maskedIdentity', 'drop', 'hide'] as const)(
    '%s: nothing of a hidden key arrives, and the first token sees itself alone',
    (target) => {
      const [q, k, v] = inputs();
      const run = (values: Tensor): number[] => [...numbers(softPag(q, k, values, { target, strength: 0.4, rate: 0, mask: masks.causal() }))]; // prettier-ignore
      const changed = tensor(numbers(v).map((x, i) => (i % 320 >= 160 ? x + 1 : x)), v.shape, { dtype: 'f32' }); // prettier-ignore
      const [a, b] = [run(v), run(changed)];
      const before = a.flatMap((_, i) => (i % 320 < 160 ? [i] : []));
      expect(before.map((i) => a[i])).toEqual(before.map((i) => b[i]));
      expectClose(a.slice(0, 8), [...numbers(v)].slice(0, 8));
    },
  );

  test('uniform is the mean of what is seen', () => {
    const [q, k, v] = inputs();
    const out = softPag(q, k, v, { target: 'uniform', mask: masks.causal() });
    expectClose(numbers(out.select(2, 1)), numbers(v.slice(2, 0, 2).mean(2)));
  });

  test('what cannot be masked says so', () => {
    const [q, k, v] = inputs();
    for (const target of ['max', 'blur', 'noise'] as const)
      expect(() => softPag(q, k, v, { target, mask: masks.causal() })).toThrow(
        expect.objectContaining({ code: 'ERR_UNSUPPORTED' }) as Error,
      );
  });
});

test('rate 1 drops everything and, hidden, leaves each token itself; seeds draw the same again', () => {
  const [q, k, v] = inputs();
  expect([...numbers(softPag(q, k, v, { target: 'drop', rate: 1 }))].every((x) => x === 0)).toBe(true);
  expectClose(numbers(softPag(q, k, v, { target: 'hide', rate: 1 })), numbers(v));
  expect([...numbers(softPag(q, k, v, { target: 'hide', rate: 1, keepSelf: false }))].every((x) => x === 0)).toBe(true);
  const drawn = (options: SoftPagOptions): number[] => [...numbers(softPag(q, k, v, { target: 'noise', ...options }))];
  expect(drawn({ seed: 3 })).toEqual(drawn({ seed: 3 }));
  expect(drawn({})).not.toEqual(drawn({}));
});

test('guidance has a range and may fall', () => {
  expect([999, 500, 100].map((t) => guidanceAt(t, { w: 3, start: 800, end: 200 }))).toEqual([0, 3, 0]);
  expect([1000, 900, 0].map((t) => guidanceAt(t, { w: 3, fall: 0.01 }))).toEqual([3, 2, 0]);
});

const inputs = (): Tensor[] => {
  manualSeed(1);
  return [1, 2, 3].map(() => randn([1, 2, 40, 8]));
};

test('strength 0 is attention bit for bit, strength 1 the value', () => {
  const [q, k, v] = inputs();
  expect([...numbers(softPag(q, k, v, { strength: 0 }))]).toEqual([...numbers(attention(q, k, v))]);
  expect([...numbers(softPag(q, k, v))]).toEqual([...numbers(v)]);
  expectClose(numbers(softPag(q, k, v, { target: 'maskedIdentity' })), numbers(v));
});

test('bf16 mixes in f32; guidance without effect gives the conditional', () => {
  const [q, k, v] = inputs();
  const [a, b, c] = [q, k, v].map((t) => cast(t, 'bf16'));
  const narrow = softPag(a, b, c, { strength: 0.5 });
  expect(narrow.dtype).toBe('bf16');
  expectClose(numbers(narrow), numbers(softPag(q, k, v, { strength: 0.5 })), 'bf16', 2);
  expect([...numbers(combineGuidance({ cond: q, perturbed: k, w: 0 }))]).toEqual([...numbers(q)]);
});

test('what does not fit is refused', () => {
  const [q, k, v] = inputs();
  const code = (name: string) => expect.objectContaining({ code: name }) as Error;
  expect(() => softPag(q, k, v, { strength: [0.1] })).toThrow(code('ERR_ARGUMENT'));
  expect(() => softPag(q, k, v, { strength: 1.5 })).toThrow(code('ERR_ARGUMENT'));
  expect(() => softPag(q, k, v, { target: 'x' as never })).toThrow(code('ERR_ARGUMENT'));
  expect(() => softPag(q, k, v, { target: 'drop', rate: 2 })).toThrow(code('ERR_ARGUMENT'));
  expect(() => softPag(q, k, v, { target: 'noise', noise: NaN })).toThrow(code('ERR_ARGUMENT'));
  expect(() => softPag(q, k, v, { target: 'blur', sigma: 0 })).toThrow(code('ERR_ARGUMENT'));
  expect(() => softPag(q, k, v, { target: 'maskedIdentity', imageTokens: { start: 30, count: 20 } })).toThrow(
    code('ERR_ARGUMENT'),
  );
  expect(() => combineGuidance({ cond: q, perturbed: k, w: 1, cfg: 2 })).toThrow(code('ERR_ARGUMENT'));
  expect(() => softPag(q, tensor([1, 2]), v)).toThrow(code('ERR_SHAPE'));
});
