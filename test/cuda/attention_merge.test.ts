/** mergeAttentions on CUDA: golden vectors, values and gradients against the CPU, parts without keys. */
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { attention, cast, grad, mergeAttentions, slice, tensor, type DType, type Tensor } from '../../lib/index.ts';
import { loadSafetensors } from '../../lib/io/safetensors.ts';
import { random } from '../reference_matmul.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const folder = new URL('../goldens/', import.meta.url);
const files = (prefix: string): string[] => readdirSync(folder).filter((name) => name.startsWith(prefix));
const load = (name: string): ReturnType<typeof loadSafetensors> =>
  loadSafetensors(fileURLToPath(new URL(name, folder)));
const values = (t: Tensor): ArrayLike<number> => cast(t.to('cpu'), 'f32').dataSync() as Float32Array;
const floats = (t: Tensor): ArrayLike<number> => t.dataSync() as Float32Array | Float64Array;

interface Part {
  out: Tensor;
  lse: Tensor;
}

interface Case {
  readonly name: string;
  /** Of out; lse has all but the last axis. */
  readonly shape: readonly number[];
  readonly parts: number;
  /** Whether a row of a part saw no keys. */
  readonly empty?: (part: number, row: number) => boolean;
}

const cases: readonly Case[] = [
  { name: 'one part', shape: [1, 2, 5, 16], parts: 1 },
  { name: 'two parts of whole pieces', shape: [2, 3, 17, 64], parts: 2 },
  { name: 'odd dim', shape: [3, 7, 5, 13], parts: 3 },
  { name: 'long rows', shape: [5, 700], parts: 2 },
  { name: 'many parts', shape: [9, 8], parts: 70 },
  { name: 'one row', shape: [3], parts: 2 },
  { name: 'no rows', shape: [0, 8], parts: 2 },
  { name: 'no columns', shape: [4, 0], parts: 2 },
  {
    name: 'rows without keys',
    shape: [40, 24],
    parts: 3,
    empty: (part, row) => (row + part) % 3 === 0 || row % 5 === 0,
  },
];

function partsOf(c: Case, dtype: DType): Part[] {
  const rows = c.shape.slice(0, -1);
  return Array.from({ length: c.parts }, (_, part) => {
    const out = cast(random(c.shape, 'f32', 2 * part + 1).t, dtype).detach();
    const noise = Float32Array.from(floats(random(rows, 'f32', 2 * part + 2).t), (x, row) =>
      c.empty?.(part, row) ? -Infinity : 20 * x - 30,
    );
    return { out, lse: tensor(noise, rows) };
  });
}

/** out and lse, then the gradients of all outs and lses. */
function results(c: Case, dtype: DType, place: (t: Tensor) => Tensor): ArrayLike<number>[] {
  const parts = partsOf(c, dtype).map(({ out, lse }) => ({ out: place(out).detach(), lse: lse.to(place(out).device) }));
  const leaves = [...parts.map((part) => part.out), ...parts.map((part) => part.lse)];
  for (const t of leaves) t.requiresGrad = true;
  const { out, lse } = mergeAttentions(parts);
  const dout = place(cast(random(c.shape, 'f32', 98).t, dtype));
  const dlse = random(c.shape.slice(0, -1), 'f32', 99).t.to(lse.device);
  const gradients = grad([out, lse], leaves, { gradients: [dout, dlse] }) as Tensor[];
  return [out, lse, ...gradients].map(values);
}

describe.skipIf(cuda.skip)('mergeAttentions on CUDA', () => {
  describe.each(['f32', 'bf16', 'f16'] as const)('%s', (dtype) => {
    test.each(cases)('$name', (c) => {
      const there = results(c, dtype, (t) => t.to('cuda'));
      const here = results(c, dtype, (t) => cast(t, 'f32'));
      there.forEach((actual, i) => {
        if (i === 1) return expectClose(actual, here[1]);
        // Gradients of an lse are differences of sums of the size of the inputs, which are of order 1.
        expectClose([...Array.from(actual), 1], [...Array.from(here[i]), 1], dtype, 2);
      });
    });

    test('views off 16-byte boundaries', () => {
      const of = (place: (t: Tensor) => Tensor): ArrayLike<number> => {
        const whole = place(cast(random([2, 3, 17], 'f32', 5).t, dtype));
        const lse = random([4], 'f32', 6).t.to(whole.device);
        const part = (i: number): Part => ({
          out: slice(whole, 2, 1, 17).reshape([2, 48]).detach(),
          lse: slice(lse, 0, i, i + 2),
        });
        return values(mergeAttentions([part(0), part(2)]).out);
      };
      expectClose(
        of((t) => t.to('cuda')),
        of((t) => cast(t, 'f32')),
        dtype,
      );
    });
  });

  test('what a part without keys holds does not matter', () => {
    const some: Part = { out: random([4, 8], 'f32', 1).t.to('cuda'), lse: tensor([0, 1, 2, 3]).to('cuda') };
    const nothing: Part = {
      out: tensor(new Float32Array(32).fill(NaN), [4, 8]).to('cuda'),
      lse: tensor(new Float32Array(4).fill(-Infinity)).to('cuda'),
    };
    expectClose(values(mergeAttentions([nothing, some]).out), values(some.out));
    const empty = mergeAttentions([nothing, nothing]);
    expect(Array.from(values(empty.out)).every((x) => x === 0)).toBe(true);
    expect(Array.from(values(empty.lse)).every((x) => x === -Infinity)).toBe(true);
  });

  test('one upstream gradient alone', () => {
    for (const which of ['out', 'lse'] as const) {
      const of = (place: (t: Tensor) => Tensor): ArrayLike<number>[] => {
        const parts = partsOf(cases[2], 'f32').map(({ out, lse }) => ({
          out: place(out).detach(),
          lse: place(lse).detach(),
        }));
        const leaves = parts.flatMap((part) => [part.out, part.lse]);
        for (const t of leaves) t.requiresGrad = true;
        const merged = mergeAttentions(parts)[which];
        return (grad([merged], leaves, { gradients: [place(random(merged.shape, 'f32', 3).t)] }) as Tensor[]).map(
          values,
        );
      };
      const here = of((t) => t);
      for (const [i, actual] of of((t) => t.to('cuda')).entries())
        expectClose([...Array.from(actual), 1], [...Array.from(here[i]), 1]);
    }
  });

  test('equal calls give equal bits', () => {
    const [first, second] = [0, 1].map(() => results(cases[2], 'bf16', (t) => t.to('cuda')));
    expect(first).toEqual(second);
  });

  test('parts on two devices throw', () => {
    const [a, b] = partsOf(cases[1], 'f32');
    const there = { out: a.out.to('cuda'), lse: a.lse.to('cuda') };
    expect(() => mergeAttentions([there, b])).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }) as Error);
  });

  test.each(files('cp_ring_'))('%s', (name) => {
    using golden = load(name);
    const { causal, ranks } = JSON.parse(golden.metadata.config) as { causal?: boolean; ranks: number };
    const [q, k, v] = ['q', 'k', 'v'].map((key) => golden.get(`input.${key}`).to('cuda')) as [Tensor, Tensor, Tensor];
    const share = k.shape[2] / ranks;
    const parts = Array.from({ length: ranks }, (_, rank) => {
      const [from, to] = [rank * share, (rank + 1) * share];
      const seen = Array.from({ length: q.shape[2] }, (_, i) => Array.from({ length: share }, (_, j) => from + j <= i));
      return attention(q, slice(k, 2, from, to), slice(v, 2, from, to), {
        ...(causal && { mask: tensor(seen, [q.shape[2], share], { dtype: 'bool' }).to('cuda') }),
        returnLse: true,
      });
    });
    const { out, lse } = mergeAttentions(parts);
    expectClose(values(out), floats(golden.get('output.out')));
    expectClose(values(lse), floats(golden.get('output.lse')));
  });

  test.each(files('attn_merge_'))('%s', (name) => {
    using golden = load(name);
    const on = (key: string): Tensor => cast(golden.get(key), 'f32').to('cuda');
    const parts = [0, 1, 2]
      .filter((i) => golden.has(`input.o${i}`))
      .map((i) => ({ out: on(`input.o${i}`), lse: on(`input.lse${i}`) }));
    const { out, lse } = mergeAttentions(parts);
    expectClose(values(out), floats(golden.get('output.y')));
    expectClose(values(lse), floats(golden.get('output.lse')));
  });
});
