/**
 * Blocks of 32 values with one f16 scale, and (`_1`) one f16 minimum. In the packed types, byte j holds value j in its low nibble and value j + 16 in its high
 * one; five-bit types keep bit 4 of value i in bit i of a 32-bit word.
 */

import { blockCodec, byteAt, type EncodeBlock, encodingCodec, halfAt, putHalf, valueAt } from './codec.js';
import { quantiseBytes } from './q8-planes.js';
import { fitAffine, fitScale, roundClamped } from './search.js';

/** Puts bits 0..3 of value i into its nibble of the 16 bytes at `at`. */
function putNibble(out: Uint8Array, at: number, i: number, q: number): void {
  const j = at + (i & 15);
  out[j] = byteAt(out, j) | ((q & 15) << (i < 16 ? 0 : 4));
}

/** Puts bit 4 of value i into the 32-bit word at `at`. */
function putFifthBit(out: Uint8Array, at: number, i: number, q: number): void {
  const j = at + (i >> 3);
  out[j] = byteAt(out, j) | ((q >> 4) << (i & 7));
}

function fifthBit(bytes: Uint8Array, at: number, i: number): number {
  return ((byteAt(bytes, at + (i >> 3)) >> (i & 7)) & 1) << 4;
}

function quantum(value: number, scale: number, low: number, high: number): number {
  return scale === 0 ? 0 : roundClamped(value / scale, low, high);
}

const encodeQ40: EncodeBlock = (values, out, at) => {
  const d = putHalf(out, at, fitScale(values, 0, 32, -8, 7));
  for (let i = 0; i < 32; i++) putNibble(out, at + 2, i, quantum(valueAt(values, i), d, -8, 7) + 8);
};

export const q4_0 = encodingCodec(
  'q4_0',
  (bytes, at, out, to) => {
    const d = halfAt(bytes, at);
    for (let j = 0; j < 16; j++) {
      const pair = byteAt(bytes, at + 2 + j);
      out[to + j] = ((pair & 15) - 8) * d;
      out[to + j + 16] = ((pair >> 4) - 8) * d;
    }
  },
  encodeQ40,
);

const encodeQ41: EncodeBlock = (values, out, at) => {
  const fit = fitAffine(values, 0, 32, 15, false);
  const d = putHalf(out, at, fit.scale);
  const m = putHalf(out, at + 2, fit.min);
  for (let i = 0; i < 32; i++) putNibble(out, at + 4, i, quantum(valueAt(values, i) - m, d, 0, 15));
};

export const q4_1 = encodingCodec(
  'q4_1',
  (bytes, at, out, to) => {
    const d = halfAt(bytes, at);
    const m = halfAt(bytes, at + 2);
    for (let j = 0; j < 16; j++) {
      const pair = byteAt(bytes, at + 4 + j);
      out[to + j] = (pair & 15) * d + m;
      out[to + j + 16] = (pair >> 4) * d + m;
    }
  },
  encodeQ41,
);

const encodeQ50: EncodeBlock = (values, out, at) => {
  const d = putHalf(out, at, fitScale(values, 0, 32, -16, 15));
  for (let i = 0; i < 32; i++) {
    const q = quantum(valueAt(values, i), d, -16, 15) + 16;
    putFifthBit(out, at + 2, i, q);
    putNibble(out, at + 6, i, q);
  }
};

export const q5_0 = encodingCodec(
  'q5_0',
  (bytes, at, out, to) => {
    const d = halfAt(bytes, at);
    for (let j = 0; j < 16; j++) {
      const pair = byteAt(bytes, at + 6 + j);
      out[to + j] = (((pair & 15) | fifthBit(bytes, at + 2, j)) - 16) * d;
      out[to + j + 16] = (((pair >> 4) | fifthBit(bytes, at + 2, j + 16)) - 16) * d;
    }
  },
  encodeQ50,
);

const encodeQ51: EncodeBlock = (values, out, at) => {
  const fit = fitAffine(values, 0, 32, 31, false);
  const d = putHalf(out, at, fit.scale);
  const m = putHalf(out, at + 2, fit.min);
  for (let i = 0; i < 32; i++) {
    const q = quantum(valueAt(values, i) - m, d, 0, 31);
    putFifthBit(out, at + 4, i, q);
    putNibble(out, at + 8, i, q);
  }
};

export const q5_1 = encodingCodec(
  'q5_1',
  (bytes, at, out, to) => {
    const d = halfAt(bytes, at);
    const m = halfAt(bytes, at + 2);
    for (let j = 0; j < 16; j++) {
      const pair = byteAt(bytes, at + 8 + j);
      out[to + j] = ((pair & 15) | fifthBit(bytes, at + 4, j)) * d + m;
      out[to + j + 16] = ((pair >> 4) | fifthBit(bytes, at + 4, j + 16)) * d + m;
    }
  },
  encodeQ51,
);

/** The same bytes as ggml writes. */
const encodeQ80: EncodeBlock = (values, out, at) => {
  putHalf(out, at, quantiseBytes(values, 0, out, at + 2));
};

export const q8_0 = encodingCodec(
  'q8_0',
  (bytes, at, out, to) => {
    const d = halfAt(bytes, at);
    for (let j = 0; j < 32; j++) out[to + j] = ((byteAt(bytes, at + 2 + j) << 24) >> 24) * d;
  },
  encodeQ80,
);

/** The 16 values of IQ4_NL and IQ4_XS, spaced for bell-shaped weights. Source: ggml's table. */
export const nonlinear4: Int8Array = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

export const iq4_nl = blockCodec('iq4_nl', (bytes, at, out, to) => {
  const d = halfAt(bytes, at);
  for (let j = 0; j < 16; j++) {
    const pair = byteAt(bytes, at + 2 + j);
    out[to + j] = d * (nonlinear4[pair & 15] ?? 0);
    out[to + j + 16] = d * (nonlinear4[pair >> 4] ?? 0);
  }
});

/** Twice the values of FP4 E2M1, so that they are integers; the scales below are halved in return. */
const doubledE2m1: Int8Array = Int8Array.of(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);

/** OCP MXFP4: the scale is a power of two, stored as its exponent + 127. */
export const mxfp4 = blockCodec('mxfp4', (bytes, at, out, to) => {
  const d = 2 ** (byteAt(bytes, at) - 128);
  for (let j = 0; j < 16; j++) {
    const pair = byteAt(bytes, at + 1 + j);
    out[to + j] = d * (doubledE2m1[pair & 15] ?? 0);
    out[to + j + 16] = d * (doubledE2m1[pair >> 4] ?? 0);
  }
});

/** An unsigned FP8 E4M3 scale (bias 7); ggml reads 0x7f, its NaN, as 0. */
function e4m3(bits: number): number {
  if (bits === 0x7f) return 0;
  const exponent = bits >> 3;
  return exponent === 0 ? (bits & 7) * 2 ** -9 : (8 + (bits & 7)) * 2 ** (exponent - 10);
}

/** NVFP4: 64 values, an E4M3 scale for each 16; in each 16, byte j holds values j and j + 8. */
export const nvfp4 = blockCodec('nvfp4', (bytes, at, out, to) => {
  for (let group = 0; group < 4; group++) {
    const d = e4m3(byteAt(bytes, at + group)) / 2;
    for (let j = 0; j < 8; j++) {
      const pair = byteAt(bytes, at + 4 + group * 8 + j);
      out[to + group * 16 + j] = d * (doubledE2m1[pair & 15] ?? 0);
      out[to + group * 16 + j + 8] = d * (doubledE2m1[pair >> 4] ?? 0);
    }
  }
});
