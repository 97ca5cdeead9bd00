import { FoveaError } from '../errors.ts';

/** Element types. `bf16` and `f16` are storage types: arithmetic happens in f32. */
export const DTYPES = ['f32', 'bf16', 'f16', 'f64', 'i32', 'i64', 'u8', 'bool'] as const;
export type DType = (typeof DTYPES)[number];

/** The array type `data()` returns for each dtype; bf16 and f16 come widened to Float32Array. */
export interface DataOf {
  f32: Float32Array;
  bf16: Float32Array;
  f16: Float32Array;
  f64: Float64Array;
  i32: Int32Array;
  i64: BigInt64Array;
  u8: Uint8Array;
  bool: Uint8Array;
}
export type TensorData = DataOf[DType];

/** Dtypes whose elements an array type of JavaScript holds. */
export type ArrayDType = Exclude<DType, 'bf16' | 'f16'>;

/** The dtype that elements of `dtype` are read as. */
export function arrayDType(dtype: DType): ArrayDType {
  return dtype === 'bf16' || dtype === 'f16' ? 'f32' : dtype;
}

/** Bytes per element. */
export const DTYPE_BYTES: Readonly<Record<DType, number>> = {
  f32: 4,
  bf16: 2,
  f16: 2,
  f64: 8,
  i32: 4,
  i64: 8,
  u8: 1,
  bool: 1,
};

const CODES = new Map<string, number>(DTYPES.map((name, code) => [name, code]));

/** The number the addon knows a dtype by; throws ERR_DTYPE for an unknown name. */
export function dtypeCode(dtype: DType): number {
  const code = CODES.get(dtype);
  if (code === undefined) {
    throw new FoveaError('ERR_DTYPE', `unknown dtype '${String(dtype)}'; expected one of ${DTYPES.join(', ')}`);
  }
  return code;
}

export function isFloating(dtype: DType): boolean {
  return dtype === 'f32' || dtype === 'bf16' || dtype === 'f16' || dtype === 'f64';
}

/** Views a buffer as the array type of `dtype`. Throws ERR_DTYPE for 16-bit floats, which have none. */
export function viewBuffer<D extends ArrayDType>(buffer: ArrayBuffer, dtype: D): DataOf[D];
export function viewBuffer(buffer: ArrayBuffer, dtype: DType): TensorData {
  switch (dtype) {
    case 'f32':
      return new Float32Array(buffer);
    case 'f64':
      return new Float64Array(buffer);
    case 'i32':
      return new Int32Array(buffer);
    case 'i64':
      return new BigInt64Array(buffer);
    case 'u8':
    case 'bool':
      return new Uint8Array(buffer);
    default:
      throw new FoveaError('ERR_DTYPE', `no array type holds ${dtype}; read it as f32, or its bytes by bytes()`);
  }
}
