/** Seeded test data for cases with weights: the same bits on every machine. */

import { bytesOf } from '../../core/bytes.js';
import { byteLengthOf, type DType, dtypes } from '../../core/dtype.js';
import type { CaseInput } from '../case.js';

/** Uniform numbers in [0, 1) from a 32-bit seed (a Weyl sequence through a mixing function). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let x = state;
    x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    return ((x ^ (x >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** f32 values in [-1, 1). */
export function randomFloats(count: number, random: () => number): Float32Array {
  return Float32Array.from({ length: count }, () => random() * 2 - 1);
}

export function floatInput(role: CaseInput['role'], shape: readonly number[], random: () => number): CaseInput {
  const count = shape.reduce((product, size) => product * size, 1);
  return { role, type: { dtype: 'f32', shape }, bytes: bytesOf(randomFloats(count, random)) };
}

/** Byte offsets of the f16 numbers of a block; everything else of a block may hold any bits. */
const halfOffsets: Partial<Record<DType, readonly number[]>> = {
  q8_0: [0],
  q4_0: [0],
  q4_1: [0, 2],
  q5_0: [0],
  q5_1: [0, 2],
  q4_k: [0, 2],
  q5_k: [0, 2],
  q6_k: [208],
};

/** Which f16 numbers scales (or f16 weights) may be: ordinary ones, or subnormal ones below 2^-14. */
export type HalfKind = 'normal' | 'subnormal';

function randomHalf(kind: HalfKind, random: () => number): number {
  const sign = random() < 0.5 ? 0x8000 : 0;
  const exponent = kind === 'subnormal' ? 0 : 8 + Math.floor(random() * 6);
  return sign | (exponent << 10) | (1 + Math.floor(random() * 1023));
}

/** A weight [rows, columns] of any type with random valid bits, as a param. */
export function randomWeight(dtype: DType, rows: number, columns: number, random: () => number, halves: HalfKind = 'normal'): CaseInput {
  const type = { dtype, shape: [rows, columns] };
  if (dtype === 'f32') return { role: 'param', type, bytes: bytesOf(randomFloats(rows * columns, random)) };
  const bytes = new Uint8Array(byteLengthOf(dtype, rows * columns));
  const put = (at: number, bits: number): void => {
    bytes[at] = bits & 255;
    bytes[at + 1] = bits >> 8;
  };
  const offsets = halfOffsets[dtype];
  if (offsets === undefined) {
    const bits = dtype === 'bf16' ? () => (random() < 0.5 ? 0x8000 : 0) | (0x3c00 + Math.floor(random() * 0x380)) : () => randomHalf(halves, random);
    for (let at = 0; at < bytes.length; at += 2) put(at, bits());
    return { role: 'param', type, bytes };
  }
  for (let at = 0; at < bytes.length; at++) bytes[at] = Math.floor(random() * 256);
  for (let block = 0; block < bytes.length; block += dtypes[dtype].bytes) {
    for (const offset of offsets) put(block + offset, randomHalf(halves, random));
  }
  return { role: 'param', type, bytes };
}
