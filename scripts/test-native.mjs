#!/usr/bin/env node
// Builds and runs the native tests (test/native/*.cc), plain or under sanitizers.
//   node scripts/test-native.mjs [--sanitize=address,undefined|thread] [--only=name,name]
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const option = (name) => process.argv.find((a) => a.startsWith(`--${name}=`))?.slice(name.length + 3) ?? '';
const sanitize = option('sanitize');
const only = option('only').split(',').filter(Boolean);
const build = join(root, sanitize ? `build-${sanitize.split(',')[0]}` : 'build-native');

function run(command, args, env = {}) {
  const { status, signal } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  return signal ? 128 : (status ?? 1);
}

const configure = [
  '-S',
  '.',
  '-B',
  build,
  '-DFOVEA_ADDON=OFF',
  '-DFOVEA_TESTS=ON',
  '-DFOVEA_CUDA=OFF',
  `-DFOVEA_SANITIZE=${sanitize}`,
];
if (run('cmake', configure) !== 0) process.exit(1);
const names = readdirSync(join(root, 'test/native'))
  .filter((name) => name.endsWith('.cc'))
  .map((name) => name.slice(0, -3))
  .filter((name) => only.length === 0 || only.includes(name));
if (run('cmake', ['--build', build, '--parallel', '2', '--target', ...names.map((name) => `native_${name}`)]) !== 0)
  process.exit(1);

const options = 'halt_on_error=1:detect_leaks=0';
let failed = 0;
for (const name of names) {
  console.log(`-- ${name}${sanitize ? ` (${sanitize})` : ''}`);
  const status = run(join(build, `native_${name}`), [], {
    ASAN_OPTIONS: options,
    TSAN_OPTIONS: 'halt_on_error=1',
    UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1',
  });
  if (status !== 0) {
    console.log(`${name} failed (${status})`);
    failed++;
  }
}
console.log(`${names.length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
