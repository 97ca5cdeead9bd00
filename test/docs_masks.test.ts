import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

test('docs/masks.md and its pictures are what the library says', () => {
  const root = join(dirname(fileURLToPath(import.meta.url)), '..');
  const tsx = createRequire(import.meta.url).resolve('tsx/cli');
  const args = [tsx, join(root, 'scripts/docs-masks.ts'), '--check'];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(status).toBe(0);
});
