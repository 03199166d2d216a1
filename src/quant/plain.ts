/** Types without blocks: f32, f16, bf16, little-endian. */

import { bytesOf } from '../core/bytes.js';
import { byteAt, type EncodingCodec, valueAt } from './codec.js';
import { bfloatToFloat, floatToBfloat, floatToHalf, halfToFloat } from './half.js';

function sixteenBit(toFloat: (bits: number) => number, fromFloat: (value: number) => number): EncodingCodec {
  return {
    decode(bytes, out) {
      for (let i = 0; i < out.length; i++) out[i] = toFloat(byteAt(bytes, 2 * i) | (byteAt(bytes, 2 * i + 1) << 8));
    },
    encode(values, out) {
      for (let i = 0; i < values.length; i++) {
        const bits = fromFloat(valueAt(values, i));
        out[2 * i] = bits & 255;
        out[2 * i + 1] = bits >>> 8;
      }
    },
  };
}

export const f16 = sixteenBit(halfToFloat, floatToHalf);

export const bf16 = sixteenBit(bfloatToFloat, floatToBfloat);

export const f32: EncodingCodec = {
  decode(bytes, out) {
    bytesOf(out).set(bytes);
  },
  encode(values, out) {
    out.set(bytesOf(values));
  },
};
