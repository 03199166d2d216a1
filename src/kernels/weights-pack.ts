import { dtypes } from '../core/dtype.js';
import { roundUp } from '../core/tensor.js';
import type { BlockType } from './weights-layout.js';

/** ggml blocks as little-endian halfwords: every block size is even, not every one a multiple of 4. */
type Halves = Uint16Array;
type Words = Uint32Array;

/** Splits whole ggml blocks into the planes of `weightLayout`, in their order; every array is a multiple of 4 bytes long. */
export function packBlocks(dtype: BlockType, blocks: Uint8Array): readonly Uint8Array[] {
  const source = blocks.byteOffset % 2 === 0 ? blocks : blocks.slice();
  const halves = new Uint16Array(source.buffer, source.byteOffset, source.byteLength >> 1);
  const planes = packers[dtype](halves, blocks.byteLength / dtypes[dtype].bytes);
  return planes.map((plane) => new Uint8Array(plane.buffer));
}

/** `count` halfwords, rounded up to whole words. */
const halfPlane = (count: number): Halves => new Uint16Array(roundUp(count, 2));

/** Copies `run` halfwords from the place `skip` of every block. */
function copyRuns(source: Halves, count: number, size: number, skip: number, run: number): Halves {
  const out = halfPlane(count * run);
  for (let block = 0, to = 0; block < count; block++) {
    const from = block * size + skip;
    for (let i = 0; i < run; i++) out[to++] = source[from + i] ?? 0;
  }
  return out;
}

/** q5_0 and q5_1: bit i of ggml's word belongs to weight i; here bit 8 b + k belongs to weight 4 k + b, so that one mask takes the bits of four neighbours. */
function sliceBits(source: Halves, count: number, size: number, skip: number): Words {
  const out = new Uint32Array(count);
  for (let block = 0; block < count; block++) {
    const from = block * size + skip;
    const bits = (source[from] ?? 0) | ((source[from + 1] ?? 0) << 16);
    let word = 0;
    for (let k = 0; k < 8; k++) word |= ((((bits >>> (4 * k)) & 15) * 0x204081) & 0x01010101) << k;
    out[block] = word;
  }
  return out;
}

const wordAt = (source: Halves, at: number): number => (source[at] ?? 0) | ((source[at + 1] ?? 0) << 16);

/** The 128 nibble bytes of q4_k and q5_k: bytes 32 j to 32 j + 31 hold sub-block 2 j in their low nibbles and sub-block 2 j + 1 in their high ones. */
function pairNibbles(source: Halves, count: number, size: number, skip: number): Words {
  const out = new Uint32Array(count * 32);
  for (let block = 0; block < count; block++) {
    for (let j = 0; j < 4; j++) {
      const from = block * size + skip + j * 16;
      const to = block * 32 + j * 8;
      for (let k = 0; k < 4; k++) {
        const first = wordAt(source, from + 2 * k);
        const second = wordAt(source, from + 8 + 2 * k);
        out[to + k] = (first & 0x0f0f0f0f) | ((second & 0x0f0f0f0f) << 4);
        out[to + 4 + k] = ((first >>> 4) & 0x0f0f0f0f) | (second & 0xf0f0f0f0);
      }
    }
  }
  return out;
}

/** q5_k: bit s of byte l belongs to weight l of sub-block s. */
function sliceHighK(source: Halves, count: number, size: number, skip: number): Words {
  const out = new Uint32Array(count * 8);
  for (let block = 0; block < count; block++) {
    const to = block * 8;
    for (let k = 0; k < 8; k++) {
      const bits = wordAt(source, block * size + skip + 2 * k);
      for (let s = 0; s < 8; s++) out[to + s] = (out[to + s] ?? 0) | (((bits >>> s) & 0x01010101) << k);
    }
  }
  return out;
}

/** q6_k: of each 128 weights, the sub-blocks 0 and 2 share the first 32 nibble bytes (low, high) and 1 and 3 the next 32; their high bits share 32 bytes, two bits each. */
function packQ6K(source: Halves, count: number): readonly (Halves | Words)[] {
  const size = 105;
  const quants = new Uint32Array(count * 32);
  const high = new Uint32Array(count * 16);
  for (let block = 0; block < count; block++) {
    for (let s = 0; s < 8; s++) {
      const group = s & 3;
      const nibbles = block * size + (s >> 2) * 32 + (group & 1) * 16;
      const bits = block * size + 64 + (s >> 2) * 16;
      const shift = (group >> 1) * 4;
      let first = 0;
      let second = 0;
      for (let k = 0; k < 4; k++) {
        const low = (wordAt(source, nibbles + 2 * k) >>> shift) & 0x0f0f0f0f;
        const upper = (wordAt(source, nibbles + 8 + 2 * k) >>> shift) & 0x0f0f0f0f;
        quants[block * 32 + s * 4 + k] = low | (upper << 4);
        first |= ((wordAt(source, bits + 2 * k) >>> (2 * group)) & 0x03030303) << (2 * k);
        second |= ((wordAt(source, bits + 8 + 2 * k) >>> (2 * group)) & 0x03030303) << (2 * k);
      }
      high[block * 16 + s * 2] = first;
      high[block * 16 + s * 2 + 1] = second;
    }
  }
  return [quants, high, copyRuns(source, count, size, 96, 8), copyRuns(source, count, size, 104, 1)];
}

const packers: { readonly [T in BlockType]: (source: Halves, count: number) => readonly (Halves | Words)[] } = {
  q8_0: (s, n) => [copyRuns(s, n, 17, 1, 16), copyRuns(s, n, 17, 0, 1)],
  q4_0: (s, n) => [copyRuns(s, n, 9, 1, 8), copyRuns(s, n, 9, 0, 1)],
  q4_1: (s, n) => [copyRuns(s, n, 10, 2, 8), copyRuns(s, n, 10, 0, 2)],
  q5_0: (s, n) => [copyRuns(s, n, 11, 3, 8), sliceBits(s, n, 11, 1), copyRuns(s, n, 11, 0, 1)],
  q5_1: (s, n) => [copyRuns(s, n, 12, 4, 8), sliceBits(s, n, 12, 2), copyRuns(s, n, 12, 0, 2)],
  q4_k: (s, n) => [pairNibbles(s, n, 72, 8), copyRuns(s, n, 72, 0, 8)],
  q5_k: (s, n) => [pairNibbles(s, n, 88, 24), sliceHighK(s, n, 88, 8), copyRuns(s, n, 88, 0, 8)],
  q6_k: packQ6K,
};
