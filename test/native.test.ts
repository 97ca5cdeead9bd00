import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { native } from '../lib/native.ts';

test('the seam lists exactly what the addon exports', () => {
  const source = readFileSync(new URL('../lib/native.ts', import.meta.url), 'utf8');
  const body = source.slice(source.indexOf('export interface Native {'), source.indexOf('/** Package root'));
  const declared = [...body.matchAll(/^ {2}(\w+)\(/gm)].map((match) => match[1]);
  expect(declared.length).toBeGreaterThan(30);
  expect(declared.toSorted()).toEqual(Object.keys(native()).toSorted());
});

test('handles that never were one are refused', () => {
  for (const handle of [-1, 1e15, NaN, 0.5])
    expect(() => native().shape(handle)).toThrow(expect.objectContaining({ name: 'FoveaError' }));
  expect(() => native().shape('x' as never)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
});

test('FOVEA_CPU_ISA with a value that is no level of this machine is refused when the addon loads', () => {
  const script = `import { native } from './lib/native.ts';
    try { console.log(native().isa()); } catch (error) { console.log(error.name, error.code, error.message); }`;
  const run = (FOVEA_CPU_ISA: string): string =>
    execFileSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      cwd: new URL('..', import.meta.url),
      env: { ...process.env, FOVEA_CPU_ISA },
      encoding: 'utf8',
    });
  const refused = run('avx1024');
  expect(refused).toMatch(/^FoveaError ERR_ARGUMENT /);
  expect(refused).toContain("'avx1024'");
  expect(refused).toContain('baseline');
  expect(run('baseline')).toBe('baseline\n');
});

test.skipIf(process.platform !== 'linux')(
  'the addon exports the two entry points of Node-API and links nothing unusual',
  () => {
    const addon = new URL('../build/Release/fovea.node', import.meta.url).pathname;
    const symbols = execFileSync('nm', ['-D', '--defined-only', addon], { encoding: 'utf8' });
    const names = symbols.split('\n').flatMap((line) => line.split(' ')[2] ?? []);
    expect(names.every((name) => /^(napi_register_module_v1|node_api_module_get_api_version_v1)$/.test(name))).toBe(
      true,
    );
    const linked = execFileSync('ldd', [addon], { encoding: 'utf8' });
    expect(linked).not.toMatch(/libcuda|libcudart|openblas|gomp/);
  },
);
