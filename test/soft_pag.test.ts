/** softPag and combineGuidance against goldens, a double-precision reference, and the limits of its strength. */
import { describe, expect, test } from 'vitest';
import { attention, cast, combineGuidance, manualSeed, randn, softPag, tensor, type PagTarget, type Tensor } from '../lib/index.ts'; // prettier-ignore
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
  const [H, n, d] = [3, 6, 4];
  const strength = [0.3, 0, 1];
  const scale = 1 / Math.sqrt(d);
  const inImage = (i: number): boolean => i >= 2 && i < 5;
  test.each(['identity', 'maskedIdentity', 'uniform', 'meanQuery', 'max', 'temperature'] as const)('%s', (target) => {
    const shape = [1, H, n, d];
    checkGradients({
      shapes: [shape, shape, shape],
      op: (q, k, v) => softPag(q, k, v, { strength, target, temperature: 0.5, imageTokens: { start: 2, count: 3 } }),
      reference: (...flat) => {
        const [q, k, v] = flat.map((x) => headsOf(x, H, d));
        return range(0, H).flatMap((h) => {
          const base = plainAttention(q[h], k[h], v[h], (s) => s * scale);
          const center = q[h][0].map((_, c) => q[h].reduce((s, row) => s + row[c], 0) / n);
          return base.flatMap((row, i) => {
            const logits = k[h].map((key) => dot(target === 'meanQuery' ? center : q[h][i], key) * scale);
            const weights = {
              identity: logits.map((_, j) => Number(i === j)),
              maskedIdentity: softmaxOf(logits.map((x, j) => (inImage(i) && inImage(j) && i !== j ? -Infinity : x))),
              uniform: logits.map(() => 1 / n),
              meanQuery: softmaxOf(logits),
              max: logits.map((x) => Number(x === Math.max(...logits))),
              temperature: softmaxOf(logits.map((x) => x * 2)),
            }[target];
            const damaged = weighted(weights, v[h]);
            return row.map((x, c) => (1 - strength[h]) * x + strength[h] * damaged[c]);
          });
        });
      },
    });
  });
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
  expect(() => softPag(q, k, v, { target: 'maskedIdentity', imageTokens: { start: 30, count: 20 } })).toThrow(
    code('ERR_ARGUMENT'),
  );
  expect(() => combineGuidance({ cond: q, perturbed: k, w: 1, cfg: 2 })).toThrow(code('ERR_ARGUMENT'));
  expect(() => softPag(q, tensor([1, 2]), v)).toThrow(code('ERR_SHAPE'));
});
