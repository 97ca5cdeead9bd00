import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  attention,
  cast,
  mergeAttentions,
  scope,
  slice,
  spanAttention,
  spanSearch,
  superlinearAttention,
  tensor,
  unsqueeze,
  expand,
  type SuperlinearOptions,
  type Tensor,
} from '../lib/index.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { KvCache } from '../lib/nn/kv_cache.ts';
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { checkGradients, noise, sizeOf } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { atLevel, expectSameBitsForAnyThreads, LEVELS } from './levels.ts';
import { expectClose } from './tolerance.ts';

type Config = Record<string, number>;

const optionsFrom = (c: Config): SuperlinearOptions => ({
  swIndex: c.sw_index,
  numSpans: c.num_spans,
  backwardFactor: c.backward_factor,
  forwardFactor: c.forward_factor,
  spanPower: c.span_power,
  searchPower: c.search_power,
});

function run({ input, config }: GoldenCase, masked = false): Record<string, Tensor> {
  const c = config as Config;
  const options: SuperlinearOptions = {
    ...optionsFrom(c),
    cachePosition: numbers(input('cache_position'))[0],
    ...(masked && { keyMask: input('mask') }),
  };
  const [search, q, k, v] = ['q_search', 'q', 'k', 'v'].map(input);
  const r = superlinearAttention(search, q, k, v, { ...options, returnSearch: true });
  // Each span together with the window, as the published kernel returns it.
  const { keyMask } = options;
  const spans = spanAttention(q, k, v, r.ranges, { keyMask });
  const window = (c.sw_index + 1) ** 2 - 1;
  let whole = spans.out;
  if (window > 0) {
    const mask = masked ? unsqueeze(unsqueeze(input('mask'), 1), 1) : undefined;
    const near = attention(q, k, v, { causal: 'bottom-right', window: [window - 1, 0], mask, returnLse: true });
    whole = mergeAttentions([
      spans,
      { out: expand(unsqueeze(near.out, 3), spans.out.shape), lse: expand(unsqueeze(near.lse, 3), spans.lse.shape) },
    ]).out;
  }
  return { out: r.out, qanchor: r.anchors, gate: r.gate, span_out: whole, values: r.scores };
}

describe('goldens', () => {
  for (const name of ['basic', 'fwd', 'sw0', 'decode'])
    it(`superlinear_${name}`, () => checkGolden(`superlinear_${name}`, (g) => run(g), { leave: ['qstart', 'qend'] }));
  it('superlinear_gqa_mask', () =>
    checkGolden('superlinear_gqa_mask', (g) => run(g, true), { leave: ['qstart', 'qend'] }));

  it.each(['basic', 'fwd', 'sw0', 'decode', 'gqa_mask'])('spans of %s have the published ends', (name) => {
    using file = loadSafetensors(fileURLToPath(new URL(`goldens/superlinear_${name}.safetensors`, import.meta.url)));
    const c = JSON.parse(file.metadata.config) as Config;
    const { anchors, ranges } = spanSearch(file.get('input.q_search'), file.get('input.k'), {
      ...optionsFrom(c),
      ...(file.has('input.mask') && { keyMask: file.get('input.mask') }),
    });
    const [got, begins, ends] = [
      numbers(ranges),
      ...['qstart', 'qend'].map((key) => numbers(file.get(`output.${key}`))),
    ];
    numbers(anchors).forEach((anchor, i) => {
      if (anchor >= 0) expect([got[2 * i], got[2 * i + 1]]).toEqual([begins[i], ends[i] + 1]);
      else expect([got[2 * i], got[2 * i + 1]]).toEqual([0, 0]);
    });
  });
});

interface Sizes {
  b: number;
  hq: number;
  hkv: number;
  lq: number;
  lk: number;
  d: number;
}

type Settings = Required<
  Pick<SuperlinearOptions, 'numSpans' | 'swIndex' | 'backwardFactor' | 'forwardFactor' | 'steps'>
> & { inverse: number };

const up = (factor: number, n: number, power: number): number =>
  Math.ceil(Math.fround(factor * Math.fround(n ** Math.fround(power))));

interface Found {
  anchor: number;
  score: number;
  begin: number;
  end: number;
}

/** Anchors and spans of one query, by the definition. */
function searchRow(
  c: Settings,
  position: number,
  lk: number,
  first: number,
  usable: (j: number) => boolean,
  score: (j: number) => number,
): Found[] {
  const n = Math.max(position + 1 - first, 0);
  const window = (c.swIndex + 1) ** c.inverse - 1;
  const last = position - window;
  const best = (keys: number[]): number[] => keys.toSorted((a, b) => score(b) - score(a)).slice(0, c.numSpans);
  let kept: number[] = [];
  for (let i = c.swIndex + 1; position - i ** c.inverse + 1 >= 0; i++) {
    const key = position - i ** c.inverse + 1;
    if (key >= first && key < lk && usable(key)) kept.push(key);
  }
  kept = best(kept);
  for (let step = 2; step < c.steps; step++) {
    const wide = (c.steps - step + 1) / c.steps;
    const stride = Math.max(1, up(1, n, (c.steps - step) / c.steps));
    const all = new Set(kept);
    for (const anchor of kept) {
      const back = up(c.backwardFactor, n, wide);
      for (
        let key = anchor - Math.floor(back / stride) * stride;
        key <= anchor + up(c.forwardFactor, n, wide);
        key += stride
      )
        if (key >= first && key >= 0 && key < lk && key <= last && usable(key)) all.add(key);
    }
    kept = best([...all]);
  }
  const power = c.steps === 2 ? 1 / c.inverse : 1 / c.steps;
  return kept.map((anchor) => ({
    anchor,
    score: score(anchor),
    begin: Math.max(anchor - up(c.backwardFactor, n, power), 0, first),
    end: Math.min(anchor + up(c.forwardFactor, n, power), position, lk - 1, last),
  }));
}

function reference(
  s: Sizes,
  c: Settings,
  position: number,
  mask: boolean[][] | null,
  [search, q, k, v]: Float64Array[],
): Float64Array {
  const out = new Float64Array(s.b * s.hq * s.lq * s.d);
  const window = (c.swIndex + 1) ** c.inverse - 1;
  for (let b = 0; b < s.b; b++)
    for (let h = 0; h < s.hq; h++)
      for (let i = 0; i < s.lq; i++) {
        const kv = (b * s.hkv + Math.floor(h / (s.hq / s.hkv))) * s.lk;
        const at = ((b * s.hq + h) * s.lq + i) * s.d;
        const dot = (x: Float64Array, j: number): number => {
          let sum = 0;
          for (let e = 0; e < s.d; e++) sum += x[at + e] * k[(kv + j) * s.d + e];
          return sum;
        };
        const usable = (j: number): boolean => !mask || mask[b][j];
        const first = mask ? (mask[b].indexOf(true) < 0 ? s.lk : mask[b].indexOf(true)) : 0;
        const here = position + i;
        const spans = searchRow(c, here, s.lk, first, usable, (j) => dot(search, j));
        const slots = Array.from({ length: c.numSpans }, (_, t) => spans.at(t) ?? null);
        const gates = slots.map((f) => (f ? f.score : -1e9));
        const high = Math.max(...gates);
        const total = gates.reduce((sum, g) => sum + Math.exp(g - high), 0);
        slots.forEach((f, t) => {
          const keys: number[] = [];
          for (let j = Math.max(0, here - window + 1); j <= Math.min(here, s.lk - 1); j++) keys.push(j);
          for (let j = f?.begin ?? 0; f && j <= f.end; j++) keys.push(j);
          const seen = keys.filter(usable);
          if (seen.length === 0) return;
          const logits = seen.map((j) => dot(q, j) / Math.sqrt(s.d));
          const top = Math.max(...logits);
          const sum = logits.reduce((a, l) => a + Math.exp(l - top), 0);
          const gate = Math.exp(gates[t] - high) / total;
          seen.forEach((j, m) => {
            for (let e = 0; e < s.d; e++)
              out[at + e] += ((gate * Math.exp(logits[m] - top)) / sum) * v[(kv + j) * s.d + e];
          });
        });
      }
  return out;
}

const optionsOf = (c: Settings): SuperlinearOptions => ({
  numSpans: c.numSpans,
  swIndex: c.swIndex,
  backwardFactor: c.backwardFactor,
  forwardFactor: c.forwardFactor,
  steps: c.steps,
  searchPower: 1 / c.inverse,
  ...(c.steps === 2 && { spanPower: 1 / c.inverse }),
});

const inputsOf = (s: Sizes, seed: number): { values: Float64Array[]; tensors: Tensor[] } => {
  const shapes = [[s.b, s.hq, s.lq, s.d], [s.b, s.hq, s.lq, s.d], [s.b, s.hkv, s.lk, s.d], [s.b, s.hkv, s.lk, s.d]]; // prettier-ignore
  const values = shapes.map((shape, i) => noise(sizeOf(shape), seed * 5 + i));
  return { values, tensors: values.map((x, i) => tensor(x, shapes[i], { dtype: 'f32' })) };
};

const settings: fc.Arbitrary<Settings> = fc.record({
  numSpans: fc.integer({ min: 1, max: 4 }),
  swIndex: fc.integer({ min: 0, max: 3 }),
  backwardFactor: fc.constantFrom(0, 1, 2, 3),
  forwardFactor: fc.constantFrom(0, 1, 1.5),
  steps: fc.constantFrom(2, 2, 3, 4),
  inverse: fc.constantFrom(2, 3),
});

const sizes: fc.Arbitrary<Sizes> = fc
  .record({
    b: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 3 }),
    hkv: fc.integer({ min: 1, max: 2 }),
    lq: fc.integer({ min: 1, max: 70 }),
    more: fc.integer({ min: 0, max: 60 }),
    d: fc.constantFrom(1, 3, 16, 17),
  })
  .map(({ b, group, hkv, lq, more, d }) => ({ b, hq: hkv * group, hkv, lq, lk: lq + more, d }));

describe('against the reference', () => {
  it('random sizes and parameters', () => {
    fc.assert(
      fc.property(sizes, settings, fc.boolean(), fc.integer({ min: 1, max: 1e6 }), (s, c, padded, seed) => {
        scope(() => {
          const { values, tensors } = inputsOf(s, seed);
          const mask = padded
            ? Array.from({ length: s.b }, (_, b) =>
                Array.from({ length: s.lk }, (_, j) => j >= 3 * b + 1 && j % 7 !== 5),
              )
            : null;
          const keyMask = mask && tensor(Uint8Array.from(mask.flat(), Number), [s.b, s.lk], { dtype: 'bool' });
          const [search, q, k, v] = tensors;
          const out = superlinearAttention(search, q, k, v, { ...optionsOf(c), ...(keyMask && { keyMask }) });
          expectClose(numbers(out), reference(s, c, s.lk - s.lq, mask, values), 'f32', 2);
        });
      }),
      { numRuns: 60 },
    );
  });

  const small: Settings = { numSpans: 2, swIndex: 2, backwardFactor: 2, forwardFactor: 1, steps: 2, inverse: 2 };

  it.each(LEVELS)('at level %s, bf16 too', (level) => {
    atLevel(level, () => {
      const s: Sizes = { b: 1, hq: 2, hkv: 1, lq: 90, lk: 90, d: 32 };
      const { values, tensors } = inputsOf(s, 4);
      const call = (t: Tensor[]): Tensor => superlinearAttention(t[0], t[1], t[2], t[3], optionsOf(small));
      expectClose(numbers(call(tensors)), reference(s, small, 0, null, values));
      const half = tensors.map((t) => cast(t, 'bf16'));
      const rounded = half.map((t) => numbers(cast(t, 'f32')));
      expectClose(numbers(cast(call(half), 'f32')), reference(s, small, 0, null, rounded), 'bf16');
    });
  });

  it.each(LEVELS)('of equal scores the key scored first is ahead, at level %s', (level) => {
    atLevel(level, () => {
      for (const [d, steps] of [
        [16, 2],
        [16, 3],
        [3, 2],
      ])
        // prettier-ignore
        scope(() => {
          const s: Sizes = { b: 1, hq: 2, hkv: 1, lq: 75, lk: 80, d };
          const c: Settings = { numSpans: 4, swIndex: 0, backwardFactor: 1, forwardFactor: 1, steps, inverse: steps };
          const k = noise(s.lk * d, 5).map((x) => Math.round(2 * x));
          const q = noise(2 * s.lq * d, 6).map((_, i) => (i % d === 0 ? 1 : 0));
          const { anchors } = spanSearch(tensor(q, [1, 2, s.lq, d], { dtype: 'f32' }), tensor(k, [1, 1, s.lk, d], { dtype: 'f32' }), optionsOf(c)); // prettier-ignore
          const expected = Array.from({ length: 2 * s.lq }, (_, row) => {
            const found = searchRow(c, (row % s.lq) + 5, s.lk, 0, () => true, (j) => k[j * d]); // prettier-ignore
            return Array.from({ length: c.numSpans }, (_, t) => found.at(t)?.anchor ?? -1);
          });
          expect([...numbers(anchors)]).toEqual(expected.flat());
        });
    });
  });

  it('gradients of span attention, lse included', () => {
    const ranges = [[0, 3, 2, 5], [1, 1, 0, 6], [4, 6, 3, 4]]; // prettier-ignore
    const spans = ranges.flatMap(([a, b, c, d]) => [[a, b], [c, d]]); // prettier-ignore
    const reference_ = (q: Float64Array, k: Float64Array, v: Float64Array): Float64Array => {
      const out = new Float64Array(2 * 3 * 2 * 3);
      for (let h = 0; h < 2; h++)
        for (let i = 0; i < 3; i++)
          for (let t = 0; t < 2; t++) {
            const [begin, end] = spans[2 * i + t];
            const logits = Array.from({ length: Math.max(0, end - begin) }, (_, j) => {
              let sum = 0;
              for (let e = 0; e < 3; e++) sum += q[(h * 3 + i) * 3 + e] * k[(begin + j) * 3 + e];
              return Math.exp(sum / Math.sqrt(3));
            });
            const total = logits.reduce((a, b) => a + b, 0);
            logits.forEach((w, j) => {
              for (let e = 0; e < 3; e++) out[((h * 3 + i) * 2 + t) * 3 + e] += (w / total) * v[(begin + j) * 3 + e];
            });
          }
      return out;
    };
    const table = tensor(Int32Array.from([...spans, ...spans].flat()), [1, 2, 3, 2, 2]);
    checkGradients({
      shapes: [[1, 2, 3, 3], [1, 1, 6, 3], [1, 1, 6, 3]], // prettier-ignore
      op: (q, k, v) => spanAttention(q, k, v, table).out,
      reference: reference_,
    });
  });
});

describe('properties', () => {
  const s: Sizes = { b: 1, hq: 2, hkv: 1, lq: 60, lk: 60, d: 16 };
  const c: Settings = { numSpans: 3, swIndex: 1, backwardFactor: 2, forwardFactor: 1, steps: 2, inverse: 2 };
  const rows = (t: Tensor, from: number, to: number): Tensor => slice(t, 2, from, to);

  it('zero search queries and spans over everything give dense causal attention', () => {
    const { tensors } = inputsOf(s, 2);
    const [search, q, k, v] = tensors;
    const wide = { ...optionsOf(c), numSpans: 1, swIndex: 1, backwardFactor: 99, forwardFactor: 99 };
    const out = superlinearAttention(search.mul(0), q, k, v, wide);
    expectClose(numbers(out), numbers(attention(q, k, v, { causal: true })));
  });

  it.each([2, 3])('chunks and single tokens against a cache give the rows of the whole, %d steps', (steps) => {
    const { tensors } = inputsOf(s, 3);
    const [search, q, k, v] = tensors;
    const options = { ...optionsOf({ ...c, steps, inverse: steps }) };
    const whole = numbers(superlinearAttention(search, q, k, v, options));
    const perHead = s.lq * s.d;
    const cache = new KvCache({ batch: 1, heads: 1, maxLength: 64, dim: s.d });
    let at = 0;
    for (const size of [17, 20, 1, 1, 1, 20]) {
      cache.append(rows(k, at, at + size), rows(v, at, at + size));
      const part = numbers(
        superlinearAttention(rows(search, at, at + size), rows(q, at, at + size), cache.keys, cache.values, options),
      );
      for (let h = 0; h < s.hq; h++)
        expectClose(
          part.slice(h * size * s.d, (h + 1) * size * s.d),
          whole.slice(h * perHead + at * s.d, h * perHead + (at + size) * s.d),
        );
      at += size;
    }
    // A chunk from the middle, told where it stands.
    const middle = superlinearAttention(rows(search, 20, 30), rows(q, 20, 30), k, v, { ...options, cachePosition: 20 });
    expectClose(numbers(middle).slice(0, 10 * s.d), whole.slice(20 * s.d, 30 * s.d));
  });

  it('spans of all stripes and the window cover every key when factor is 2 and p is 1/2', () => {
    const length = 300;
    const k = tensor(noise(length * 2, 1), [1, 1, length, 2], { dtype: 'f32' });
    const q = rows(k, length - 1, length);
    for (const swIndex of [1, 4]) {
      const { ranges } = spanSearch(q, k, { numSpans: 16, swIndex, searchPower: 0.5, spanPower: 0.5, backwardFactor: 2, forwardFactor: 0 }); // prettier-ignore
      const window = (swIndex + 1) ** 2 - 1;
      const seen = new Set(Array.from({ length: window }, (_, i) => length - 1 - i));
      const list = numbers(ranges);
      for (let i = 0; i < list.length; i += 2)
        for (let j = list[i]; j < list[i + 1]; j++) {
          expect(j, 'span and window are disjoint').toBeLessThanOrEqual(length - 1 - window);
          seen.add(j);
        }
      expect(seen.size).toBe(length);
    }
  });

  it('gives the same bits for any number of threads', () => {
    const { tensors } = inputsOf({ ...s, lq: 200, lk: 200 }, 8);
    expectSameBitsForAnyThreads(() =>
      superlinearAttention(tensors[0], tensors[1], tensors[2], tensors[3], optionsOf(c)),
    );
  });

  it('refuses what does not fit', async () => {
    const { tensors } = inputsOf(s, 1);
    const [search, q, k, v] = tensors;
    const call = (options: SuperlinearOptions) => () => superlinearAttention(search, q, k, v, options);
    for (const options of [
      { numSpans: 0 },
      { numSpans: 17 },
      { searchPower: 1 },
      { steps: 1 },
      { backwardFactor: -1 },
      { cachePosition: -1 },
    ])
      // prettier-ignore
      expect(call(options)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(call({ keyMask: k })).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
    const outside = tensor(Int32Array.from([0, 61]), [1, 1, 1, 1, 2]);
    const { out } = spanAttention(rows(slice(q, 1, 0, 1), 0, 1), k, v, outside);
    await expect(out.data()).rejects.toMatchObject({ code: 'ERR_INDEX' });
  });
});

it.each(LEVELS)('a query finds the same spans whatever tile it is in, at %s', (level) => {
  atLevel(level, () => {
    const [length, dim] = [2500, 16];
    const [q, k] = [4, 2].map((heads) => tensor(noise(heads * length * dim, heads), [1, heads, length, dim], { dtype: 'f32' })); // prettier-ignore
    for (const steps of [2, 3]) {
      const options = { steps, swIndex: 4 };
      const whole = spanSearch(q, k, options);
      for (const [from, count] of [
        [0, 40],
        [63, 2],
        [900, 33],
        [2499, 1],
      ]) {
        const part = spanSearch(slice(q, 2, from, from + count), k, { ...options, cachePosition: from });
        for (const name of ['anchors', 'scores', 'ranges'] as const)
          expect(numbers(part[name])).toEqual(numbers(slice(whole[name], 2, from, from + count)));
      }
    }
  });
});
