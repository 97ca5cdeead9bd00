import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { FoveaError } from '../errors.ts';
import { resolveCaptures } from '../mask/captures.ts';
import { evaluate } from '../mask/evaluate.ts';
import { makeMask, type Mask } from '../mask/mask.ts';
import * as masks from '../mask/masks/index.ts';
import { describe, show, toSVG } from '../mask/show.ts';
import { compileSource, sourceTerm } from '../mask/term.ts';
import { blockMask } from '../ops/block_mask.ts';
import { note, report, type CommonOptions } from './output.ts';

export interface MaskShowOptions extends CommonOptions {
  q: number;
  kv?: number;
  block: number;
  args: string;
  style: 'blocks' | 'dots';
  svg?: string;
}

const { documentIds: _, ...made } = masks;
const library = made as unknown as Readonly<Record<string, (...args: unknown[]) => unknown>>;

/** The mask a command line names: a library mask, `file.mjs#export`, or the text of a function. */
export async function resolveMask(what: string, args: readonly unknown[]): Promise<Mask> {
  if (what.includes('=>')) {
    const program = compileSource(what, 'mask');
    const captures = resolveCaptures(undefined, 'mask');
    return makeMask(
      what,
      { term: sourceTerm(what, 'mask', captures, 'mask'), oracle: (at) => evaluate(program, at) !== 0, depth: 0 },
      {},
    );
  }
  if (what.includes('#')) {
    const [file, name] = what.split('#');
    const module = await importFile(file);
    const found = module[name];
    if (found === undefined)
      throw new FoveaError('ERR_ARGUMENT', `${file} has no export '${name}'; it has ${Object.keys(module).join(', ')}`);
    return expectMask(what, typeof found === 'function' ? (found as (...a: unknown[]) => unknown)(...args) : found);
  }
  if (!Object.hasOwn(library, what)) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `no mask '${what}' in the library; there are ${Object.keys(library).toSorted().join(', ')}. A function text or file.mjs#export works too`,
    );
  }
  return expectMask(what, library[what](...args));
}

function expectMask(what: string, made: unknown): Mask {
  if ((made as Partial<Mask> | null)?.kind === 'mask') return made as Mask;
  throw new FoveaError(
    'ERR_ARGUMENT',
    `${what} is not a mask, nor a function that returns one; make it by mask(fn, captures)`,
  );
}

async function importFile(file: string): Promise<Record<string, unknown>> {
  try {
    return (await import(pathToFileURL(resolve(file)).href)) as Record<string, unknown>;
  } catch (cause) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `${file} cannot be imported: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
}

export function parseArgs(text: string): unknown[] {
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) ? value : [value];
  } catch (cause) {
    throw new FoveaError('ERR_ARGUMENT', `--args must be a JSON array of the mask's arguments, got ${text}`, { cause });
  }
}

/** `fovea mask show WHAT`: draws a mask, with its blocks and density. */
export async function maskShow(what: string, options: MaskShowOptions): Promise<number> {
  if (!['blocks', 'dots'].includes(options.style))
    throw new FoveaError('ERR_ARGUMENT', `--style is '${String(options.style)}', expected blocks or dots`);
  const mask = await resolveMask(what, parseArgs(options.args));
  const tiles = blockMask(mask, { q: options.q, kv: options.kv ?? options.q, block: options.block });
  if (options.svg) {
    writeFileSync(options.svg, toSVG(tiles, { title: what }));
    note(`wrote ${options.svg}`);
  }
  const data = {
    mask: what,
    q: tiles.qLength,
    kv: tiles.kvLength,
    block: tiles.block,
    density: tiles.density(),
    ...tiles.stats,
  };
  report(options, data, () =>
    process.stdout.isTTY || !options.svg
      ? show(tiles, { style: options.style, color: process.stdout.isTTY })
      : describe(tiles),
  );
  return 0;
}
