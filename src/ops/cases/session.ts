/** Session states and caches for cases. */

import { bytesOf } from '../../core/bytes.js';
import type { CaseInput } from '../case.js';
import { stateWord, stateWords } from '../state.js';

/** A session at `position` whose next run has `rows` live rows out of `maxRows`. */
export function sessionInput(position: number, rows: number, maxRows: number): CaseInput {
  const words = new Uint32Array(stateWords(maxRows));
  words[stateWord.position] = position;
  words[stateWord.rows] = rows;
  return { role: 'state', type: { dtype: 'u32', shape: [words.length] }, bytes: bytesOf(words) };
}

/** The bits of the f16 nearest to a number of ordinary size (2^-14 to 65504), or zero. */
function halfBits(value: number): number {
  if (value === 0) return 0;
  const exponent = Math.floor(Math.log2(Math.abs(value)));
  const mantissa = Math.round((Math.abs(value) / 2 ** exponent) * 1024);
  return (value < 0 ? 0x8000 : 0) | ((exponent + 15) * 1024 + mantissa - 1024);
}

/** Types of KV caches. */
export type CaseCache = 'f32' | 'f16' | 'q8_planes';

/**
 * A cache [heads, capacity, width] with random values in [-1, 1) at the first `length` positions and NaN beyond, which no kernel may let into a result. With `growth`, floats grow along the
 * positions by up to that factor.
 */
export function cacheInput(
  dtype: CaseCache,
  [heads, capacity, width]: readonly [number, number, number],
  length: number,
  random: () => number,
  growth = 0,
): CaseInput {
  const count = heads * capacity * width;
  const live = (index: number): boolean => Math.floor(index / width) % capacity < length;
  const size = (index: number): number => 1 + (growth * (Math.floor(index / width) % capacity)) / capacity;
  const value = (index: number): number => (live(index) ? size(index) * (0.001 + 0.999 * random()) * (random() < 0.5 ? -1 : 1) : Number.NaN);
  const type = { dtype, shape: [heads, capacity, width] };
  if (dtype === 'f32') return { role: 'state', type, bytes: bytesOf(Float32Array.from({ length: count }, (_, index) => value(index))) };
  if (dtype === 'q8_planes') return { role: 'state', type, bytes: planesOf(count, live, random) };
  const halves = Uint16Array.from({ length: count }, (_, index) => (live(index) ? halfBits(value(index)) : 0x7e00));
  return { role: 'state', type, bytes: new Uint8Array(halves.buffer) };
}

/** Random signed bytes, and scales that bring them near [-1, 1) at the live positions. */
function planesOf(count: number, live: (index: number) => boolean, random: () => number): Uint8Array {
  const bytes = new Uint8Array((count / 32) * 34);
  for (let index = 0; index < count; index++) bytes[index] = Math.floor(random() * 255) - 127;
  const scales = new DataView(bytes.buffer, count);
  for (let block = 0; block < count / 32; block++) scales.setUint16(2 * block, live(block * 32) ? halfBits((0.5 + random() / 2) / 127) : 0x7e00, true);
  return bytes;
}
