/** Block masks with their undecided tiles evaluated natively. */
import { BLOCK_MASK_SIZES, buildBlockMask, type BlockMaskSizes } from '../mask/build.ts';
import { encodeProgram, uniformBits, type Program } from '../mask/program.ts';
import { native } from '../native.ts';
import { deviceCode, type DeviceName } from '../tensor/device.ts';
import type { BlockMask } from '../mask/block_mask.ts';
import type { Mask } from '../mask/mask.ts';
import type { TileEvaluator } from '../mask/tile_store.ts';
import { expectOptions, type OptionNames } from '../options.ts';

/** Tiles per native call, and bytes of their matrices: bound the memory for matrices that turn out equal. */
const BATCH = 1024;
const DEVICE_BATCH = 8192;
const BATCH_BYTES = 2 ** 26;

const DTYPES = ['f32', 'i32', 'u8'] as const;

/** The captured tables in one piece of memory, and per table its dtype, byte offset and length. */
function packTables({ tables }: Program): { memory: Uint8Array; info: number[] } {
  const info: number[] = [];
  let bytes = 0;
  for (const { dtype, data } of tables) {
    info.push(DTYPES.indexOf(dtype), bytes, data.length);
    bytes += Math.ceil(data.byteLength / 4) * 4;
  }
  const memory = new Uint8Array(bytes);
  tables.forEach(({ data }, i) =>
    memory.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), info[3 * i + 1]),
  );
  return { memory, info };
}

/**
 * Evaluates tiles with the interpreters of the addon, on a device: the same ids and bits on every one. The CPU does requests of fewer than
 * `leastPairs` pairs, and programs with exp, log, tanh, sin, cos or pow, whose last bit a device may round otherwise. Waits for a device, but
 * not for what is queued on it.
 */
export function evaluateTilesOn(device: DeviceName, leastPairs = 0): TileEvaluator {
  return (request, store) => {
    const { program, blockQ, blockKv, qLength, kvLength, tiles } = request;
    const flat = encodeProgram(program);
    const uniforms = uniformBits(program);
    const { memory, info } = packTables(program);
    const count = tiles.length / 4;
    const code = count * blockQ * blockKv < leastPairs ? 0 : deviceCode(device);
    const most = Math.min(count, code === 0 ? BATCH : DEVICE_BATCH);
    const batch = Math.max(1, Math.min(most, Math.floor(BATCH_BYTES / store.tileBytes)));
    const ids = new Int32Array(count);
    const bits = new Uint8Array(batch * store.tileBytes);
    const shape = [blockQ, blockKv, qLength, kvLength];
    for (let first = 0; first < count; first += batch) {
      const last = Math.min(first + batch, count);
      const part = ids.subarray(first, last);
      const some = tiles.subarray(4 * first, 4 * last);
      const distinct = native().maskBits(flat, uniforms, memory, info, shape, some, part, bits, code);
      const stored = new Int32Array(distinct);
      for (let i = 0; i < distinct; ++i)
        stored[i] = store.add(bits.subarray(i * store.tileBytes, (i + 1) * store.tileBytes));
      for (let i = 0; i < part.length; ++i) if (part[i] >= 0) part[i] = stored[part[i]];
    }
    return ids;
  };
}

export interface BlockMaskOptions extends BlockMaskSizes {
  /**
   * Where blocks that intervals do not decide are evaluated; default the CPU. The result is the same, bit for bit. A device is waited for;
   * functions that use exp, log, tanh, sin, cos or pow are evaluated on the CPU all the same.
   */
  readonly device?: DeviceName;
}

const BLOCK_MASK_OPTIONS: OptionNames<BlockMaskOptions> = { ...BLOCK_MASK_SIZES, device: true };

/**
 * The block mask of a mask function: which key blocks each query block visits, and a bit matrix for those it visits in part.
 *
 * Costs what the mask's boundary costs, not its area. Batches and heads are only told apart where the function uses `b` or `h`. The
 * result serves every shorter length (a prefix of it applies) and can be cut with `slice`; for a decode step at position n build
 * `blockMask(offset(mask, { q: n }), { q: 1, kv })`.
 *
 * @param options `q`, `kv` (default `q`) lengths; `b`, `h` batches and query heads the mask may tell apart (default 1); `block` side or
 * [queries, keys], default 128, queries a multiple of 16; `device` that evaluates it
 * @throws FoveaError ERR_ARGUMENT for sizes; ERR_MASK_INDEX where a captured table would be read out of range at these lengths
 */
export function blockMask(mask: Mask, options: BlockMaskOptions): BlockMask {
  expectOptions('blockMask', options, BLOCK_MASK_OPTIONS);
  const { device = 'cpu', ...sizes } = options;
  return buildBlockMask(mask, sizes, evaluateTilesOn(device));
}
