#!/usr/bin/env node
// Builds the addon when it is stale. CMake itself decides what is stale; this only avoids starting it when nothing changed.
//   --cuda=AUTO|ON|OFF   (default: FOVEA_CUDA or AUTO)   --cubin=80,86,89,90a   (default: FOVEA_CUBIN or none)   --force
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const option = (name) => process.argv.find((a) => a.startsWith(`--${name}=`))?.slice(name.length + 3);
const asked = {
  cuda: option('cuda') ?? process.env.FOVEA_CUDA,
  cubin: option('cubin') ?? process.env.FOVEA_CUBIN,
};
const addon = join(root, 'build/Release/fovea.node');
const record = join(root, 'build/built.json'); // when the last build began, and what was asked of it

function newest(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}

/** What the last build noted; nothing where there was none or it was cut short. */
function lastBuild() {
  try {
    return JSON.parse(readFileSync(record, 'utf8'));
  } catch {
    return {};
  }
}
const last = lastBuild();

/** Whether the addon is that of the present sources and options. What is not asked now is as it was. */
function fresh() {
  if (!existsSync(addon)) return false;
  const sources = ['csrc', 'cuda', 'CMakeLists.txt', 'package.json'].map((name) => join(root, name)).filter(existsSync);
  const asAsked = Object.entries(asked).every(([name, value]) => value === undefined || value === last[name]);
  return asAsked && last.began > Math.max(...sources.map(newest));
}

if (process.argv.includes('--force') || !fresh()) {
  process.stderr.write('fovea: building the native addon (first build takes a few minutes)\n');
  const built = { began: Date.now(), cuda: asked.cuda ?? last.cuda ?? 'AUTO', cubin: asked.cubin ?? last.cubin ?? '' };
  const cmakeJs = createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js');
  const options = [`--CDFOVEA_CUDA=${built.cuda}`, `--CDFOVEA_CUBIN=${built.cubin.replaceAll(',', ';')}`];
  // "build" alone takes options only where nothing was configured before.
  const configured = built.cuda === last.cuda && built.cubin === last.cubin;
  for (const step of configured ? ['build'] : ['configure', 'build']) {
    const { status } = spawnSync(process.execPath, [cmakeJs, step, ...options], {
      cwd: root,
      stdio: ['ignore', 2, 2],
    });
    if (status !== 0) process.exit(status ?? 1);
  }
  writeFileSync(record, JSON.stringify(built));
}
