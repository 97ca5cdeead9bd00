/**
 * attention() on CUDA: every kind of call in every dtype against the CPU in f32 on the same rounded inputs. (Golden vectors:
 * ../attention_golden.test.ts.)
 */
import { describe, expect, test } from 'vitest';
import {
  attention,
  cast,
  explain,
  grad,
  permute,
  slice,
  tensor,
  type AttentionOptions,
  type DType,
  type Tensor,
} from '../../lib/index.ts';
import { mask } from '../../lib/mask/mask.ts';
import { blockMask } from '../../lib/ops/block_mask.ts';
import { random } from '../reference_matmul.ts';
import { expectClose } from '../tolerance.ts';
import { useCuda } from './device.ts';

const cuda = useCuda();
const values = (t: Tensor): ArrayLike<number> => cast(t.to('cpu'), 'f32').dataSync() as Float32Array;

interface Case {
  readonly name: string;
  /** [batch, query heads, key heads, queries, keys, dim] */
  readonly size: readonly [number, number, number, number, number, number];
  /** Operands of options made on the device that is asked for. */
  readonly options?: (place: (t: Tensor) => Tensor) => AttentionOptions;
}

const floats = (shape: readonly number[], seed: number): Tensor => random(shape, 'f32', seed).t;
const bools = (shape: readonly number[], at: (i: number) => boolean): Tensor =>
  tensor(
    Uint8Array.from({ length: shape.reduce((n, x) => n * x, 1) }, (_, i) => Number(at(i))),
    shape,
    { dtype: 'bool' },
  );
const lseGradient = (shape: readonly number[]): Tensor => floats(shape, 8);
const documents = mask(({ q, kv }, { doc }) => q >= kv && doc[q] === doc[kv], {
  doc: Int32Array.from({ length: 200 }, (_, i) => Math.floor(i / 37)),
});
const perHead = mask(({ h, q, kv }) => q >= kv + 5 * h);

const cases: readonly Case[] = [
  { name: 'plain', size: [2, 2, 2, 70, 90, 64] },
  { name: 'one query, one key, dim 1', size: [1, 1, 1, 1, 1, 1] },
  { name: 'odd dim', size: [1, 2, 1, 33, 65, 19] },
  { name: 'dim 256', size: [1, 1, 1, 20, 70, 256] },
  { name: 'no keys', size: [1, 1, 1, 3, 0, 8] },
  { name: 'causal, grouped heads, dim 128', size: [1, 4, 2, 150, 150, 128], options: () => ({ causal: true }) },
  {
    name: 'causal bottom-right with key lengths',
    size: [3, 2, 1, 40, 70, 32],
    options: () => ({ causal: 'bottom-right', kvLengths: [70, 0, 33] }),
  },
  { name: 'window', size: [1, 2, 2, 200, 200, 64], options: () => ({ window: [20, 5] }) },
  { name: 'softcap and negative scale', size: [1, 1, 1, 30, 60, 16], options: () => ({ softcap: 2, scale: -0.7 }) },
  {
    name: 'packed sequences',
    size: [1, 2, 2, 200, 200, 64],
    options: () => ({ causal: true, cuSeqlens: [0, 5, 5, 140, 200] }),
  },
  {
    name: 'bias and mask tensor',
    size: [2, 2, 2, 30, 70, 64],
    options: (place) => ({
      bias: place(floats([2, 30, 70], 5)),
      mask: place(bools([2, 1, 30, 70], (i) => i % 7 !== 3 && Math.floor(i / 70) % 11 !== 4)),
    }),
  },
  { name: 'mask function', size: [1, 2, 2, 200, 200, 64], options: () => ({ mask: documents }) },
  { name: 'mask function by head', size: [2, 2, 1, 100, 130, 128], options: () => ({ mask: perHead }) },
  {
    name: 'block mask of small blocks',
    size: [1, 2, 2, 100, 130, 32],
    options: () => ({ mask: blockMask(perHead, { b: 1, h: 2, q: 100, kv: 130, block: [16, 24] }), window: [40, -1] }),
  },
];

function operands({ size: [b, hq, hkv, lq, lk, d] }: Case, dtype: DType): [Tensor, Tensor, Tensor, Tensor] {
  const of = (shape: number[], seed: number): Tensor => cast(floats(shape, seed), dtype);
  return [of([b, hq, lq, d], 1), of([b, hkv, lk, d], 2), of([b, hkv, lk, d], 3), of([b, hq, lq, d], 4)];
}

describe.skipIf(cuda.skip)('attention on CUDA', () => {
  describe.each(['f32', 'bf16', 'f16'] as const)('%s', (dtype) => {
    test.each(cases)('$name', (c) => {
      const [q, k, v] = operands(c, dtype);
      const there = attention(q.to('cuda'), k.to('cuda'), v.to('cuda'), {
        ...c.options?.((t) => t.to('cuda')),
        returnLse: true,
      });
      const wide = [q, k, v].map((t) => cast(t, 'f32')) as [Tensor, Tensor, Tensor];
      const here = attention(...wide, { ...c.options?.((t) => t), returnLse: true });
      expect(there.out.dtype).toBe(dtype);
      expectClose(values(there.out), values(here.out), dtype);
      expectClose(values(there.lse), values(here.lse), 'f32', 10);
    });

    test.each(cases)('$name, gradients', (c) => {
      const [q, k, v, dout] = operands(c, dtype);
      const gradients = (operand: (t: Tensor) => Tensor, options?: AttentionOptions): ArrayLike<number>[] => {
        const leaves = [q, k, v].map(operand) as [Tensor, Tensor, Tensor];
        for (const t of leaves) t.requiresGrad = true;
        const { out, lse } = attention(...leaves, { ...options, returnLse: true });
        const dlse = lse.device === 'cpu' ? lseGradient(lse.shape) : lseGradient(lse.shape).to(lse.device);
        return (grad([out, lse], leaves, { gradients: [operand(dout), dlse] }) as Tensor[]).map(values);
      };
      const on = (t: Tensor): Tensor => t.to('cuda');
      const there = (): ArrayLike<number>[] => gradients(on, c.options?.(on));
      const here = gradients(
        (t) => cast(t, 'f32').detach(),
        c.options?.((t) => t),
      );
      // Gradients may be exactly zero (one key); then rounding errors are measured against inputs, which are of order 1.
      for (const [i, actual] of there().entries())
        expectClose([...Array.from(actual), 0.1], [...Array.from(here[i]), 0.1], dtype, 2);
    });

    test('views with strides, rows off 16-byte boundaries', () => {
      const whole = cast(floats([1, 100, 2, 41], 9), dtype);
      const view = (t: Tensor): Tensor => permute(slice(t, 3, 1, 41), [0, 2, 1, 3]);
      const x = view(whole.to('cuda'));
      const wide = view(cast(whole, 'f32'));
      expectClose(
        values(attention(x, x, x, { causal: true })),
        values(attention(wide, wide, wide, { causal: true })),
        dtype,
      );
    });
  });

  test('explain names the kernel', () => {
    const q = floats([1, 2, 100, 64], 1).to('cuda');
    const { kernel, refused } = explain(q, q, q, { causal: true, kvLengths: [60] });
    expect(kernel).toBe('cuda.forward');
    expect(refused).toEqual([{ kernel: 'cuda.decode', reason: 'more than 16 queries' }]);
  });

  test('operands on two devices throw', () => {
    const q = floats([1, 1, 8, 8], 1).to('cuda');
    expect(() => attention(q, q, floats([1, 1, 8, 8], 1))).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
  });
});
