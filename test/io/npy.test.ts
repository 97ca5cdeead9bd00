import fc from 'fast-check';
import { expect, test } from 'vitest';
import { cast, tensor, transpose, type DType } from '../../lib/index.ts';
import { encodeNpy, loadNpy } from '../../lib/io/npy.ts';

const fileError = expect.objectContaining({ code: 'ERR_FILE_FORMAT' });

function npy(header: string, data: Uint8Array, version = 1): Uint8Array {
  const text = Buffer.from(header + '\n');
  const length = Buffer.alloc(version === 1 ? 2 : 4);
  if (version === 1) length.writeUInt16LE(text.length);
  else length.writeUInt32LE(text.length);
  return Buffer.concat([Buffer.from([0x93]), Buffer.from('NUMPY'), Buffer.from([version, 0]), length, text, data]);
}

test.each(['f32', 'f16', 'f64', 'i32', 'i64', 'u8', 'bool'] satisfies DType[])(
  '%s survives a round trip',
  async (dtype) => {
    const t = cast(tensor([[0, 1, 2], [3, 4, 5]]), dtype); // prettier-ignore
    const back = await loadNpy(await encodeNpy(t));
    expect(back.dtype).toBe(dtype);
    expect(back.shape).toEqual([2, 3]);
    expect(await back.bytes()).toEqual(await t.bytes());
  },
);

test('views, scalars, vectors and bf16 are written as NumPy reads them', async () => {
  const view = await loadNpy(await encodeNpy(transpose(tensor([[1, 2], [3, 4]])))); // prettier-ignore
  expect(await view.toArray()).toEqual([[1, 3], [2, 4]]); // prettier-ignore
  expect((await loadNpy(await encodeNpy(tensor(7)))).shape).toEqual([]);
  const bytes = await encodeNpy(cast(tensor([1.5]), 'bf16'));
  expect(Buffer.from(bytes).toString('latin1')).toContain("'descr': '<f4', 'fortran_order': False, 'shape': (1,)");
  expect(bytes.length % 64).toBe(4);
});

test('column-major arrays and format versions 2 and 3 load', async () => {
  const data = new Uint8Array(new Float32Array([1, 2, 3, 4, 5, 6]).buffer);
  const header = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }";
  for (const version of [1, 2, 3]) {
    const t = await loadNpy(npy(header, data, version));
    expect(await t.toArray()).toEqual([[1, 3, 5], [2, 4, 6]]); // prettier-ignore
  }
});

test.each([
  ['no magic', new Uint8Array(20)],
  ['a header beyond the file', npy("{'descr': '<f4'", new Uint8Array(0)).subarray(0, 14)],
  ['big-endian data', npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", new Uint8Array(4))],
  ['object arrays', npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", new Uint8Array(8))],
  ['too little data', npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", new Uint8Array(4))],
  ['a shape that is no tuple', npy("{'descr': '<f4', 'fortran_order': False, 'shape': x, }", new Uint8Array(4))],
])('refuses %s', async (_, bytes) => {
  await expect(loadNpy(bytes)).rejects.toEqual(fileError);
});

test('random damage is refused or harmless', async () => {
  const good = await encodeNpy(tensor([1, 2, 3]));
  await fc.assert(
    fc.asyncProperty(fc.nat(good.length - 1), fc.nat(255), async (at, byte) => {
      const bytes = good.slice();
      bytes[at] = byte;
      await loadNpy(bytes).then(
        (t) => expect(t.size).toBeGreaterThan(0),
        (error) => expect(error).toEqual(fileError),
      );
    }),
    { numRuns: 400 },
  );
});
