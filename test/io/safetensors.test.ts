import { existsSync, mkdtempSync, rmSync, writeFileSync, readFileSync, truncateSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { cast, fromBytes, memory, reshape, synchronize, tensor, transpose } from '../../lib/index.ts';
import {
  inspectSafetensors,
  loadSafetensors,
  parseSafetensorsHeader,
  saveSafetensors,
} from '../../lib/io/safetensors.ts';

const folder = mkdtempSync(join(tmpdir(), 'fovea-safetensors-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string): string => join(folder, name);
const fileError = expect.objectContaining({ code: 'ERR_FILE_FORMAT' });

function encode(header: unknown, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const text = typeof header === 'string' ? Buffer.from(header) : Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

describe('round trip', () => {
  test('every dtype, views, scalars, empty tensors and metadata survive', async () => {
    const record = {
      f32: tensor([[1.5, -2, 3]]),
      view: transpose(tensor([[1, 2, 3], [4, 5, 6]])), // prettier-ignore
      bf16: cast(tensor([1, 2.5]), 'bf16'),
      f16: cast(tensor([0.1, 65504]), 'f16'),
      f64: tensor(new Float64Array([Math.PI])),
      i32: tensor(new Int32Array([-7, 7])),
      i64: tensor(new BigInt64Array([2n ** 62n])),
      u8: tensor(new Uint8Array([255, 0, 1])),
      bool: tensor([true, false]),
      scalar: tensor(42),
      empty: tensor(new Float32Array(0), [0, 3]),
    };
    await saveSafetensors(path('all.safetensors'), record, { made: 'by a test' });
    using file = loadSafetensors(path('all.safetensors'));
    expect(file.metadata).toEqual({ made: 'by a test' });
    expect(file.keys().toSorted()).toEqual(Object.keys(record).toSorted());
    for (const [name, t] of Object.entries(record)) {
      expect(file.info(name)).toEqual({ dtype: t.dtype, shape: t.shape });
      expect(await file.get(name).bytes(), name).toEqual(await t.bytes());
    }
    expect((await inspectSafetensors(path('all.safetensors'))).entries.size).toBe(11);
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('bytes load as files do, and tensors outlive close()', async () => {
    await saveSafetensors(path('one.safetensors'), { x: tensor([1, 2, 3]) });
    const file = loadSafetensors(readFileSync(path('one.safetensors')));
    const x = file.get('x');
    file.close();
    expect(await x.data()).toEqual(new Float32Array([1, 2, 3]));
    expect(() => loadSafetensors(path('one.safetensors')).get('y')).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
  });

  test('a file saved over a mapped one leaves the tensors of that as they are', async () => {
    const values = new Float32Array(1 << 16).fill(3);
    await saveSafetensors(path('again.safetensors'), { x: tensor(values) });
    using file = loadSafetensors(path('again.safetensors'));
    await saveSafetensors(path('again.safetensors'), { x: tensor([1, 2]) });
    expect(await file.get('x').data()).toEqual(values);
    using now = loadSafetensors(path('again.safetensors'));
    expect(await now.get('x').data()).toEqual(new Float32Array([1, 2]));
  });

  test('a tensor the file aligns badly is copied', async () => {
    const header = JSON.stringify({
      a: { dtype: 'U8', shape: [1], data_offsets: [0, 1] },
      b: { dtype: 'F32', shape: [2], data_offsets: [1, 9] },
    });
    const bytes = Buffer.concat([Buffer.from([9]), Buffer.from(new Float32Array([1.25, -3]).buffer)]);
    writeFileSync(path('odd.safetensors'), encode(header, bytes));
    using file = loadSafetensors(path('odd.safetensors'));
    expect(await file.get('b').data()).toEqual(new Float32Array([1.25, -3]));
  });

  test('a mapped tensor refuses to be written to', async () => {
    await saveSafetensors(path('ro.safetensors'), { x: tensor([1, 2]) });
    const { copyFrom } = await import('../../lib/ops/copy.ts');
    using file = loadSafetensors(path('ro.safetensors'));
    expect(() => copyFrom(file.get('x'), tensor([3, 4]))).toThrow(/read-only/);
  });

  test('loading and dropping leaves no memory behind', async () => {
    await saveSafetensors(path('big.safetensors'), { x: reshape(tensor(new Float32Array(4096)), [64, 64]) });
    await synchronize();
    const before = memory();
    for (let i = 0; i < 50; i++) {
      using file = loadSafetensors(path('big.safetensors'));
      using x = file.get('x');
      await x.data();
    }
    await synchronize();
    expect(memory().liveBytes).toBe(before.liveBytes);
    expect(memory().tensors).toBe(before.tensors);
  });
});

describe('sharded index', () => {
  test('loads tensors from the shards it names', async () => {
    await saveSafetensors(path('m-1.safetensors'), { a: tensor([1]) });
    await saveSafetensors(path('m-2.safetensors'), { b: tensor([2]) });
    writeFileSync(
      path('m.safetensors.index.json'),
      JSON.stringify({ metadata: {}, weight_map: { a: 'm-1.safetensors', b: 'm-2.safetensors' } }),
    );
    using file = loadSafetensors(path('m.safetensors.index.json'));
    expect(await file.get('a').item()).toBe(1);
    expect(await file.get('b').item()).toBe(2);
  });

  test.each([
    ['a shard outside its folder', { weight_map: { a: '../m-1.safetensors' } }],
    ['an absolute shard', { weight_map: { a: '/etc/passwd' } }],
    ['a missing shard', { weight_map: { a: 'none.safetensors' } }],
    ['a tensor its shard lacks', { weight_map: { zz: 'm-1.safetensors' } }],
    ['no weight_map', {}],
  ])('refuses %s', (_, index) => {
    writeFileSync(path('bad.index.json'), JSON.stringify(index));
    expect(() => loadSafetensors(path('bad.index.json'))).toThrow(fileError);
  });
});

describe('hostile input', () => {
  const entry = (over: object): unknown => ({ x: { dtype: 'F32', shape: [1], data_offsets: [0, 4], ...over } });
  const four = new Uint8Array(4);

  test.each<[string, Uint8Array]>([
    ['nothing', new Uint8Array(0)],
    ['a short length', new Uint8Array(7)],
    ['a huge header length', new Uint8Array([255, 255, 255, 255, 255, 255, 255, 127])],
    ['a header beyond the file', encode('{}').subarray(0, 9)],
    ['no JSON', encode('{')],
    ['invalid UTF-8', Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]), Buffer.from([0xff, 0xfe])])],
    ['an array', encode('[]')],
    ['an unknown dtype', encode(entry({ dtype: 'Q4' }), four)],
    ['a negative size', encode(entry({ shape: [-1] }), four)],
    ['a fractional size', encode(entry({ shape: [0.5] }), four)],
    ['an overflowing shape', encode(entry({ shape: [2 ** 40, 2 ** 40] }), four)],
    ['rank 9', encode(entry({ shape: Array(9).fill(1) }), four)],
    ['a range past the end', encode(entry({ data_offsets: [4, 8] }), four)],
    ['a reversed range', encode(entry({ data_offsets: [4, 0] }), four)],
    ['a size that does not fit the shape', encode(entry({ shape: [2] }), four)],
    ['trailing data', encode(entry({}), new Uint8Array(8))],
    ['overlap', encode({ ...(entry({}) as object), y: { dtype: 'F32', shape: [1], data_offsets: [0, 4] } }, four)],
    ['metadata that is not text', encode({ __metadata__: { a: 1 } })],
  ])('refuses %s', (_, bytes) => {
    expect(() => loadSafetensors(bytes)).toThrow(fileError);
    writeFileSync(path('hostile'), bytes);
    expect(() => loadSafetensors(path('hostile'))).toThrow(fileError);
  });

  test('refuses paths that are no files', () => {
    expect(() => loadSafetensors(path('missing'))).toThrow(fileError);
    expect(() => loadSafetensors(folder)).toThrow(fileError);
  });

  test('what is no tensor or no text is not written', async () => {
    const path = join(folder, 'refused.safetensors');
    await expect(saveSafetensors(path, { a: 1 as never })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(saveSafetensors(path, {}, { step: 7 as never })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    expect(existsSync(path)).toBe(false);
  });

  test('names like __proto__ are plain names', () => {
    const bytes = encode('{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', new Uint8Array([5]));
    const file = loadSafetensors(bytes);
    expect(file.has('__proto__')).toBe(true);
    expect(Object.getPrototypeOf({})).toBe(Object.prototype);
  });

  test('a damaged header either parses to something consistent or is refused, never anything else', async () => {
    await saveSafetensors(path('fuzz.safetensors'), {
      a: tensor([1, 2]),
      b: tensor(new Int32Array([3])),
      c: fromBytes(new Uint8Array(6), 'f16', [3]),
    });
    const good = new Uint8Array(readFileSync(path('fuzz.safetensors')));
    const edit = fc.record({ at: fc.nat(good.length - 1), byte: fc.nat(255) });
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 6 }), fc.nat(good.length), (edits, cut) => {
        const bytes = good.slice(0, cut % 3 === 0 ? cut : undefined);
        for (const { at, byte } of edits) if (at < bytes.length) bytes[at] = byte;
        try {
          const { entries, dataOffset } = parseSafetensorsHeader(bytes, bytes.length);
          for (const { end } of entries.values()) expect(dataOffset + end).toBeLessThanOrEqual(bytes.length);
          for (const { begin, end } of entries.values()) expect(begin).toBeLessThanOrEqual(end);
        } catch (error) {
          expect(error).toEqual(fileError);
        }
      }),
      { numRuns: 3000 },
    );
  });

  test('a file cut short after it was written is refused', async () => {
    await saveSafetensors(path('cut.safetensors'), { x: tensor([1, 2, 3]) });
    truncateSync(path('cut.safetensors'), readFileSync(path('cut.safetensors')).length - 1);
    expect(() => loadSafetensors(path('cut.safetensors'))).toThrow(fileError);
  });
});
