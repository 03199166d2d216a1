/** Encoders for Q4_K, Q5_K and Q6_K: fit every group alone, quantise the groups' scales, then round the values against what was stored. */

import { byteAt, type EncodeBlock, encodingCodec, putHalf, valueAt } from './codec.js';
import { fitAffine, fitScale, roundClamped } from './search.js';
import { decodeQ4K, decodeQ5K, decodeQ6K, groupMin, groupScale } from './super-blocks.js';

/** Stores the six-bit scale and minimum of 32-value group j in the 12 bytes at `at`. */
function putScaleAndMin(out: Uint8Array, at: number, j: number, scale: number, min: number): void {
  if (j < 4) {
    out[at + j] = byteAt(out, at + j) | scale;
    out[at + j + 4] = byteAt(out, at + j + 4) | min;
    return;
  }
  out[at + j + 4] = (scale & 15) | ((min & 15) << 4);
  out[at + j - 4] = byteAt(out, at + j - 4) | ((scale >> 4) << 6);
  out[at + j] = byteAt(out, at + j) | ((min >> 4) << 6);
}

/** Fits eight groups of 32, stores d, dmin and the 12 scale bytes at `at`, and hands each value's integer in [0, high] to `put`. */
function encodeAffineGroups(values: Float32Array, out: Uint8Array, at: number, high: number, put: (i: number, q: number) => void): void {
  const fits = Array.from({ length: 8 }, (_, group) => fitAffine(values, group * 32, 32, high, true));
  const d = putHalf(out, at, Math.max(...fits.map((fit) => fit.scale)) / 63);
  const dmin = putHalf(out, at + 2, Math.max(...fits.map((fit) => -fit.min)) / 63);
  for (const [group, fit] of fits.entries()) {
    putScaleAndMin(out, at + 4, group, d === 0 ? 0 : roundClamped(fit.scale / d, 0, 63), dmin === 0 ? 0 : roundClamped(-fit.min / dmin, 0, 63));
  }
  for (let i = 0; i < 256; i++) {
    const scale = d * groupScale(out, at + 4, i >> 5);
    const min = dmin * groupMin(out, at + 4, i >> 5);
    put(i, scale === 0 ? 0 : roundClamped((valueAt(values, i) + min) / scale, 0, high));
  }
}

function putGroupNibble(out: Uint8Array, at: number, i: number, q: number): void {
  const j = at + (i >> 6) * 32 + (i & 31);
  out[j] = byteAt(out, j) | ((q & 15) << (((i >> 5) & 1) * 4));
}

const encodeQ4K: EncodeBlock = (values, out, at) => {
  encodeAffineGroups(values, out, at, 15, (i, q) => putGroupNibble(out, at + 16, i, q));
};

const encodeQ5K: EncodeBlock = (values, out, at) => {
  encodeAffineGroups(values, out, at, 31, (i, q) => {
    putGroupNibble(out, at + 48, i, q);
    out[at + 16 + (i & 31)] = byteAt(out, at + 16 + (i & 31)) | ((q >> 4) << (i >> 5));
  });
};

const encodeQ6K: EncodeBlock = (values, out, at) => {
  const scales = Array.from({ length: 16 }, (_, group) => fitScale(values, group * 16, 16, -32, 31));
  const extreme = scales.reduce((largest, scale) => (Math.abs(scale) > Math.abs(largest) ? scale : largest), 0);
  // The largest scale becomes -128, the far end of the signed byte.
  const d = putHalf(out, at + 208, extreme / -128);
  for (const [group, wanted] of scales.entries()) {
    const stored = d === 0 ? 0 : roundClamped(wanted / d, -128, 127);
    out[at + 192 + group] = stored;
    for (let i = group * 16; i < group * 16 + 16; i++) {
      const scale = d * stored;
      const q = (scale === 0 ? 0 : roundClamped(valueAt(values, i) / scale, -32, 31)) + 32;
      const row = (i >> 5) & 3;
      const low = at + (i >> 7) * 64 + (row & 1) * 32 + (i & 31);
      const high = at + 128 + (i >> 7) * 32 + (i & 31);
      out[low] = byteAt(out, low) | ((q & 15) << ((row >> 1) * 4));
      out[high] = byteAt(out, high) | ((q >> 4) << (row * 2));
    }
  }
};

export const q4_k = encodingCodec('q4_k', decodeQ4K, encodeQ4K);

export const q5_k = encodingCodec('q5_k', decodeQ5K, encodeQ5K);

export const q6_k = encodingCodec('q6_k', decodeQ6K, encodeQ6K);
