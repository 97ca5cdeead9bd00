#!/usr/bin/env node
// Packs what a machine with a GPU, nvcc and CMake, but neither Node nor a network, needs to check and time the CUDA backend (docs/cuda.md).
// Builds the addon first, which reads the golden files that go along in a plainer layout.
//   node scripts/gpu-bundle.mjs [--out=build/fovea-gpu.tar.gz] [--ptx]
//   --ptx    puts the PTX of that build in, so that nvcc has less to do there
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const LIMIT_BYTES = 60e6;
const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const option = (name) => process.argv.find((a) => a.startsWith(`--${name}=`))?.slice(name.length + 3);
const out = resolve(option('out') ?? join(root, 'build/fovea-gpu.tar.gz'));

function run(...args) {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (status !== 0) throw new Error(`${args.join(' ')} failed`);
}

/** The .ptx and .entries files of the build. */
function builtPtx() {
  const stems = readdirSync(join(root, 'cuda')).filter((name) => name.endsWith('.cu'));
  return stems.flatMap((stem) =>
    ['.ptx', '.entries'].map((kind) => join(root, 'build/ptx', stem.replace(/\.cu$/, kind))),
  );
}

const work = mkdtempSync(join(tmpdir(), 'fovea-gpu-'));
try {
  const stage = join(work, 'fovea-gpu');
  const packsPtx = process.argv.includes('--ptx');
  run('scripts/build-native.mjs', ...(packsPtx ? ['--cuda=ON'] : []));
  for (const path of ['cuda', 'csrc/core', 'csrc/cuda', 'csrc/cpu', 'test/gpu', 'bench/gpu', 'LICENSE'])
    cpSync(join(root, path), join(stage, path), { recursive: true });
  for (const header of readdirSync(join(root, 'test/native')).filter((name) => name.endsWith('.h')))
    cpSync(join(root, 'test/native', header), join(stage, 'test/native', header));
  cpSync(join(root, 'test/gpu/gpu-check'), join(stage, 'gpu-check'));
  run('--import', 'tsx', 'scripts/gpu-goldens.ts', stage);
  if (packsPtx) for (const file of builtPtx()) cpSync(file, join(stage, 'ptx', basename(file)));
  mkdirSync(dirname(out), { recursive: true });
  const { status, stderr } = spawnSync('tar', ['-czf', out, '-C', work, 'fovea-gpu'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`tar failed: ${stderr}`);
  const bytes = statSync(out).size;
  if (bytes > LIMIT_BYTES) throw new Error(`${out} has ${bytes} bytes, more than ${LIMIT_BYTES}`);
  process.stderr.write(`${out}: ${(bytes / 1e6).toFixed(1)} MB\n`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
