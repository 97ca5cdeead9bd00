/**
 * What the driver is given when a score program is spliced into the attention kernels, put through ptxas for every architecture: it
 * assembles, and needs no spills. Each score of the library and long ones, at one dtype and head dim, forward and backward, with a trained
 * table where it has one.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { attention, cast, grad, slice, type DType, type Tensor } from '../../lib/index.ts';
import * as scores from '../../lib/mask/scores/index.ts';
import { random } from '../reference_matmul.ts';
import { useCuda } from './device.ts';
import { bentScore } from './long_score.ts';
import type { Score } from '../../lib/mask/mask.ts';

const cuda = useCuda();
const assembler = spawnSync('ptxas', ['--version']).status === 0;
const folder = mkdtempSync(join(tmpdir(), 'fovea-ptx-'));
process.env.FOVEA_CUDA_DUMP = folder;
afterAll(() => rmSync(folder, { recursive: true }));

const HEADS = 2;
const LENGTH = 20;
const hops = Array.from({ length: LENGTH }, (_, i) => Array.from({ length: LENGTH }, (_, j) => Math.abs(i - j)));
const floats = (shape: readonly number[], dtype: DType = 'f32'): Tensor =>
  cast(random(shape, 'f32', 1).t, dtype)
    .to('cuda')
    .detach();

interface Case {
  readonly name: string;
  readonly dtype: DType;
  readonly dim: number;
  /** Shape of the trained table. */
  readonly table: readonly number[] | null;
  readonly score: (table: never) => Score;
  /** Kernels that may not spill, a regular expression; default all. The derivative of a long program holds more values than a thread has registers. */
  readonly strict?: string;
}

const CASES: readonly Case[] = [
  { name: 'alibi', dtype: 'bf16', dim: 64, table: [HEADS], score: (slopes) => scores.alibi(slopes) },
  { name: 'softcap', dtype: 'f16', dim: 128, table: null, score: () => scores.softcap(5) },
  { name: 'relativeBias', dtype: 'bf16', dim: 256, table: [HEADS, 15], score: (bias) => scores.relativeBias(bias, 7) },
  { name: 't5Bias', dtype: 'f32', dim: 64, table: [HEADS, 32], score: (bias) => scores.t5Bias(bias) },
  { name: 'sandwich', dtype: 'bf16', dim: 32, table: null, score: () => scores.sandwich(HEADS, 32, 64) },
  { name: 'graphormer', dtype: 'bf16', dim: 128, table: [HEADS, 5], score: (bias) => scores.graphormer(bias, hops) },
  { name: 'a long program', dtype: 'bf16', dim: 64, table: [40], score: (bend) => bentScore(100, { bend }), strict: 'forward|decode' },
  { name: 'a long program of floats', dtype: 'f32', dim: 64, table: null, score: () => bentScore(100, { bend: new Float32Array(40) }) },
]; // prettier-ignore

/** Runs the kernels of a case, which dumps them. */
function run({ dtype, dim, table, score }: Case): void {
  const shape = [1, HEADS, LENGTH, dim];
  const leaves = [floats(shape, dtype), floats(shape, dtype), floats(shape, dtype)] as const;
  const trained = table === null ? null : floats(table);
  const wanted = [...leaves, ...(trained ? [trained] : [])];
  for (const t of wanted) t.requiresGrad = true;
  const out = attention(...leaves, { score: score(trained as never) });
  const gradients = grad([out], wanted, { gradients: [floats(shape, dtype)] }) as Tensor[];
  const few = attention(slice(leaves[0], 2, 0, 1), leaves[1], leaves[2], { score: score(trained as never) });
  for (const t of [out, ...gradients, few]) t.to('cpu').dataSync();
}

describe.skipIf(cuda.skip || cuda.gpu || !assembler)(
  'spliced kernels assemble, and spill in gradients of long programs alone',
  () => {
    test.each(CASES)('$name, $dtype, dim $dim', { timeout: 600_000 }, (c) => {
      const before = new Set(readdirSync(folder));
      run(c);
      const files = readdirSync(folder).filter((name) => !before.has(name) && name.includes('-'));
      // Forward, keys, queries, few queries, and the table.
      expect(files.length).toBeGreaterThanOrEqual(c.table === null ? 4 : 5);
      const report = fileURLToPath(new URL('../../scripts/ptxas-report.mjs', import.meta.url));
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        [
          report,
          '--json',
          '--arch=80,89,90a',
          `--no-spills=${c.strict ?? 'attention'}`,
          ...files.map((name) => join(folder, name)),
        ],
        { encoding: 'utf8' },
      );
      expect(status, stderr).toBe(0);
      expect(JSON.parse(stdout)).toHaveLength(3 * files.length);
    });
  },
);
