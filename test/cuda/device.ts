/**
 * Running tests on CUDA. A test file calls useCuda() once, before anything touches a device:
 *
 *   const cuda = useCuda();
 *   describe.skipIf(cuda.skip)('softmax on CUDA', () => { ... x.to('cuda') ... });
 *
 * When the tests of the file are done, what they left on the device must be garbage: useCuda() checks that its memory comes back. Masks and
 * scores that the file or the library keeps have their tables on the device; `keptBytes` says how much that may be.
 *
 * Without a GPU the device is the emulator (docs/emulator.md), with strict checks; launches of a kernel take warp schedules and deliveries of
 * copies in turn, unless FOVEA_EMULATOR_SCHEDULE says otherwise. FOVEA_TEST_GPU=1 takes the machine's driver instead.
 * The driver is opened once per process, so a test of another environment runs a script in a process of its own: runScript().
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, expect } from 'vitest';
import { memory, synchronize } from '../../lib/index.ts';
import { emulatorLibrary, findNvcc } from '../emulator/build.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');

/** Settings of the emulator (FOVEA_EMULATOR_* without the prefix), such as { DEVICES: '2' }. */
export type EmulatorSettings = Readonly<Record<string, string>>;

export interface CudaTests {
  /** Why there is nothing to run on; null when there is. */
  missing: string | null;
  skip: boolean;
  /** True on a real card: no emulator settings, so no injected faults. */
  gpu: boolean;
}

let emulator: string | undefined;

function environment(settings: EmulatorSettings): Record<string, string> {
  const out: Record<string, string> = {};
  if (process.env.FOVEA_TEST_GPU === '1') return out;
  out.FOVEA_CUDA_DRIVER = emulator ??= emulatorLibrary();
  out.FOVEA_EMULATOR_QUIET = '1';
  out.FOVEA_EMULATOR_SCHEDULE = process.env.FOVEA_EMULATOR_SCHEDULE ?? 'turns';
  for (const [name, value] of Object.entries(settings)) out[`FOVEA_EMULATOR_${name}`] = value;
  return out;
}

/** Bytes on all devices that tensors own once the collector has taken what nothing refers to. */
export async function bytesAfterCollection(enough = 0): Promise<number> {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  let bytes = Infinity;
  // Finalizers run in tasks of their own, some only after the next collection.
  for (let round = 0; round < 20 && bytes > enough; round++) {
    gc();
    await setImmediate();
    await synchronize().catch(() => undefined); // an error that a test left to nobody
    bytes = Object.values(memory().devices).reduce((sum, device) => sum + device.liveBytes, 0);
  }
  return bytes;
}

/** Points this process at the emulator, or at the machine's driver. Says in one line when neither can be. */
export function useCuda(settings: EmulatorSettings = {}, keptBytes = 1 << 16): CudaTests {
  const gpu = process.env.FOVEA_TEST_GPU === '1';
  const missing = gpu || findNvcc() ? null : 'nvcc is not on PATH, so this build has no CUDA kernels';
  if (missing) console.info(`CUDA tests are skipped: ${missing}`);
  else {
    Object.assign(process.env, environment(settings));
    afterAll(async () => {
      const left = await bytesAfterCollection(keptBytes);
      expect(left, 'bytes left on CUDA devices, beyond keptBytes of useCuda()').toBeLessThanOrEqual(keptBytes);
    });
  }
  return { missing, skip: missing !== null, gpu };
}

function runNode(
  args: readonly string[],
  settings: EmulatorSettings,
  env: Readonly<Record<string, string>>,
): { stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', ...args], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...environment(settings), ...env },
  });
  if (status !== 0) throw new Error(`node ended with status ${status}: ${stderr.slice(-4000)}`);
  return { stdout, stderr };
}

/** What the `fovea` command prints, in a process of its own. */
export function runCommand(
  args: readonly string[],
  settings: EmulatorSettings = {},
  env: Readonly<Record<string, string>> = {},
): string {
  return runNode([join(root, 'lib/cli/main.ts'), ...args], settings, env).stdout;
}

export interface ScriptResult {
  /** What the script gave to the function `give`. */
  value: unknown;
  stderr: string;
}

/**
 * Runs the body of an async TypeScript function in a process of its own. In scope: `fovea` (lib/index.ts), `give(value)`, which hands a JSON
 * value back, once, and `failure(fn)`, the { code, message } of the error that the function or its promise throws.
 */
export function runScript(
  body: string,
  settings: EmulatorSettings = {},
  env: Readonly<Record<string, string>> = {},
): ScriptResult {
  const folder = mkdtempSync(join(tmpdir(), 'fovea-cuda-'));
  const file = join(folder, 'script.mts');
  const library = JSON.stringify(pathToFileURL(join(root, 'lib/index.ts')).href);
  writeFileSync(
    file,
    `import * as fovea from ${library};
const give = (value: unknown): void => console.log('fovea-result ' + JSON.stringify(value));
const failure = async (fn: () => unknown): Promise<{ code: string; message: string } | null> => {
  try {
    await fn();
    return null;
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return { code, message };
  }
};
${body}
`,
  );
  try {
    const { stdout, stderr } = runNode([file], settings, env);
    const lines = stdout.split('\n').filter((line) => line.startsWith('fovea-result '));
    if (lines.length !== 1)
      throw new Error(`the script gave ${lines.length} values, expected 1: ${stderr.slice(-4000)}`);
    return { value: JSON.parse(lines[0].slice(13)), stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
