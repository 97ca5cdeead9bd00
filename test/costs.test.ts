/** Costs of mechanisms: finite, growing, and below dense attention where the mechanism is sub-quadratic. */
import { describe, expect, test } from 'vitest';
import { explainMechanism, MECHANISMS } from '../lib/index.ts';

const SUBQUADRATIC = ['abc', 'causalLongShort', 'channel', 'combiner', 'cosformer', 'flux', 'lara', 'linear', 'longShort', 'nystrom', 'performer', 'positionless', 'probSparse', 's4d', 'taylor']; // prettier-ignore

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

test('unknown mechanisms are refused', () => {
  expect(() => explainMechanism('x' as never, { length: 1, dim: 1 })).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error,
  );
});
