/** Costs of mechanisms: finite, growing, and below dense attention where the mechanism is sub-quadratic. */
import { describe, expect, test } from 'vitest';
import { denseCost, explainMechanism, MECHANISMS } from '../lib/index.ts';

const SUBQUADRATIC = ['abc', 'aggregated', 'biLevelRouting', 'causalLongShort', 'channel', 'combiner', 'cosformer', 'flux', 'halo', 'lara', 'linear', 'longShort', 'neighborhood', 'nystrom', 'performer', 'positionless', 'probSparse', 'routing', 's4d', 'superlinear', 'taylor']; // prettier-ignore

describe.each(MECHANISMS)('%s', (name) => {
  test('grows with length, and names itself', () => {
    const [short, long] = [4096, 65536].map((length) =>
      explainMechanism(name, { length, dim: 64, batch: 2, heads: 4 }),
    );
    for (const { flops, bytes } of [short, long])
      expect(flops > 0 && bytes > 0 && Number.isFinite(flops + bytes)).toBe(true);
    expect(long.flops / short.flops).toBeGreaterThan(15);
    expect(long.flops < long.dense.flops / 4).toBe(SUBQUADRATIC.includes(name));
    expect(String(long)).toContain(name);
  });
});

test('sizes below 0 are refused', () => {
  expect(() => denseCost({ length: -1, dim: 8 })).toThrow(/length is -1/);
});

test('unknown mechanisms are refused', () => {
  expect(() => explainMechanism('x' as never, { length: 1, dim: 1 })).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error,
  );
});

test('costs of windows and routes follow from their pairs', () => {
  const sizes = { length: 4096, dim: 32, heads: 4 };
  const flops = (pairs: number): number => 4 * pairs * (4 * 32 + 5);
  const space = [64, 64];
  expect(explainMechanism('neighborhood', sizes, { space, kernelSize: [7, 5] }).flops).toBe(flops(4096 * 35));
  expect(explainMechanism('neighborhood', sizes, { space, kernelSize: 7, causal: [true, false] }).flops).toBeLessThan(flops(4096 * 49)); // prettier-ignore
  expect(explainMechanism('halo', sizes, { blockSize: 8, haloSize: 3, relative: false }).flops).toBe(flops(4096 * 196));
  expect(explainMechanism('mixtureOfHeads', sizes, { active: 3 }).flops).toBe((3 / 4) * flops(4096 * 4096));
  expect(explainMechanism('routing', sizes).flops).toBeGreaterThan(flops(4096 * 64));
});
