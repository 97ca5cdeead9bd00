#!/usr/bin/env node
// Puts PTX files into one C++ include (csrc/cuda/kernels.h): compressed, with their entry points, and with the version in the header
// lowered to the oldest that knows the instructions used, since nvcc writes its own, which older drivers refuse.
//   embed-ptx.mjs OUTPUT FILE.ptx...
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

const [output, ...files] = process.argv.slice(2);
let data = '',
  table = '';
for (const file of files) {
  const text = lowered(readFileSync(file, 'utf8'));
  const name = basename(file, '.ptx');
  const entries = [...text.matchAll(/^\.visible \.entry (\w+)/gm)].map((match) => match[1]);
  const bytes = deflateRawSync(Buffer.from(text), { level: 9 });
  const padded = Buffer.concat([bytes, Buffer.alloc(7)]);
  const words = Array.from(
    { length: Math.ceil(bytes.length / 8) },
    (_, i) => `0x${padded.readBigUInt64LE(8 * i).toString(16)}`,
  );
  data += `const uint64_t kData_${name}[] = {${words.join(',')}};\n`;
  const lines = entries.map((entry) => `"${entry}\\n"`).join(' ') || '""';
  table += `    {"${name}", ${lines}, kData_${name}, ${bytes.length}, ${Buffer.byteLength(text)}},\n`;
}
writeFileSync(
  output,
  `namespace fovea::cuda {
namespace {
${data}const EmbeddedFile kEmbeddedFiles[] = {
${table}    {"", "", nullptr, 0, 0},
};
constexpr size_t kEmbeddedFileCount = ${files.length};
}  // namespace
}  // namespace fovea::cuda
`,
);
