/** The programs in the documentation run as they stand. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const library = JSON.stringify(new URL('../lib/index.ts', import.meta.url).href);

test.each([
  ['README.md', /attention: q \[1, 8, 4096, 64\]/],
  ['docs/training.md', /200 0\.\d+/],
])('%s', (page, printed) => {
  const text = readFileSync(new URL(`../${page}`, import.meta.url), 'utf8');
  const programs = [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code);
  expect(programs).toHaveLength(1);
  const folder = mkdtempSync(join(tmpdir(), 'fovea-docs-'));
  try {
    writeFileSync(join(folder, 'program.mts'), programs[0].replace("'fovea'", library));
    const run = spawnSync(process.execPath, ['--import', import.meta.resolve('tsx'), 'program.mts'], { cwd: folder, encoding: 'utf8' }); // prettier-ignore
    expect(run.stderr).toBe('');
    expect(run.status).toBe(0);
    expect(run.stdout).toMatch(printed);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
