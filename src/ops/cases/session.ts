/** Session states and caches for cases. */

import type { CaseInput } from '../case.js';
import { stateWord, stateWords } from '../state.js';
import { bytesOf } from './weight-data.js';

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

/** A cache [heads, capacity, width] with random values in [-1, 1) at the first `length` positions and NaN beyond, which no kernel may let into a result. */
export function cacheInput(dtype: 'f32' | 'f16', [heads, capacity, width]: readonly [number, number, number], length: number, random: () => number): CaseInput {
  const count = heads * capacity * width;
  const live = (index: number): boolean => Math.floor(index / width) % capacity < length;
  const value = (index: number): number => (live(index) ? (0.001 + 0.999 * random()) * (random() < 0.5 ? -1 : 1) : Number.NaN);
  const type = { dtype, shape: [heads, capacity, width] };
  if (dtype === 'f32') return { role: 'state', type, bytes: bytesOf(Float32Array.from({ length: count }, (_, index) => value(index))) };
  const halves = Uint16Array.from({ length: count }, (_, index) => (live(index) ? halfBits(value(index)) : 0x7e00));
  return { role: 'state', type, bytes: new Uint8Array(halves.buffer) };
}
