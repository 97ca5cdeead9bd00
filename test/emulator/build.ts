// Builds the emulator of the CUDA driver on demand, for the tests that need it. One process builds at a time; the others wait for it.
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = dirname(fileURLToPath(import.meta.url));
export const emulatorBuild = join(folder, '../../build/emulator');

/** Path of nvcc, or null where there is none. */
export function findNvcc(): string | null {
  const found = spawnSync('sh', ['-c', 'command -v nvcc'], { encoding: 'utf8' });
  return found.status === 0 ? found.stdout.trim() : null;
}

function run(command: string, args: string[]): void {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26 });
  if (status !== 0)
    throw new Error(
      `${command} ${args.join(' ')} failed: ${error?.message ?? stdout.slice(-4000) + stderr.slice(-4000)}`,
    );
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function locked(work: () => void): void {
  mkdirSync(emulatorBuild, { recursive: true });
  const lock = join(emulatorBuild, 'lock');
  for (;;) {
    try {
      const file = openSync(lock, 'wx');
      writeSync(file, String(process.pid));
      closeSync(file);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const owner = existsSync(lock) ? Number(readFileSync(lock, 'utf8')) : 0;
      if (owner && !alive(owner)) rmSync(lock, { force: true });
      else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    }
  }
  try {
    work();
  } finally {
    rmSync(lock, { force: true });
  }
}

/** Builds what is stale of a CMake target of test/emulator. */
export function buildEmulator(target: 'fovea_emulator' | 'emulator_tests' = 'fovea_emulator'): void {
  locked(() => {
    run('cmake', ['-S', folder, '-B', emulatorBuild, '-DCMAKE_BUILD_TYPE=Release']);
    run('cmake', ['--build', emulatorBuild, '--target', target, '--parallel', '2']);
  });
}

/** The stand-in for libcuda, built if need be: what FOVEA_CUDA_DRIVER is set to. */
export function emulatorLibrary(): string {
  buildEmulator();
  return join(emulatorBuild, 'libfovea_emulator.so');
}

/** Compiles a .cu file to PTX for sm_80, unless that was done since it changed. Returns the folder of PTX files. */
export function compileKernel(source: string, nvcc: string): string {
  const out = join(emulatorBuild, 'ptx');
  const ptx = join(out, basename(source).replace(/\.cu$/, '.ptx'));
  locked(() => {
    mkdirSync(out, { recursive: true });
    if (existsSync(ptx) && statSync(ptx).mtimeMs > statSync(source).mtimeMs) return;
    run(nvcc, ['-ptx', '-arch=compute_80', '-O3', '-std=c++17', source, '-o', ptx]);
  });
  return out;
}

/** Builds the emulator's own tests and compiles the kernels they run. Returns the folder of PTX files. */
export function buildEmulatorTests(nvcc: string): string {
  buildEmulator('emulator_tests');
  for (const name of readdirSync(join(folder, 'kernels'))) compileKernel(join(folder, 'kernels', name), nvcc);
  return join(emulatorBuild, 'ptx');
}
