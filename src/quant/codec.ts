import { type DType, dtypes } from '../core/dtype.js';
import { ArgumentError } from '../core/errors.js';
import { floatToHalf, halfToFloat } from './half.js';

/** Reads one element type. `bytes` holds whole blocks; `out` has room for exactly their values. */
export interface Codec {
  decode(bytes: Uint8Array, out: Float32Array): void;
}

/** Writes it too. `values` fill whole blocks and are finite where the type has scales; `out` has room for exactly those blocks. */
export interface EncodingCodec extends Codec {
  encode(values: Float32Array, out: Uint8Array): void;
}

/** Decodes the block at byte `at` of `bytes` to `out[to]` and what follows. */
export type DecodeBlock = (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void;

/** Encodes one block of values to `out[at]` and what follows; `out` is zero there. */
export type EncodeBlock = (values: Float32Array, out: Uint8Array, at: number) => void;

export function blockCodec(dtype: DType, decodeBlock: DecodeBlock): Codec {
  const { block, bytes: size } = dtypes[dtype];
  return {
    decode(bytes, out) {
      for (let at = 0, to = 0; at < bytes.length; at += size, to += block) decodeBlock(bytes, at, out, to);
    },
  };
}

export function encodingCodec(dtype: DType, decodeBlock: DecodeBlock, encodeBlock: EncodeBlock): EncodingCodec {
  const { block, bytes: size } = dtypes[dtype];
  return {
    ...blockCodec(dtype, decodeBlock),
    encode(values, out) {
      for (let from = 0, at = 0; from < values.length; from += block, at += size) encodeBlock(values.subarray(from, from + block), out, at);
    },
  };
}

// Indices below are inside a block by construction; `?? 0` only tells the compiler so.

export function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}

export function valueAt(values: Float32Array, at: number): number {
  return values[at] ?? 0;
}

export function halfAt(bytes: Uint8Array, at: number): number {
  return halfToFloat(byteAt(bytes, at) | (byteAt(bytes, at + 1) << 8));
}

/** Stores a block's scale as f16 and returns the value that decoding will see. */
export function putHalf(out: Uint8Array, at: number, value: number): number {
  const bits = floatToHalf(value);
  const stored = halfToFloat(bits);
  if (!Number.isFinite(stored)) throw new ArgumentError('values', `a block needs the scale ${value}, more than f16 holds (65504): scale the values down first`);
  out[at] = bits & 255;
  out[at + 1] = bits >>> 8;
  return stored;
}
