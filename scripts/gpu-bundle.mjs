#!/usr/bin/env node
// Packs what a machine with a GPU, nvcc and CMake, but neither Node nor a network, needs to check and time the CUDA backend (docs/cuda.md).
//   node scripts/gpu-bundle.mjs [--out=build/fovea-gpu.tar.gz] [--ptx]
//   --ptx    builds here and puts the PTX in, so that nvcc has less to do there
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const LIMIT_BYTES = 60e6;
const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const option = (name) => process.argv.find((a) => a.startsWith(`--${name}=`))?.slice(name.length + 3);
const out = resolve(option('out') ?? join(root, 'build/fovea-gpu.tar.gz'));

/** The .ptx and .entries files of an up-to-date build. */
function builtPtx() {
  const { status } = spawnSync(process.execPath, [join(root, 'scripts/build-native.mjs'), '--cuda=ON'], {
    stdio: ['ignore', 2, 2],
  });
  if (status !== 0) throw new Error('the build that makes PTX failed');
  const stems = readdirSync(join(root, 'cuda')).filter((name) => name.endsWith('.cu'));
  return stems.flatMap((stem) =>
    ['.ptx', '.entries'].map((kind) => join(root, 'build/ptx', stem.replace(/\.cu$/, kind))),
  );
}

const work = mkdtempSync(join(tmpdir(), 'fovea-gpu-'));
try {
  const stage = join(work, 'fovea-gpu');
  for (const path of ['cuda', 'csrc/core', 'csrc/cuda', 'csrc/cpu', 'test/gpu', 'bench/gpu', 'LICENSE'])
    cpSync(join(root, path), join(stage, path), { recursive: true });
  for (const header of readdirSync(join(root, 'test/native')).filter((name) => name.endsWith('.h')))
    cpSync(join(root, 'test/native', header), join(stage, 'test/native', header));
  cpSync(join(root, 'test/gpu/gpu-check'), join(stage, 'gpu-check'));
  if (process.argv.includes('--ptx')) for (const file of builtPtx()) cpSync(file, join(stage, 'ptx', basename(file)));
  mkdirSync(dirname(out), { recursive: true });
  const { status, stderr } = spawnSync('tar', ['-czf', out, '-C', work, 'fovea-gpu'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`tar failed: ${stderr}`);
  const bytes = statSync(out).size;
  if (bytes > LIMIT_BYTES) throw new Error(`${out} has ${bytes} bytes, more than ${LIMIT_BYTES}`);
  process.stderr.write(`${out}: ${(bytes / 1e6).toFixed(1)} MB\n`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
