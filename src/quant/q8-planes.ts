/** Values of q8_0 in two planes: the signed bytes of all blocks of 32, then all their f16 scales. Rows of bytes stay aligned so, which KV caches are read and written by. */

import { byteAt, type EncodingCodec, halfAt, putHalf, valueAt } from './codec.js';

/** Values of a block. */
export const q8Block = 32;

/**
 * Rounds 32 values from `values[from]` on to signed bytes at `out[to]` and returns their scale: largest magnitude / 127, in f32 and with halves rounded away from zero, as ggml has it. The
 * scale is NaN where a value is not finite.
 */
export function quantiseBytes(values: Float32Array, from: number, out: Uint8Array, to: number): number {
  let largest = 0;
  for (let i = from; i < from + q8Block; i++) largest = Math.max(largest, Math.abs(valueAt(values, i)));
  const scale = Math.fround(largest / 127);
  const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
  for (let i = 0; i < q8Block; i++) {
    const scaled = Math.fround(valueAt(values, from + i) * inverse);
    out[to + i] = Math.sign(scaled) * Math.round(Math.abs(scaled));
  }
  return Number.isFinite(scale) ? scale : Number.NaN;
}

/** Reads and writes whole tensors: where the scales begin follows from the length. */
export const q8_planes: EncodingCodec = {
  decode(bytes, out) {
    for (let block = 0; block < out.length / q8Block; block++) {
      const scale = halfAt(bytes, out.length + 2 * block);
      for (let i = block * q8Block; i < (block + 1) * q8Block; i++) out[i] = ((byteAt(bytes, i) << 24) >> 24) * scale;
    }
  },
  encode(values, out) {
    for (let at = 0; at < values.length; at += q8Block) putHalf(out, values.length + at / 16, quantiseBytes(values, at, out, at));
  },
};
