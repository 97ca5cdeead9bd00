#!/usr/bin/env node
// Puts PTX files into one C++ include (csrc/cuda/kernels.h): compressed, with their entry points, and with the version in the header
// lowered to the oldest that knows the instructions used, since nvcc writes its own, which older drivers refuse.
// Compiled code for some architectures may lie beside the text.
//   embed-ptx.mjs OUTPUT FILE.ptx... [FILE.sm_86.cubin...]
import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { deflateRawSync } from 'node:zlib';

/** Instructions that need a newer PTX than the 7.0 of sm_80; sm_90a code needs 8.0 as it is. */
const needs = [
  [8.0, /\.target sm_90a|\bwgmma\b|\bcp\.async\.bulk\b|\.multicast|\bmbarrier\.\S*tx\b/],
  [
    7.8,
    /\b(?:add|sub|mul)(?:\.\w+)*\.bf16(?:x2)?\b|\bcvt\.\S*\.bf16\.(?:bf16|f16)\b|\bmovmatrix\b|\b(?:ex2|tanh)\.approx\S*\.bf16/,
  ],
  [7.7, /\bcvta\.param\b|\.grid_constant/],
  [7.4, /\bcp\.async\.\S*L2::|\bld\.\S*L2::|\bcreatepolicy\b/],
  [7.1, /\bmma\.sp\b/],
];

// The pragma is a hint about loads wider than what is used of them, and an error before PTX 8.3.
function lowered(source) {
  const text = source.replace(/^[ \t]*\.pragma "used_bytes_mask[^\n]*\n/gm, '');
  const version = needs.find(([, pattern]) => pattern.test(text))?.[0] ?? 7.0;
  return text.replace(/^\.version [\d.]+/m, `.version ${version.toFixed(1)}`);
}

let data = '';

// An array of the deflated bytes; returns how many they are.
function place(name, content) {
  const bytes = deflateRawSync(content, { level: 9 });
  const padded = Buffer.concat([bytes, Buffer.alloc(7)]);
  const words = Array.from(
    { length: Math.ceil(bytes.length / 8) },
    (_, i) => `0x${padded.readBigUInt64LE(8 * i).toString(16)}`,
  );
  data += `const uint64_t ${name}[] = {${words.join(',')}};\n`;
  return bytes.length;
}

// The cubins of one file, as an array of EmbeddedCubin; returns its name and count.
function placeCubins(name, cubins) {
  const rows = cubins.map((file) => {
    const [, arch, only] = /\.sm_(\d+)([a-z]?)\.cubin$/.exec(file);
    const content = readFileSync(file);
    const array = `kCubin_${name}_${arch}${only}`;
    const bytes = place(array, content);
    return `{${arch}, ${only !== ''}, ${array}, ${bytes}, ${content.length}}`;
  });
  if (rows.length === 0) return 'nullptr, 0';
  data += `const EmbeddedCubin kCubins_${name}[] = {${rows.join(', ')}};\n`;
  return `kCubins_${name}, ${rows.length}`;
}

const [output, ...inputs] = process.argv.slice(2);
const files = inputs.filter((file) => file.endsWith('.ptx'));
let table = '';
for (const file of files) {
  const text = lowered(readFileSync(file, 'utf8'));
  const name = basename(file, '.ptx');
  const entries = [...text.matchAll(/^\.visible \.entry (\w+)/gm)].map((match) => match[1]);
  const bytes = place(`kData_${name}`, Buffer.from(text));
  const cubins = placeCubins(
    name,
    inputs.filter((input) => input.endsWith('.cubin') && basename(input).split('.')[0] === name),
  );
  const lines = entries.map((entry) => `"${entry}\\n"`).join(' ') || '""';
  table += `    {"${name}", ${lines}, kData_${name}, ${bytes}, ${Buffer.byteLength(text)}, ${cubins}},\n`;
}
writeFileSync(
  output,
  `namespace fovea::cuda {
namespace {
${data}const EmbeddedFile kEmbeddedFiles[] = {
${table}    {"", "", nullptr, 0, 0, nullptr, 0},
};
constexpr size_t kEmbeddedFileCount = ${files.length};
}  // namespace
}  // namespace fovea::cuda
`,
);
