/** What the attention kernels share: the problem, and how a cache's elements become f32 vectors. */

import type { CacheType } from './cache.js';
import type { KernelParam } from './template.js';
import { vectorType, vectorWidth } from './template.js';

export interface AttentionProblem {
  /** Padded rows T. */
  readonly rows: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** Elements of a head. */
  readonly width: number;
  readonly capacity: number;
  readonly keys: CacheType;
  readonly values: CacheType;
  readonly scale: number;
}

export function problemParams(problem: AttentionProblem): { readonly [name: string]: KernelParam } {
  return { ...problem };
}

/** A score that no real one falls below, in units where e^x is exp2: its weight is 0 against any real score. */
export const maskedScore = '-3e38f';

/** How a kernel reads one kind of cache: chunks of up to 16 bytes, each giving whole f32 vectors. */
export interface CacheChunks {
  /** WGSL element type of the binding. */
  readonly storage: string;
  /** Elements of a chunk. */
  readonly elements: number;
  /** f32 vectors that a chunk unpacks to. */
  readonly parts: readonly ((chunk: string) => string)[];
}

/**
 * Chunks of a row of `width` elements, as wide as `most` elements allow. Halves below 6.1e-5 may be read as 0, as WGSL's `unpack2x16float` leaves open: that is 6.1e-5 at
 * most in one key or value.
 */
export function cacheChunks(type: CacheType, width: number, most: 8 | 4 = 8): CacheChunks {
  if (type === 'f32') {
    const elements = vectorWidth(width);
    return { storage: vectorType(elements), elements, parts: [(chunk) => chunk] };
  }
  const four = (chunk: string, a: string, b: string): string => `vec4<f32>(unpack2x16float(${chunk}.${a}), unpack2x16float(${chunk}.${b}))`;
  if (width % 8 === 0 && most === 8) return { storage: 'vec4<u32>', elements: 8, parts: [(c) => four(c, 'x', 'y'), (c) => four(c, 'z', 'w')] };
  if (width % 4 === 0) return { storage: 'vec2<u32>', elements: 4, parts: [(c) => four(c, 'x', 'y')] };
  return { storage: 'u32', elements: 2, parts: [(c) => `unpack2x16float(${c})`] };
}

/** The product of two vectors of one width, summed. */
export function dotText(width: number, a: string, b: string): string {
  return width === 1 ? `${a} * ${b}` : `dot(${a}, ${b})`;
}
