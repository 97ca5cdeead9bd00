// Runs the emulator's own native tests: each program runs its tests under both warp schedules, a random one, and both delivery modes.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { buildEmulatorTests, emulatorBuild, findNvcc } from './build.ts';

const folder = dirname(fileURLToPath(import.meta.url));
const nvcc = findNvcc();
if (!nvcc) console.warn('skipped: the tests of the CUDA emulator need nvcc');

const names = readdirSync(join(folder, 'tests'))
  .filter((name) => name.endsWith('_test.cc'))
  .map((name) => name.replace(/\.cc$/, ''));

function runTests(name: string, env: Record<string, string> = {}): void {
  const { status, stdout, stderr, signal } = spawnSync(
    join(emulatorBuild, `emulator_${name}`),
    [join(emulatorBuild, 'ptx')],
    { encoding: 'utf8', env: { ...process.env, ...env }, timeout: 110_000 },
  );
  expect(`${stdout}${stderr}`).toMatch(/^\d+ passed, 0 failed\s*$/);
  expect({ status, signal }).toEqual({ status: 0, signal: null });
}

describe.skipIf(!nvcc)('CUDA emulator', () => {
  beforeAll(() => void buildEmulatorTests(nvcc!), 1_200_000);

  it.each(names)('%s', (name) => runTests(name), 120_000);

  it.each(['integers_test', 'floats_test', 'memory_test', 'matrix_test'])(
    '%s with the handlers of the oldest processors',
    (name) => runTests(name, { FOVEA_EMULATOR_ISA: 'baseline' }),
    120_000,
  );
});
