/**
 * Splits ggml's blocks into the planes of weights-layout.ts on the device: what weights-pack.ts does on the host, bit for bit, at the speed of the bus instead of a thread's. A thread writes one
 * word of the first plane, and those of a block's first threads the shorter planes too; the thread of an even block writes planes of halfwords for the next block as well.
 */

import type { GpuKernel } from '../core/kernel.js';
import { declareBindings, defineKernel } from './template.js';
import type { BlockType } from './weights-layout.js';

/** Threads of a workgroup. */
export const rearrangeThreads = 64;

/** Words of the uniform: blocks, three unused ones, and the first word of every plane in the target. */
export const rearrangeParams = 8;

/** Threads that a block takes: the words of its first plane. */
export const threadsOfBlock: { readonly [T in BlockType]: number } = { q8_0: 8, q4_0: 4, q4_1: 4, q5_0: 4, q5_1: 4, q4_k: 32, q5_k: 32, q6_k: 32 };

/**
 * Source: blocks as words, in ggml's layout. Target: the weight's storage as words. Uniform: see `rearrangeParams`. The grid is up to the caller: workgroups for all blocks' threads, folded into
 * x and y as he likes.
 */
export function rearrangeKernel(dtype: BlockType): GpuKernel {
  return defineKernel({
    family: 'rearrange_weights',
    params: { dtype },
    bindings: ['read', 'read_write', 'uniform'],
    workgroups: [1, 1, 1],
    workgroupSize: rearrangeThreads,
    wgsl: () => `struct Params { counts: vec4<u32>, planes: vec4<u32> }
${declareBindings([
  ['source', 'u32', 'read'],
  ['planes', 'u32', 'read_write'],
  ['params', 'Params', 'uniform'],
])}
// Block sizes are even, not multiples of 4: places count halfwords.
fn half_at(at: u32) -> u32 { return (source[at >> 1u] >> ((at & 1u) << 4u)) & 0xffffu; }
fn word_at(at: u32) -> u32 { return half_at(at) | (half_at(at + 1u) << 16u); }

@compute @workgroup_size(${rearrangeThreads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let thread = (group.y * groups.x + group.x) * ${rearrangeThreads}u + local;
  let block = thread / ${threadsOfBlock[dtype]}u;
  let t = thread % ${threadsOfBlock[dtype]}u;
  let count = params.counts.x;
  if (block >= count) { return; }
${bodies[dtype]}}
`,
  });
}

/** `count` words from a place of each block, `size` halfwords long. */
const words = (size: number, skip: number, count: number, plane: 'x' | 'y' | 'z'): string =>
  `  if (t < ${count}u) { planes[params.planes.${plane} + block * ${count}u + t] = word_at(block * ${size}u + ${skip}u + 2u * t); }
`;

/** One halfword of this block and of the next. */
const halves = (size: number, skip: number, plane: 'y' | 'z' | 'w'): string => `  if (t == 0u && (block & 1u) == 0u) {
    var pair = half_at(block * ${size}u + ${skip}u);
    if (block + 1u < count) { pair |= half_at((block + 1u) * ${size}u + ${skip}u) << 16u; }
    planes[params.planes.${plane} + (block >> 1u)] = pair;
  }
`;

/** q5_0 and q5_1: one mask is to take the bits of four neighbours. */
const sliceBits = (size: number, skip: number): string => `  if (t == 0u) {
    let bits = word_at(block * ${size}u + ${skip}u);
    var word = 0u;
    for (var k = 0u; k < 8u; k++) { word |= ((((bits >> (4u * k)) & 15u) * 0x204081u) & 0x01010101u) << k; }
    planes[params.planes.y + block] = word;
  }
`;

/** The low nibbles of two words side by side, or their high ones. */
const joinNibbles = (high: string): string =>
  `select((first & 0x0f0f0f0fu) | ((other & 0x0f0f0f0fu) << 4u), ((first >> 4u) & 0x0f0f0f0fu) | (other & 0xf0f0f0f0u), ${high})`;

/** q4_k and q5_k: bytes 32 j to 32 j + 31 hold sub-block 2 j in their low nibbles and 2 j + 1 in their high ones. */
const pairNibbles = (size: number, skip: number): string => `  let at = block * ${size}u + ${skip}u + (t >> 3u) * 16u + 2u * (t & 3u);
  let first = word_at(at);
  let other = word_at(at + 8u);
  planes[params.planes.x + block * 32u + t] = ${joinNibbles('(t & 4u) != 0u')};
`;

/** q5_k: bit s of byte l belongs to weight l of sub-block s. */
const sliceHighK = `  if (t < 8u) {
    var word = 0u;
    for (var i = 0u; i < 8u; i++) { word |= ((word_at(block * 88u + 8u + 2u * i) >> t) & 0x01010101u) << i; }
    planes[params.planes.y + block * 8u + t] = word;
  }
`;

/** q6_k: of each 128 weights, sub-blocks 0 and 2 share the first 32 nibble bytes, 1 and 3 the next; their high bits share 32 bytes, two bits each. */
const splitQ6K = `  let at = block * 105u + (t >> 4u) * 32u + ((t >> 2u) & 1u) * 16u + 2u * (t & 3u);
  let first = word_at(at);
  let other = word_at(at + 8u);
  planes[params.planes.x + block * 32u + t] = ${joinNibbles('(t & 8u) != 0u')};
  if (t < 16u) {
    let high = block * 105u + 64u + (t >> 3u) * 16u + (t & 1u) * 8u;
    let shift = t & 6u;
    var word = 0u;
    for (var i = 0u; i < 4u; i++) { word |= ((word_at(high + 2u * i) >> shift) & 0x03030303u) << (2u * i); }
    planes[params.planes.y + block * 16u + t] = word;
  }
`;

const bodies: { readonly [T in BlockType]: string } = {
  q8_0: words(17, 1, 8, 'x') + halves(17, 0, 'y'),
  q4_0: words(9, 1, 4, 'x') + halves(9, 0, 'y'),
  q4_1: words(10, 2, 4, 'x') + words(10, 0, 1, 'y'),
  q5_0: words(11, 3, 4, 'x') + sliceBits(11, 1) + halves(11, 0, 'z'),
  q5_1: words(12, 4, 4, 'x') + sliceBits(12, 2) + words(12, 0, 1, 'z'),
  q4_k: pairNibbles(72, 8) + words(72, 0, 4, 'y'),
  q5_k: pairNibbles(88, 24) + sliceHighK + words(88, 0, 4, 'z'),
  q6_k: splitQ6K + words(105, 96, 4, 'z') + halves(105, 104, 'w'),
};
