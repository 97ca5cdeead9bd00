#!/usr/bin/env node
// Builds the addon when it is stale. CMake itself decides what is stale; this only avoids starting it when nothing changed.
//   --cuda=AUTO|ON|OFF   (default: FOVEA_CUDA or AUTO)   --cubin=80,86,89,90a   (default: FOVEA_CUBIN or none)   --force
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const option = (name, fallback) =>
  process.argv.find((a) => a.startsWith(`--${name}=`))?.slice(name.length + 3) ?? fallback;
const cuda = option('cuda', process.env.FOVEA_CUDA ?? 'AUTO');
const cubin = option('cubin', process.env.FOVEA_CUBIN ?? '').replaceAll(',', ';');
const addon = join(root, 'build/Release/fovea.node');

function newest(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}

const sources = ['csrc', 'cuda', 'CMakeLists.txt'].map((name) => join(root, name)).filter(existsSync);
const fresh = existsSync(addon) && statSync(addon).mtimeMs > Math.max(...sources.map(newest));
if (!fresh || process.argv.includes('--force')) {
  process.stderr.write('fovea: building the native addon (first build takes a few minutes)\n');
  const cmakeJs = createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js');
  const args = [cmakeJs, 'build', `--CDFOVEA_CUDA=${cuda}`, `--CDFOVEA_CUBIN=${cubin}`];
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (status !== 0) process.exit(status ?? 1);
}
