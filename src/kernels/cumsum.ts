/**
 * Running sums. A row is cut into chunks of 1024, which workgroups sum up each for itself; the chunks' totals are summed up in the same way, and added. Short columns
 * take a thread each, long ones are transposed to rows and back.
 */

import type { GpuKernel } from '../core/kernel.js';
import type { Step } from '../core/step.js';
import { type Lines, linesAlong } from '../ops/axes.js';
import { need } from '../ops/definition.js';
import type { LoweringContext, LoweringNode, LoweringRule, TensorRef } from '../ops/target.js';
import { permutedAxes, stridedCopyKernel } from './strided-copy.js';
import { arg, declareBindings, defineKernel, elementThreads, foldGrid, mainHead } from './template.js';

const threads = 256;
const perThread = 4;
const chunkSize = threads * perThread;
/** Columns up to this long go to one thread each. */
const shortColumn = 256;

export function cumsumColumnsKernel({ outer, count, inner }: Lines, exclusive: boolean): GpuKernel {
  const lines = outer * inner;
  const groups = Math.ceil(lines / threads);
  return defineKernel({
    family: 'cumsum_columns',
    params: { outer, count, inner, exclusive },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    wgsl: () => `${declareBindings([
      ['x', 'f32', 'read'],
      ['y', 'f32', 'read_write'],
    ])}${mainHead(groups, threads)}  let line = group * ${threads}u + local;
  if (line >= ${lines}u) { return; }
  var at = line / ${inner}u * ${count * inner}u + line % ${inner}u;
  var sum = 0.0f;
  for (var c = 0u; c < ${count}u; c++) {
    let next = sum + x[at];
    y[at] = ${exclusive ? 'sum' : 'next'};
    sum = next;
    at += ${inner}u;
  }
}
`,
  });
}

/** Running sums of every chunk by itself, and (where a row has several) the chunks' totals: [rows, chunks]. */
export function cumsumChunksKernel(rows: number, count: number, exclusive: boolean): GpuKernel {
  const chunks = Math.ceil(count / chunkSize);
  const lanes = Array.from({ length: perThread }, (_, i) => i);
  return defineKernel({
    family: 'cumsum_chunks',
    params: { rows, count, exclusive },
    bindings: chunks > 1 ? ['read', 'read_write', 'read_write'] : ['read', 'read_write'],
    workgroups: foldGrid(rows * chunks),
    workgroupSize: threads,
    workgroupBytes: threads * 4,
    wgsl: () => `${declareBindings([
      ['x', 'f32', 'read'],
      ['y', 'f32', 'read_write'],
      ...(chunks > 1 ? [['totals', 'f32', 'read_write'] as const] : []),
    ])}var<workgroup> sums: array<f32, ${threads}>;
${mainHead(rows * chunks, threads)}  let first = group % ${chunks}u * ${chunkSize}u + local * ${perThread}u;
  let base = group / ${chunks}u * ${count}u;
${lanes.map((i) => `  var v${i} = 0.0f;\n  if (first + ${i}u < ${count}u) { v${i} = x[base + first + ${i}u]; }\n`).join('')}  let s0 = v0;
${lanes
  .slice(1)
  .map((i) => `  let s${i} = s${i - 1} + v${i};\n`)
  .join('')}  sums[local] = s${perThread - 1};
  workgroupBarrier();
  for (var step = 1u; step < ${threads}u; step *= 2u) {
    var sum = sums[local];
    if (local >= step) { sum = sums[local - step] + sum; }
    workgroupBarrier();
    sums[local] = sum;
    workgroupBarrier();
  }
  var before = 0.0f;
  if (local > 0u) { before = sums[local - 1u]; }
${lanes
  .map((i) => `  if (first + ${i}u < ${count}u) { y[base + first + ${i}u] = ${exclusive ? (i === 0 ? 'before' : `before + s${i - 1}`) : `before + s${i}`}; }\n`)
  .join('')}${chunks > 1 ? `  if (local == ${threads - 1}u) { totals[group] = sums[local]; }\n` : ''}}
`,
  });
}

/** y = x + the running sum before the element's chunk. */
function addOffsetsKernel(rows: number, count: number): GpuKernel {
  const chunks = Math.ceil(count / chunkSize);
  const groups = Math.ceil((rows * count) / elementThreads);
  return defineKernel({
    family: 'cumsum_add',
    params: { rows, count },
    bindings: ['read', 'read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: elementThreads,
    wgsl: () => `${declareBindings([
      ['x', 'f32', 'read'],
      ['offsets', 'f32', 'read'],
      ['y', 'f32', 'read_write'],
    ])}${mainHead(groups, elementThreads)}  let index = group * ${elementThreads}u + local;
  if (index >= ${rows * count}u) { return; }
  y[index] = x[index] + offsets[index / ${count}u * ${chunks}u + index % ${count}u / ${chunkSize}u];
}
`,
  });
}

type CumsumNode = LoweringNode<'cumsum'>;

function step(node: CumsumNode, suffix: string, kernel: GpuKernel, args: Step<GpuKernel>['args']): Step<GpuKernel> {
  return { label: `${node.label}${suffix}`, node: node.id, kernel, args };
}

function rowSteps(
  node: CumsumNode,
  x: TensorRef,
  y: TensorRef,
  rows: number,
  count: number,
  exclusive: boolean,
  context: LoweringContext,
): readonly Step<GpuKernel>[] {
  const chunks = Math.ceil(count / chunkSize);
  const kernel = cumsumChunksKernel(rows, count, exclusive);
  if (chunks === 1) return [step(node, '', kernel, [arg(x, 'read'), arg(y, 'write')])];
  const scratch = (columns: number): TensorRef => context.scratch({ dtype: 'f32', shape: [rows, columns] });
  const [local, totals, offsets] = [scratch(count), scratch(chunks), scratch(chunks)];
  return [
    step(node, ' chunks', kernel, [arg(x, 'read'), arg(local, 'write'), arg(totals, 'write')]),
    ...rowSteps(node, totals, offsets, rows, chunks, true, context),
    step(node, ' add', addOffsetsKernel(rows, count), [arg(local, 'read'), arg(offsets, 'read'), arg(y, 'write')]),
  ];
}

export const cumsumRule: LoweringRule<'cumsum', GpuKernel> = (node, context) => {
  const x = need(node.inputs[0]);
  const { axis, exclusive } = node.params;
  const lines = linesAlong(x.type.shape, [axis]);
  const { outer, count, inner } = lines;
  if (inner === 1) return rowSteps(node, x, node.output, outer, count, exclusive, context);
  if (count <= shortColumn) return [step(node, '', cumsumColumnsKernel(lines, exclusive), [arg(x, 'read'), arg(node.output, 'write')])];
  const size = outer * count * inner;
  const [turned, result] = [context.scratch({ dtype: 'f32', shape: [size] }), context.scratch({ dtype: 'f32', shape: [size] })];
  return [
    step(node, ' to rows', stridedCopyKernel(permutedAxes([outer, count, inner], [0, 2, 1]), 0), [arg(x, 'read'), arg(turned, 'write')]),
    ...rowSteps(node, turned, result, outer * inner, count, exclusive, context),
    step(node, ' to columns', stridedCopyKernel(permutedAxes([outer, inner, count], [0, 2, 1]), 0), [arg(result, 'read'), arg(node.output, 'write')]),
  ];
};
