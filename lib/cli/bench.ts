import { attention } from '../attention/attention.ts';
import type { AttentionOptions } from '../attention/arguments.ts';
import { explain } from '../attention/explain.ts';
import { slidingWindow } from '../mask/masks/sliding_window.ts';
import { native } from '../native.ts';
import { cast } from '../ops/copy.ts';
import { randn } from '../ops/random.ts';
import { getNumThreads, setNumThreads, synchronize } from '../runtime.ts';
import type { DType } from '../tensor/dtype.ts';
import { expectCounts } from './numbers.ts';
import { note, Progress, report, table, timeText, type CommonOptions } from './output.ts';

export interface BenchOptions extends CommonOptions {
  length: number;
  heads: number;
  dim: number;
  dtype: DType;
  threads?: number;
}

interface Timing {
  call: string;
  ms: number;
  gflops: number;
  /** Of the f32 FMA peak probed in this run, on the same threads. */
  peakFraction: number;
}

const REPEATS = 5;

/** `fovea bench`: attention on this machine, dense, causal and windowed, against the FMA peak probed before and after. */
export async function bench(options: BenchOptions): Promise<number> {
  const { length, heads, dim, dtype } = options;
  expectCounts({ length, heads, dim, threads: options.threads });
  if (options.threads !== undefined) setNumThreads(options.threads);
  const threads = getNumThreads();
  const [q, k, v] = [1, 2, 3].map((seed) => cast(randn([1, heads, length, dim], { seed }), dtype));
  const cases: [string, Omit<AttentionOptions, 'returnLse'>][] = [
    ['dense', {}],
    ['causal', { causal: true }],
    ['window 256', { mask: slidingWindow(256) }],
  ];
  const progress = new Progress('bench', cases.length * (REPEATS + 1));
  const before = native().fmaPeak(0.3, threads);
  const timed: { call: string; ms: number; flops: number }[] = [];
  for (const [call, settings] of cases) {
    let ms = Infinity;
    for (let i = 0; i <= REPEATS; i++) {
      const start = performance.now();
      using _out = attention(q, k, v, settings);
      await synchronize();
      if (i > 0) ms = Math.min(ms, performance.now() - start);
      progress.update(timed.length * (REPEATS + 1) + i + 1, call);
    }
    timed.push({ call, ms, flops: explain(q, k, v, settings).flops });
  }
  progress.stop();
  const after = native().fmaPeak(0.3, threads);
  const peak = Math.max(before, after);
  if (Math.abs(before - after) > 0.05 * peak)
    note(`the machine was disturbed: its peak was ${before.toFixed(0)} before and ${after.toFixed(0)} GF/s after`);
  const rows: Timing[] = timed.map(({ call, ms, flops }) => ({
    call,
    ms,
    gflops: flops / ms / 1e6,
    peakFraction: flops / ms / 1e6 / peak,
  }));
  report(options, { length, heads, dim, dtype, threads, isa: native().isa(), peakGflops: peak, rows }, (data) =>
    [
      `attention forward, ${heads} heads, ${length} x ${length}, dim ${dim}, ${dtype}, ${threads} threads, ${data.isa}; FMA peak ${peak.toFixed(0)} GF/s`,
      table([
        ['call', 'time', 'GF/s', 'of peak'],
        ...rows.map((r) => [r.call, timeText(r.ms), r.gflops.toFixed(0), `${(100 * r.peakFraction).toFixed(0)} %`]),
      ]),
    ].join('\n'),
  );
  return 0;
}
