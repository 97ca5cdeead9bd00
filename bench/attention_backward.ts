/**
 * Attention backward against the forward on the same shapes, f32 and bf16.
 *
 * Work is counted as 4 L^2 D per head forward (two products) and 10 L^2 D backward (five), halved for causal. The gradient is taken alone: the
 * forward that it needs runs before the clock starts.
 */
import {
  attention,
  cast,
  getNumThreads,
  grad,
  manualSeed,
  noGrad,
  ones,
  randn,
  synchronize,
  type AttentionOptions,
  type DType,
  type Tensor,
} from '../lib/index.ts';
import { measure, round, save, type Row } from './report.ts';

const HEADS = 8;
const DIM = 64;
const LENGTH = 4096;
const pairs = HEADS * LENGTH * LENGTH;
const rows: Row[] = [];

async function compare(name: string, dtype: DType, options: AttentionOptions, threads: number): Promise<void> {
  const visible = options.causal ? pairs / 2 : pairs;
  const inputs = [0, 1, 2].map(() => cast(randn([1, HEADS, LENGTH, DIM]), dtype));
  const [q, k, v] = inputs as [Tensor, Tensor, Tensor];
  const forward = await measure(`forward ${name}`, () => noGrad(() => attention(q, k, v, options)), {
    threads,
    flops: 4 * DIM * visible,
  });
  for (const t of inputs) t.requiresGrad = true;
  const leaves = [q, k, v] as const;
  const out = attention(...leaves, options);
  const seed = ones(out.shape, { dtype });
  await synchronize();
  const backward = await measure(
    `backward ${name}`,
    () => grad([out], inputs, { gradients: [seed], retainGraph: true }) as Tensor[],
    { threads, flops: 10 * DIM * visible },
  );
  rows.push(forward, { ...backward, ofForward: round((backward.gflops ?? 0) / (forward.gflops ?? 1)) });
}

manualSeed(1);
for (const threads of [...new Set([1, getNumThreads()])]) {
  await compare('f32 H8 D64 L4096', 'f32', {}, threads);
  await compare('causal f32', 'f32', { causal: true }, threads);
  await compare('bf16', 'bf16', {}, threads);
}
save('attention_backward', rows);
