/** ggml's blocks taken apart: codes as unsigned bytes, scales as they are stored. Layouts: ggml's public block definitions. */

import type { PackedType } from './formats.js';

/** One block of one row. `words` and `codes` are the same bytes: code i is byte i. */
export class ParsedBlock {
  readonly words = new Uint32Array(64);
  readonly codes: Uint8Array = new Uint8Array(this.words.buffer);
  /** f16 bits. */
  d = 0;
  m = 0;
  /** Bytes, per unit. */
  readonly scales = new Uint8Array(16);
  readonly mins = new Uint8Array(16);
}

type Parser = (bytes: Uint8Array, at: number, block: ParsedBlock) => void;

const byteAt = (bytes: Uint8Array, at: number): number => bytes[at] ?? 0;
const half = (bytes: Uint8Array, at: number): number => byteAt(bytes, at) | (byteAt(bytes, at + 1) << 8);
const word = (bytes: Uint8Array, at: number): number => half(bytes, at) | (half(bytes, at + 2) << 16);

const nibbles = 0x0f0f0f0f;

/** 32 codes of 16 bytes: column i low in byte i, column 16 + i high. */
function smallNibbles(bytes: Uint8Array, at: number, block: ParsedBlock): void {
  for (let p = 0; p < 4; p++) {
    const packed = word(bytes, at + 4 * p);
    block.words[p] = packed & nibbles;
    block.words[p + 4] = (packed >>> 4) & nibbles;
  }
}

/** Bit i of the word at `at` is bit 4 of code i. */
function smallFifthBits(bytes: Uint8Array, at: number, block: ParsedBlock): void {
  const high = word(bytes, at);
  for (let i = 0; i < 32; i++) block.codes[i] = byteAt(block.codes, i) | (((high >>> i) & 1) << 4);
}

/** Two sub-blocks share 32 bytes: the even one low, the odd one high. */
function superNibbles(bytes: Uint8Array, at: number, block: ParsedBlock): void {
  for (let pair = 0; pair < 4; pair++) {
    for (let i = 0; i < 8; i++) {
      const packed = word(bytes, at + pair * 32 + i * 4);
      block.words[pair * 16 + i] = packed & nibbles;
      block.words[pair * 16 + 8 + i] = (packed >>> 4) & nibbles;
    }
  }
}

/** 8 scales and 8 minima of 6 bits in 12 bytes. */
function superScales(bytes: Uint8Array, at: number, block: ParsedBlock): void {
  for (let j = 0; j < 4; j++) {
    const [scale, min, high] = [byteAt(bytes, at + j), byteAt(bytes, at + 4 + j), byteAt(bytes, at + 8 + j)];
    block.scales[j] = scale & 63;
    block.mins[j] = min & 63;
    block.scales[j + 4] = (high & 15) | ((scale >> 6) << 4);
    block.mins[j + 4] = (high >> 4) | ((min >> 6) << 4);
  }
}

export const parsers: { readonly [K in PackedType]: Parser } = {
  q8_0(bytes, at, block) {
    block.d = half(bytes, at);
    for (let i = 0; i < 8; i++) block.words[i] = word(bytes, at + 2 + 4 * i) ^ 0x80808080;
  },
  q4_0(bytes, at, block) {
    block.d = half(bytes, at);
    smallNibbles(bytes, at + 2, block);
  },
  q4_1(bytes, at, block) {
    block.d = half(bytes, at);
    block.m = half(bytes, at + 2);
    smallNibbles(bytes, at + 4, block);
  },
  q5_0(bytes, at, block) {
    block.d = half(bytes, at);
    smallNibbles(bytes, at + 6, block);
    smallFifthBits(bytes, at + 2, block);
  },
  q5_1(bytes, at, block) {
    block.d = half(bytes, at);
    block.m = half(bytes, at + 2);
    smallNibbles(bytes, at + 8, block);
    smallFifthBits(bytes, at + 4, block);
  },
  q4_k(bytes, at, block) {
    block.d = half(bytes, at);
    block.m = half(bytes, at + 2);
    superScales(bytes, at + 4, block);
    superNibbles(bytes, at + 16, block);
  },
  q5_k(bytes, at, block) {
    block.d = half(bytes, at);
    block.m = half(bytes, at + 2);
    superScales(bytes, at + 4, block);
    superNibbles(bytes, at + 48, block);
    // Bit j of byte i is bit 4 of code i of sub-block j.
    for (let i = 0; i < 8; i++) {
      const high = word(bytes, at + 16 + 4 * i);
      for (let j = 0; j < 8; j++) block.words[j * 8 + i] = (block.words[j * 8 + i] ?? 0) | (((high >>> j) & 0x01010101) << 4);
    }
  },
  q6_k(bytes, at, block) {
    block.d = half(bytes, at + 208);
    for (let i = 0; i < 16; i++) block.scales[i] = byteAt(bytes, at + 192 + i);
    // Each half of 128 codes: 64 bytes of nibbles and 32 bytes of bit pairs, in four quarters of 32 columns.
    for (let side = 0; side < 2; side++) {
      for (let i = 0; i < 8; i++) {
        const even = word(bytes, at + side * 64 + 4 * i);
        const odd = word(bytes, at + side * 64 + 32 + 4 * i);
        const high = word(bytes, at + 128 + side * 32 + 4 * i);
        const to = side * 32 + i;
        block.words[to] = (even & nibbles) | ((high & 0x03030303) << 4);
        block.words[to + 8] = (odd & nibbles) | (((high >>> 2) & 0x03030303) << 4);
        block.words[to + 16] = ((even >>> 4) & nibbles) | (((high >>> 4) & 0x03030303) << 4);
        block.words[to + 24] = ((odd >>> 4) & nibbles) | (((high >>> 6) & 0x03030303) << 4);
      }
    }
  },
};
