/** Random weights in ggml's blocks: about normal with a deviation near 0.02, the same on every machine. */

import { dtypes } from '../../src/core/dtype.js';
import { floatToHalf } from '../../src/quant/half.js';
import type { SyntheticType } from './shapes.js';

/** Blocks of a pool, a prime number: tensors repeat the pool, and no two rows nearby begin at the same block of it. */
const poolBlocks = 65_521;
/** f16 and f32 values of a pool: prime as well. */
const poolValues = 2_097_143;

const deviation = 0.02;

/** Where a block has its f16 scales, and what they are so that weights have the deviation above and no mean. */
const scales: { readonly [T in SyntheticType]?: readonly (readonly [byte: number, value: number])[] } = {
  // 4-bit numbers less 8.
  q4_0: [[0, deviation / 4.6]],
  q8_0: [[0, deviation / 74]],
  // Scale and minimum of 6 bits each: 32 x (4 bits - 7.5) on the average.
  q4_k: [
    [0, deviation / 258],
    [2, (7.5 * deviation) / 258],
  ],
  // 8-bit sub-scales with sign, 6-bit numbers less 32.
  q6_k: [[208, deviation / (74 * 18.5)]],
};

/** Endless bits of xorshift32. */
function randomWords(words: Uint32Array<ArrayBuffer>, seed: number): void {
  let state = seed;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
}

function makePool(dtype: SyntheticType): Uint8Array {
  const { block, bytes } = dtypes[dtype];
  const count = block === 1 ? poolValues : poolBlocks;
  const words = new Uint32Array(Math.ceil((count * bytes) / 4));
  randomWords(words, 0x9e37_79b9);
  const pool = new Uint8Array(words.buffer, 0, count * bytes);
  const view = new DataView(pool.buffer);
  if (dtype === 'f16') for (let i = 0; i < count; i++) view.setUint16(2 * i, floatToHalf(uniform(view.getUint16(2 * i, true), 16)), true);
  if (dtype === 'f32') for (let i = 0; i < count; i++) view.setFloat32(4 * i, uniform(view.getUint32(4 * i, true), 32), true);
  for (const [byte, value] of scales[dtype] ?? []) {
    const half = floatToHalf(value);
    for (let i = 0; i < count; i++) view.setUint16(i * bytes + byte, half, true);
  }
  return pool;
}

/** An even spread of the same deviation. */
function uniform(bits: number, width: number): number {
  return (bits / 2 ** width - 0.5) * deviation * Math.sqrt(12);
}

const pools = new Map<SyntheticType, Uint8Array>();

/** A tensor's bytes as pieces of a pool. Tensors begin at different places of it. */
export function* randomBlocks(dtype: SyntheticType, byteLength: number, tensor: number): Generator<Uint8Array> {
  const pool = pools.get(dtype) ?? makePool(dtype);
  pools.set(dtype, pool);
  const { bytes } = dtypes[dtype];
  let at = ((tensor * 7919) % (pool.length / bytes)) * bytes;
  for (let left = byteLength; left > 0; at = 0) {
    const piece = pool.subarray(at, Math.min(pool.length, at + left));
    yield piece;
    left -= piece.length;
  }
}
