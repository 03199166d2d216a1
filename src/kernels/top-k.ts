/**
 * The k largest of each row. Chunks of a row are sorted in workgroup memory, and their first k kept; lists of kept elements are then merged, many at a time, until one is left. Where k is too large
 * for several lists to share workgroup memory, every kept element finds its rank by binary search in all chunks of its row instead. Floats become integers of the same order with NaN least; an index
 * decides among equals.
 */

import type { GpuKernel } from '../core/kernel.js';
import type { Step } from '../core/step.js';
import { need } from '../ops/definition.js';
import type { LoweringRule, TensorRef } from '../ops/target.js';
import { orderFunction } from './argmax.js';
import { arg, declareBindings, defineKernel, foldGrid, mainHead } from './template.js';

const threads = 256;
/** Elements of a chunk, and of the lists that are merged together: 8 KiB of workgroup memory. */
const chunkSize = 1024;

export interface TopKShape {
  readonly rows: number;
  readonly width: number;
  readonly k: number;
}

/** What a kernel writes: sorted pairs for the next one, or the result. */
type End = 'pairs' | 'values' | 'indices';

/** How the lists of every row become fewer: `fan` at a time, each filled up to `length` places. */
export interface TopKMerge {
  readonly lists: number;
  readonly fan: number;
  readonly length: number;
}

/** How the k largest of rows are found: sorted chunks, then merges (none where one chunk holds a row), or ranks. */
export type TopKPlan = { readonly chunks: number; readonly kept: number } & (
  | { readonly kind: 'merge'; readonly merges: readonly TopKMerge[] }
  | { readonly kind: 'rank' }
);

const powerOfTwo = (size: number): number => 2 ** Math.ceil(Math.log2(size));

/** Pure: equal arguments give equal kernels. */
export function planTopK({ width, k }: Pick<TopKShape, 'width' | 'k'>): TopKPlan {
  const chunks = Math.ceil(width / chunkSize);
  const kept = Math.min(k, chunkSize);
  const length = powerOfTwo(kept);
  if (chunks > 1 && 2 * length > chunkSize) return { kind: 'rank', chunks, kept };
  const merges: TopKMerge[] = [];
  for (let lists = chunks; lists > 1; ) {
    // Four cells at least: the network takes two steps at a time.
    const fan = Math.min(chunkSize / length, Math.max(powerOfTwo(lists), 4 / length));
    merges.push({ lists, fan, length });
    lists = Math.ceil(lists / fan);
  }
  return { kind: 'merge', chunks, kept, merges };
}

/** Whether pair a comes before pair b; pairs are (order, index). */
const precedesFunction = `fn precedes(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x > b.x || (a.x == b.x && a.y < b.y);
}
`;

/** Two pairs in their order, or against it. */
const orderedFunction = `struct Two { first: vec2<u32>, second: vec2<u32> }
fn ordered(a: vec2<u32>, b: vec2<u32>, forward: bool) -> Two {
  let swap = precedes(b, a) == forward;
  return Two(select(a, b, swap), select(b, a, swap));
}
`;

/**
 * A bitonic network over `size` cells in blocks of `first` and more (blocks half as long are sorted, every other one backwards): of each pair of places that differ in one bit, the earlier gets what
 * precedes, or in every other block what follows. Two steps of the network are done between barriers, on four cells; the first step of a block alone where it has an odd number of them.
 */
function network(first: number, size: number): string {
  return `  workgroupBarrier();
  for (var block = ${first}u; block <= ${size}u; block *= 2u) {
    var step = block / 2u;
    if ((countTrailingZeros(block) & 1u) == 1u) {
      for (var i = local; i < ${size / 2}u; i += ${threads}u) {
        let low = i / step * step * 2u + i % step;
        let pair = ordered(cells[low], cells[low + step], (low & block) == 0u);
        cells[low] = pair.first;
        cells[low + step] = pair.second;
      }
      step /= 2u;
      workgroupBarrier();
    }
    for (; step > 1u; step /= 4u) {
      let half = step / 2u;
      for (var i = local; i < ${size / 4}u; i += ${threads}u) {
        let low = i / half * step * 2u + i % half;
        let forward = (low & block) == 0u;
        let outer = ordered(cells[low], cells[low + step], forward);
        let inner = ordered(cells[low + half], cells[low + half + step], forward);
        let front = ordered(outer.first, inner.first, forward);
        let back = ordered(outer.second, inner.second, forward);
        cells[low] = front.first;
        cells[low + half] = front.second;
        cells[low + step] = back.first;
        cells[low + step + half] = back.second;
      }
      workgroupBarrier();
    }
  }
`;
}

/** Writes the first cells: as `count` pairs of this workgroup, or as the row's k values or indices. */
function endText(end: End, { width, k }: TopKShape, count: number): string {
  const [limit, target] =
    end === 'pairs'
      ? [count, `sorted[group * ${count}u + i] = cells[i]`]
      : [k, `y[row * ${k}u + i] = ${end === 'values' ? `x[row * ${width}u + cells[i].y]` : 'cells[i].y'}`];
  return `  for (var i = local; i < ${limit}u; i += ${threads}u) { ${target}; }
}
`;
}

const outputBinding = (end: End): readonly [string, string, 'read_write'] =>
  end === 'pairs' ? ['sorted', 'vec2<u32>', 'read_write'] : ['y', 'u32', 'read_write'];

/** Chunks of the rows, sorted: pairs [rows, chunks, kept], in which places beyond the row are (0, 0xffffffff); or the result, where a row is one chunk. */
function topKSortKernel(shape: TopKShape, end: End): GpuKernel {
  const { rows, width } = shape;
  const { chunks, kept } = planTopK(shape);
  const size = Math.max(4, powerOfTwo(Math.min(width, chunkSize)));
  return defineKernel({
    family: 'top_k_sort',
    params: { ...shape, end },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(rows * chunks),
    workgroupSize: threads,
    workgroupBytes: size * 8,
    wgsl: () => `${declareBindings([['x', 'u32', 'read'], outputBinding(end)])}${orderFunction}${precedesFunction}${orderedFunction}var<workgroup> cells: array<vec2<u32>, ${size}>;
${mainHead(rows * chunks, threads)}  let row = group / ${chunks}u;
  let start = group % ${chunks}u * ${chunkSize}u;
  for (var i = local; i < ${size}u; i += ${threads}u) {
    var pair = vec2<u32>(0u, 0xffffffffu);
    if (start + i < ${width}u) { pair = vec2<u32>(order(bitcast<f32>(x[row * ${width}u + start + i])), start + i); }
    cells[i] = pair;
  }
${network(2, size)}${endText(end, shape, kept)}`,
  });
}

/** Sorted lists [rows, lists, kept] to [rows, ceil(lists / fan), kept], or to the result. Every other list is read backwards, as the network wants it. */
function topKMergeKernel(shape: TopKShape, { lists, fan, length }: TopKMerge, end: End): GpuKernel {
  const { rows } = shape;
  const { kept } = planTopK(shape);
  const groups = Math.ceil(lists / fan);
  const size = fan * length;
  return defineKernel({
    family: 'top_k_merge',
    params: { ...shape, lists, fan, length, end },
    bindings: end === 'values' ? ['read', 'read', 'read_write'] : ['read', 'read_write'],
    workgroups: foldGrid(rows * groups),
    workgroupSize: threads,
    workgroupBytes: size * 8,
    wgsl: () => `${declareBindings([
      ['pairs', 'vec2<u32>', 'read'],
      ...(end === 'values' ? [['x', 'u32', 'read'] as const] : []),
      outputBinding(end),
    ])}${precedesFunction}${orderedFunction}var<workgroup> cells: array<vec2<u32>, ${size}>;
${mainHead(rows * groups, threads)}  let row = group / ${groups}u;
  let first = group % ${groups}u * ${fan}u;
  for (var i = local; i < ${size}u; i += ${threads}u) {
    let list = first + i / ${length}u;
    var place = i % ${length}u;
    if ((i & ${length}u) != 0u) { place = ${length - 1}u - place; }
    var pair = vec2<u32>(0u, 0xffffffffu);
    if (list < ${lists}u && place < ${kept}u) { pair = pairs[(row * ${lists}u + list) * ${kept}u + place]; }
    cells[i] = pair;
  }
${network(2 * length, size)}${endText(end, shape, kept)}`,
  });
}

/** Ranks of the kept pairs, and the output of those below k. */
function topKRankKernel(shape: TopKShape, output: 'values' | 'indices'): GpuKernel {
  const { rows, width, k } = shape;
  const { chunks, kept } = planTopK(shape);
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
  const plan = planTopK(shape);
  const { chunks, kept } = plan;
  const step = (suffix: string, kernel: GpuKernel, args: Step<GpuKernel>['args']): Step<GpuKernel> => ({
    label: `${node.label}${suffix}`,
    node: node.id,
    kernel,
    args,
  });
  if (chunks === 1) return [step('', topKSortKernel(shape, output), [arg(x, 'read'), arg(node.output, 'write')])];
  const listsOf = (lists: number): TensorRef => context.scratch({ dtype: 'u32', shape: [rows, lists, kept, 2] });
  let pairs = listsOf(chunks);
  const steps = [step(' sort', topKSortKernel(shape, 'pairs'), [arg(x, 'read'), arg(pairs, 'write')])];
  const finalArgs = (): Step<GpuKernel>['args'] => [arg(pairs, 'read'), ...(output === 'values' ? [arg(x, 'read')] : []), arg(node.output, 'write')];
  if (plan.kind === 'rank') return [...steps, step(' rank', topKRankKernel(shape, output), finalArgs())];
  for (const merge of plan.merges) {
    const left = Math.ceil(merge.lists / merge.fan);
    if (left === 1) {
      steps.push(step(' merge', topKMergeKernel(shape, merge, output), finalArgs()));
      break;
    }
    const next = listsOf(left);
    steps.push(step(' merge', topKMergeKernel(shape, merge, 'pairs'), [arg(pairs, 'read'), arg(next, 'write')]));
    pairs = next;
  }
  return steps;
};
