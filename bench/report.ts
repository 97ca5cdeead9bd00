/**
 * How every figure here is taken.
 *
 * The FMA peak of the machine is probed before and after each measurement, on as many threads; a measurement between unequal probes was disturbed
 * and is taken again. The best of several repetitions counts. Figures are kept with machine, command and date in bench/results/.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { native } from '../lib/native.ts';
import { devices, getNumThreads, setNumThreads, synchronize } from '../lib/index.ts';

export interface Row {
  name: string;
  threads: number;
  /** Best time, milliseconds. */
  ms: number;
  /** Processor time of a repetition, kernel threads only: least mean of a run of repetitions, milliseconds. */
  cpuMs?: number;
  /** Billions of floating-point operations per second, where the row has a count. */
  gflops?: number;
  /** Of the FMA peak probed around the measurement, same number of threads. */
  peakFraction?: number;
  /** Anything else: ratios to peers, bytes per second, tiles. */
  [extra: string]: number | string | undefined;
}

const PROBE_SECONDS = 0.15;
const DISTURBED = 0.04;
const RUN_MS = 60;

/** GF/s of f32 fused multiply-adds on the current number of threads. */
export function probePeak(): number {
  return native().fmaPeak(PROBE_SECONDS, getNumThreads());
}

export interface MeasureOptions {
  threads?: number;
  flops?: number;
  /** Least repetitions; default 5. */
  repeat?: number;
  /** Least total seconds; default 0.3. */
  seconds?: number;
  extra?: Record<string, number | string | undefined>;
}

type Made = Disposable | readonly Disposable[] | void;

/** Times `fn`, which queues work and returns what to dispose (or nothing); see the header for how. */
export async function measure(
  name: string,
  fn: () => Made | Promise<Made>,
  options: MeasureOptions = {},
): Promise<Row & { cpuMs: number }> {
  const { threads = getNumThreads(), flops, repeat = 5, seconds = 0.3, extra = {} } = options;
  const before = getNumThreads();
  setNumThreads(threads);
  let [best, bestCpu, peak] = [Infinity, Infinity, 0];
  const once = async (): Promise<void> => {
    const start = performance.now();
    const made = await fn();
    await synchronize();
    best = Math.min(best, performance.now() - start);
    for (const t of made ? [made].flat() : []) t[Symbol.dispose]();
  };
  try {
    await once();
    best = Infinity;
    for (let attempt = 0; attempt < 4; attempt++) {
      const first = probePeak();
      const end = performance.now() + seconds * 1000;
      const cpu = processor();
      let done = 0;
      for (; done < repeat || performance.now() < end; done++) await once();
      bestCpu = Math.min(bestCpu, (processor() - cpu) / done);
      const second = probePeak();
      peak = Math.max(peak, first, second);
      if (Math.abs(first - second) < DISTURBED * peak) break;
    }
    const rate =
      flops === undefined ? {} : { gflops: round(flops / best / 1e6), peakFraction: round(flops / best / 1e6 / peak) };
    const row = { name, threads, ms: round(best), cpuMs: round(bestCpu), ...rate, ...extra };
    print(row);
    return row;
  } finally {
    setNumThreads(before);
  }
}

/**
 * Milliseconds of processor time used by the threads of this process beside that of JavaScript, which queues work while they run. Where the
 * system doesn't tell, of all threads.
 */
function processor(): number {
  if (!existsSync('/proc/self/task')) {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  }
  const others = readdirSync('/proc/self/task').filter((id) => id !== String(process.pid));
  return others.reduce((sum, id) => sum + nanoseconds(id), 0) / 1e6;
}

/** Processor time of a thread, 0 if it ended since it was listed, as those of peers do. */
function nanoseconds(id: string): number {
  try {
    return Number(readFileSync(`/proc/self/task/${id}/schedstat`, 'utf8').split(' ')[0]);
  } catch {
    return 0;
  }
}

/**
 * Least mean processor time of a call on one kernel thread, milliseconds, of three runs of calls (two where they are long): runs are many times the
 * grain of the clock. For comparisons on a busy machine.
 */
export async function processorTime(fn: () => Made): Promise<number> {
  const before = getNumThreads();
  setNumThreads(1);
  const run = async (calls: number): Promise<number> => {
    const start = processor();
    for (let i = 0; i < calls; i++) {
      const made = fn();
      await synchronize();
      for (const t of made ? [made].flat() : []) t[Symbol.dispose]();
    }
    return (processor() - start) / calls;
  };
  try {
    await run(1);
    const start = performance.now();
    await run(1);
    const ms = performance.now() - start;
    const calls = Math.max(1, Math.round(RUN_MS / ms));
    const times = [await run(calls), await run(calls)];
    if (ms < 1000) times.push(await run(calls));
    return Math.min(...times);
  } finally {
    setNumThreads(before);
  }
}

/** The parts of a family that `--only=a,b` names; all without it. */
export function parts(names: readonly string[]): readonly string[] {
  const only = process.argv.find((argument) => argument.startsWith('--only='))?.slice(7).split(',') ?? names; // prettier-ignore
  const unknown = only.filter((name) => !names.includes(name));
  if (unknown.length === 0) return only;
  process.stderr.write(`no part ${unknown.join(', ')}; there are ${names.join(', ')}\n`);
  return process.exit(2);
}

export function round(x: number): number {
  return Number(x.toPrecision(4));
}

export function print(row: Row): void {
  const { name, threads, ms, cpuMs: _, gflops, peakFraction, ...extra } = row;
  const rest = Object.entries(extra).flatMap(([key, value]) => (value === undefined ? [] : [`${key} ${value}`]));
  const rate = gflops === undefined ? '' : ` ${gflops} GF/s (${(100 * (peakFraction ?? 0)).toFixed(0)} % of peak)`;
  process.stdout.write(
    `${name.padEnd(48)} ${threads}t ${String(ms).padStart(9)} ms${rate}${rest.length ? `  ${rest.join(', ')}` : ''}\n`,
  );
}

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return 'unknown';
  }
}

/** Writes rows to bench/results/<family>.json with everything needed to take them again. */
export function save(family: string, rows: readonly Row[]): void {
  const folder = new URL('./results/', import.meta.url);
  mkdirSync(folder, { recursive: true });
  const record = {
    family,
    command: `npx tsx bench/${family}.ts`,
    date: new Date().toISOString().slice(0, 10),
    commit: commit(),
    machine: {
      cpu: cpus()[0]?.model,
      cores: cpus().length,
      memoryBytes: totalmem(),
      device: devices()[0].detail,
      node: process.version,
    },
    peakGflops: { oneThread: round(native().fmaPeak(0.3, 1)), allThreads: round(native().fmaPeak(0.3, cpus().length)) },
    rows,
  };
  writeFileSync(new URL(`${family}.json`, folder), `${JSON.stringify(record, null, 2)}\n`);
}

/** A peer package of bench/package.json, or null with a note when it is not installed. */
export async function peer<T>(name: string): Promise<T | null> {
  try {
    return (await import(name)) as T;
  } catch {
    process.stderr.write(`(${name} is not installed; npm install in bench/ brings it)\n`);
    return null;
  }
}
