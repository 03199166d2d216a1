/** Decoders for blocks of 256 values: a super-scale in f16 over small integer scales of 16 or 32 values each. */

import { blockCodec, byteAt, type DecodeBlock, halfAt } from './codec.js';
import { nonlinear4 } from './small-blocks.js';

/** Q2_K: 16 scale bytes (scale in the low nibble, minimum in the high one), 64 bytes of two-bit values, d, dmin. */
export const q2_k = blockCodec('q2_k', (bytes, at, out, to) => {
  const d = halfAt(bytes, at + 80);
  const dmin = halfAt(bytes, at + 82);
  for (let group = 0; group < 16; group++) {
    const scales = byteAt(bytes, at + group);
    const scale = d * (scales & 15);
    const min = dmin * (scales >> 4);
    const quants = at + 16 + (group >> 3) * 32 + (group & 1) * 16;
    const shift = ((group >> 1) & 3) * 2;
    for (let l = 0; l < 16; l++) out[to + group * 16 + l] = scale * ((byteAt(bytes, quants + l) >> shift) & 3) - min;
  }
});

/** Q3_K's scale of 16 values: four low bits in bytes 0..7, two high bits in bytes 8..11, offset 32. */
function sixBitScale(bytes: Uint8Array, at: number, group: number): number {
  const low = group < 8 ? byteAt(bytes, at + group) & 15 : byteAt(bytes, at + group - 8) >> 4;
  const high = (byteAt(bytes, at + 8 + (group & 3)) >> (2 * (group >> 2))) & 3;
  return (low | (high << 4)) - 32;
}

/** Q3_K: 32 bytes of third bits (clear means minus 4), 64 bytes of two-bit values, 12 bytes of scales, d. */
export const q3_k = blockCodec('q3_k', (bytes, at, out, to) => {
  const d = halfAt(bytes, at + 108);
  for (let group = 0; group < 16; group++) {
    const scale = d * sixBitScale(bytes, at + 96, group);
    const half = (group & 1) * 16;
    const quants = at + 32 + (group >> 3) * 32 + half;
    const shift = ((group >> 1) & 3) * 2;
    const bit = group >> 1;
    for (let l = 0; l < 16; l++) {
      const third = (byteAt(bytes, at + half + l) >> bit) & 1;
      out[to + group * 16 + l] = scale * (((byteAt(bytes, quants + l) >> shift) & 3) - (third ? 0 : 4));
    }
  }
});

/** The six-bit scale of 32-value group j in the 12 bytes at `at` (Q4_K, Q5_K). */
export function groupScale(bytes: Uint8Array, at: number, j: number): number {
  return j < 4 ? byteAt(bytes, at + j) & 63 : (byteAt(bytes, at + j + 4) & 15) | ((byteAt(bytes, at + j - 4) >> 6) << 4);
}

/** The six-bit minimum of 32-value group j in the 12 bytes at `at` (Q4_K, Q5_K). */
export function groupMin(bytes: Uint8Array, at: number, j: number): number {
  return j < 4 ? byteAt(bytes, at + j + 4) & 63 : (byteAt(bytes, at + j + 4) >> 4) | ((byteAt(bytes, at + j) >> 6) << 4);
}

/** Q4_K: d, dmin, 12 bytes of scales and minima, 128 bytes of nibbles: 32 bytes hold two groups of 32, low nibbles first. */
export const decodeQ4K: DecodeBlock = (bytes, at, out, to) => {
  const d = halfAt(bytes, at);
  const dmin = halfAt(bytes, at + 2);
  for (let group = 0; group < 8; group++) {
    const scale = d * groupScale(bytes, at + 4, group);
    const min = dmin * groupMin(bytes, at + 4, group);
    const quants = at + 16 + (group >> 1) * 32;
    const shift = (group & 1) * 4;
    for (let l = 0; l < 32; l++) out[to + group * 32 + l] = scale * ((byteAt(bytes, quants + l) >> shift) & 15) - min;
  }
};

/** Q5_K: as Q4_K, with 32 bytes of fifth bits (bit `group` of byte l) before the nibbles. */
export const decodeQ5K: DecodeBlock = (bytes, at, out, to) => {
  const d = halfAt(bytes, at);
  const dmin = halfAt(bytes, at + 2);
  for (let group = 0; group < 8; group++) {
    const scale = d * groupScale(bytes, at + 4, group);
    const min = dmin * groupMin(bytes, at + 4, group);
    const quants = at + 48 + (group >> 1) * 32;
    const shift = (group & 1) * 4;
    for (let l = 0; l < 32; l++) {
      const fifth = (byteAt(bytes, at + 16 + l) >> group) & 1;
      out[to + group * 32 + l] = scale * (((byteAt(bytes, quants + l) >> shift) & 15) | (fifth << 4)) - min;
    }
  }
};

/** Q6_K: 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, d; values are offset by 32. */
export const decodeQ6K: DecodeBlock = (bytes, at, out, to) => {
  const d = halfAt(bytes, at + 208);
  for (let group = 0; group < 16; group++) {
    const scale = d * ((byteAt(bytes, at + 192 + group) << 24) >> 24);
    const half = group >> 3;
    const row = (group >> 1) & 3;
    const low = at + half * 64 + (row & 1) * 32 + (group & 1) * 16;
    const high = at + 128 + half * 32 + (group & 1) * 16;
    for (let l = 0; l < 16; l++) {
      const q = ((byteAt(bytes, low + l) >> ((row >> 1) * 4)) & 15) | (((byteAt(bytes, high + l) >> (row * 2)) & 3) << 4);
      out[to + group * 16 + l] = scale * (q - 32);
    }
  }
};

/** IQ4_XS: d, 16 high bit pairs of the scales, 4 bytes of their low nibbles, 128 bytes of nibbles that index `nonlinear4`. */
export const iq4_xs = blockCodec('iq4_xs', (bytes, at, out, to) => {
  const d = halfAt(bytes, at);
  const highBits = byteAt(bytes, at + 2) | (byteAt(bytes, at + 3) << 8);
  for (let group = 0; group < 8; group++) {
    const low = (byteAt(bytes, at + 4 + (group >> 1)) >> (4 * (group & 1))) & 15;
    const scale = d * ((low | (((highBits >> (2 * group)) & 3) << 4)) - 32);
    for (let j = 0; j < 16; j++) {
      const pair = byteAt(bytes, at + 8 + group * 16 + j);
      out[to + group * 32 + j] = scale * (nonlinear4[pair & 15] ?? 0);
      out[to + group * 32 + j + 16] = scale * (nonlinear4[pair >> 4] ?? 0);
    }
  }
});

/** Writes the `digit`-th base-3 digit (fraction bytes: most significant first) of `count` bytes, less 1, times d. */
function putTrits(bytes: Uint8Array, at: number, count: number, digit: number, d: number, out: Float32Array, to: number): void {
  for (let m = 0; m < count; m++) {
    const shifted = (byteAt(bytes, at + m) * 3 ** digit) & 255;
    out[to + m] = (((shifted * 3) >> 8) - 1) * d;
  }
}

/** TQ1_0: 240 values in 48 bytes of five base-3 digits (32 bytes, then 16), 16 values in 4 bytes of four, d. */
export const tq1_0 = blockCodec('tq1_0', (bytes, at, out, to) => {
  const d = halfAt(bytes, at + 52);
  for (let digit = 0; digit < 5; digit++) putTrits(bytes, at, 32, digit, d, out, to + digit * 32);
  for (let digit = 0; digit < 5; digit++) putTrits(bytes, at + 32, 16, digit, d, out, to + 160 + digit * 16);
  for (let digit = 0; digit < 4; digit++) putTrits(bytes, at + 48, 4, digit, d, out, to + 240 + digit * 4);
});

/** TQ2_0: 64 bytes of two-bit values less 1, d. */
export const tq2_0 = blockCodec('tq2_0', (bytes, at, out, to) => {
  const d = halfAt(bytes, at + 64);
  for (let i = 0; i < 256; i++) {
    const pair = byteAt(bytes, at + (i >> 7) * 32 + (i & 31)) >> (((i >> 5) & 3) * 2);
    out[to + i] = ((pair & 3) - 1) * d;
  }
});
