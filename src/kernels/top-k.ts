/**
 * The k largest of each row. Chunks of a row are sorted in workgroup memory, and their first k kept; then every kept element finds its rank by binary search in all
 * chunks of its row, and those below k write themselves. Floats become integers of the same order with NaN least; an index decides among equals.
 */

import type { GpuKernel } from '../core/kernel.js';
import { need } from '../ops/definition.js';
import type { LoweringRule } from '../ops/target.js';
import { orderFunction } from './argmax.js';
import { arg, declareBindings, defineKernel, foldGrid, mainHead } from './template.js';

const threads = 256;
/** Elements of a chunk: 8 KiB of workgroup memory. */
const chunkSize = 1024;

export interface TopKShape {
  readonly rows: number;
  readonly width: number;
  readonly k: number;
}

/** Whether pair a comes before pair b; pairs are (order, index). */
const precedesFunction = `fn precedes(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x > b.x || (a.x == b.x && a.y < b.y);
}
`;

const chunksOf = ({ width, k }: TopKShape): { readonly chunks: number; readonly kept: number } => ({
  chunks: Math.ceil(width / chunkSize),
  kept: Math.min(k, chunkSize),
});

/** Pairs [rows, chunks, kept], each chunk sorted; places beyond the row have (0, 0xffffffff). */
export function topKSortKernel(shape: TopKShape): GpuKernel {
  const { rows, width } = shape;
  const { chunks, kept } = chunksOf(shape);
  return defineKernel({
    family: 'top_k_sort',
    params: { ...shape },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(rows * chunks),
    workgroupSize: threads,
    workgroupBytes: chunkSize * 8,
    // A bitonic network: of each pair of places that differ in one bit, the earlier gets what precedes (or, in every other block, what follows).
    wgsl: () => `${declareBindings([
      ['x', 'f32', 'read'],
      ['pairs', 'vec2<u32>', 'read_write'],
    ])}${orderFunction}${precedesFunction}var<workgroup> cells: array<vec2<u32>, ${chunkSize}>;
${mainHead(rows * chunks, threads)}  let row = group / ${chunks}u;
  let start = group % ${chunks}u * ${chunkSize}u;
  for (var i = local; i < ${chunkSize}u; i += ${threads}u) {
    var pair = vec2<u32>(0u, 0xffffffffu);
    if (start + i < ${width}u) { pair = vec2<u32>(order(x[row * ${width}u + start + i]), start + i); }
    cells[i] = pair;
  }
  workgroupBarrier();
  for (var block = 2u; block <= ${chunkSize}u; block *= 2u) {
    for (var step = block / 2u; step > 0u; step /= 2u) {
      for (var i = local; i < ${chunkSize / 2}u; i += ${threads}u) {
        let low = i / step * step * 2u + i % step;
        let a = cells[low];
        let b = cells[low + step];
        if (precedes(b, a) == ((low & block) == 0u)) {
          cells[low] = b;
          cells[low + step] = a;
        }
      }
      workgroupBarrier();
    }
  }
  for (var i = local; i < ${kept}u; i += ${threads}u) { pairs[group * ${kept}u + i] = cells[i]; }
}
`,
  });
}

/** Ranks of the kept pairs, and the output of those below k. */
export function topKRankKernel(shape: TopKShape, output: 'values' | 'indices'): GpuKernel {
  const { rows, width, k } = shape;
  const { chunks, kept } = chunksOf(shape);
  const count = rows * chunks * kept;
  const groups = Math.ceil(count / threads);
  const values = output === 'values';
  return defineKernel({
    family: 'top_k_rank',
    params: { ...shape, output },
    bindings: values ? ['read', 'read', 'read_write'] : ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    wgsl: () => `${declareBindings([
      ['pairs', 'vec2<u32>', 'read'],
      ...(values ? [['x', 'u32', 'read'] as const] : []),
      ['y', 'u32', 'read_write'],
    ])}${precedesFunction}${mainHead(groups, threads)}  let index = group * ${threads}u + local;
  if (index >= ${count}u) { return; }
  let own = pairs[index];
  if (own.y == 0xffffffffu) { return; }
  let row = index / ${chunks * kept}u;
  var rank = 0u;
  for (var chunk = 0u; chunk < ${chunks}u; chunk++) {
    let first = (row * ${chunks}u + chunk) * ${kept}u;
    var low = 0u;
    var high = ${kept}u;
    while (low < high) {
      let middle = (low + high) / 2u;
      if (precedes(pairs[first + middle], own)) { low = middle + 1u; } else { high = middle; }
    }
    rank += low;
  }
  if (rank < ${k}u) { y[row * ${k}u + rank] = ${values ? `x[row * ${width}u + own.y]` : 'own.y'}; }
}
`,
  });
}

export const topKRule: LoweringRule<'topK', GpuKernel> = (node, context) => {
  const x = need(node.inputs[0]);
  const { k, output } = node.params;
  const width = x.type.shape.at(-1) ?? 1;
  const rows = x.type.shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const shape = { rows, width, k };
  const { chunks, kept } = chunksOf(shape);
  const pairs = context.scratch({ dtype: 'u32', shape: [rows, chunks, kept, 2] });
  const ranked = [arg(pairs, 'read'), ...(output === 'values' ? [arg(x, 'read')] : []), arg(node.output, 'write')];
  return [
    { label: `${node.label} sort`, node: node.id, kernel: topKSortKernel(shape), args: [arg(x, 'read'), arg(pairs, 'write')] },
    { label: `${node.label} rank`, node: node.id, kernel: topKRankKernel(shape, output), args: ranked },
  ];
};
