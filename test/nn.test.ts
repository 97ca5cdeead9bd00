import { describe, expect, it } from 'vitest';
import {
  AdamW,
  buffer,
  crossEntropy,
  DropPath,
  Dropout,
  Embedding,
  grad,
  KvCache,
  LayerNorm,
  Linear,
  manualSeed,
  Module,
  MultiHeadAttention,
  noGrad,
  ones,
  parameter,
  randn,
  reshape,
  RMSNorm,
  scope,
  Sequential,
  slice,
  sum,
  tensor,
  TransformerBlock,
  zeros,
  type Tensor,
} from '../lib/index.ts';
import { expectClose } from './tolerance.ts';

class Decoder extends Module {
  embed = new Embedding(256, 32, { std: 0.02 });
  blocks: TransformerBlock[];
  norm = new RMSNorm(32);
  head = new Linear(32, 256, { bias: false });

  constructor(kind: 'gelu' | 'swiglu' = 'gelu') {
    super();
    const options = { heads: 4, kvHeads: 2, rotary: true, norm: 'rms', mlp: { kind }, dropout: 0.1 } as const;
    this.blocks = [new TransformerBlock(32, options), new TransformerBlock(32, options)];
  }

  override forward(ids: Tensor): Tensor {
    let x = this.embed.forward(ids);
    for (const block of this.blocks) x = block.forward(x, { causal: true });
    return this.head.forward(this.norm.forward(x));
  }
}

const code = (code: string): unknown => expect.objectContaining({ code });
const values = (t: Tensor | null | undefined): number[] => [...(t?.dataSync() as Float32Array)];

describe('Module', () => {
  it('names parameters as PyTorch does, through arrays and children', () => {
    const names = [...new Decoder().namedParameters()].map(([name]) => name);
    expect(names[0]).toBe('embed.weight');
    expect(names).toContain('head.weight');
    expect(names).toContain('blocks.0.norm1.weight');
    expect(names).toContain('blocks.1.attn.qkv.bias');
    expect(names).toContain('blocks.1.mlp.fc2.weight');
    expect(new Set(names).size).toBe(names.length);
  });

  it('counts tied weights once and saves them under each name', () => {
    class Tied extends Module {
      a = new Linear(3, 3);
      b = new Linear(3, 3, { bias: false });
      scale = buffer(zeros([2]));
      override forward(x: Tensor): Tensor {
        return this.b.forward(this.a.forward(x));
      }
    }
    const m = new Tied();
    m.b.weight = m.a.weight;
    expect(m.parameters().length).toBe(2);
    expect(m.parameterCount()).toBe(12);
    expect(Object.keys(m.stateDict()).toSorted()).toEqual(['a.bias', 'a.weight', 'b.weight', 'scale']);
    m.to('bf16');
    expect(m.b.weight).toBe(m.a.weight);
    expect(m.a.weight.dtype).toBe('bf16');
    expect(m.a.weight.requiresGrad).toBe(true);
    expect(m.scale.requiresGrad).toBe(false);
    expect(m.parameters().length).toBe(2);
  });

  it('loads what it saved, and says what does not fit', () => {
    manualSeed(1);
    const [a, b] = [
      new Sequential(new Linear(4, 3), new LayerNorm(3)),
      new Sequential(new Linear(4, 3), new LayerNorm(3)),
    ];
    const x = randn([2, 4]);
    expect(values(a.forward(x))).not.toEqual(values(b.forward(x)));
    b.loadStateDict(a.stateDict());
    expect(values(a.forward(x))).toEqual(values(b.forward(x)));
    const { 'layers.0.bias': dropped, ...rest } = a.stateDict();
    expect(() => b.loadStateDict({ ...rest, extra: dropped })).toThrow(code('ERR_ARGUMENT'));
    expect(b.loadStateDict({ ...rest, extra: dropped }, { strict: false })).toEqual({
      missing: ['layers.0.bias'],
      unexpected: ['extra'],
    });
    const before = values(b.layers[0].parameters()[0]);
    const wrong = { ...a.stateDict(), 'layers.0.weight': zeros([3, 4]), 'layers.0.bias': zeros([4]) };
    expect(() => b.loadStateDict(wrong)).toThrow(code('ERR_SHAPE'));
    expect(() => b.loadStateDict({ 'layers.0.bias': 1 as never }, { strict: false })).toThrow(code('ERR_ARGUMENT'));
    expect(values(b.layers[0].parameters()[0])).toEqual(before);
    b.loadStateDict({ ...a.stateDict(), 'layers.0.bias': tensor([1, 2, 3], null, { dtype: 'f64' }) });
    expect(values(b.stateDict()['layers.0.bias'])).toEqual([1, 2, 3]);
  });

  it('switches modes everywhere; parameters survive scopes', () => {
    const m = scope(() => ({ keep: new Decoder() })).keep;
    expect(m.parameters().every((t) => !t.disposed)).toBe(true);
    m.eval();
    expect([...m.namedModules()].every(([, module]) => !module.training)).toBe(true);
    expect(m.train().blocks[0].training).toBe(true);
    expect(() => m.to('i32')).toThrow(code('ERR_DTYPE'));
    expect(() => m.to('cuda:7')).toThrow(code('ERR_DEVICE'));
    expect(m.to('cpu')).toBe(m);
  });

  it('finds parameters in plain arrays of tensors', () => {
    class Mixture extends Module {
      experts = [parameter(zeros([2])), parameter(zeros([3]))];
      override forward(): null {
        return null;
      }
    }
    expect([...new Mixture().namedParameters()].map(([name]) => name)).toEqual(['experts.0', 'experts.1']);
  });

  it('initialises Linear within its bounds', () => {
    const { weight, bias } = new Linear(64, 50);
    const all = [...values(weight), ...values(bias)];
    expect(Math.max(...all.map(Math.abs))).toBeLessThanOrEqual(1 / 8);
    expect(Math.max(...all)).toBeGreaterThan(0.12);
    expect(Math.abs(all.reduce((a, b) => a + b, 0) / all.length)).toBeLessThan(0.01);
  });

  it('drops while training only', () => {
    const [x, drop] = [tensor([1, 2, 3, 4]), new Dropout(1)];
    expect(values(drop.forward(x))).toEqual([0, 0, 0, 0]);
    expect(drop.eval().forward(x)).toBe(x);
  });

  it('DropPath drops whole batch entries, and scales those that stay', () => {
    manualSeed(4);
    const [x, drop] = [ones([64, 2, 3]), new DropPath(0.25)];
    const y = values(drop.forward(x));
    const entries = Array.from({ length: 64 }, (_, i) => [...new Set(y.slice(6 * i, 6 * i + 6))]);
    expect(entries.every((e) => e.length === 1 && (e[0] === 0 || Math.abs(e[0] - 4 / 3) < 1e-6))).toBe(true);
    const kept = entries.filter(([value]) => value > 0).length;
    expect(kept).toBeGreaterThan(32);
    expect(kept).toBeLessThan(64);
    expect(drop.eval().forward(x)).toBe(x);
    for (const rate of [-0.1, 1, NaN])
      expect(() => new DropPath(rate)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }) as Error);
  });
});

describe('MultiHeadAttention', () => {
  it('is softmax(q k^T) v between its projections, with grouped heads', () => {
    manualSeed(3);
    const m = new MultiHeadAttention(8, { heads: 4, kvHeads: 2 });
    const [B, L, D] = [2, 5, 2];
    const x = randn([B, L, 8]);
    const rows = values(m.qkv?.forward(x));
    const at = (b: number, l: number, head: number, d: number): number => rows[((b * L + l) * 8 + head) * D + d];
    const out = new Float64Array(B * L * 8);
    for (let b = 0; b < B; b++)
      for (let h = 0; h < 4; h++)
        for (let i = 0; i < L; i++) {
          const kv = Math.floor(h / 2);
          const logits = Array.from(
            { length: i + 1 },
            (_, j) => [0, 1].reduce((s, d) => s + at(b, i, h, d) * at(b, j, 4 + kv, d), 0) / Math.sqrt(D),
          );
          const weights = logits.map((t) => Math.exp(t));
          const total = weights.reduce((s, w) => s + w, 0);
          for (let d = 0; d < D; d++)
            out[(b * L + i) * 8 + h * D + d] = weights.reduce((s, w, j) => s + (w / total) * at(b, j, 6 + kv, d), 0);
        }
    const expected = m.proj.forward(tensor(out, [B, L, 8], { dtype: 'f32' }));
    expectClose(m.forward(x, { causal: true }).dataSync() as Float32Array, expected.dataSync() as Float32Array);
  });

  it('decodes with a cache as it attends at once, rotary positions included', () => {
    manualSeed(4);
    const m = new MultiHeadAttention(16, { heads: 4, kvHeads: 2, rotary: { dims: 2 } });
    const x = randn([2, 9, 16]);
    const whole = m.forward(x, { causal: true });
    using cache = new KvCache({ batch: 2, heads: 2, maxLength: 10, dim: 4 });
    const pieces = [
      [0, 4],
      [4, 5],
      [5, 9],
    ].flatMap(([from, to]) => {
      const out = noGrad(() => m.forward(slice(x, 1, from, to), { cache, causal: 'bottom-right' }));
      return [{ from, to, out }];
    });
    for (const { from, to, out } of pieces) {
      expectClose(out.dataSync() as Float32Array, slice(whole, 1, from, to).dataSync() as Float32Array, 'f32', 5);
    }
    expect(cache.length).toBe(9);
  });

  it('attends across to a context', () => {
    const m = new MultiHeadAttention(8, { heads: 2, contextDim: 6 });
    expect(m.forward(randn([2, 3, 8]), { context: randn([2, 7, 6]) }).shape).toEqual([2, 3, 8]);
    expect([...m.namedParameters()].map(([name]) => name).toSorted()).toEqual([
      'kv.bias',
      'kv.weight',
      'proj.bias',
      'proj.weight',
      'q.bias',
      'q.weight',
    ]);
    expect(() => m.forward(randn([2, 3, 8]))).toThrow(code('ERR_ARGUMENT'));
  });

  it('refuses heads that do not divide', () => {
    expect(() => new MultiHeadAttention(10, { heads: 4 })).toThrow(code('ERR_ARGUMENT'));
    expect(() => new MultiHeadAttention(12, { heads: 4, kvHeads: 3 })).toThrow(code('ERR_ARGUMENT'));
  });
});

describe('KvCache', () => {
  it('appends in place, raising the version, and shows the rows in use', () => {
    using cache = new KvCache({ batch: 1, heads: 2, maxLength: 4, dim: 3, valueDim: 1 });
    const [k, v] = [randn([1, 2, 3, 3]), randn([1, 2, 3, 1])];
    cache.append(k, v);
    expect(cache.keys.shape).toEqual([1, 2, 3, 3]);
    expect(values(cache.keys)).toEqual(values(k));
    expect(values(cache.values)).toEqual(values(v));
    expect(() => cache.append(k, v)).toThrow(code('ERR_INDEX'));
    cache.truncate(1);
    cache.append(k, v);
    expect(values(slice(cache.keys, 2, 1))).toEqual(values(k));
    expect(() => cache.append(randn([1, 2, 1, 4]), randn([1, 2, 1, 1]))).toThrow(code('ERR_SHAPE'));
    expect(() => cache.truncate(5)).toThrow(code('ERR_INDEX'));
  });

  it('makes backward through overwritten rows an error', () => {
    using cache = new KvCache({ batch: 1, heads: 1, maxLength: 4, dim: 2 });
    const q = randn([1, 1, 1, 2], { requiresGrad: true });
    cache.append(randn([1, 1, 1, 2]), randn([1, 1, 1, 2]));
    const m = q.shape; // the graph below saves a view of the cache
    const loss = sum(reshape(q, m).mul(cache.keys));
    cache.append(randn([1, 1, 1, 2]), randn([1, 1, 1, 2]));
    expect(() => grad(loss, [q])).toThrow(code('ERR_AUTOGRAD'));
  });
});

describe('training', () => {
  it.each(['gelu', 'swiglu'] as const)(
    'a small decoder (%s) learns a repeating text, the same way every time',
    (kind) => {
      const run = (): number[] => {
        manualSeed(7);
        const model = new Decoder(kind);
        const optimizer = new AdamW(model.parameters(), { lr: 1e-2 });
        const text = Uint8Array.from({ length: 65 }, (_, i) => 97 + ((i * i) % 7));
        const [ids, next] = [tensor(text.slice(0, 64), [2, 32]), tensor(text.slice(1), [64])];
        const losses: number[] = [];
        for (let step = 0; step < 40; step++) {
          const loss = scope(() => {
            const l = crossEntropy(reshape(model.forward(ids), [64, 256]), next);
            l.backward();
            return l.detach();
          });
          optimizer.step();
          optimizer.zeroGrad();
          losses.push(loss.itemSync());
        }
        return losses;
      };
      const losses = run();
      expect(losses[0]).toBeGreaterThan(4.5);
      expect(losses[39]).toBeLessThan(1);
      expect(run()).toEqual(losses);
    },
  );
});
