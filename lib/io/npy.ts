/**
 * NumPy .npy files, format versions 1 to 3, little-endian, both memory orders.
 *
 * Source: the format description in NumPy's documentation (numpy.lib.format).
 */
import { readFile, writeFile } from 'node:fs/promises';
import { FoveaError } from '../errors.ts';
import { DTYPE_BYTES, type DType } from '../tensor/dtype.ts';
import { fromBytes } from '../tensor/create.ts';
import { permute } from '../ops/view.ts';
import { cast } from '../ops/copy.ts';
import { expectTensors, kindText } from '../tensor/expect.ts';
import type { Tensor } from '../tensor/tensor.ts';

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // "\x93NUMPY"
const DTYPE_OF: ReadonlyMap<string, DType> = new Map([
  ['<f4', 'f32'],
  ['<f2', 'f16'],
  ['<f8', 'f64'],
  ['<i4', 'i32'],
  ['<i8', 'i64'],
  ['|u1', 'u8'],
  ['|b1', 'bool'],
]);
const DESCR_OF = new Map([...DTYPE_OF].map(([descr, dtype]) => [dtype, descr]));

function refuse(problem: string): never {
  throw new FoveaError('ERR_FILE_FORMAT', `npy: ${problem}`);
}

interface Header {
  dtype: DType;
  fortran: boolean;
  shape: number[];
  dataOffset: number;
}

function parseHeader(bytes: Uint8Array): Header {
  if (bytes.length < 10 || MAGIC.some((byte, i) => bytes[i] !== byte))
    refuse('not an .npy file: its first bytes are not \\x93NUMPY');
  const major = bytes[6];
  if (major < 1 || major > 3) refuse(`format version ${major} is not supported (1 to 3 are)`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const lengthBytes = major === 1 ? 2 : 4;
  if (bytes.length < 8 + lengthBytes) refuse('the file ends inside its header');
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const dataOffset = 8 + lengthBytes + length;
  if (dataOffset > bytes.length)
    refuse(`its header claims ${length} bytes, the file has ${bytes.length - 8 - lengthBytes}`);
  const text = new TextDecoder(major === 3 ? 'utf-8' : 'latin1').decode(bytes.subarray(8 + lengthBytes, dataOffset));
  const field = (name: string, pattern: string): string => {
    const match = new RegExp(`['"]${name}['"]\\s*:\\s*${pattern}`).exec(text);
    return match ? match[1] : refuse(`its header has no readable '${name}': ${text.slice(0, 120)}`);
  };
  const descr = field('descr', '[\'"]([^\'"]{1,16})[\'"]');
  const dtype =
    DTYPE_OF.get(descr) ?? refuse(`dtype '${descr}' is not supported; these are: ${[...DTYPE_OF.keys()].join(' ')}`);
  const shape = field('shape', '\\(([0-9,\\s]{0,200})\\)')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map(Number);
  if (shape.some((n) => !Number.isSafeInteger(n))) refuse(`its shape (${shape.join(', ')}) is not usable`);
  return { dtype, fortran: field('fortran_order', '(True|False)') === 'True', shape, dataOffset };
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (cause) {
    throw new FoveaError(
      'ERR_FILE_FORMAT',
      `npy: cannot open ${path}: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
}

/**
 * The array of an .npy file or of its bytes, on the CPU.
 *
 * @throws FoveaError ERR_FILE_FORMAT for a file that cannot be opened, a damaged one, a big-endian one or a dtype without counterpart
 */
export async function loadNpy(source: string | Uint8Array): Promise<Tensor> {
  const bytes = typeof source === 'string' ? await readBytes(source) : source;
  if (!(bytes instanceof Uint8Array))
    throw new FoveaError('ERR_ARGUMENT', `loadNpy: got ${kindText(bytes)}, expected a path or the bytes of a file`);
  const { dtype, fortran, shape, dataOffset } = parseHeader(bytes);
  const expected = shape.reduce((n, extent) => n * extent, 1) * DTYPE_BYTES[dtype];
  if (bytes.length - dataOffset !== expected)
    refuse(
      `its data has ${bytes.length - dataOffset} bytes, shape (${shape.join(', ')}) of ${dtype} needs ${expected}`,
    );
  const data = bytes.slice(dataOffset);
  if (!fortran) return fromBytes(data, dtype, shape);
  const reversed = fromBytes(data, dtype, shape.toReversed());
  return permute(
    reversed,
    shape.map((_, i) => shape.length - 1 - i),
  );
}

/** The bytes of an .npy file (format 1.0) holding `t`; bf16, which NumPy lacks, is written as f32. */
export async function encodeNpy(t: Tensor): Promise<Uint8Array> {
  expectTensors('encodeNpy', { t });
  const from = t.dtype === 'bf16' ? cast(t, 'f32') : t;
  const { shape } = from;
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
  const text = `{'descr': '${DESCR_OF.get(from.dtype)}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const padded = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + '\n';
  const data = new Uint8Array(await from.bytes());
  const out = new Uint8Array(10 + padded.length + data.length);
  out.set([...MAGIC, 1, 0, padded.length & 255, padded.length >> 8]);
  out.set(new TextEncoder().encode(padded), 10);
  out.set(data, 10 + padded.length);
  return out;
}

/** Writes `t` to `path` in the format of encodeNpy. */
export async function saveNpy(path: string, t: Tensor): Promise<void> {
  await writeFile(path, await encodeNpy(t));
}
