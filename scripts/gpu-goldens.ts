/**
 * Golden vectors and mask programs in a layout that test/gpu/goldens.h reads with a few lines: for the archive of scripts/gpu-bundle.mjs.
 *   npx tsx scripts/gpu-goldens.ts FOLDER
 * Writes FOLDER/goldens (what test/goldens has of attention, merges, neighborhood attention and masks) and FOLDER/block_mask (for bench/gpu:
 * the tiles that interval analysis leaves of a mask, and the milliseconds it took here).
 */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { buildBlockMask } from '../lib/mask/build.ts';
import { and } from '../lib/mask/compose.ts';
import * as masks from '../lib/mask/masks/index.ts';
import { encodeProgram, uniformBits, type Program } from '../lib/mask/program.ts';
import type { TileRequest } from '../lib/mask/tile_store.ts';
import { goldenMasks } from '../test/golden_masks.ts';

const TABLE_DTYPES = ['f32', 'i32', 'u8'];
const BLOCK = 128;
/** Lengths of the benchmark's block mask, as bench/gpu/cases.txt has them and as gpu-check --short divides them. */
const BLOCK_MASK_LENGTHS = [65536, 512];

type Golden = ReturnType<typeof loadSafetensors>;
type Numbers = Readonly<Record<string, number | boolean>>;

/** cases.txt and data.bin. */
class Cases {
  readonly #lines: string[] = [];
  readonly #data: Uint8Array[] = [];
  #bytes = 0;

  add(kind: string, name: string, numbers: Numbers): void {
    this.#lines.push(`case ${kind} ${name}`);
    for (const [key, value] of Object.entries(numbers)) this.#lines.push(`number ${key} ${Number(value)}`);
  }

  array(key: string, data: Float64Array | Int32Array | Uint8Array): void {
    const type = data instanceof Float64Array ? 'f64' : data instanceof Int32Array ? 'i32' : 'u8';
    this.#lines.push(`array ${key} ${type} ${this.#bytes} ${data.length}`);
    this.#data.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    this.#bytes += data.byteLength;
  }

  program(program: Program): void {
    this.array('program', encodeProgram(program));
    this.array('uniforms', uniformBits(program));
    this.#lines.push(`number tables ${program.tables.length}`);
    program.tables.forEach(({ dtype, data }, i) => {
      this.#lines.push(`number table${i}.dtype ${TABLE_DTYPES.indexOf(dtype)}`);
      this.array(`table${i}`, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    });
  }

  write(folder: string): void {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'cases.txt'), `${this.#lines.join('\n')}\n`);
    writeFileSync(join(folder, 'data.bin'), Buffer.concat(this.#data));
  }
}

const folder = new URL('../test/goldens/', import.meta.url).pathname;
const load = (name: string): Golden => loadSafetensors(join(folder, `${name}.safetensors`));
const named = (prefix: string): string[] =>
  readdirSync(folder)
    .filter((name) => name.startsWith(prefix))
    .map((name) => name.slice(0, -'.safetensors'.length));
const wide = (golden: Golden, key: string): Float64Array =>
  Float64Array.from(golden.get(key).dataSync() as Float64Array);

/** Copies the arrays that the file has: [name in the file, name in the case]. */
function arrays(to: Cases, golden: Golden, names: readonly (readonly [string, string])[]): void {
  for (const [from, key] of names) if (golden.has(from)) to.array(key, wide(golden, from));
}

const GRADIENTS = ['q', 'k', 'v', 'bias', 'extra_k', 'extra_v'].map((key) => [`grad.input.${key}`, `d${key}`] as const);

interface AttentionConfig {
  causal?: boolean | 'top_left' | 'bottom_right';
  window?: [number, number];
  softcap?: number;
  scale?: number;
}

function attention(to: Cases, name: string): void {
  using golden = load(name);
  const config = JSON.parse(golden.metadata.config) as AttentionConfig;
  const [q, k, v] = ['q', 'k', 'v'].map((key) => golden.get(`input.${key}`).shape);
  const grids = ['bias', 'mask'].filter((key) => golden.has(`input.${key}`));
  const [left, right] = config.window ?? [-1, -1];
  to.add('attention', name, {
    batch: q[0],
    heads_q: q[1],
    heads_kv: k[1],
    len_q: q[2],
    len_kv: k[2],
    dim: q[3],
    dim_v: v[3],
    scale: config.scale ?? q[3] ** -0.5,
    softcap: config.softcap ?? 0,
    causal: Boolean(config.causal),
    bottom_right: config.causal === 'bottom_right',
    window_left: left,
    window_right: right,
    ...Object.fromEntries(
      grids.flatMap((key) => {
        const { shape } = golden.get(`input.${key}`);
        return [0, 1, 2, 3].map((axis) => [`${key}.shape${axis}`, shape[shape.length - 4 + axis] ?? 1]);
      }),
    ),
  });
  arrays(to, golden, [
    ...['q', 'k', 'v', 'bias'].map((key) => [`input.${key}`, key] as const),
    ['output.out', 'out'],
    ['output.lse', 'lse'],
    ['cotangent.output', 'dout'],
    ['cotangent.output.out', 'dout'],
    ['cotangent.output.lse', 'dlse'],
    ...GRADIENTS,
  ]);
  if (golden.has('input.mask')) to.array('mask', Uint8Array.from(golden.get('input.mask').dataSync() as Uint8Array));
}

function merge(to: Cases, name: string): void {
  using golden = load(name);
  const count = golden.keys().filter((key) => key.startsWith('input.o')).length;
  const shape = golden.get('input.o0').shape;
  const dim = shape[shape.length - 1];
  to.add('merge', name, { count, dim, rows: golden.get('input.o0').size / dim });
  arrays(to, golden, [
    ...Array.from({ length: count }, (_, i) => [
      [`input.o${i}`, `out${i}`] as const,
      [`input.lse${i}`, `lse${i}`] as const,
    ]).flat(),
    ['output.y', 'out'],
    ['output.lse', 'lse'],
  ]);
}

interface NeighborhoodCase {
  case: number;
  shape: number[];
  kernel: number[];
  stride: number[];
  dilation: number[];
  causal: number[];
}

function neighborhood(to: Cases, name: string): void {
  using golden = load(name);
  for (const c of JSON.parse(golden.metadata.cases) as NeighborhoodCase[]) {
    const at = (key: string): string => `${String(c.case).padStart(3, '0')}.${key}`;
    const [q, k, v] = ['q', 'k', 'v'].map((key) => golden.get(at(`input.${key}`)).shape);
    const last = q.length - 1;
    to.add('neighborhood', `${name} ${c.case}`, {
      rank: c.shape.length,
      batch: q[0],
      heads_q: q[last - 1],
      heads_kv: k[last - 1],
      dim: q[last],
      dim_v: v[last],
      scale: q[last] ** -0.5,
      extra: golden.has(at('input.extra_k')) ? golden.get(at('input.extra_k')).shape[1] : 0,
      ...Object.fromEntries(
        c.shape.flatMap((length, i) => [
          [`length${i}`, length],
          [`kernel${i}`, c.kernel[i]],
          [`stride${i}`, c.stride[i]],
          [`dilation${i}`, c.dilation[i]],
          [`causal${i}`, c.causal[i]],
        ]),
      ),
    });
    const inputs = ['q', 'k', 'v', 'extra_k', 'extra_v'].map((key) => [`input.${key}`, key] as const);
    const outputs = [['output.y', 'out'], ['output.lse', 'lse'], ['cotangent.output.y', 'dout']] as const; // prettier-ignore
    arrays(
      to,
      golden,
      [...inputs, ...outputs, ...GRADIENTS].map(([from, key]) => [at(from), key] as const),
    );
  }
}

/** Causal within the documents of bench/gpu/cases.txt: what is left to evaluate, and how long finding it takes. */
function blockMask(to: Cases, length: number): void {
  const lengths: number[] = [];
  for (let i = 0, sum = 0; sum < length; ++i) {
    lengths.push(Math.min([512, 1536, 3072, 1024, 2048][i % 5], length - sum));
    sum += lengths[i];
  }
  const mask = and(masks.causal(), masks.document(masks.documentIds(lengths)));
  let request: TileRequest | undefined;
  let least = Infinity;
  for (let run = 0; run < 20; ++run) {
    const start = performance.now();
    buildBlockMask(mask, { q: length, block: BLOCK }, (asked, store) => {
      request = asked;
      return new Int32Array(asked.tiles.length / 4).fill(store.add(new Uint8Array(store.tileBytes)));
    });
    least = Math.min(least, performance.now() - start);
  }
  if (!request) throw new Error(`the block mask of length ${length} has nothing to evaluate`);
  to.add('block_mask', cpus()[0].model, { length, block: BLOCK, host_ms: least });
  to.program(mask.program);
  to.array('tiles', request.tiles);
}

const [target] = process.argv.slice(2);
if (!target) throw new Error('usage: tsx scripts/gpu-goldens.ts FOLDER');
const goldens = new Cases();
for (const name of named('sdpa_')) attention(goldens, name);
for (const name of named('attn_merge_')) merge(goldens, name);
for (const name of ['na1d_all', 'na2d_all', 'na3d_all', 'na_extra_kv', 'na_gqa_2d']) neighborhood(goldens, name);
for (const { name, mask, length, shown } of goldenMasks()) {
  goldens.add('mask', name, { length });
  goldens.program(mask.program);
  goldens.array('shown', Uint8Array.from(shown));
}
goldens.write(join(target, 'goldens'));
const blockMasks = new Cases();
for (const length of BLOCK_MASK_LENGTHS) blockMask(blockMasks, length);
blockMasks.write(join(target, 'block_mask'));
