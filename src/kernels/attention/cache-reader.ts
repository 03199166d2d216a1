/** How attention kernels read a KV cache: chunks of up to 16 bytes, each giving whole f32 vectors. */

import type { BindingKind } from '../../core/kernel.js';
import { decodeHalfFunction, vectorType, vectorWidth } from '../template.js';
import type { AttentionProblem } from './text.js';

export interface CacheReader {
  /** Declarations for `declareBindings`: the elements and, in planes, the scales, which are the same argument bound again. */
  readonly bindings: readonly (readonly [name: string, element: string, kind: BindingKind])[];
  /** Module-scope text that `load` needs. */
  readonly functions: string;
  /** Elements of a chunk. */
  readonly elements: number;
  /** A chunk by its index, as a value for `parts`. */
  load(at: string): string;
  /** f32 vectors that a chunk unpacks to. */
  readonly parts: readonly ((chunk: string) => string)[];
}

type CacheName = 'keys' | 'values';

/** Module-scope text for readers of caches in planes, once in a kernel. */
export function cacheFunctions({ keys, values }: AttentionProblem): string {
  if (keys !== 'q8_planes' && values !== 'q8_planes') return '';
  return `${decodeHalfFunction}fn signedBytes(word: u32) -> vec4<f32> {
  return vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(word << 24u, word << 16u, word << 8u, word)) >> vec4<u32>(24u));
}
`;
}

/**
 * Reads rows of a cache by chunks of at most `most` elements. Halves below 6.1e-5 may be read as 0, as WGSL's `unpack2x16float` leaves open: that is 6.1e-5 at most in one key or value.
 * Scales of planes are read exactly.
 */
export function cacheReader(problem: AttentionProblem, name: CacheName, most: 16 | 8 | 4): CacheReader {
  const { width } = problem;
  if (problem[name] === 'q8_planes') return planesReader(problem, name, most);
  if (problem[name] === 'f32') {
    const elements = vectorWidth(width);
    return { ...plainReader(name, vectorType(elements)), elements, parts: [(chunk) => chunk] };
  }
  const four = (chunk: string, a: string, b: string): string => `vec4<f32>(unpack2x16float(${chunk}.${a}), unpack2x16float(${chunk}.${b}))`;
  if (width % 8 === 0 && most >= 8) return { ...plainReader(name, 'vec4<u32>'), elements: 8, parts: [(c) => four(c, 'x', 'y'), (c) => four(c, 'z', 'w')] };
  if (width % 4 === 0) return { ...plainReader(name, 'vec2<u32>'), elements: 4, parts: [(c) => four(c, 'x', 'y')] };
  return { ...plainReader(name, 'u32'), elements: 2, parts: [(c) => `unpack2x16float(${c})`] };
}

function plainReader(name: CacheName, storage: string): Pick<CacheReader, 'bindings' | 'functions' | 'load'> {
  return { bindings: [[name, storage, 'read']], functions: '', load: (at) => `${name}[${at}]` };
}

/** The scales begin after the bytes of the whole cache; there is one for 32 elements. */
function planesReader({ kvHeads, capacity, width }: AttentionProblem, name: CacheName, most: 16 | 8 | 4): CacheReader {
  const words = most / 4;
  const storage = words === 1 ? 'u32' : `vec${words}<u32>`;
  const [chunk, load] = [`${name}Chunk`, `load_${name}_chunk`];
  const perScale = 32 / most;
  const component = (i: number): string => (words === 1 ? '' : `.${'xyzw'[i]}`);
  return {
    bindings: [
      [name, storage, 'read'],
      [`${name}Scales`, 'u32', 'read'],
    ],
    functions: `struct ${chunk} { bytes: ${storage}, scale: f32 }
fn ${load}(at: u32) -> ${chunk} {
  let index = at / ${perScale}u;
  let pair = ${name}Scales[${(kvHeads * capacity * width) / 4}u + index / 2u];
  return ${chunk}(${name}[at], decodeHalf((pair >> ((index & 1u) * 16u)) & 0xffffu));
}
`,
    elements: most,
    load: (at) => `${load}(${at})`,
    parts: Array.from({ length: words }, (_, i) => (c: string) => `(signedBytes(${c}.bytes${component(i)}) * ${c}.scale)`),
  };
}
