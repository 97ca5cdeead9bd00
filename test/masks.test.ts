import { describe, expect, test } from 'vitest';
import { buildBlockMask } from '../lib/mask/build.ts';
import * as masks from '../lib/mask/masks/index.ts';
import * as scores from '../lib/mask/scores/index.ts';
import { blockMask } from '../lib/ops/block_mask.ts';
import { goldenMasks } from './golden_masks.ts';
import { DEFAULT_LENGTHS, ROWS } from './mask_rows.ts';

const BLOCKS = [[16, 16], [32, 24]] as const; // prettier-ignore

describe.each(ROWS)('$name', ({ make, sees, lengths = DEFAULT_LENGTHS, keys = (n) => n }) => {
  test.each(lengths)('lets through what its description says at length %i', (length) => {
    const mask = make(length);
    const kvLength = keys(length);
    for (const block of BLOCKS) {
      for (const build of [blockMask, buildBlockMask]) {
        const built = build(mask, { q: length, kv: kvLength, block });
        const dense = built.toDense();
        let visible = 0;
        for (let q = 0; q < length; ++q) {
          for (let kv = 0; kv < kvLength; ++kv) {
            const expected = sees(q, kv, length);
            visible += Number(expected);
            if (dense[q * kvLength + kv] !== Number(expected) || mask.value({ q, kv }) !== expected)
              expect.fail(`(${q}, ${kv}) of ${length} x ${kvLength}, blocks ${block}: expected ${expected}`);
          }
        }
        expect(built.visiblePairs()).toBe(visible);
      }
    }
  });
});

test('every mask of the library has a row', () => {
  const makers = Object.keys(masks).filter((name) => name !== 'documentIds');
  expect(ROWS.map(({ name }) => name).sort()).toEqual(makers.sort());
});

describe('goldens', () => {
  test('neighborhoods of one and two axes are among them', () => {
    for (const stem of ['na1d', 'na2d'])
      expect(goldenMasks().filter(({ name }) => name.startsWith(stem)).length).toBeGreaterThan(1);
  });

  test.each(goldenMasks())('$name', ({ mask, length, shown, area }) => {
    expect(Array.from(blockMask(mask, { q: length, block: 16 }).toDense())).toEqual(shown);
    if (area !== undefined) expect(blockMask(mask, { q: length, block: 16 }).visiblePairs()).toBe(area);
  });
});

test('numbers that are no sizes are refused by name', () => {
  const calls: readonly (readonly [() => unknown, RegExp])[] = [
    [() => masks.slidingWindow(-1), /slidingWindow: left is -1/],
    [() => masks.slidingWindow(3, 1.5), /right is 1.5/],
    [() => masks.globalWindow(2, NaN), /window is NaN/],
    [() => masks.prefixLM(-2), /prefix is -2/],
    [() => masks.dilated(0, 3), /dilation is 0, expected a whole number of at least 1/],
    [() => masks.blockDiffusion(8, 0), /block is 0/],
    [() => masks.blockDocument([0, 0], 0), /block is 0/],
    [() => masks.blockStreaming(1, 1, 0), /block is 0/],
    [() => masks.streaming(0.5, 3), /sink is 0.5/],
    [() => masks.triangle(1, 2, -1, 8), /last is -1/],
    [() => masks.flamingo([0, 1], 0), /tokens is 0/],
    [() => masks.tile({ tiles: [2, 2, 2], window: [1, 1, 1], tileTokens: 0 }), /tileTokens is 0/],
    [() => scores.softcap(0), /cap is 0/],
    [() => scores.sandwich(0), /heads is 0/],
    [() => blockMask((() => true) as never, { q: 4 }), /blockMask: expected masks made by mask/],
  ];
  for (const [call, message] of calls)
    expect(call).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) as unknown }) as Error); // prettier-ignore
});

test('natten refuses windows that do not fit', () => {
  expect(() => masks.natten({ shape: [8], kernelSize: 3, dilation: 3 })).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT' }),
  );
  expect(() => masks.natten({ shape: [8], kernelSize: 3, stride: 4 })).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT' }),
  );
});
