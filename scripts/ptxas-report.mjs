#!/usr/bin/env node
// Assembles every kernel with ptxas and reports registers, spills, shared memory and the occupancy that registers allow; or counts the
// instructions of main loops.
//   node scripts/ptxas-report.mjs [files.cu|files.ptx ...]      default: cuda/*.cu
//   --mix               instructions of each kernel's main loop by class (ptx-loops.mjs), nothing assembled
//   --arch=80,89,90a    architectures (a *_sm90 file is assembled for 90a alone)
//   --no-spills=REGEX   kernels that must not spill (default: attention|neighborhood); any spill there makes the exit status 1
//   --jobs=2            processes at a time
//   --json              one JSON array on stdout instead of the table
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { mainLoops } from './ptx-loops.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const args = process.argv.slice(2);
const option = (name, fallback) => args.find((a) => a.startsWith(`--${name}=`))?.slice(name.length + 3) ?? fallback;
const archs = option('arch', '80,89,90a').split(',');
const mix = args.includes('--mix');
const strict = new RegExp(option('no-spills', 'attention|neighborhood'));
const folder = join(root, 'cuda');
const given = args.filter((a) => !a.startsWith('--'));
const files = given.length
  ? given
  : existsSync(folder)
    ? readdirSync(folder)
        .filter((f) => f.endsWith('.cu'))
        .map((f) => join(folder, f))
    : [];

// Registers of a multiprocessor and its limit of threads, by architecture.
const REGISTERS = 65536;
const threadsOf = (arch) => (arch.startsWith('80') || arch.startsWith('9') ? 2048 : 1536);

// Both streams of a command's output; throws with them when it fails.
async function run(command, commandArgs) {
  const { stdout, stderr } = await promisify(execFile)(command, commandArgs, { maxBuffer: 1 << 26 });
  return stdout + stderr;
}

async function toPtx(file, scratch) {
  if (file.endsWith('.ptx')) return file;
  const out = join(scratch, basename(file).replace(/\.cu$/, '.ptx'));
  const arch = /_sm90/.test(file) ? 'compute_90a' : 'compute_80';
  await run('nvcc', ['-ptx', `-arch=${arch}`, '-O3', '-std=c++20', `-I${join(root, 'csrc')}`, file, '-o', out]);
  return out;
}

// Threads a block of each entry may have, from .maxntid or .reqntid.
function blockThreads(ptx) {
  const found = new Map();
  for (const [, name, rest] of ptx.matchAll(/\.entry\s+([\w$]+)\s*\([^)]*\)([^{]*)\{/g)) {
    const limit = /\.(?:maxntid|reqntid)\s+([\d, ]+)/.exec(rest);
    if (limit)
      found.set(
        name,
        limit[1].split(',').reduce((product, n) => product * Number(n), 1),
      );
  }
  return found;
}

function parse(report, file, arch, threads) {
  const rows = [];
  for (const part of report.split(/Compiling entry function '/).slice(1)) {
    const name = part.slice(0, part.indexOf("'"));
    const number = (pattern) => Number(pattern.exec(part)?.[1] ?? 0);
    const registers = number(/Used (\d+) registers/);
    const block = threads.get(name);
    const warpRegisters = Math.ceil((registers * 32) / 256) * 256;
    const warps = Math.min(Math.floor(REGISTERS / Math.max(1, warpRegisters)), threadsOf(arch) / 32);
    rows.push({
      file: basename(file),
      kernel: name,
      arch: `sm_${arch}`,
      registers,
      spillStoreBytes: number(/(\d+) bytes spill stores/),
      spillLoadBytes: number(/(\d+) bytes spill loads/),
      stackBytes: number(/(\d+) bytes stack frame/),
      sharedBytes: number(/(\d+) bytes smem/),
      blockThreads: block ?? null,
      warpsPerMultiprocessor: block ? Math.floor((warps * 32) / block) * (block / 32) : warps,
    });
  }
  return rows;
}

// One row per kernel and architecture, or per kernel for --mix.
async function rowsOf(file, scratch) {
  const ptx = await toPtx(file, scratch);
  const text = readFileSync(ptx, 'utf8');
  if (mix) return mainLoops(text);
  const rows = [];
  for (const arch of /_sm90/.test(file) ? ['90a'] : archs) {
    const cubin = join(scratch, `${basename(file)}.${arch}.cubin`);
    rows.push(
      ...parse(await run('ptxas', ['-v', `-arch=sm_${arch}`, ptx, '-o', cubin]), file, arch, blockThreads(text)),
    );
  }
  return rows;
}

const scratch = mkdtempSync(join(tmpdir(), 'fovea-ptxas-'));
const byFile = [];
try {
  const waiting = files.entries();
  const work = async () => {
    for (const [i, file] of waiting) byFile[i] = await rowsOf(file, scratch);
  };
  await Promise.all(Array.from({ length: Number(option('jobs', 2)) }, work));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
const rows = byFile.flat();

if (args.includes('--json')) {
  process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
} else {
  console.table(rows);
}
const spilled = mix ? [] : rows.filter((r) => strict.test(r.kernel) && r.spillStoreBytes + r.spillLoadBytes > 0);
for (const r of spilled) process.stderr.write(`${r.kernel} (${r.file}, ${r.arch}) spills ${r.spillStoreBytes} bytes\n`);
process.exit(spilled.length ? 1 : 0);
