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

const wordAt = (source: Halves, at: number): number => (source[at] ?? 0) | ((source[at + 1] ?? 0) << 16);

/** The halfword at the place `skip` of every block. */
function copyHalves(source: Halves, count: number, size: number, skip: number): Halves {
  const out = new Uint16Array(roundUp(count, 2));
  for (let block = 0, from = skip; block < count; block++, from += size) out[block] = source[from] ?? 0;
  return out;
}

/** `run` words from the place `skip` of every block; `size` and `skip` count halfwords. */
function copyWords(source: Halves, count: number, size: number, skip: number, run: number): Words {
  const out = new Uint32Array(count * run);
  let to = 0;
  for (let block = 0; block < count; block++) {
    const from = block * size + skip;
    for (let i = 0; i < run; i++) out[to + i] = wordAt(source, from + 2 * i);
    to += run;
  }
  return out;
}

/** q5_0 and q5_1: bit i of ggml's word belongs to weight i; here bit 8 b + k belongs to weight 4 k + b, so that one mask takes the bits of four neighbours. */
function sliceBits(source: Halves, count: number, size: number, skip: number): Words {
  const out = new Uint32Array(count);
  for (let block = 0; block < count; block++) {
    const from = block * size + skip;
    const bits = wordAt(source, from);
    let word = 0;
    for (let k = 0; k < 8; k++) word |= ((((bits >>> (4 * k)) & 15) * 0x204081) & 0x01010101) << k;
    out[block] = word;
  }
  return out;
}

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
  const mask = 0x01010101;
  for (let block = 0; block < count; block++) {
    const from = block * size + skip;
    const [a, b, c, d] = [wordAt(source, from), wordAt(source, from + 2), wordAt(source, from + 4), wordAt(source, from + 6)];
    const [e, f, g, h] = [wordAt(source, from + 8), wordAt(source, from + 10), wordAt(source, from + 12), wordAt(source, from + 14)];
    for (let s = 0; s < 8; s++) {
      const low = ((a >>> s) & mask) | (((b >>> s) & mask) << 1) | (((c >>> s) & mask) << 2) | (((d >>> s) & mask) << 3);
      const high = ((e >>> s) & mask) | (((f >>> s) & mask) << 1) | (((g >>> s) & mask) << 2) | (((h >>> s) & mask) << 3);
      out[block * 8 + s] = low | (high << 4);
    }
  }
  return out;
}

/** q6_k: of each 128 weights, the sub-blocks 0 and 2 share the first 32 nibble bytes (low, high) and 1 and 3 the next 32; their high bits share 32 bytes, two bits each. */
function packQ6K(source: Halves, count: number): readonly (Halves | Words)[] {
  const size = 105;
  const quants = new Uint32Array(count * 32);
  const high = new Uint32Array(count * 16);
  for (let half = 0; half < 2 * count; half++) {
    const block = (half >> 1) * size;
    pairNibbles6(source, block + (half & 1) * 32, quants, half * 16);
    sliceHigh6(source, block + 64 + (half & 1) * 16, high, half * 8);
  }
  return [quants, high, copyWords(source, count, size, 96, 4), copyHalves(source, count, size, 104)];
}

function pairNibbles6(source: Halves, from: number, out: Words, to: number): void {
  for (let k = 0; k < 4; k++) {
    const [a, b] = [wordAt(source, from + 2 * k), wordAt(source, from + 8 + 2 * k)];
    const [c, d] = [wordAt(source, from + 16 + 2 * k), wordAt(source, from + 24 + 2 * k)];
    out[to + k] = (a & 0x0f0f0f0f) | ((b & 0x0f0f0f0f) << 4);
    out[to + 4 + k] = (c & 0x0f0f0f0f) | ((d & 0x0f0f0f0f) << 4);
    out[to + 8 + k] = ((a >>> 4) & 0x0f0f0f0f) | (b & 0xf0f0f0f0);
    out[to + 12 + k] = ((c >>> 4) & 0x0f0f0f0f) | (d & 0xf0f0f0f0);
  }
}

function sliceHigh6(source: Halves, from: number, out: Words, to: number): void {
  const mask = 0x03030303;
  for (let h = 0; h < 2; h++) {
    const at = from + 8 * h;
    const [a, b, c, d] = [wordAt(source, at), wordAt(source, at + 2), wordAt(source, at + 4), wordAt(source, at + 6)];
    for (let g = 0; g < 4; g++) {
      const s = 2 * g;
      out[to + 2 * g + h] = ((a >>> s) & mask) | (((b >>> s) & mask) << 2) | (((c >>> s) & mask) << 4) | (((d >>> s) & mask) << 6);
    }
  }
}

const packers: { readonly [T in BlockType]: (source: Halves, count: number) => readonly (Halves | Words)[] } = {
  q8_0: (s, n) => [copyWords(s, n, 17, 1, 8), copyHalves(s, n, 17, 0)],
  q4_0: (s, n) => [copyWords(s, n, 9, 1, 4), copyHalves(s, n, 9, 0)],
  q4_1: (s, n) => [copyWords(s, n, 10, 2, 4), copyWords(s, n, 10, 0, 1)],
  q5_0: (s, n) => [copyWords(s, n, 11, 3, 4), sliceBits(s, n, 11, 1), copyHalves(s, n, 11, 0)],
  q5_1: (s, n) => [copyWords(s, n, 12, 4, 4), sliceBits(s, n, 12, 2), copyWords(s, n, 12, 0, 1)],
  q4_k: (s, n) => [pairNibbles(s, n, 72, 8), copyWords(s, n, 72, 0, 4)],
  q5_k: (s, n) => [pairNibbles(s, n, 88, 24), sliceHighK(s, n, 88, 8), copyWords(s, n, 88, 0, 4)],
  q6_k: packQ6K,
};
