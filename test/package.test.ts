import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = new URL('..', import.meta.url).pathname;
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  gypfile: boolean;
  files: string[];
  scripts: Record<string, string>;
  binary: { napi_versions: number[] };
};

test('the manifest runs nothing at install time', () => {
  expect(manifest.gypfile).toBe(false);
  expect(manifest.files).not.toContain('binding.gyp');
  for (const hook of ['preinstall', 'install', 'postinstall', 'prepare', 'prebuild'])
    expect(manifest.scripts[hook]).toBeUndefined();
  expect(manifest.binary.napi_versions).toEqual([8]);
});

describe.skipIf(process.platform !== 'linux')('the tarball', () => {
  const work = mkdtempSync(join(tmpdir(), 'fovea-package-'));
  const stage = join(work, 'stage');
  const user = join(work, 'user');
  afterAll(() => rmSync(work, { recursive: true, force: true }));
  const node = (...args: string[]): string =>
    execFileSync(process.execPath, args, {
      cwd: user,
      encoding: 'utf8',
      env: { ...process.env, PREBUILDS_ONLY: '1', FOVEA_NATIVE: '' },
    });

  beforeAll(() => {
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    execFileSync(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--outDir', join(stage, 'dist')], {
      cwd: root,
      stdio: 'inherit',
    });
    for (const name of ['package.json', 'README.md', 'LICENSE', 'CMakeLists.txt', 'csrc'])
      cpSync(join(root, name), join(stage, name), { recursive: true });
    const prebuilds = join(stage, 'prebuilds', `linux-${process.arch}`);
    mkdirSync(prebuilds, { recursive: true });
    cpSync(join(root, 'build/Release/fovea.node'), join(prebuilds, 'fovea.glibc.node'));
    execFileSync('npm', ['pack', '--ignore-scripts', '--silent'], { cwd: stage });
    mkdirSync(user);
    writeFileSync(join(user, 'package.json'), '{ "name": "user", "private": true }');
    const tarball = readdirSync(stage).find((name) => name.endsWith('.tgz')) as string;
    execFileSync('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', join(stage, tarball)], {
      cwd: user,
    });
  }, 180_000);

  const program = 'const t = fovea.tensor([1, 2, 3]); t.data().then((d) => console.log([...d].join()));';

  test('holds no source that is not needed and the prebuilt addon', () => {
    const installed = readdirSync(join(user, 'node_modules/fovea'));
    expect(installed.toSorted()).toEqual([
      'CMakeLists.txt',
      'LICENSE',
      'README.md',
      'csrc',
      'dist',
      'package.json',
      'prebuilds',
    ]);
  });

  test('loads by import', () => {
    expect(node('--input-type=module', '-e', `import * as fovea from 'fovea'; ${program}`)).toBe('1,2,3\n');
  });

  test('loads by require', () => {
    expect(node('--no-warnings', '--input-type=commonjs', '-e', `const fovea = require('fovea'); ${program}`)).toBe(
      '1,2,3\n',
    );
  });

  test('loads in a worker', () => {
    const worker = `import('fovea').then((fovea) => { ${program} })`;
    expect(node('-e', `new (require('node:worker_threads').Worker)(${JSON.stringify(worker)}, { eval: true })`)).toBe(
      '1,2,3\n',
    );
  });

  test('brings the command', () => {
    const doctor = JSON.parse(node('node_modules/fovea/dist/cli/main.js', 'doctor', '--json')) as {
      native: { ok: boolean };
    };
    expect(doctor.native.ok).toBe(true);
  });

  test('says what to do when there is no build for the machine', () => {
    rmSync(join(user, 'node_modules/fovea/prebuilds'), { recursive: true });
    const source = `import { tensor } from 'fovea'; try { tensor([1]); } catch (e) { console.log(e.code, e.message); }`;
    expect(node('--input-type=module', '-e', source)).toMatch(/^ERR_NATIVE no native build .*npx fovea build/s);
  });
});
