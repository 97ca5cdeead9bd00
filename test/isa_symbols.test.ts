import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const build = new URL('../build/CMakeFiles', import.meta.url).pathname;

/** Weak symbols of an object compiled for a high instruction set could be chosen by the linker for the whole addon. */
function weakSymbols(folder: string): string[] {
  const objects = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.o'));
  expect(objects.length).toBeGreaterThan(0);
  return objects.flatMap((object) =>
    execFileSync('nm', ['-C', '--defined-only', join(folder, object)], { encoding: 'utf8' })
      .split('\n')
      .filter((line) => / [WVu] /.test(line) && !line.includes('DW.ref.__gxx_personality'))
      .map((line) => `${object}: ${line}`),
  );
}

test.skipIf(process.platform !== 'linux' || !existsSync(join(build, 'fovea_cpu_avx512.dir')))(
  'objects compiled for higher instruction sets define no symbol another object could be given',
  () => {
    for (const level of ['avx2', 'avx512', 'avx512bf16'])
      expect(weakSymbols(join(build, `fovea_cpu_${level}.dir`))).toEqual([]);
  },
);
