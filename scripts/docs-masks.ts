/**
 * Writes docs/masks.md and its pictures from the mask and score library: the text of each entry is its docstring.
 *
 *   tsx scripts/docs-masks.ts           write
 *   tsx scripts/docs-masks.ts --check   compare, exit 1 where a file is stale
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';
import { buildBlockMask, type BlockMaskSizes } from '../lib/mask/build.ts';
import { and } from '../lib/mask/compose.ts';
import * as masks from '../lib/mask/masks/index.ts';
import * as scores from '../lib/mask/scores/index.ts';
import { describe } from '../lib/mask/show.ts';
import type { Mask, Score } from '../lib/mask/mask.ts';

interface MaskEntry {
  readonly name: keyof typeof masks;
  readonly file: string;
  /** The call as shown above the picture. */
  readonly call: string;
  readonly mask: Mask;
  readonly sizes?: Partial<BlockMaskSizes>;
}

interface ScoreEntry {
  readonly name: keyof typeof scores;
  readonly file: string;
  readonly call: string;
  readonly score: Score;
}

const documents = masks.documentIds([14, 7, 21, 22]);
const image = Int32Array.from({ length: 64 }, (_, i) => Math.floor(i / 13) - 1);

const MASKS: readonly MaskEntry[] = [
  { name: 'causal', file: 'causal', call: 'causal()', mask: masks.causal() },
  { name: 'slidingWindow', file: 'sliding_window', call: 'slidingWindow(12)', mask: masks.slidingWindow(12) },
  { name: 'globalWindow', file: 'global_window', call: 'globalWindow(4, 6)', mask: masks.globalWindow(4, 6) },
  { name: 'prefixLM', file: 'prefix_lm', call: 'prefixLM(20)', mask: masks.prefixLM(20) },
  {
    name: 'document',
    file: 'document',
    call: 'and(causal(), document(documentIds([14, 7, 21, 22])))',
    mask: and(masks.causal(), masks.document(documents)),
  },
  {
    name: 'prefixDocument',
    file: 'prefix_document',
    call: 'prefixDocument(documentIds([14, 7, 21, 22]), 5)',
    mask: masks.prefixDocument(documents, 5),
  },
  {
    name: 'blockDocument',
    file: 'block_document',
    call: 'blockDocument(documentIds([14, 7, 21, 22]), 4)',
    mask: masks.blockDocument(documents, 4),
  },
  {
    name: 'causalBlockwise',
    file: 'causal_blockwise',
    call: 'causalBlockwise(documentIds([14, 7, 21, 22]))',
    mask: masks.causalBlockwise(documents),
  },
  {
    name: 'sharedPrefix',
    file: 'shared_prefix',
    call: 'sharedPrefix(documentIds([14, 7, 21, 22]))',
    mask: masks.sharedPrefix(documents),
  },
  { name: 'dilated', file: 'dilated', call: 'dilated(3, 6)', mask: masks.dilated(3, 6) },
  { name: 'streaming', file: 'streaming', call: 'streaming(4, 12)', mask: masks.streaming(4, 12) },
  {
    name: 'blockStreaming',
    file: 'block_streaming',
    call: 'blockStreaming(1, 2, 8)',
    mask: masks.blockStreaming(1, 2, 8),
  },
  { name: 'triangle', file: 'triangle', call: 'triangle(4, 12, 10, 64)', mask: masks.triangle(4, 12, 10, 64) },
  { name: 'blockDiffusion', file: 'block_diffusion', call: 'blockDiffusion(32, 8)', mask: masks.blockDiffusion(32, 8) },
  {
    name: 'flamingo',
    file: 'flamingo',
    call: 'flamingo(lastImageOfEachToken, 12)',
    mask: masks.flamingo(image, 12),
    sizes: { kv: 48 },
  },
  {
    name: 'natten',
    file: 'natten',
    call: 'natten({ shape: [8, 8], kernelSize: 3 })',
    mask: masks.natten({ shape: [8, 8], kernelSize: 3 }),
  },
  {
    name: 'tile',
    file: 'tile',
    call: 'tile({ tiles: [2, 2, 4], window: [1, 2, 3], tileTokens: 16 })',
    mask: masks.tile({ tiles: [2, 2, 4], window: [1, 2, 3], tileTokens: 16 }),
    sizes: { q: 256 },
  },
];

const ramp = (n: number) => Array.from({ length: n }, (_, i) => Math.cos(i * 0.9) / (1 + 0.1 * i));
const ring = Array.from({ length: 32 }, (_, i) =>
  Array.from({ length: 32 }, (_, j) => Math.min(Math.abs(i - j), 32 - Math.abs(i - j), 7)),
);

const SCORES: readonly ScoreEntry[] = [
  { name: 'alibi', file: 'alibi', call: 'alibi(8)', score: scores.alibi(8) },
  { name: 'softcap', file: 'softcap', call: 'softcap(20)', score: scores.softcap(20) },
  { name: 'relativeBias', file: 'relative_bias', call: 'relativeBias(bias, 8)', score: scores.relativeBias([ramp(17)], 8) },
  { name: 't5Bias', file: 't5_bias', call: 't5Bias(bias, { bidirectional: true, buckets: 16, maxDistance: 32 })', score: scores.t5Bias([ramp(16)], { bidirectional: true, buckets: 16, maxDistance: 32 }) },
  { name: 'sandwich', file: 'sandwich', call: 'sandwich(8)', score: scores.sandwich(8) },
  { name: 'graphormer', file: 'graphormer', call: 'graphormer(bias, shortestPaths)', score: scores.graphormer([ramp(8)], ring) },
]; // prettier-ignore

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** The docstring of an exported function as Markdown. */
function docstring(file: string, name: string): string {
  const source = readFileSync(join(root, 'lib/mask', file), 'utf8');
  const match = new RegExp(`/\\*\\*((?:(?!\\*/)[^])*)\\*/\\s*export function ${name}\\(`).exec(source);
  if (!match) throw new Error(`no docstring of ${name} in ${file}`);
  const text = match[1].split('\n').map((line) => line.replace(/^\s*\* ?/, '').trimEnd());
  return text
    .join('\n')
    .trim()
    .replace(/\{@link (\w+)\}/g, '`$1`')
    .replace(/^@param (\w+) /gm, '- `$1`: ')
    .replace(/^@throws FoveaError /gm, '- throws ')
    .replace(/^Source: /gm, '*Source:* ');
}

const LEVELS = ['#f7fbff', '#deebf7', '#c6dbef', '#9ecae1', '#6baed6', '#4292c6', '#2171b5', '#08519c', '#08306b'];

/** What a score adds to a logit of 0, queries down, keys across; for a score that looks at the logit alone, its curve. */
function scoreSVG({ name, score }: ScoreEntry): string {
  const head = (height: number) =>
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 258 ${height}" width="258" height="${height}" font-family="sans-serif" font-size="11">\n<title>${name}</title>\n`;
  if (score.value({ q: 5, kv: 2 }) === score.value({ q: 9, kv: 30 })) {
    const points = Array.from({ length: 65 }, (_, i) => {
      const s = (i - 32) * 2;
      return `${i * 4},${Math.round((128 - 2 * score.value({ s })) * 10) / 10}`;
    });
    return `${head(258)}<path d="M0 128H256M128 0V256" stroke="#ccc"/>\n<polyline points="${points.join(' ')}" fill="none" stroke="#2166ac" stroke-width="2"/>\n</svg>\n`;
  }
  const values = Array.from({ length: 32 * 32 }, (_, i) => score.value({ q: Math.floor(i / 32), kv: i % 32 }));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const level = (i: number) => Math.min(8, Math.floor((9 * (values[i] - low)) / (high - low)));
  const paths = LEVELS.map((color, wanted) => {
    let d = '';
    for (let q = 0; q < 32; ++q)
      for (let kv = 0; kv < 32; ++kv) {
        let end = kv;
        while (end < 32 && level(q * 32 + end) === wanted) ++end;
        if (end > kv) d += `M${kv * 8} ${q * 8}H${end * 8}V${q * 8 + 8}H${kv * 8}Z`;
        kv = end;
      }
    return d === '' ? '' : `<path fill="${color}" d="${d}"/>\n`;
  });
  const short = (x: number) => x.toPrecision(3);
  return `${head(276)}${paths.join('')}<text x="0" y="270">added to a logit of 0, head 0: ${short(low)} (light) to ${short(high)} (dark)</text>\n</svg>\n`;
}

async function files(): Promise<Map<string, string>> {
  const out = new Map<string, string>();
  const page = [
    '# Masks and scores of the library',
    '',
    'Written by `scripts/docs-masks.ts` from the docstrings in `lib/mask/masks` and `lib/mask/scores`; change those.',
    '',
    'Every entry is a few lines of the mask language that you could write yourself; `and`, `or`, `not` and `offset` compose masks, `chain`',
    'composes scores. Pictures: queries from top to bottom, keys from left to right; blue: blocks visible throughout, which run without any',
    'mask; orange: visible pairs of the blocks that need a bit matrix; grey: blocks that are never visited.',
    '',
    '## Masks',
    '',
  ];
  for (const { name, file, call, mask, sizes } of MASKS) {
    const built = buildBlockMask(mask, { q: 64, block: 16, ...sizes });
    out.set(`docs/img/mask-${file}.svg`, built.toSVG({ title: call }));
    page.push(`### ${name}`, '', docstring(`masks/${file}.ts`, name), '', '```ts', call, '```', '');
    page.push(`![${name}](img/mask-${file}.svg)`, '', `${describe(built)}.`, '');
  }
  page.push('## Scores', '');
  for (const entry of SCORES) {
    out.set(`docs/img/score-${entry.file}.svg`, scoreSVG(entry));
    page.push(
      `### ${entry.name}`,
      '',
      docstring(`scores/${entry.file}.ts`, entry.name),
      '',
      '```ts',
      entry.call,
      '```',
      '',
    );
    page.push(`![${entry.name}](img/score-${entry.file}.svg)`, '');
  }
  const missing = [
    ...Object.keys(masks).filter((name) => name !== 'documentIds' && !MASKS.some((entry) => entry.name === name)),
    ...Object.keys(scores).filter(
      (name) => !/Slopes$|Buckets$/.test(name) && !SCORES.some((entry) => entry.name === name),
    ),
  ];
  if (missing.length > 0) throw new Error(`no picture of ${missing.join(', ')}: add a row to scripts/docs-masks.ts`);
  const style = await resolveConfig(join(root, 'docs/masks.md'));
  out.set('docs/masks.md', await format(page.join('\n'), { ...style, parser: 'markdown' }));
  return out;
}

const check = process.argv.includes('--check');
const stale: string[] = [];
for (const [path, text] of await files()) {
  const target = join(root, path);
  if (!check) {
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, text);
    continue;
  }
  try {
    if (readFileSync(target, 'utf8') !== text) stale.push(path);
  } catch {
    stale.push(path);
  }
}
if (stale.length > 0) {
  process.stderr.write(`stale: ${stale.join(', ')}; run npx tsx scripts/docs-masks.ts\n`);
  process.exit(1);
}
