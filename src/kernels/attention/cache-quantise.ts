/**
 * Writing new keys or values into a KV cache of type q8_planes: signed bytes [G, C, D], then f16 scales [G, C, D / 32]. Four threads make a block of 32; the largest magnitude passes
 * through workgroup memory. Two scales share a word: the first thread of a pair of blocks writes it, and keeps the half that is not new. Where a pair is the last block of one head and the first of
 * the next, and both are new, the thread of the former writes both.
 */

import type { GpuKernel } from '../../core/kernel.js';
import { stateWord } from '../../ops/state.js';
import { declareBindings, defineKernel, elementThreads, encodeHalfFunction, foldGrid, mainHead } from '../template.js';

const blockThreads = 4;
const groupBlocks = elementThreads / blockThreads;

export interface QuantiseProblem {
  /** Padded rows. */
  readonly rows: number;
  readonly heads: number;
  readonly capacity: number;
  /** Elements of a head: whole blocks. */
  readonly width: number;
}

export function cacheQuantiseKernel({ rows, heads, capacity, width }: QuantiseProblem): GpuKernel {
  const rowBlocks = width / 32;
  // Workgroups begin at pairs of blocks: where a row has an odd number, one block before the first may belong to its pair.
  const perHead = Math.ceil((rows * rowBlocks + (rowBlocks % 2)) / groupBlocks);
  const groups = heads * perHead;
  // Only a write of the whole cache makes both ends of neighbouring heads new.
  const meets = heads > 1 && rows >= capacity && (capacity * rowBlocks) % 2 === 1;
  return defineKernel({
    family: 'cache_quantise',
    params: { rows, heads, capacity, width },
    bindings: ['read_write', 'read', 'read'],
    workgroups: foldGrid(groups),
    workgroupSize: elementThreads,
    workgroupBytes: elementThreads * 4,
    wgsl: () => `${declareBindings([
      ['cache', 'u32', 'read_write'],
      ['x', 'vec4<f32>', 'read'],
      ['state', 'u32', 'read'],
    ])}var<workgroup> largest: array<u32, ${elementThreads}>;
${encodeHalfFunction}${quantiseFunctions}${meets ? firstLargestFunction : ''}${mainHead(groups, elementThreads)}  let head = group / ${perHead}u;
  let position = min(state[${stateWord.position}], ${capacity}u);
  let live = min(min(state[${stateWord.rows}], ${rows}u), ${capacity}u - position);
  let first = (head * ${capacity}u + position) * ${rowBlocks}u;
  let end = first + live * ${rowBlocks}u;
  let block = (first & ~1u) + (group % ${perHead}u) * ${groupBlocks}u + local / ${blockThreads}u;
  let isNew = block >= first && block < end;
  var a = vec4<f32>(0.0);
  var b = vec4<f32>(0.0);
  if (isNew) {
    let row = (block - first) / ${rowBlocks}u;
    let at = (row * ${heads}u + head) * ${width / 4}u + ((block - first) % ${rowBlocks}u) * 8u + (local % ${blockThreads}u) * 2u;
    a = x[at];
    b = x[at + 1u];
  }
  let magnitudes = max(bitcast<vec4<u32>>(a) & vec4<u32>(0x7fffffffu), bitcast<vec4<u32>>(b) & vec4<u32>(0x7fffffffu));
  largest[local] = max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
  workgroupBarrier();
  let own = blockLargest(local & ~${blockThreads - 1}u);
  if (isNew) {
    let scale = bitcast<f32>(own) / 127.0;
    let inverse = select(0.0, 1.0 / scale, own >= 0x04000000u);
    let at = block * 8u + (local % ${blockThreads}u) * 2u;
    cache[at] = bytes(a * inverse);
    cache[at + 1u] = bytes(b * inverse);
  }
  if (local % ${2 * blockThreads}u == 0u && block < end && block + 1u >= first && live > 0u${meets ? ` && (block >= first || live < ${capacity}u)` : ''}) {
    let at = ${heads * capacity * rowBlocks * 8}u + block / 2u;
    let kept = cache[at];
    let next = block + 1u;
    let low = select(kept & 0xffffu, scaleBits(own), isNew);
    ${meets ? 'var' : 'let'} high = select(kept >> 16u, scaleBits(blockLargest(local + ${blockThreads}u)), next >= first && next < end);
${meets ? `    if (next == end && live == ${capacity}u && head + 1u < ${heads}u) { high = scaleBits(firstLargest((head + 1u) * ${width / 4}u)); }\n` : ''}    cache[at] = low | (high << 16u);
  }
}
`,
  });
}

/** Magnitudes are compared by their bits, which order infinities and NaN above all numbers: such a block gets a scale of NaN. Halves are rounded away from zero. */
const quantiseFunctions = `fn blockLargest(at: u32) -> u32 {
  return max(max(largest[at], largest[at + 1u]), max(largest[at + 2u], largest[at + 3u]));
}
fn scaleBits(magnitude: u32) -> u32 {
  if (magnitude >= 0x7f800000u) { return 0x7e00u; }
  return encodeHalf(bitcast<f32>(magnitude) / 127.0);
}
fn bytes(v: vec4<f32>) -> u32 {
  let q = vec4<u32>(vec4<i32>(sign(v) * floor(abs(v) + 0.5))) & vec4<u32>(0xffu);
  return q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
}
`;

/** The largest magnitude of the block of x that begins at `at`. */
const firstLargestFunction = `fn firstLargest(at: u32) -> u32 {
  var most = vec4<u32>(0u);
  for (var i = 0u; i < 8u; i++) { most = max(most, bitcast<vec4<u32>>(x[at + i]) & vec4<u32>(0x7fffffffu)); }
  return max(max(most.x, most.y), max(most.z, most.w));
}
`;
