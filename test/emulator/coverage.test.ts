/**
 * Every instruction of the kernels that ship, and of the score programs spliced into them, is known to the emulator and compared with plain
 * C++ by a test of its own: those tests tell what PTX they run (tests/harness.h), and each opcode with its modifiers must be in it.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { buildEmulatorTests, emulatorBuild, findNvcc } from './build.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const shipped = join(root, 'build/ptx');
const nvcc = findNvcc();
const skip = !nvcc || !existsSync(shipped);

/** The programs that compare instructions with plain C++. */
const COMPARING = ['integers_test', 'floats_test', 'memory_test', 'control_test', 'matrix_test'];
/** Sources of generated instructions. */
const GENERATORS = ['csrc/cuda/score_program.cc', 'csrc/cuda/score_math.cc'];

/** Opcodes of PTX text: the first word of each statement that is not a directive. */
function opcodes(ptx: string): Set<string> {
  const code = ptx.replace(/\/\*[^]*?\*\//g, ' ').replace(/\/\/.*/g, '');
  const found = new Set<string>();
  for (const statement of code.split(/[;{}\n]/)) {
    const match = /^\s*(?:[$%\w]+:\s*)*(?:@!?%\w+\s+)?([a-z][a-z0-9]*(?:\.[A-Za-z0-9_:]+)*)\s*(?:[%$[(_\-\w]|$)/.exec(
      statement,
    );
    if (match && (match[1].includes('.') || ['bra', 'ret'].includes(match[1]))) found.add(match[1]);
  }
  return found;
}

function runProgram(name: string, folder: string, env: Record<string, string> = {}): string {
  const { stdout, stderr } = spawnSync(join(emulatorBuild, `emulator_${name}`), [folder], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 300_000,
  });
  return stdout + stderr;
}

describe.skipIf(skip)('instructions of the kernels', () => {
  beforeAll(() => void buildEmulatorTests(nvcc!), 1_200_000);

  it('are known to the emulator', () => {
    expect(runProgram('shipped_test', shipped)).toMatch(/^\d+ passed, 0 failed\s*$/);
  }, 300_000);

  it('are each compared with plain C++', () => {
    const folder = mkdtempSync(join(tmpdir(), 'fovea-ptx-'));
    const tested = new Set<string>();
    try {
      for (const name of COMPARING) {
        const file = join(folder, name);
        expect(runProgram(name, join(emulatorBuild, 'ptx'), { FOVEA_EMULATOR_TESTED: file })).toMatch(/ 0 failed\s*$/);
        for (const opcode of opcodes(readFileSync(file, 'utf8'))) tested.add(opcode);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    const used = new Map<string, string>();
    for (const file of readdirSync(shipped).filter((name) => name.endsWith('.ptx')))
      for (const opcode of opcodes(readFileSync(join(shipped, file), 'utf8'))) used.set(opcode, file);
    expect(used.size).toBeGreaterThan(200);
    const heads = new Set([...used.keys(), ...tested].map((opcode) => opcode.split('.')[0]));
    for (const file of GENERATORS)
      for (const [opcode] of readFileSync(join(root, file), 'utf8').matchAll(/\b[a-z][a-z0-9]+(?:\.\w+)+/g))
        if (heads.has(opcode.split('.')[0])) used.set(opcode, file);
    const missing = [...used].filter(([opcode]) => !tested.has(opcode)).map(([opcode, file]) => `${opcode} (${file})`);
    expect(missing.toSorted()).toEqual([]);
  }, 300_000);
});
