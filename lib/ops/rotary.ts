import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { chosenDevice, type DeviceName } from '../tensor/device.ts';
import { expectNumbers, expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import { tensor } from '../tensor/create.ts';
import { Tensor } from '../tensor/tensor.ts';

/** Cosines and sines of rotary angles, each f32 [positions, dims / 2]. */
export interface RotaryTable {
  cos: Tensor;
  sin: Tensor;
}

export interface RotaryOptions {
  /** Precomputed angles (rotaryTable, or any of your own); otherwise one is made for this call from `base` and `dims`. */
  table?: RotaryTable;
  /** Default 10000. */
  base?: number;
  /** How many leading dimensions of a row are turned; even. Default all. */
  dims?: number;
  /** true: pairs are neighbours (2i, 2i + 1), as GPT-J; false: half a row apart (i, i + dims / 2), as GPT-NeoX and Llama. Default false. */
  interleaved?: boolean;
  /** 'BHLD' (default): the position axis is the last but one; 'BLHD': x is [B, L, H, D]. */
  layout?: 'BHLD' | 'BLHD';
  /** Position of the first row; one number, or one per batch. Default 0. */
  offset?: number | readonly number[];
  /** Position of each row, [L] or [B, L], i32 or i64; `offset` is added when it is a number. */
  positions?: Tensor;
}

const ROTARY_OPTIONS: OptionNames<RotaryOptions> = {
  table: true,
  base: true,
  dims: true,
  interleaved: true,
  layout: true,
  offset: true,
  positions: true,
};

/**
 * The angles position * base^(-2i / dims) for positions 0 to length - 1, computed in double precision.
 * Throws ERR_ARGUMENT unless dims is even and positive and length a non-negative integer.
 */
export function rotaryTable(length: number, dims: number, base = 10000, device?: DeviceName): RotaryTable {
  if (!Number.isInteger(length) || length < 0 || !Number.isInteger(dims) || dims <= 0 || dims % 2 !== 0) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `rotaryTable: length ${length}, dims ${dims}; expected length >= 0, even dims > 0`,
    );
  }
  expectNumbers('rotaryTable', { base }, 0);
  const [cos, sin] = native().rotaryTable(length, dims, base, chosenDevice(device));
  return { cos: new Tensor(cos), sin: new Tensor(sin) };
}

/** Rows of the table needed when no table is given, from what is known without waiting for a device. */
function lengthNeeded(length: number, offset: number | readonly number[], positions: Tensor | undefined): number {
  if (positions) {
    throw new FoveaError('ERR_ARGUMENT', 'rotary: positions need a table; make one with rotaryTable(length, dims)');
  }
  return length + Math.max(0, ...[offset].flat());
}

/**
 * Rotary position embedding: each pair (a, b) of a row becomes (a cos - b sin, b cos + a sin) with the angle of the row's position.
 * x [L, D], [B, L, D], [B, H, L, D] or (layout 'BLHD') [B, L, H, D], any strides; f32, bf16 or f16.
 *
 * Throws ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT; a position outside the table makes the result reject with ERR_INDEX.
 * Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", section 3.4.2.
 */
export function rotary(x: Tensor, options: RotaryOptions = {}): Tensor {
  expectTensors('rotary', { x });
  expectOptions('rotary', options, ROTARY_OPTIONS);
  const { base = 10000, interleaved = false, layout = 'BHLD', offset = 0 } = options;
  if (x.rank < 2) throw new FoveaError('ERR_SHAPE', `rotary: ${shapeText(x.shape)}, expected [..., L, D]`);
  for (const at of [offset].flat())
    if (!Number.isSafeInteger(at))
      throw new FoveaError('ERR_ARGUMENT', `rotary: offset is ${String(at)}, expected whole numbers`);
  const length = x.shape[layout === 'BLHD' ? 1 : x.rank - 2];
  const batch = x.rank > 2 ? x.shape[0] : 1;
  if (Array.isArray(offset) && (offset.length !== batch || options.positions)) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `rotary: ${offset.length} offsets for ${batch} batches; expected one each and no positions`,
    );
  }
  if (options.table) expectTensors('rotary', { 'table.cos': options.table.cos, 'table.sin': options.table.sin });
  const table =
    options.table ??
    rotaryTable(lengthNeeded(length, offset, options.positions), options.dims ?? x.shape[x.rank - 1], base, x.device);
  const positions = Array.isArray(offset)
    ? tensor(Int32Array.from({ length: batch * length }, (_, i) => offset[Math.floor(i / length)] + (i % length)), [batch, length], { device: x.device }) // prettier-ignore
    : (options.positions ?? null);
  const turn = (t: Tensor, inverse: boolean): number =>
    native().rotary(
      t.handle,
      table.cos.handle,
      table.sin.handle,
      positions?.handle ?? null,
      typeof offset === 'number' ? offset : 0,
      interleaved,
      layout === 'BLHD',
      inverse,
    );
  const out = result('rotary', turn(x, false), [x], (g) => [new Tensor(turn(g, true))], [
    table.cos,
    table.sin,
    ...(positions ? [positions] : []),
  ]);
  if (!out.node) {
    if (!options.table) {
      table.cos.dispose();
      table.sin.dispose();
    }
    if (Array.isArray(offset)) positions?.dispose();
  }
  return out;
}
