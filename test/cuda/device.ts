/**
 * Running tests on CUDA. A test file calls useCuda() once, before anything touches a device:
 *
 *   const cuda = useCuda();
 *   describe.skipIf(cuda.skip)('softmax on CUDA', () => { ... x.to('cuda') ... });
 *
 * Without a GPU the device is the emulator (docs/emulator.md), with strict checks; FOVEA_TEST_GPU=1 takes the machine's driver instead.
 * The driver is opened once per process, so a test of another environment runs a script in a process of its own: runScript().
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
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
  for (const [name, value] of Object.entries(settings)) out[`FOVEA_EMULATOR_${name}`] = value;
  return out;
}

/** Points this process at the emulator, or at the machine's driver. Says in one line when neither can be. */
export function useCuda(settings: EmulatorSettings = {}): CudaTests {
  const gpu = process.env.FOVEA_TEST_GPU === '1';
  const missing = gpu || findNvcc() ? null : 'nvcc is not on PATH, so this build has no CUDA kernels';
  if (missing) console.info(`CUDA tests are skipped: ${missing}`);
  else Object.assign(process.env, environment(settings));
  return { missing, skip: missing !== null, gpu };
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
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', file], {
      cwd: root,
      encoding: 'utf8',
      env: { ...process.env, ...environment(settings), ...env },
    });
    if (status !== 0) throw new Error(`the script ended with status ${status}: ${stderr.slice(-4000)}`);
    const lines = stdout.split('\n').filter((line) => line.startsWith('fovea-result '));
    if (lines.length !== 1)
      throw new Error(`the script gave ${lines.length} values, expected 1: ${stderr.slice(-4000)}`);
    return { value: JSON.parse(lines[0].slice(13)), stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
