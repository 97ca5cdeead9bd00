/** The attentions of CAB against double-precision loops on lengths that cross chunks and segments; causality, bf16, errors. */
import { describe, expect, test } from 'vitest';
import { abcAttention, cast, causalLongShortAttention, chunkProjection, cosformerAttention, laraAttention, longShortAttention, manualSeed, matmul, nystromAttention, orthogonalProjection, performerAttention, probSparseAttention, randn, s4d, slice, tensor, transpose, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGradients } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { dot, plainAttention, range, rowsOf, softmaxOf, weighted, type Rows } from './plain_attention.ts';
import { expectClose, relativeError } from './tolerance.ts';

const D = 3;
const cube = (n: number): number[] => [1, 1, n, D];

/** Rows of non-negative weights, normalised with a floor, applied to v. */
function normalised(weights: Rows, v: Rows, floor: number): number[] {
  return weights.flatMap((row) => {
    const total = Math.max(floor, row.reduce((a, b) => a + b, 0)); // prettier-ignore
    return weighted(row.map((w) => w / total), v); // prettier-ignore
  });
}

describe('cosFormer', () => {
  test.each([[false, 9, 'relu'], [true, 70, 'relu'], [false, 9, 'elu']] as const)('causal %j, length %i, %s', (causal, n, feature) => {
    const op = (q: Tensor, k: Tensor, v: Tensor): Tensor => cosformerAttention(q, k, v, { causal, feature });
    const reference = (q: Float64Array, k: Float64Array, v: Float64Array): number[] => {
      const [qs, ks] = [q, k].map((x) => rowsOf(x.map((y) => Math.max(0, y) + Number(feature === 'elu')), D)); // prettier-ignore
      const weights = qs.map((a, i) =>
        ks.map((b, j) => (causal && j > i ? 0 : dot(a, b) * Math.cos((Math.PI * (i - j)) / (2 * n)))),
      );
      return normalised(weights, rowsOf(v, D), 1e-6);
    };
    const inputs = [1, 2, 3].map((seed) => positive(n * D, seed));
    checkGradients({ shapes: [cube(n), cube(n), cube(n)], op, reference, inputs });
  }); // prettier-ignore
});

/** Away from relu's corner. */
function positive(count: number, seed: number): Float64Array {
  let state = seed * 7919;
  return Float64Array.from({ length: count }, () => {
    state = (state * 16807) % 2147483647;
    return Math.fround(0.1 + state / 2147483647);
  });
}

test.each([
  [false, 8],
  [true, 8],
  [false, 5],
])('Performer, causal %j, %i real keys', (causal, real) => {
  manualSeed(1);
  const [m, n] = [6, 8];
  const valid = real < n ? { valid: firstOf(n, real) } : {};
  const projection = randn([m, D]);
  const w = rowsOf(numbers(projection), D);
  const features = (x: Rows, shared: boolean): Rows => {
    const scaled = x.map((row) => row.map((y) => y * D ** -0.25));
    const dash = scaled.map((row) => w.map((p) => dot(p, row)));
    const most = Math.max(...dash.flat());
    return dash.map((row, i) =>
      row.map(
        (y) => (Math.exp(y - dot(scaled[i], scaled[i]) / 2 - (shared ? most : Math.max(...row))) + 1e-4) / Math.sqrt(m),
      ),
    );
  };
  checkGradients({
    shapes: [cube(n), cube(n), cube(n)],
    op: (q, k, v) => performerAttention(q, k, v, { projection, causal, floor: 1e-3, ...valid }),
    reference: (q, k, v) => {
      const [fq, fk] = [features(rowsOf(q, D), false), features(rowsOf(k, D), true)];
      const weights = fq.map((a, i) => fk.map((b, j) => ((causal && j > i) || j >= real ? 0 : dot(a, b))));
      return normalised(weights, rowsOf(v, D), 1e-3);
    },
  });
});

test('orthogonal projections have orthogonal rows', () => {
  manualSeed(2);
  const p = orthogonalProjection(2, 8, 8);
  const gram = rowsOf(numbers(matmul(p, transpose(p))), 8);
  gram.forEach((row, i) => row.forEach((x, j) => expect(Math.abs(x) < 1e-4 || i % 8 === j).toBe(true)));
});

/** bool [1, length], true for the first `real`. */
const firstOf = (length: number, real: number): Tensor =>
  tensor(range(0, length).map((j) => j < real), [1, length], { dtype: 'bool' }); // prettier-ignore

const means = (x: Rows, sizes: readonly number[]): Rows => {
  let from = 0;
  return sizes.map((size) => {
    const part = x.slice(from, (from += size));
    return part[0].map((_, c) => part.reduce((s, row) => s + row[c], 0) / size);
  });
};

test.each([
  [11, 'counted'],
  [8, 'counted'],
  [8, 'hidden'],
] as const)('LARA, %i of 11 keys real, the others %s', (real, padding) => {
  const s = 1 / Math.sqrt(D);
  const valid = real < 11 ? { valid: firstOf(11, real), padding } : {};
  checkGradients({
    shapes: [cube(11), cube(11), cube(11)],
    op: (q, k, v) => laraAttention(q, k, v, { landmarks: 4, ...valid }),
    reference: (q, k, v) => {
      const [qs, ks, vs] = [q, k, v].map((x) => rowsOf(x, D));
      const sizes = [2, 3, 3, 3];
      const mu = means(qs, sizes).map((row, c) => row.map((x, i) => x + means(ks, sizes)[c][i]));
      const logs = mu.map((m) => ks.map((key) => s * dot(m, key) - (s * dot(key, key)) / 2));
      const seen = logs.map((row) => row.map((x, j) => (j < real ? x : -Infinity)));
      const stats = seen.map((row) => weighted(softmaxOf(row), vs));
      const lse = (padding === 'counted' ? logs : seen).map((row) =>
        Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0)),
      );
      return qs.flatMap((query) =>
        weighted(softmaxOf(mu.map((m, c) => 2 * s * dot(m, query) + lse[c] - (s * dot(m, m)) / 2)), stats),
      );
    },
  });
});

test.each([6, 4])('Nystrom with landmarks for every token is exact attention over %i real keys', (real) => {
  checkGradients({
    shapes: [cube(6), cube(6), cube(6)],
    op: (q, k, v) => nystromAttention(q, k, v, { landmarks: 6, ...(real < 6 && { valid: firstOf(6, real) }) }),
    reference: (q, k, v) =>
      plainAttention(rowsOf(q, D), rowsOf(k, D), rowsOf(v, D), (x, _, j) => (j < real ? x / D : -Infinity)).flat(),
  });
});

test.each([
  [12, 12],
  [14, 14],
  [14, 9],
])('Nystrom of %i tokens, %i real, by 4 landmarks, and the iterated pseudo-inverse', (n, real) => {
  const m = 4;
  const short = Math.floor(n / m);
  const shortOnes = (short + 1) * m - n;
  const means = (x: Rows): Rows =>
    range(0, m).map((i) => {
      const from = i * short + Math.max(0, i - shortOnes);
      const segment = x.slice(from, from + short + (i < shortOnes ? 0 : 1));
      return weighted(segment.map(() => 1 / segment.length), segment); // prettier-ignore
    });
  const transposed = (a: Rows): Rows => a[0].map((_, j) => a.map((row) => row[j]));
  const times = (a: Rows, b: Rows): Rows => a.map((row) => weighted(row, b));
  /** diagonal I - a */
  const below = (diagonal: number, a: Rows): Rows => a.map((row, i) => row.map((x, j) => (i === j ? diagonal : 0) - x));
  const inverse = (a: Rows): Rows => {
    const most = Math.max(...transposed(a).map((column) => column.reduce((sum, x) => sum + x, 0)));
    let z = transposed(a).map((row) => row.map((x) => x / most));
    for (let i = 0; i < 6; i++) {
      const az = times(a, z);
      z = times(z, below(13, times(az, below(15, times(az, below(7, az)))))).map((row) => row.map((x) => x / 4));
    }
    return z;
  };
  checkGradients({
    shapes: [cube(n), cube(n), cube(n)],
    op: (q, k, v) => nystromAttention(q, k, v, { landmarks: m, ...(real < n && { valid: firstOf(n, real) }) }),
    reference: (q, k, v) => {
      const [qs, all, vs] = [q, k, v].map((x) => rowsOf(x, D));
      const ks = all.map((row, j) => row.map((x) => (j < real ? x : 0)));
      const [queries, keys] = [means(qs), means(ks)];
      const map = (a: Rows, b: Rows, seen = b.length): Rows =>
        a.map((x) => softmaxOf(b.map((y, j) => (j < seen ? dot(x, y) / D : -Infinity))));
      return times(times(map(qs, keys), inverse(map(queries, keys))), times(map(queries, ks, real), vs)).flat();
    },
    tolerance: 2e-4,
  });
});

describe('ABC', () => {
  const slots = 2;
  const reference = (causal: boolean, hidden = 0, newest = false) => (q: Float64Array, k: Float64Array, v: Float64Array, a: Float64Array, b: Float64Array): number[] => {
    const [qs, ks, vs] = [q, k, v].map((x) => rowsOf(x, D));
    const memory = (x: Rows, w: Float64Array, until: number): Rows =>
      range(0, slots).map((r) => {
        const seen = x.slice(0, until);
        const weights = softmaxOf(seen.map((row, j) => (j < hidden ? -Infinity : dot(row, rowsOf(w, slots).map((c) => c[r])))));
        return weighted(weights.map((x, j) => (newest && j < until - 1 ? 0 : x)), seen);
      });
    return qs.flatMap((query, i) => {
      const until = causal ? i + 1 : ks.length;
      const logits = memory(ks, a, until).map((key) => dot(query, key) / Math.sqrt(D));
      return weighted(softmaxOf(logits), memory(vs, b, until));
    });
  }; // prettier-ignore
  test.each([[false, 7], [true, 7], [true, 40]] as const)('causal %j, length %i', (causal, n) =>
    checkGradients({
      shapes: [cube(n), cube(n), cube(n), [D, slots], [D, slots]],
      op: (q, k, v, compressK, compressV) => abcAttention(q, k, v, { compressK, compressV, causal }),
      reference: reference(causal),
    }),
  ); // prettier-ignore

  test.each([
    [false, 'all'],
    [true, 'all'],
    [true, 'newest'],
  ] as const)('causal %j, memory %s, the first keys hidden', (causal, memory) => {
    const [n, hidden] = [8, 3];
    const mask = tensor(range(0, n).map((j) => j >= hidden), [1, 1, 1, n], { dtype: 'bool' }); // prettier-ignore
    checkGradients({
      shapes: [cube(n), cube(n), cube(n), [D, slots], [D, slots]],
      op: (q, k, v, compressK, compressV) => abcAttention(q, k, v, { compressK, compressV, causal, memory, mask }),
      reference: reference(causal, hidden, memory === 'newest'),
    });
  });
});

test.each([false, true])('ProbSparse, causal %j', (causal) => {
  manualSeed(3);
  const [n, u] = [12, 3];
  const sample = tensor(range(0, n * u).map((i) => (i * 5) % n), [n, u], { dtype: 'i32' }); // prettier-ignore
  const picks = rowsOf(numbers(sample), u);
  checkGradients({
    shapes: [cube(n), cube(n), cube(n)],
    op: (q, k, v) => probSparseAttention(q, k, v, { factor: 1, sample, causal }),
    reference: (q, k, v) => {
      const [qs, ks, vs] = [q, k, v].map((x) => rowsOf(x, D));
      const m = qs.map((query, i) => {
        const scores = picks[i].map((j) => dot(query, ks[j]));
        return Math.max(...scores) - scores.reduce((a, b) => a + b, 0) / n;
      });
      const chosen = range(0, n).sort((i, j) => m[j] - m[i]).slice(0, 3); // prettier-ignore
      return qs.flatMap((query, i) => {
        const fallback = causal ? vs.map((_, j) => Number(j <= i)) : vs.map(() => 1 / n);
        const map = softmaxOf(ks.map((key, j) => (causal && j > i ? -Infinity : dot(query, key) / Math.sqrt(D))));
        return weighted(chosen.includes(i) ? map : fallback, vs);
      });
    },
  });
});

test('long-short: landmarks and windows in one softmax', () => {
  const [n, window] = [11, 4];
  checkGradients({
    shapes: [cube(n), cube(n), cube(n), cube(2), cube(2)],
    op: (q, k, v, landmarkK, landmarkV) => longShortAttention(q, k, v, { landmarkK, landmarkV, window }),
    reference: (q, k, v, lk, lv) => {
      const [keys, values] = [[...rowsOf(lk, D), ...rowsOf(k, D)], [...rowsOf(lv, D), ...rowsOf(v, D)]]; // prettier-ignore
      return plainAttention(rowsOf(q, D), keys, values, (s, i, at) => {
        const [start, j] = [Math.floor(i / window) * window, at - 2];
        return at < 2 || (j >= start - 2 && j < start + window + 2) ? s / Math.sqrt(D) : -Infinity;
      }).flat();
    },
  });
});

describe('causal long-short: the last tokens and the landmarks of finished chunks in one softmax', () => {
  test.each([
    { n: 7, memory: 0, chunk: 3, rank: 1, window: 4 },
    { n: 5, memory: 4, chunk: 2, rank: 2, window: 3 },
    { n: 2, memory: 4, chunk: 4, rank: 1, window: 9 },
    { n: 2, memory: 0, chunk: 8, rank: 1, window: 5 },
  ])('%o', ({ n, memory, chunk, rank, window }) => {
    const keys = memory + n;
    const landmarks = Math.ceil(keys / chunk) * rank;
    const near = [1, 1, n, window];
    const far = [1, 1, n, landmarks];
    checkGradients({
      shapes: [cube(n), cube(keys), cube(keys), cube(landmarks), cube(landmarks), near, far],
      op: (q, k, v, landmarkK, landmarkV, windowPositions, landmarkPositions) =>
        causalLongShortAttention(q, k, v, { landmarkK, landmarkV, chunk, window, windowPositions, landmarkPositions }),
      reference: (q, k, v, lk, lv, windowPositions, landmarkPositions) =>
        plainAttention(rowsOf(q, D), [...rowsOf(lk, D), ...rowsOf(k, D)], [...rowsOf(lv, D), ...rowsOf(v, D)], (s, i, at) => {
          const finished = Math.floor((i + memory) / chunk) * rank;
          if (at < landmarks) return at < finished ? s / Math.sqrt(D) + landmarkPositions[i * landmarks + finished - 1 - at] : -Infinity;
          const back = i + memory - (at - landmarks);
          return back >= 0 && back < window ? s / Math.sqrt(D) + windowPositions[i * window + back] : -Infinity;
        }).flat(),
    });
  }); // prettier-ignore

  test('a later token changes nothing before it; bf16; what does not fit is refused', () => {
    manualSeed(3);
    const [n, chunk, window] = [37, 4, 6];
    const [q, k, v] = [1, 2, 3].map(() => randn([2, 2, n, 8]));
    const scores = randn([2, n, 2 * 2]);
    const run = (x: Tensor, y: Tensor, z: Tensor, s = scores): Tensor =>
      causalLongShortAttention(x, y, z, { landmarkK: chunkProjection(y, s, chunk), landmarkV: chunkProjection(z, s, chunk), chunk, window }); // prettier-ignore
    const whole = run(q, k, v);
    const cut = 22;
    const first = (t: Tensor): Tensor => slice(t, 2, 0, cut);
    expectClose(numbers(first(whole)), numbers(run(first(q), first(k), first(v), slice(scores, 1, 0, cut))), 'f32');
    const narrow = run(...([q, k, v].map((t) => cast(t, 'bf16')) as [Tensor, Tensor, Tensor]));
    expect(narrow.dtype).toBe('bf16');
    expectClose(numbers(narrow), numbers(whole), 'bf16', 3);
    const options = { landmarkK: slice(k, 2, 0, 10), landmarkV: slice(v, 2, 0, 10), chunk, window };
    const refused = (code: string, fn: () => unknown): void =>
      expect(fn).toThrow(expect.objectContaining({ code }) as Error);
    refused('ERR_ARGUMENT', () => causalLongShortAttention(first(q), k, v, options));
    refused('ERR_ARGUMENT', () => causalLongShortAttention(q, k, v, { ...options, window: 0 }));
    refused('ERR_SHAPE', () => causalLongShortAttention(q, k, v, { ...options, landmarkK: first(k), landmarkV: first(v) })); // prettier-ignore
    refused('ERR_SHAPE', () => causalLongShortAttention(q, k, v, { ...options, windowPositions: k }));
  });
});

describe('S4D', () => {
  const [features, states] = [2, 3];
  type Arrays = readonly Float64Array[];
  const reference = (n: number, bidirectional: boolean) => (...[us, cs, dt, wr, wi, ds]: Arrays): number[] => {
    const kernel = (channel: number, h: number, l: number): number =>
      range(0, states).reduce((sum, s) => {
        const [re, im] = [-Math.exp(wr[s]), wi[s]];
        const step = Math.exp(dt[h]);
        const power = (t: number): [number, number] => [Math.exp(re * step * t) * Math.cos(im * step * t), Math.exp(re * step * t) * Math.sin(im * step * t)]; // prettier-ignore
        const times = (a: readonly number[], b: readonly number[]): [number, number] => [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]; // prettier-ignore
        const size = re * re + im * im;
        const at = ((channel * features + h) * states + s) * 2;
        const first = power(1);
        const gain = times(times([cs[at], cs[at + 1]], [first[0] - 1, first[1]]), [re / size, -im / size]);
        return sum + 2 * times(gain, power(l))[0];
      }, 0);
    return range(0, features).flatMap((h) => {
      const row = us.slice(h * n, (h + 1) * n);
      const [past, ahead] = [0, 1].map((at) => range(0, n).map((l) => (at === 1 && !bidirectional ? 0 : kernel(at, h, l))));
      return range(0, n).map((i) =>
        row.reduce((sum, x, j) => sum + x * (j <= i ? past[i - j] : ahead[j - i - 1]), ds[h] * row[i]),
      );
    });
  }; // prettier-ignore
  const shapesOf = (n: number, bidirectional: boolean): number[][] => [
    [1, features, n],
    [bidirectional ? 2 : 1, features, states, 2],
    [features],
    [1, states],
    [1, states],
    [1, features],
  ];
  const inputsOf = (n: number, bidirectional: boolean): Float64Array[] => {
    manualSeed(n);
    const [u, c, logDt, logWReal, wImag, d] = shapesOf(n, bidirectional).map((shape) => randn(shape));
    return [u, c, logDt.mul(0.3).sub(2), logWReal.mul(0.3), wImag.mul(2), d].map(numbers);
  };

  test.each([[5, false], [130, false], [70, true]] as const)('length %i, bidirectional %j', (n, bidirectional) => {
    const inputs = inputsOf(n, bidirectional);
    const [u, c, logDt, logWReal, wImag, d] = shapesOf(n, bidirectional).map((shape, i) => tensor(inputs[i], shape, { dtype: 'f32' })); // prettier-ignore
    const y = numbers(s4d(u, { c, logDt, logWReal, wImag, d }, { bidirectional }));
    expectClose(y, reference(n, bidirectional)(...inputs), 'f32', 5);
  }); // prettier-ignore

  test.each([[9, true], [70, false], [66, true]] as const)('gradients, length %i, bidirectional %j', (n, bidirectional) => {
    checkGradients({
      shapes: shapesOf(n, bidirectional),
      inputs: inputsOf(n, bidirectional),
      op: (u, c, logDt, logWReal, wImag, d) => s4d(u, { c, logDt, logWReal, wImag, d }, { bidirectional }),
      reference: reference(n, bidirectional),
      tolerance: 1e-4,
    });
  }); // prettier-ignore
});

test('bf16 follows f32; shapes that do not fit are refused', () => {
  manualSeed(9);
  const [q, k, v] = [1, 2, 3].map(() => randn([1, 2, 40, 8]));
  const [a, b, c] = [q, k, v].map((t) => cast(t, 'bf16'));
  const [compressK, compressV, projection] = [randn([8, 4]), randn([8, 4]), randn([16, 8])];
  const ops: ((q: Tensor, k: Tensor, v: Tensor) => Tensor)[] = [
    (x, y, z) => cosformerAttention(x, y, z),
    (x, y, z) => performerAttention(x, y, z, { projection }),
    (x, y, z) => laraAttention(x, y, z, { landmarks: 4 }),
    (x, y, z) => nystromAttention(x, y, z, { landmarks: 4 }),
    (x, y, z) => abcAttention(x, y, z, { compressK: cast(compressK, x.dtype), compressV: cast(compressV, x.dtype) }),
  ];
  for (const op of ops) {
    const narrow = op(a, b, c);
    expect(narrow.dtype).toBe('bf16');
    expect(relativeError(numbers(narrow), numbers(op(q, k, v)))).toBeLessThan(0.1);
    expect(() => op(q, slice(k, 3, 0, 4), v)).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }) as Error);
  }
});
