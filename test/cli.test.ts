/** The fovea command as a shell sees it: stdout, stderr, exit codes. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';

const main = fileURLToPath(new URL('../lib/cli/main.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'fovea-cli-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

function fovea(...args: string[]): { code: number | null; out: string; err: string } {
  const tsx = import.meta.resolve('tsx');
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', tsx, main, ...args], { encoding: 'utf8', cwd: folder }); // prettier-ignore
  return { code: status, out: stdout, err: stderr };
}

describe('wrong use: exit code 2, the reason on stderr, nothing on stdout', () => {
  test.each([
    ['an unknown command', ['fly'], /unknown command 'fly'/],
    ['an unknown option', ['doctor', '--fast'], /--fast/],
    ['an unknown mask', ['mask', 'show', 'nothing'], /no mask 'nothing'.*causal/],
    ['a number that is none', ['mask', 'show', 'causal', '--q', 'many'], /q must be an integer.*many/],
    ['a length that is none', ['explain', '--q', '1,2'], /--q is 1,2, expected a whole number/],
    ['a window that is none', ['explain', '--window', 'wide'], /--window is wide, expected a whole number/],
    ['threads that are none', ['bench', '--threads', '0'], /--threads is 0, expected a whole number/],
    ['a build that is none', ['build', '--cuda', 'maybe'], /--cuda is maybe, expected AUTO, ON or OFF/],
    ['arguments that are no JSON', ['mask', 'show', 'slidingWindow', '--args', '[256'], /JSON array.*\[256/],
    ['a file that is not there', ['mask', 'show', 'nowhere.mjs#docs'], /nowhere\.mjs cannot be imported/],
    ['a style that is none', ['mask', 'show', 'causal', '--style', 'oil'], /--style is 'oil'/],
  ])('%s', (_, args, reason) => {
    const { code, out, err } = fovea(...args);
    expect([code, out]).toEqual([2, '']);
    expect(err).toMatch(reason);
    expect(err).not.toMatch(/\n {4}at /);
  });
});

test('a call that fails has exit code 1', () => {
  const { code, err } = fovea('explain', '--dim', '300');
  expect(code).toBe(1);
  expect(err).toMatch(/^fovea: ERR_SHAPE: .*1 to 256/);
});

test('text outside the mask language is refused, not run', () => {
  const { code, err } = fovea('mask', 'show', '({ q }) => process.exit(7)');
  expect(code).toBe(1);
  expect(err).toMatch(/ERR_MASK_SYNTAX/);
});

test('mask show: data on stdout, the picture in a file', () => {
  const svg = join(folder, 'causal.svg');
  const { code, out, err } = fovea('mask', 'show', 'causal', '--q', '64', '--block', '16', '--json', '--svg', svg);
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ q: 64, kv: 64, full: 6, partial: 4, skipped: 6 });
  expect(err).toContain(svg);
  expect(readFileSync(svg, 'utf8')).toMatch(/^<svg/);
});

test('a mask of a file', () => {
  const library = JSON.stringify(new URL('../lib/index.ts', import.meta.url).href);
  const text = `import { masks } from ${library};\nexport const near = (n) => masks.slidingWindow(n);\nexport const five = 5;\n`;
  writeFileSync(join(folder, 'mine.mjs'), text);
  const { code, out } = fovea(
    'mask',
    'show',
    'mine.mjs#near',
    '--args',
    '[15]',
    '--q',
    '64',
    '--block',
    '16',
    '--json',
  );
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ full: 0, partial: 7 });
  expect(fovea('mask', 'show', 'mine.mjs#five')).toMatchObject({ code: 2, out: '' });
});

test('explain and doctor as JSON', () => {
  const explained = fovea('explain', '--q', '1000000', '--window', '127', '--causal', '--json');
  expect(JSON.parse(explained.out)).toMatchObject({ kernel: 'cpu.tiles', refused: expect.any(Array) as unknown });
  const doctor = fovea('doctor', '--json');
  expect(doctor.code).toBe(0);
  expect(JSON.parse(doctor.out)).toMatchObject({ native: { ok: true } });
});
