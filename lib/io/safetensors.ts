/**
 * safetensors files: 8 bytes of little-endian header length, a JSON header, raw row-major little-endian data.
 *
 * Files are memory-mapped: loading reads the header only, and each tensor is a view of the mapping whose pages arrive when first used. Headers come from
 * strangers, so everything in them is checked before use: sizes against the file, ranges against each other and against shape and dtype.
 *
 * Source: the format description of github.com/huggingface/safetensors.
 */
import { open, rename, rm } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { FoveaError } from '../errors.ts';
import { native, type Handle } from '../native.ts';
import { DTYPE_BYTES, dtypeCode, type DType } from '../tensor/dtype.ts';
import { kindText } from '../tensor/expect.ts';
import { Tensor } from '../tensor/tensor.ts';

const MAX_HEADER_BYTES = 100 * 2 ** 20;

const DTYPE_OF: ReadonlyMap<string, DType> = new Map([
  ['F32', 'f32'],
  ['BF16', 'bf16'],
  ['F16', 'f16'],
  ['F64', 'f64'],
  ['I32', 'i32'],
  ['I64', 'i64'],
  ['U8', 'u8'],
  ['BOOL', 'bool'],
]);
const NAME_OF = new Map([...DTYPE_OF].map(([name, dtype]) => [dtype, name]));

/** One tensor of a header: byte range within the data section. */
export interface SafetensorsEntry {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** Where the data section starts in the file, in bytes. */
  readonly dataOffset: number;
}

function refuse(where: string, problem: string): never {
  throw new FoveaError('ERR_FILE_FORMAT', `${where}: not a valid safetensors file: ${problem}`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseEntry(where: string, name: string, value: unknown): SafetensorsEntry {
  if (!isObject(value)) refuse(where, `entry '${name}' is not an object`);
  const dtype = typeof value.dtype === 'string' ? DTYPE_OF.get(value.dtype) : undefined;
  if (!dtype)
    refuse(
      where,
      `'${name}' has dtype ${JSON.stringify(value.dtype)}; supported are ${[...DTYPE_OF.keys()].join(', ')}`,
    );
  const { shape, data_offsets: range } = value;
  const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  if (!Array.isArray(shape) || shape.length > 8 || !shape.every(isCount))
    refuse(where, `'${name}' has shape ${JSON.stringify(shape)}`);
  if (!Array.isArray(range) || range.length !== 2 || !range.every(isCount) || range[0] > range[1]) {
    refuse(where, `'${name}' has data_offsets ${JSON.stringify(range)}`);
  }
  const [begin, end] = range as [number, number];
  const bytes = shape.reduce((n: number, extent: number) => n * extent, 1) * DTYPE_BYTES[dtype];
  if (bytes !== end - begin)
    refuse(where, `'${name}' spans ${end - begin} bytes, its shape [${shape.join(', ')}] of ${dtype} needs ${bytes}`);
  return { dtype, shape, begin, end };
}

/**
 * Reads and checks the header at the start of `bytes`, the beginning of a file of `fileBytes` bytes.
 * Throws ERR_FILE_FORMAT for anything that is not exactly as the format says, overlaps and gaps included.
 */
export function parseSafetensorsHeader(bytes: Uint8Array, fileBytes: number, where = 'safetensors'): SafetensorsHeader {
  if (fileBytes < 8 || bytes.length < 8) refuse(where, `it has ${fileBytes} bytes, the header length alone takes 8`);
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES)
    refuse(where, `its header claims ${length} bytes; at most ${MAX_HEADER_BYTES} are accepted`);
  if (8 + length > fileBytes || 8 + length > bytes.length)
    refuse(where, `its header claims ${length} bytes, the file has ${fileBytes - 8} after the length`);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(8, 8 + length)));
  } catch (cause) {
    throw new FoveaError('ERR_FILE_FORMAT', `${where}: not a valid safetensors file: its header is not JSON`, {
      cause,
    });
  }
  if (!isObject(json)) refuse(where, 'its header is not a JSON object');
  const metadata: Record<string, string> = Object.create(null) as Record<string, string>;
  const entries = new Map<string, SafetensorsEntry>();
  for (const [name, value] of Object.entries(json)) {
    if (name !== '__metadata__') {
      entries.set(name, parseEntry(where, name, value));
      continue;
    }
    if (!isObject(value)) refuse(where, '__metadata__ is not an object');
    for (const [key, text] of Object.entries(value)) {
      if (typeof text !== 'string') refuse(where, `__metadata__.${key} is not a string`);
      metadata[key] = text;
    }
  }
  let position = 0;
  for (const [name, { begin, end }] of [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== position)
      refuse(
        where,
        `'${name}' starts at ${begin}, ${begin < position ? 'inside' : 'beyond the end of'} the data before it (${position})`,
      );
    position = end;
  }
  if (8 + length + position !== fileBytes)
    refuse(where, `its tensors take ${position} bytes, the file has ${fileBytes - 8 - length}`);
  return { metadata, entries, dataOffset: 8 + length };
}

/** The tensors of one or several files, made on first access. */
export class Safetensors {
  readonly metadata: Readonly<Record<string, string>>;
  readonly #sources: ReadonlyMap<string, { entry: SafetensorsEntry; dataOffset: number; file: Handle }>;
  readonly #files: Set<Handle>;

  /** Internal: use loadSafetensors. */
  constructor(
    parts: readonly { header: SafetensorsHeader; file: Handle }[],
    metadata: Readonly<Record<string, string>>,
  ) {
    const sources = new Map<string, { entry: SafetensorsEntry; dataOffset: number; file: Handle }>();
    for (const { header, file } of parts) {
      for (const [name, entry] of header.entries) sources.set(name, { entry, dataOffset: header.dataOffset, file });
    }
    this.metadata = metadata;
    this.#sources = sources;
    this.#files = new Set(parts.map(({ file }) => file));
    closeWhenUnreachable.register(this, [...this.#files]);
  }

  keys(): string[] {
    return [...this.#sources.keys()];
  }

  has(name: string): boolean {
    return this.#sources.has(name);
  }

  /** Shape and dtype without touching the data. */
  info(name: string): { dtype: DType; shape: readonly number[] } {
    const { dtype, shape } = this.#source(name).entry;
    return { dtype, shape };
  }

  /** The tensor: a view of the mapped file (a copy where the file aligns it badly). Throws ERR_ARGUMENT for a name that is not there. */
  get(name: string): Tensor {
    const { entry, dataOffset, file } = this.#source(name);
    const h = native();
    const start = dataOffset + entry.begin;
    if (start % DTYPE_BYTES[entry.dtype] === 0)
      return new Tensor(h.reinterpret(file, dtypeCode(entry.dtype), entry.shape, start));
    const bytes = h.reinterpret(file, dtypeCode('u8'), [entry.end - entry.begin], start);
    const aligned = h.cast(bytes, dtypeCode('u8'));
    const handle = h.reinterpret(aligned, dtypeCode(entry.dtype), entry.shape, 0);
    h.release(bytes);
    h.release(aligned);
    return new Tensor(handle);
  }

  /** Every tensor, by name. */
  record(): Record<string, Tensor> {
    return Object.fromEntries(this.keys().map((name) => [name, this.get(name)]));
  }

  /** Lets go of the files; tensors made before stay valid. */
  close(): void {
    for (const file of this.#files) native().release(file);
    this.#files.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #source(name: string): { entry: SafetensorsEntry; dataOffset: number; file: Handle } {
    const source = this.#sources.get(name);
    if (!source)
      throw new FoveaError(
        'ERR_ARGUMENT',
        `no tensor '${name}' in this file; it has ${this.#sources.size}: ${this.keys().slice(0, 8).join(', ')}${this.#sources.size > 8 ? ', ...' : ''}`,
      );
    return source;
  }
}

const closeWhenUnreachable = new FinalizationRegistry<Handle[]>((files) => {
  for (const file of files) native().release(file);
});

function headerOf(file: Handle, where: string): SafetensorsHeader {
  const h = native();
  const [fileBytes] = h.shape(file);
  const read = (from: number, count: number): Uint8Array => {
    const view = h.view(file, [count], [1], from);
    try {
      return new Uint8Array(h.readSync(view));
    } finally {
      h.release(view);
    }
  };
  if (fileBytes < 8) refuse(where, `it has ${fileBytes} bytes, the header length alone takes 8`);
  const length = Number(new DataView(read(0, 8).buffer).getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES)
    refuse(where, `its header claims ${length} bytes; at most ${MAX_HEADER_BYTES} are accepted`);
  return parseSafetensorsHeader(read(0, Math.min(8 + length, fileBytes)), fileBytes, where);
}

function openPart(file: Handle, where: string): { header: SafetensorsHeader; file: Handle } {
  try {
    return { header: headerOf(file, where), file };
  } catch (error) {
    native().release(file);
    throw error;
  }
}

function openIndex(path: string): Safetensors {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new FoveaError(
      'ERR_FILE_FORMAT',
      `${path}: not a safetensors index: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
  if (!isObject(json) || !isObject(json.weight_map))
    throw new FoveaError('ERR_FILE_FORMAT', `${path}: not a safetensors index: no weight_map`);
  const wanted = new Map<string, string>();
  for (const [name, file] of Object.entries(json.weight_map)) {
    if (typeof file !== 'string' || file !== basename(file) || file === '..' || file === '') {
      throw new FoveaError(
        'ERR_FILE_FORMAT',
        `${path}: '${name}' is in ${JSON.stringify(file)}; shards are plain file names beside the index`,
      );
    }
    wanted.set(name, file);
  }
  const parts: { header: SafetensorsHeader; file: Handle }[] = [];
  try {
    for (const file of new Set(wanted.values())) {
      const part = openPart(native().mapFile(join(dirname(path), file)), file);
      parts.push(part);
      for (const [name, shard] of wanted) {
        if (shard === file && !part.header.entries.has(name))
          throw new FoveaError('ERR_FILE_FORMAT', `${path}: '${name}' is not in ${file}`);
      }
    }
  } catch (error) {
    for (const part of parts) native().release(part.file);
    throw error;
  }
  return new Safetensors(parts, {});
}

/**
 * Opens a safetensors file, a sharded model by its `*.index.json`, or the bytes of a file. Lazy: only headers are read.
 *
 * Files are memory-mapped, and must keep their length while their tensors are in use: a read of what somebody cut off (by writing a file anew in place,
 * for instance) ends the process with SIGBUS. A file replaced by a rename, as saveSafetensors does it, is safe: tensors made before go on reading
 * the former one. For files that others may write to, load their bytes: `loadSafetensors(await readFile(path))`.
 *
 * @throws FoveaError ERR_FILE_FORMAT when the file cannot be opened or is not exactly as the format says
 */
export function loadSafetensors(source: string | Uint8Array | ArrayBuffer): Safetensors {
  if (typeof source === 'string') {
    if (source.endsWith('.json')) return openIndex(source);
    const part = openPart(native().mapFile(source), source);
    return new Safetensors([part], part.header.metadata);
  }
  if (!(source instanceof ArrayBuffer || source instanceof Uint8Array))
    throw new FoveaError('ERR_ARGUMENT', `loadSafetensors: got ${kindText(source)}, expected a path or bytes`);
  const part = openPart(native().fromBytes(source, dtypeCode('u8'), [source.byteLength]), 'safetensors bytes');
  return new Safetensors([part], part.header.metadata);
}

/** The header text of a record, padded so that the data section starts at a multiple of 64 bytes. */
function buildHeader(
  record: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>>,
): { text: Buffer; order: string[] } {
  for (const [name, value] of Object.entries({ record, metadata }))
    if (typeof value !== 'object' || value === null)
      throw new FoveaError('ERR_ARGUMENT', `saveSafetensors: ${name} is ${String(value)}, expected an object`);
  for (const [name, value] of Object.entries(record as Record<string, unknown>))
    if (!(value instanceof Tensor))
      throw new FoveaError('ERR_ARGUMENT', `saveSafetensors: '${name}' is ${typeof value}, expected a tensor`);
  for (const [key, value] of Object.entries(metadata as Record<string, unknown>))
    if (typeof value !== 'string')
      throw new FoveaError('ERR_ARGUMENT', `saveSafetensors: metadata '${key}' is ${typeof value}, expected a string`);
  const header: Record<string, unknown> = {};
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata;
  // Widest dtypes first keep every tensor aligned to its own size.
  const order = Object.keys(record).sort(
    (a, b) => DTYPE_BYTES[record[b].dtype] - DTYPE_BYTES[record[a].dtype] || (a < b ? -1 : 1),
  );
  let position = 0;
  for (const name of order) {
    if (name === '__metadata__')
      throw new FoveaError('ERR_ARGUMENT', "saveSafetensors: '__metadata__' cannot be the name of a tensor");
    const { dtype, shape, size } = record[name];
    const end = position + size * DTYPE_BYTES[dtype];
    header[name] = { dtype: NAME_OF.get(dtype), shape, data_offsets: [position, end] };
    position = end;
  }
  const json = JSON.stringify(header);
  const bytes = Buffer.byteLength(json);
  return { text: Buffer.from(json + ' '.repeat((64 - ((8 + bytes) % 64)) % 64)), order };
}

/**
 * Writes `record` to `path`; the file appears whole or not at all. Tensors may be views; they are written in row-major order.
 *
 * @param metadata strings kept in the header's `__metadata__`
 * @throws (rejects) FoveaError ERR_ARGUMENT for what is no tensor or no string; Node's error where the file cannot be written
 */
export async function saveSafetensors(
  path: string,
  record: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  if (typeof path !== 'string' || path === '')
    throw new FoveaError('ERR_ARGUMENT', `saveSafetensors: path is '${String(path)}', expected the name of a file`);
  const { text, order } = buildHeader(record, metadata);
  const temporary = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}.tmp`;
  try {
    const file = await open(temporary, 'wx');
    try {
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(text.length));
      await file.writeFile(Buffer.concat([length, text]));
      for (const name of order) await file.writeFile(new Uint8Array(await record[name].bytes()));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/**
 * The header of a file, without mapping it: names, dtypes, shapes, metadata.
 *
 * @throws (rejects) FoveaError ERR_FILE_FORMAT when the file cannot be opened or its header is not as the format says
 */
export async function inspectSafetensors(path: string): Promise<SafetensorsHeader> {
  if (typeof path !== 'string')
    throw new FoveaError('ERR_ARGUMENT', `inspectSafetensors: got ${kindText(path)}, expected a path`);
  const file = await open(path, 'r').catch((cause: Error) => {
    throw new FoveaError('ERR_FILE_FORMAT', `cannot open ${path}: ${cause.message}`, { cause });
  });
  try {
    const { size } = await file.stat();
    const start = Buffer.alloc(8);
    await file.read(start, 0, 8, 0);
    const length = size >= 8 ? Number(start.readBigUInt64LE()) : 0;
    const bytes = Buffer.alloc(Math.min(8 + Math.min(length, MAX_HEADER_BYTES), size));
    await file.read(bytes, 0, bytes.length, 0);
    return parseSafetensorsHeader(bytes, size, path);
  } finally {
    await file.close();
  }
}
