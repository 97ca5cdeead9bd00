/** Every mask of the library with what it lets through, in plain words: for the tests of masks and of who evaluates them. */
import * as masks from '../lib/mask/masks/index.ts';
import type { Mask } from '../lib/mask/mask.ts';

/** One row per mask: how it is made for a length, and in plain words which pairs it lets through. */
export interface Row {
  readonly name: keyof typeof masks;
  readonly make: (length: number) => Mask;
  readonly sees: (q: number, kv: number, length: number) => boolean;
  /** Lengths to try; default DEFAULT_LENGTHS. */
  readonly lengths?: readonly number[];
  /** Keys where they are not as many as queries. */
  readonly keys?: (length: number) => number;
}

export const DEFAULT_LENGTHS = [1, 16, 37, 100];

const memo = new Map<number, number[]>();
const ids = (length: number): number[] => {
  if (!memo.has(length))
    memo.set(
      length,
      Array.from({ length }, (_, i) => Math.floor(Math.sqrt(3 * i))),
    );
  return memo.get(length)!;
};
const startOf = (doc: number[], i: number) => doc.indexOf(doc[i]);
const images = Array.from({ length: 100 }, (_, i) => Math.floor(i / 7) - 1);

export const ROWS: readonly Row[] = [
  { name: 'causal', make: () => masks.causal(), sees: (q, kv) => kv <= q },
  { name: 'slidingWindow', make: () => masks.slidingWindow(5, 2), sees: (q, kv) => kv - q <= 2 && q - kv <= 5 },
  {
    name: 'globalWindow',
    make: () => masks.globalWindow(3, 4),
    sees: (q, kv) => Math.min(q, kv) < 3 || (q - kv <= 4 && kv - q <= 4),
  },
  { name: 'prefixLM', make: () => masks.prefixLM(9), sees: (q, kv) => (q < 9 && kv < 9) || kv <= q },
  { name: 'document', make: (n) => masks.document(ids(n)), sees: (q, kv, n) => ids(n)[q] === ids(n)[kv] },
  {
    name: 'prefixDocument',
    make: (n) => masks.prefixDocument(ids(n), 4),
    sees: (q, kv, n) => {
      const doc = ids(n);
      return doc[q] === doc[kv] && (kv <= q || kv < startOf(doc, q) + 4);
    },
  },
  {
    name: 'blockDocument',
    make: (n) => masks.blockDocument(ids(n), 3),
    sees: (q, kv, n) => {
      const doc = ids(n);
      const start = startOf(doc, q);
      return doc[q] === doc[kv] && kv < start + 3 * (Math.floor((q - start) / 3) + 1);
    },
  },
  {
    name: 'causalBlockwise',
    make: (n) => masks.causalBlockwise(ids(n)),
    sees: (q, kv, n) => kv <= q && kv >= (ids(n)[q] === ids(n)[n - 1] ? 0 : startOf(ids(n), q)),
  },
  {
    name: 'sharedPrefix',
    make: (n) => masks.sharedPrefix(ids(n)),
    sees: (q, kv, n) => kv <= q && [0, ids(n)[q]].includes(ids(n)[kv]),
  },
  {
    name: 'dilated',
    make: () => masks.dilated(3, 4, 1),
    sees: (q, kv) => [-12, -9, -6, -3, 0, 3].includes(kv - q),
  },
  { name: 'streaming', make: () => masks.streaming(3, 6), sees: (q, kv) => kv <= q && (kv < 3 || kv > q - 6) },
  {
    name: 'blockStreaming',
    make: () => masks.blockStreaming(1, 2, 8),
    sees: (q, kv) => kv <= q && (kv < 8 || (q >> 3) - (kv >> 3) < 2),
  },
  {
    name: 'triangle',
    make: (n) => masks.triangle(3, 6, 5, n),
    sees: (q, kv, n) => kv <= q && (kv < 3 || kv > q - 6 || q + 5 >= n),
  },
  {
    name: 'blockDiffusion',
    make: (n) => masks.blockDiffusion(n / 2, 4),
    lengths: [2, 16, 40, 100],
    sees: (q, kv, n) => {
      const [half, block] = [n / 2, (i: number) => Math.floor((i % (n / 2)) / 4)];
      if (q < half && kv < half) return block(q) === block(kv);
      if (q < half) return block(kv) < block(q);
      return kv >= half && block(kv) <= block(q);
    },
  },
  {
    name: 'flamingo',
    make: (n) => masks.flamingo(images.slice(0, n), 5),
    keys: (n) => 5 * Math.ceil(n / 7),
    sees: (q, kv) => kv >= 5 * images[q] && kv < 5 * (images[q] + 1),
  },
  {
    name: 'natten',
    make: (n) => masks.natten({ shape: [n / 6, 6], kernelSize: [3, 2], dilation: [1, 2] }),
    lengths: [18, 36, 96],
    sees: (q, kv, n) => {
      const rows = n / 6;
      const top = Math.min(Math.max(Math.floor(q / 6) - 1, 0), rows - 3);
      const row = Math.floor(kv / 6) - top;
      // Three columns of equal parity: 0 and 1 see the first two, 2 sees the last two.
      const [x, y] = [q % 6, kv % 6];
      const left = Math.min(Math.max((x >> 1) - 1, 0), 1);
      return row >= 0 && row < 3 && x % 2 === y % 2 && y >> 1 >= left && y >> 1 < left + 2;
    },
  },
  {
    name: 'tile',
    make: () => masks.tile({ tiles: [2, 3, 2], window: [1, 3, 2], tileTokens: 8 }),
    lengths: [96],
    sees: (q, kv) => Math.floor(q / 48) === Math.floor(kv / 48),
  },
];
