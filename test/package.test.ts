import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VERSION } from '../lib/version.ts';

const root = new URL('..', import.meta.url).pathname;
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  version: string;
  gypfile: boolean;
  files: string[];
  scripts: Record<string, string>;
  binary: { napi_versions: number[] };
};

test('the manifest names the version and runs nothing at install time', () => {
  expect(manifest.version).toBe(VERSION);
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
    for (const name of [
      'package.json',
      'README.md',
      'CHANGELOG.md',
      'LICENSE',
      'CMakeLists.txt',
      'csrc',
      'cuda',
      'docs',
    ])
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
      'CHANGELOG.md',
      'CMakeLists.txt',
      'LICENSE',
      'README.md',
      'csrc',
      'cuda',
      'dist',
      'docs',
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

  test('its sources can be configured, with nothing of the checkout', () => {
    symlinkSync(join(root, 'node_modules'), join(stage, 'node_modules'));
    const cmakeJs = join(root, 'node_modules/cmake-js/bin/cmake-js');
    const { status, stdout, stderr } = spawnSync(process.execPath, [cmakeJs, 'configure'], {
      cwd: stage,
      encoding: 'utf8',
    });
    expect(status, stdout + stderr).toBe(0);
  });

  const PROGRAM = `import { attention, mask, masks, score, tensor, type Tensor } from 'fovea';
    const t: Tensor = tensor([[1, 2], [3, 4]]).mul(2).slice(0, 0, 1).sum(0, true);
    export const first: Promise<number | undefined> = t.data('f32').then((values) => values[0]);
    export const slopes = score(({ s, h }, { slope }) => s - slope[h]!, { slope: tensor([0.5]) });
    export const odd = mask(({ q, kv }, { by }) => (q - kv) % by === 0, { by: 2 });
    export const lse: Tensor = attention(t, t, t, { mask: masks.causal(), returnLse: true }).lse;
    // @ts-expect-error axes are numbers
    t.sum('rows');
    // @ts-expect-error a condition has no third choice
    t.where(1, 2, 3);`;

  // Without skipLibCheck: every declaration file of the package is checked, with nothing installed beside it.
  test.each([
    ['node16', 'node16'],
    ['nodenext', 'nodenext'],
    ['esnext', 'bundler'],
  ])('its types hold in a strict project (module %s, moduleResolution %s)', (module, moduleResolution) => {
    writeFileSync(join(user, 'program.mts'), PROGRAM);
    const settings = ['--strict', '--noEmit', '--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess'];
    const [tsc, target] = [join(root, 'node_modules/typescript/bin/tsc'), ['--target', 'es2022']];
    const how = ['--module', module, '--moduleResolution', moduleResolution];
    const { status, stdout } = spawnSync(process.execPath, [tsc, ...settings, ...target, ...how, 'program.mts'], {
      cwd: user,
      encoding: 'utf8',
    });
    expect([status, stdout]).toEqual([0, '']);
  });

  test('source maps bring their sources', () => {
    const map = readFileSync(join(user, 'node_modules/fovea/dist/attention/attention.js.map'), 'utf8');
    expect((JSON.parse(map) as { sourcesContent: string[] }).sourcesContent[0]).toContain('export function attention');
  });

  test('the demo says which packages it needs', () => {
    const { status, stderr } = spawnSync(process.execPath, ['node_modules/fovea/dist/cli/main.js', 'demo'], {
      cwd: user,
      encoding: 'utf8',
    });
    expect(status).toBe(2);
    expect(stderr).toMatch(/npm install --save-dev .*moby-dick.*jpeg-js/);
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

  test.each([
    ['a file that is not there', null, /^ERR_NATIVE FOVEA_NATIVE names .*where no file is/],
    ['what is no addon', 'module.exports = (', /^ERR_NATIVE no native build .*addon\.cjs: .*npx fovea build/],
    ['an addon of another version', 'exports.buildVersion = () => "0.0.1"', /^ERR_NATIVE .*built for version 0\.0\.1, this is fovea/], // prettier-ignore
    ['an addon that tells no version', 'exports.isa = () => "avx2"', /^ERR_NATIVE .*built for version none/],
  ])('refuses as FOVEA_NATIVE %s', (_, addon, said) => {
    const path = join(user, 'addon.cjs');
    rmSync(path, { force: true });
    if (addon !== null) writeFileSync(path, addon);
    const source = `import { tensor } from 'fovea'; try { tensor([1]); } catch (e) { console.log(e.code, e.message); }`;
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
      cwd: user,
      encoding: 'utf8',
      env: { ...process.env, FOVEA_NATIVE: path },
    });
    expect(stdout).toMatch(said);
  });
});
