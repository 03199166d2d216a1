/**
 * Activations of many rows as 8-bit integers: every 32 values of a row share a scale.
 *
 * x f32 [T, K], K a multiple of 32, becomes words of 4 bytes:
 * - K/32 blocks of [2, T] vec4s: the first and the last 16 quants of the block of every row, so that a tile of rows is contiguous
 * - K/32 blocks of [T] pairs: f32 scale, and scale times the sum of the quants (what a minimum of the weights multiplies)
 */

import type { GpuKernel } from '../../core/kernel.js';
import { roundUp, type TensorType } from '../../core/tensor.js';
import { declareBindings, defineKernel, elementThreads, foldGrid, mainHead, repeat } from '../template.js';

/** Values that share a scale: as many as a block of weights has. */
export const rowBlock = 32;

/** First word of the scales. */
export function rowScalesAt(rows: number, columns: number): number {
  return (rows * columns) / 4;
}

export function rowsType(rows: number, columns: number): TensorType {
  return { dtype: 'u32', shape: [roundUp(rowScalesAt(rows, columns) + (rows * columns) / 16, 4)] };
}

/** One thread makes one block. Magnitudes below 1e-36, whose scale would have no inverse, become zeros; they are compared by their bits, so that a NaN makes the scale NaN. */
export function packRowsKernel(rows: number, columns: number): GpuKernel {
  const blocks = columns / rowBlock;
  const count = rows * blocks;
  const groups = Math.ceil(count / elementThreads);
  return defineKernel({
    family: 'to_int8',
    params: { rows, columns },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: elementThreads,
    wgsl: () => `${declareBindings([
      ['x', 'vec4<f32>', 'read'],
      ['y', 'vec2<u32>', 'read_write'],
    ])}fn largest(v: vec4<f32>) -> u32 {
  let size = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
  return max(max(size.x, size.y), max(size.z, size.w));
}
fn quants(v: vec4<f32>, inverse: f32) -> vec4<i32> { return vec4<i32>(round(v * inverse)); }
fn bytes(q: vec4<i32>) -> u32 {
  let placed = vec4<u32>(q & vec4<i32>(255)) << vec4<u32>(0u, 8u, 16u, 24u);
  return placed.x | placed.y | placed.z | placed.w;
}
${mainHead(groups, elementThreads)}  let index = group * ${elementThreads}u + local;
${count % elementThreads === 0 ? '' : `  if (index >= ${count}u) { return; }\n`}  let row = index / ${blocks}u;
  let block = index % ${blocks}u;
${repeat(8, (i) => `  let v${i} = x[index * 8u + ${i}u];`)}
  let bits = max(max(max(largest(v0), largest(v1)), max(largest(v2), largest(v3))), max(max(largest(v4), largest(v5)), max(largest(v6), largest(v7))));
  let most = bitcast<f32>(bits);
  let inverse = select(0.0, 127.0 / most, most > 1e-36);
${repeat(8, (i) => `  let q${i} = quants(v${i}, inverse);`)}
  let sums = q0 + q1 + q2 + q3 + q4 + q5 + q6 + q7;
  let first = (block * ${2 * rows}u + row) * 2u;
  let last = first + ${2 * rows}u;
  y[first] = vec2<u32>(bytes(q0), bytes(q1));
  y[first + 1u] = vec2<u32>(bytes(q2), bytes(q3));
  y[last] = vec2<u32>(bytes(q4), bytes(q5));
  y[last + 1u] = vec2<u32>(bytes(q6), bytes(q7));
  let scale = most / 127.0;
  y[${rowScalesAt(rows, columns) / 2}u + block * ${rows}u + row] = bitcast<vec2<u32>>(vec2<f32>(scale, scale * f32(sums.x + sums.y + sums.z + sums.w)));
}
`,
  });
}
