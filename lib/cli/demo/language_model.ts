/**
 * Part two: a byte-level language model trained with the mask of part one, on the chapters of a novel.
 *
 * Rows of a batch are cut anywhere from the packed chapters; the mask keeps attention inside a chapter and a window. The last chapters are held out: the figure
 * reported is the model's cost on text it has not seen, next to the entropy of single bytes.
 */
import { noGrad } from '../../autograd/tape.ts';
import { mask, type Mask } from '../../mask/mask.ts';
import { Embedding } from '../../nn/embedding.ts';
import { KvCache } from '../../nn/kv_cache.ts';
import { Linear } from '../../nn/linear.ts';
import { Module } from '../../nn/module.ts';
import { RMSNorm } from '../../nn/norm.ts';
import { TransformerBlock } from '../../nn/transformer.ts';
import type { AttentionInput } from '../../nn/attention.ts';
import { crossEntropy } from '../../ops/cross_entropy.ts';
import { manualSeed } from '../../ops/random.ts';
import { reshape } from '../../ops/view.ts';
import { AdamW } from '../../optim/adamw.ts';
import { clipGradNorm } from '../../optim/clip_grad_norm.ts';
import { cosineSchedule } from '../../optim/schedule.ts';
import { tensor } from '../../tensor/create.ts';
import { scope } from '../../tensor/scope.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { pack, unigramBits } from './corpus.ts';

const WINDOW = 256;
const LENGTH = 256;
const BATCH = 8;
const HELD_OUT = 4;

export interface TrainingResult {
  steps: number;
  tokens: number;
  seconds: number;
  tokensPerSecond: number;
  parameters: number;
  /** Bits per byte on held-out chapters. */
  bitsPerByte: number;
  /** Entropy of single bytes of the same text. */
  unigramBits: number;
  sample: string;
}

/** A decoder over bytes: embedding, pre-norm blocks with rotary positions, projection to 256 logits. */
export class ByteModel extends Module {
  embed: Embedding;
  blocks: TransformerBlock[];
  norm: RMSNorm;
  head: Linear;

  constructor(dim: number, layers: number, heads: number) {
    super();
    this.embed = new Embedding(256, dim, { std: 0.02 });
    this.blocks = Array.from(
      { length: layers },
      () =>
        new TransformerBlock(dim, {
          heads,
          rotary: true,
          norm: 'rms',
          qkvBias: false,
          projBias: false,
          mlp: { kind: 'geluTanh', bias: false },
        }),
    );
    this.norm = new RMSNorm(dim);
    this.head = new Linear(dim, 256, { bias: false });
  }

  /** ids [batch, length] of u8 to logits [batch, length, 256]. */
  override forward(ids: Tensor, options: AttentionInput = {}, caches: readonly KvCache[] = []): Tensor {
    let x = this.embed.forward(ids);
    this.blocks.forEach(
      (block, i) => (x = block.forward(x, caches.length ? { ...options, cache: caches[i] } : options)),
    );
    return this.head.forward(this.norm.forward(x));
  }
}

/** The mask of a batch: causal, same chapter, at most WINDOW back. `doc` has one row of chapter numbers per sequence. */
function batchMask(doc: number[][]): Mask {
  return mask(({ b, q, kv }, { doc, window }) => q >= kv && q - kv < window && doc[b][q] === doc[b][kv], {
    doc,
    window: WINDOW,
  });
}

interface Corpus {
  text: Uint8Array;
  ids: Int32Array;
}

function corpus(documents: readonly Uint8Array[]): Corpus {
  return pack(
    documents,
    documents.reduce((n, d) => n + d.length, 0),
  );
}

interface Batch {
  inputs: Tensor;
  targets: Tensor;
  mask: Mask;
}

function batchAt({ text, ids }: Corpus, starts: readonly number[]): Batch {
  const rows = (from: number): Uint8Array => {
    const flat = new Uint8Array(starts.length * LENGTH);
    starts.forEach((start, i) => flat.set(text.subarray(start + from, start + from + LENGTH), i * LENGTH));
    return flat;
  };
  return {
    inputs: tensor(rows(0), [starts.length, LENGTH]),
    targets: tensor(Int32Array.from(rows(1))),
    mask: batchMask(starts.map((start) => [...ids.subarray(start, start + LENGTH)])),
  };
}

const lossOf = (model: ByteModel, { inputs, targets, mask }: Batch): Tensor =>
  crossEntropy(reshape(model.forward(inputs, { mask }), [-1, 256]), targets);

/** Mean cost in bits per byte over the whole of `held`, in windows of LENGTH. */
async function evaluate(model: ByteModel, held: Corpus): Promise<number> {
  let sum = 0;
  let count = 0;
  const starts = Array.from({ length: Math.floor((held.text.length - 1) / LENGTH) }, (_, i) => i * LENGTH);
  for (let i = 0; i < starts.length; i += BATCH) {
    const rows = starts.slice(i, i + BATCH);
    using loss = noGrad(() => scope(() => lossOf(model, batchAt(held, rows))));
    sum += (await loss.item()) * rows.length;
    count += rows.length;
  }
  return sum / count / Math.LN2;
}

/** Continues `prompt` byte by byte from key/value caches, with a fixed random stream. */
async function generate(
  model: ByteModel,
  prompt: string,
  length: number,
  heads: number,
  headDim: number,
): Promise<string> {
  const bytes = [...new TextEncoder().encode(prompt)];
  const caches = model.blocks.map(
    () => new KvCache({ batch: 1, heads, maxLength: bytes.length + length, dim: headDim }),
  );
  let state = 12345;
  let fresh = bytes.slice();
  for (let i = 0; i < length; i++) {
    using logits = noGrad(() =>
      scope(() =>
        model.forward(
          tensor(Uint8Array.from(fresh), [1, fresh.length]),
          { causal: 'bottom-right', window: [WINDOW - 1, 0] },
          caches,
        ),
      ),
    );
    const all = (await logits.data()) as Float32Array;
    const last = all.subarray(all.length - 256);
    const top = Math.max(...last);
    const weights = Float64Array.from(last, (x) => Math.exp((x - top) / 0.7));
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    let mass = (state / 2 ** 32) * weights.reduce((a, b) => a + b);
    let next = 0;
    while (next < 255 && (mass -= weights[next]) > 0) next++;
    fresh = [next];
    bytes.push(next);
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

export interface TrainingOptions {
  steps: number;
  dim: number;
  layers: number;
  heads: number;
  onStep?: (step: number, bits: number, tokensPerSecond: number) => void;
}

export async function trainLanguageModel(
  documents: readonly Uint8Array[],
  options: TrainingOptions,
): Promise<TrainingResult> {
  const { steps, dim, layers, heads, onStep } = options;
  manualSeed(1);
  const train = corpus(documents.slice(0, -HELD_OUT));
  const held = corpus(documents.slice(-HELD_OUT));
  const model = new ByteModel(dim, layers, heads);
  const parameters = [...model.parameters()];
  const optimizer = new AdamW(parameters, { lr: 3e-3, betas: [0.9, 0.95], weightDecay: 0.05 });
  const rate = cosineSchedule({ lr: 3e-3, steps, warmup: Math.min(30, steps), minLr: 1e-4 });

  let state = 99;
  const draw = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * (train.text.length - LENGTH - 1));
  };
  const start = performance.now();
  let done = 0;
  for (; done < steps; done++) {
    using loss = scope(() => {
      const cost = lossOf(model, batchAt(train, Array.from({ length: BATCH }, draw)));
      optimizer.zeroGrad();
      cost.backward();
      clipGradNorm(parameters, 1);
      optimizer.setLearningRate(rate(done));
      optimizer.step();
      return cost.detach();
    });
    const bits = (await loss.item()) / Math.LN2;
    onStep?.(done + 1, bits, ((done + 1) * BATCH * LENGTH) / ((performance.now() - start) / 1000));
  }
  const seconds = (performance.now() - start) / 1000;
  model.eval();
  return {
    steps: done,
    tokens: done * BATCH * LENGTH,
    seconds,
    tokensPerSecond: (done * BATCH * LENGTH) / seconds,
    parameters: parameters.reduce((n, t) => n + t.size, 0),
    bitsPerByte: await evaluate(model, held),
    unigramBits: unigramBits(held.text),
    sample: await generate(model, 'The whale ', 240, heads, dim / heads),
  };
}
