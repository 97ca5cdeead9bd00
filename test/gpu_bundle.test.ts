// The archive for a machine with a GPU and no Node: packed, unpacked into an empty folder, built there, and run in its short form with the
// emulator as the driver.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { emulatorLibrary, findNvcc } from './emulator/build.ts';

interface Report {
  failed_programs: string[];
  checks: { suite: string; check: string; cases: number; failed: number; refused: number }[];
  rows: { name: string; fovea: { ms: number; kernel: string } | null }[];
  kernels: { shipped: number; missing: string[] };
  goals: unknown[];
}

const root = new URL('..', import.meta.url).pathname;
const SUITES = ['cubin', 'elementwise', 'rows', 'model_parts', 'routing', 'mask_bits', 'goldens', 'neighborhood', 'matmul', 'attention', 'attention_backward']; // prettier-ignore

/** Entry points of the kernels that ship. */
function entries(): string[] {
  const folder = join(root, 'build/ptx');
  return readdirSync(join(root, 'cuda'))
    .filter((name) => name.endsWith('.cu'))
    .flatMap((name) =>
      readFileSync(join(folder, name.replace(/cu$/, 'entries')), 'utf8')
        .trim()
        .split('\n'),
    );
}

const missing = !findNvcc() ? 'nvcc' : spawnSync('python3', ['--version']).status !== 0 ? 'python3' : null;
if (missing) console.info(`the GPU archive is not tried: ${missing} is not on PATH`);

describe.skipIf(missing !== null)('the GPU archive', () => {
  const work = mkdtempSync(join(tmpdir(), 'fovea-gpu-test-'));
  afterAll(() => rmSync(work, { recursive: true, force: true }));

  test('builds and checks itself on the emulator', { timeout: 1_800_000 }, () => {
    const archive = join(work, 'fovea-gpu.tar.gz');
    execFileSync(process.execPath, [join(root, 'scripts/gpu-bundle.mjs'), '--ptx', `--out=${archive}`], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    expect(statSync(archive).size).toBeLessThan(60e6);
    execFileSync('tar', ['-xzf', archive, '-C', work]);
    const folder = join(work, 'fovea-gpu');
    const { status, stderr } = spawnSync('./gpu-check', ['--short', '--jobs=2', '--limit=900', '--out=report.json'], {
      cwd: folder,
      encoding: 'utf8',
      // A compiler cache, where there is one, then knows the sources from the addon's build.
      env: {
        ...process.env,
        FOVEA_CUDA_DRIVER: emulatorLibrary(),
        FOVEA_EMULATOR_QUIET: '1',
        FOVEA_EMULATOR_CAPABILITY: '90', // has the shared memory that the largest tiles want
        CCACHE_BASEDIR: folder,
        CCACHE_NOHASHDIR: '1',
      },
    });
    expect(status, stderr).toBe(0);

    const report = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')) as Report;
    expect(report.failed_programs).toEqual([]);
    expect(new Set(report.checks.map((check) => check.suite))).toEqual(new Set(SUITES));
    expect(report.checks.filter((check) => check.failed > 0)).toEqual([]);
    expect(report.checks.filter((check) => check.suite === 'attention').some((check) => check.cases > 0)).toBe(true);
    expect(report.checks).toContainEqual(
      expect.objectContaining({ check: 'probe_code offers a cubin', cases: 1, failed: 0 }),
    );
    const timed = readFileSync(join(root, 'bench/gpu/cases.txt'), 'utf8')
      .split('\n')
      .filter((line) => /^[a-z]/.test(line))
      .map((line) => line.split(/\s+/)[1]);
    expect(report.rows.filter((row) => row.fovea).map((row) => row.name)).toEqual(timed);
    expect(report.goals).toEqual([]);
    expect(report.kernels).toEqual({ shipped: entries().length, missing: [] });
  });
});

const python = ['python3', '/usr/bin/python3'].find((path) => spawnSync(path, ['-c', 'import torch']).status === 0);
if (!python) console.info('bench/gpu/peers.py is not tried: no python3 here has PyTorch');

test.skipIf(!python)('the peers run anywhere, or say why not', { timeout: 300_000 }, () => {
  const options = ['--device=cpu', '--shrink=512', '--seconds=0', '--warmup=0'];
  const out = execFileSync(python as string, ['bench/gpu/peers.py', 'bench/gpu/cases.txt', ...options], {
    cwd: root,
    encoding: 'utf8',
  });
  const rows = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { suite: string; name: string; by: string; ms?: number; skipped?: string })
    .filter((row) => row.suite === 'bench');
  for (const row of rows) expect(row.ms ?? row.skipped, `${row.name} by ${row.by}`).toBeTruthy();
  expect(rows.find((row) => row.by === 'torch.matmul')?.ms).toBeGreaterThan(0);
});
