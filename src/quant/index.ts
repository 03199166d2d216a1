import { type DType, dtypes } from '../core/dtype.js';
import { ArgumentError, UnsupportedError } from '../core/errors.js';
import type { Codec, EncodingCodec } from './codec.js';
import { bf16, f16, f32 } from './plain.js';
import { q8_planes } from './q8-planes.js';
import { iq4_nl, mxfp4, nvfp4, q4_0, q4_1, q5_0, q5_1, q8_0 } from './small-blocks.js';
import { iq4_xs, q2_k, q3_k, tq1_0, tq2_0 } from './super-blocks.js';
import { q4_k, q5_k, q6_k } from './super-blocks-encode.js';

export type { Codec, EncodingCodec } from './codec.js';
export { bfloatToFloat, floatToBfloat, floatToHalf, halfToFloat } from './half.js';

/** Types that `quantize` writes. */
export type EncodableDType = 'f32' | 'f16' | 'bf16' | 'q4_0' | 'q4_1' | 'q5_0' | 'q5_1' | 'q8_0' | 'q8_planes' | 'q4_k' | 'q5_k' | 'q6_k';

/** Types that `dequantize` reads. */
export type DecodableDType = EncodableDType | 'q2_k' | 'q3_k' | 'iq4_nl' | 'iq4_xs' | 'mxfp4' | 'nvfp4' | 'tq1_0' | 'tq2_0';

/** One codec per readable type. */
export const codecs: { readonly [K in DecodableDType]: K extends EncodableDType ? EncodingCodec : Codec } = {
  f32,
  f16,
  bf16,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q8_planes,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  iq4_xs,
  mxfp4,
  nvfp4,
  tq1_0,
  tq2_0,
};

export function isDecodable(dtype: DType): dtype is DecodableDType {
  return Object.hasOwn(codecs, dtype);
}

export function isEncodable(dtype: DType): dtype is EncodableDType {
  return isDecodable(dtype) && 'encode' in codecs[dtype];
}

/**
 * The f32 values of packed `bytes`, which hold whole blocks of `dtype`. Writes into `out` where given (it must have exactly the room), else into a new array.
 * Throws `UnsupportedError` for a type without a codec and `ArgumentError` for sizes that do not fit.
 */
export function dequantize(dtype: DType, bytes: Uint8Array, out?: Float32Array): Float32Array {
  if (!isDecodable(dtype)) throw new UnsupportedError(`${dtype} cannot be decoded; the types that can: ${Object.keys(codecs).join(', ')}`);
  const { block, bytes: size } = dtypes[dtype];
  if (bytes.length % size !== 0) throw new ArgumentError('bytes', `${dtype} comes in blocks of ${size} bytes, got ${bytes.length} bytes: pass whole blocks`);
  const count = (bytes.length / size) * block;
  if (out !== undefined && out.length !== count)
    throw new ArgumentError('out', `${bytes.length} bytes of ${dtype} are ${count} values, but out has room for ${out.length}`);
  const values = out ?? new Float32Array(count);
  codecs[dtype].decode(bytes, values);
  return values;
}

/**
 * Rows of f32 values as packed blocks of `dtype`; no block crosses a row, so `rowLength` must be whole blocks. Block types take finite values only and are fitted
 * to the least squared error (q8_0: ggml's own rule, the same bytes). Throws `UnsupportedError` for a type without an encoder and `ArgumentError` for sizes or
 * values that do not fit.
 */
export function quantize(dtype: DType, values: Float32Array, rowLength: number): Uint8Array {
  if (!isEncodable(dtype))
    throw new UnsupportedError(
      `${dtype} cannot be encoded; the types that can: ${Object.keys(codecs)
        .filter((name) => 'encode' in codecs[name as DecodableDType])
        .join(', ')}`,
    );
  const { block, bytes: size } = dtypes[dtype];
  if (!Number.isInteger(rowLength) || rowLength <= 0 || rowLength % block !== 0) {
    throw new ArgumentError('rowLength', `rows of ${dtype} must be a positive multiple of ${block} values, got ${rowLength}`);
  }
  if (values.length % rowLength !== 0) throw new ArgumentError('values', `${values.length} values are not whole rows of ${rowLength}`);
  if (block > 1) requireFinite(dtype, values);
  const out = new Uint8Array((values.length / block) * size);
  codecs[dtype].encode(values, out);
  return out;
}

function requireFinite(dtype: DType, values: Float32Array): void {
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new ArgumentError('values', `${dtype} takes finite values only, but values[${bad}] is ${values[bad]}`);
}
