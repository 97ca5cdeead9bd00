/**
 * attention() and mergeAttentions() against golden vectors computed in double precision: outputs and lse at every instruction set level, then
 * outputs and gradients on the CPU and on CUDA.
 */
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import {
  attention,
  cast,
  mergeAttentions,
  slice,
  stack,
  tensor,
  type AttentionOptions,
  type Tensor,
} from '../lib/index.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { atLevel, LEVELS } from './levels.ts';
import { expectClose } from './tolerance.ts';

const folder = new URL('./goldens/', import.meta.url);
const files = (prefix: string): string[] => readdirSync(folder).filter((name) => name.startsWith(prefix));
const load = (name: string): ReturnType<typeof loadSafetensors> =>
  loadSafetensors(fileURLToPath(new URL(name, folder)));
const numbers = (t: Tensor): ArrayLike<number> => t.dataSync() as Float32Array | Float64Array;

interface Config {
  causal?: boolean | 'top_left' | 'bottom_right';
  window?: [number, number];
  softcap?: number;
  scale?: number;
  ranks?: number;
}

function optionsOf(config: Config): AttentionOptions {
  const { causal = false, window, softcap, scale } = config;
  return {
    causal: causal === 'top_left' ? 'top-left' : causal === 'bottom_right' ? 'bottom-right' : causal,
    ...(window && { window }),
    ...(softcap !== undefined && { softcap }),
    ...(scale !== undefined && { scale }),
  };
}

/** Key j of a shard is key from + j of the sequence; a query sees keys up to its own position. */
function causalShard(queries: number, keys: number, from: number): Tensor {
  const rows = Array.from({ length: queries }, (_, i) => Array.from({ length: keys }, (_, j) => from + j <= i));
  return tensor(rows, [queries, keys], { dtype: 'bool' });
}

describe.each(LEVELS)('%s', (level) => {
  test.each(files('sdpa_'))('%s', (name) => {
    using golden = load(name);
    const [q, k, v] = ['q', 'k', 'v'].map((key) => golden.get(`input.${key}`)) as [Tensor, Tensor, Tensor];
    const options = {
      ...optionsOf(JSON.parse(golden.metadata.config) as Config),
      ...(golden.has('input.mask') && { mask: golden.get('input.mask') }),
      ...(golden.has('input.bias') && { bias: golden.get('input.bias') }),
      returnLse: true as const,
    };
    const { out, lse } = atLevel(level, () => attention(q, k, v, options));
    expectClose(numbers(out), numbers(golden.get('output.out')));
    expectClose(numbers(lse), numbers(golden.get('output.lse')));
  });

  test.each(files('cp_ring_'))('%s', (name) => {
    using golden = load(name);
    const config = JSON.parse(golden.metadata.config) as Config;
    const [q, k, v] = ['q', 'k', 'v'].map((key) => golden.get(`input.${key}`)) as [Tensor, Tensor, Tensor];
    const ranks = config.ranks as number;
    const share = k.shape[2] / ranks;
    const partialOut = golden.get('output.partial_out');
    const partialLse = golden.get('output.partial_lse');
    atLevel(level, () => {
      const parts = Array.from({ length: ranks }, (_, rank) => {
        const [from, to] = [rank * share, (rank + 1) * share];
        const mask = config.causal && causalShard(q.shape[2], share, from);
        const part = attention(q, slice(k, 2, from, to), slice(v, 2, from, to), {
          ...(mask && { mask }),
          returnLse: true,
        });
        expectClose(numbers(part.out), numbers(slice(partialOut, 0, rank, rank + 1)));
        expectClose(numbers(part.lse), numbers(slice(partialLse, 0, rank, rank + 1)));
        return part;
      });
      const { out, lse } = mergeAttentions(parts);
      expectClose(numbers(out), numbers(golden.get('output.out')));
      expectClose(numbers(lse), numbers(golden.get('output.lse')));
    });
  });

  test.each(files('attn_merge_'))('%s', (name) => {
    using golden = load(name);
    const parts = [0, 1, 2]
      .filter((i) => golden.has(`input.o${i}`))
      .map((i) => ({ out: cast(golden.get(`input.o${i}`), 'f32'), lse: cast(golden.get(`input.lse${i}`), 'f32') }));
    expect(parts.length).toBeGreaterThan(1);
    const { out, lse } = atLevel(level, () => mergeAttentions(parts));
    expectClose(numbers(out), numbers(golden.get('output.y')));
    expectClose(numbers(lse), numbers(golden.get('output.lse')));
  });
});

describe('here and on CUDA, with gradients', () => {
  const stem = (name: string): string => name.slice(0, -'.safetensors'.length);
  const inputs = (golden: GoldenCase): [Tensor, Tensor, Tensor] => [
    golden.input('q'),
    golden.input('k'),
    golden.input('v'),
  ];

  test.each(files('sdpa_').map(stem))('%s', (name) => {
    checkGolden(
      name,
      (golden) => {
        const { out, lse } = attention(...inputs(golden), {
          ...optionsOf(golden.config as Config),
          ...(golden.has('mask') && { mask: golden.input('mask') }),
          ...(golden.has('bias') && { bias: golden.input('bias') }),
          returnLse: true,
        });
        return { out, lse };
      },
      { floor: 0.1 }, // one key has gradients of 0
    );
  });

  test.each(files('cp_ring_').map(stem))('%s', (name) => {
    checkGolden(name, (golden) => {
      const [q, k, v] = inputs(golden);
      const { ranks = 1, causal } = golden.config as Config;
      const share = k.shape[2] / ranks;
      const parts = Array.from({ length: ranks }, (_, rank) => {
        const [from, to] = [rank * share, (rank + 1) * share];
        return attention(q, slice(k, 2, from, to), slice(v, 2, from, to), {
          ...(causal && { mask: causalShard(q.shape[2], share, from) }),
          returnLse: true,
        });
      });
      const { out, lse } = mergeAttentions(parts);
      const [partials, lses] = [stack(parts.map((part) => part.out)), stack(parts.map((part) => part.lse))];
      return { out, lse, partial_out: partials, partial_lse: lses };
    });
  });

  test.each(files('attn_merge_').map(stem))('%s', (name) => {
    checkGolden(name, (golden) => {
      const parts = [0, 1, 2]
        .filter((i) => golden.has(`o${i}`))
        .map((i) => ({ out: golden.input(`o${i}`), lse: golden.input(`lse${i}`) }));
      const { out, lse } = mergeAttentions(parts);
      return { y: out, lse };
    });
  });
});
