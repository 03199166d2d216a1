/** Operands of matrix products: activations and packed weights as f16 [rows, K], rows filled with zeros up to a multiple of the depth of a tile. */

import type { GpuKernel } from '../../core/kernel.js';
import { weightReader } from '../blocks.js';
import { declareBindings, defineKernel, elementThreads, foldGrid, mainHead } from '../template.js';
import type { WeightLayout } from '../weights-layout.js';
import { packHalvesFunction } from './form.js';

/** f32 [rows, columns] to f16 [rows, depth]. */
export function halvesKernel(rows: number, columns: number, depth: number): GpuKernel {
  const vectors = columns % 4 === 0;
  const count = rows * (depth / 8);
  const groups = Math.ceil(count / elementThreads);
  const perRow = depth / 8;
  return defineKernel({
    family: 'to_f16',
    params: { rows, columns, depth },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: elementThreads,
    features: ['shader-f16'],
    wgsl: () => {
      const load = vectors
        ? `fn load(row: u32, quad: u32) -> vec4<f32> {
${columns < depth ? `  if (quad >= ${columns / 4}u) { return vec4<f32>(0.0); }\n` : ''}  return x[row * ${columns / 4}u + quad];
}
`
        : `fn element(row: u32, k: u32) -> f32 { return select(0.0, x[row * ${columns}u + min(k, ${columns - 1}u)], k < ${columns}u); }
fn load(row: u32, quad: u32) -> vec4<f32> {
  let k = quad * 4u;
  return vec4<f32>(element(row, k), element(row, k + 1u), element(row, k + 2u), element(row, k + 3u));
}
`;
      return `${declareBindings([
        ['x', vectors ? 'vec4<f32>' : 'f32', 'read'],
        ['y', 'vec4<u32>', 'read_write'],
      ])}${packHalvesFunction}${load}${mainHead(groups, elementThreads)}  let index = group * ${elementThreads}u + local;
${count % elementThreads === 0 ? '' : `  if (index >= ${count}u) { return; }\n`}  let row = index / ${perRow}u;
  let quad = (index % ${perRow}u) * 2u;
  y[index] = vec4<u32>(pack4(load(row, quad)), pack4(load(row, quad + 1u)));
}
`;
    },
  });
}

/** Lines and depths of a tile that is turned in workgroup memory. */
const turn = 32;

/** f32 [k, lines] to f16 [lines, depth], in tiles that are read along the lines and written along the depth. */
export function turnedHalvesKernel(lines: number, k: number, depth: number): GpuKernel {
  const across = Math.ceil(lines / turn);
  const groups = across * (depth / turn);
  return defineKernel({
    family: 'to_f16_turned',
    params: { lines, k, depth },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: elementThreads,
    workgroupBytes: turn * (turn + 1) * 4,
    features: ['shader-f16'],
    wgsl: () => `${declareBindings([
      ['x', 'f32', 'read'],
      ['y', 'vec2<u32>', 'read_write'],
    ])}${packHalvesFunction}var<workgroup> tile: array<f32, ${turn * (turn + 1)}>;
${mainHead(groups, elementThreads)}  let firstLine = group % ${across}u * ${turn}u;
  let firstDepth = group / ${across}u * ${turn}u;
  let column = local % ${turn}u;
  for (var i = 0u; i < ${turn / (elementThreads / turn)}u; i++) {
    let row = i * ${elementThreads / turn}u + local / ${turn}u;
    let value = x[min(firstDepth + row, ${k - 1}u) * ${lines}u + min(firstLine + column, ${lines - 1}u)];
    tile[row * ${turn + 1}u + column] = select(0.0, value, firstDepth + row < ${k}u);
  }
  workgroupBarrier();
  let line = local / ${turn / 4}u;
  let first = local % ${turn / 4}u * 4u;
  let at = first * ${turn + 1}u + line;
  if (firstLine + line < ${lines}u) {
    y[((firstLine + line) * ${depth}u + firstDepth + first) / 4u] = pack4(vec4<f32>(tile[at], tile[at + ${turn + 1}u], tile[at + ${2 * (turn + 1)}u], tile[at + ${3 * (turn + 1)}u]));
  }
}
`,
  });
}

/**
 * Rows [first, first + rows) of one shard of a weight, decoded to f16 [rows, depth]. A thread decodes weights 8 j to 8 j + 7 and 16 more on of a block of 32: they share words
 * and scales in most types, and its neighbour's stores fill up the other half of a memory sector.
 */
export function dequantiseKernel(layout: WeightLayout, first: number, rows: number, depth: number): GpuKernel {
  const reader = weightReader(layout);
  const perRow = depth / 16;
  const count = rows * perRow;
  const groups = Math.ceil(count / elementThreads);
  const quads = Math.ceil(layout.columns / 4);
  const weight = (quad: string): string =>
    quads * 4 >= depth ? `weight4(row, ${quad})` : `select(vec4<f32>(0.0), weight4(row, min(${quad}, ${quads - 1}u)), ${quad} < ${quads}u)`;
  const eight = (quad: string): string => `vec4<u32>(pack4(${weight(quad)}), pack4(${weight(`(${quad} + 1u)`)}))`;
  return defineKernel({
    family: 'weights_to_f16',
    params: { type: layout.dtype, k: layout.columns, n: layout.rows, first, rows, depth },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: elementThreads,
    features: ['shader-f16'],
    wgsl: () => `${declareBindings([
      ['w', reader.element, 'read'],
      ['y', 'vec4<u32>', 'read_write'],
    ])}${packHalvesFunction}${reader.functions}${mainHead(groups, elementThreads)}  let index = group * ${elementThreads}u + local;
${count % elementThreads === 0 ? '' : `  if (index >= ${count}u) { return; }\n`}  let row = ${first}u + index / ${perRow}u;
  let half = index % ${perRow}u;
  let quad = (half / 2u) * 8u + (half & 1u) * 2u;
  let at = (index / ${perRow}u) * ${depth / 8}u + quad / 2u;
  y[at] = ${eight('quad')};
  y[at + 2u] = ${eight('(quad + 4u)')};
}
`,
  });
}
