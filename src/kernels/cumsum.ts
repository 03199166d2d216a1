/**
 * Running sums. A row is cut into chunks of 1024: one dispatch sums up every chunk, the next makes the running sums of each chunk on top of what comes before it. Where chunks are many, their sums are
 * summed up between the two, in the same way. Short columns take a thread each, long ones are transposed to rows and back.
 */

import type { GpuKernel } from '../core/kernel.js';
import type { Step } from '../core/step.js';
import { type Lines, linesAlong } from '../ops/axes.js';
import { need } from '../ops/definition.js';
import type { LoweringContext, LoweringNode, LoweringRule, TensorRef } from '../ops/target.js';
import { permutedAxes, stridedCopyKernel } from './strided-copy.js';
import { arg, declareBindings, defineKernel, foldGrid, mainHead } from './template.js';

const threads = 256;
const perThread = 4;
const chunkSize = threads * perThread;
/** Chunks of a row up to which each adds up by itself the totals of those before it: a few loads a thread, against a dispatch. */
const mostTotals = 2048;
/** Columns up to this long go to one thread each. */
const shortColumn = 256;

function cumsumColumnsKernel({ outer, count, inner }: Lines, exclusive: boolean): GpuKernel {
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

/** What is added to the sums of a chunk: nothing, the chunk's own element of `offsets` [rows, chunks], or the sum of the row's `offsets` before it, which every chunk adds up for itself. */
type Offsets = 'none' | 'summed' | 'totals';

/** The running sums of chunks, each by a workgroup. */
function cumsumChunksKernel(rows: number, count: number, exclusive: boolean, offsets: Offsets): GpuKernel {
  const chunks = Math.ceil(count / chunkSize);
  const lanes = Array.from({ length: perThread }, (_, i) => i);
  return defineKernel({
    family: 'cumsum_chunks',
    params: { rows, count, exclusive, offsets },
    bindings: offsets === 'none' ? ['read', 'read_write'] : ['read', 'read', 'read_write'],
    workgroups: foldGrid(rows * chunks),
    workgroupSize: threads,
    workgroupBytes: threads * 4,
    wgsl: () => `${declareBindings([
      ['x', 'f32', 'read'],
      ...(offsets === 'none' ? [] : [['offsets', 'f32', 'read'] as const]),
      ['y', 'f32', 'read_write'],
    ])}var<workgroup> sums: array<f32, ${threads}>;
${mainHead(rows * chunks, threads)}  let chunk = group % ${chunks}u;
  let first = chunk * ${chunkSize}u + local * ${perThread}u;
  let base = group / ${chunks}u * ${count}u;
${lanes.map((i) => `  var v${i} = 0.0f;\n  if (first + ${i}u < ${count}u) { v${i} = x[base + first + ${i}u]; }\n`).join('')}  let s0 = v0;
${lanes
  .slice(1)
  .map((i) => `  let s${i} = s${i - 1} + v${i};\n`)
  .join('')}${offsetText(offsets, chunks)}  sums[local] = s${perThread - 1};
  workgroupBarrier();
  for (var step = 1u; step < ${threads}u; step *= 2u) {
    var sum = sums[local];
    if (local >= step) { sum = sums[local - step] + sum; }
    workgroupBarrier();
    sums[local] = sum;
    workgroupBarrier();
  }
  if (local > 0u) { before += sums[local - 1u]; }
${lanes
  .map((i) => `  if (first + ${i}u < ${count}u) { y[base + first + ${i}u] = ${exclusive ? (i === 0 ? 'before' : `before + s${i - 1}`) : `before + s${i}`}; }\n`)
  .join('')}}
`,
  });
}

/** Declares `before`, the sum of the row's chunks before this one. */
function offsetText(offsets: Offsets, chunks: number): string {
  if (offsets === 'none') return '  var before = 0.0f;\n';
  if (offsets === 'summed') return '  var before = offsets[group];\n';
  return `  var part = 0.0f;
  for (var c = local; c < chunk; c += ${threads}u) { part += offsets[group / ${chunks}u * ${chunks}u + c]; }
  sums[local] = part;
  workgroupBarrier();
  for (var step = ${threads / 2}u; step > 0u; step /= 2u) {
    if (local < step) { sums[local] += sums[local + step]; }
    workgroupBarrier();
  }
  var before = sums[0];
  workgroupBarrier();
`;
}

/** The sum of every chunk: [rows, chunks]. */
function chunkTotalsKernel(rows: number, count: number): GpuKernel {
  const chunks = Math.ceil(count / chunkSize);
  return defineKernel({
    family: 'cumsum_totals',
    params: { rows, count },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(rows * chunks),
    workgroupSize: threads,
    workgroupBytes: threads * 4,
    wgsl: () => `${declareBindings([
      ['x', 'f32', 'read'],
      ['totals', 'f32', 'read_write'],
    ])}var<workgroup> sums: array<f32, ${threads}>;
${mainHead(rows * chunks, threads)}  let base = group / ${chunks}u * ${count}u;
  let start = group % ${chunks}u * ${chunkSize}u;
  var part = 0.0f;
  for (var i = start + local; i < min(start + ${chunkSize}u, ${count}u); i += ${threads}u) { part += x[base + i]; }
  sums[local] = part;
  workgroupBarrier();
  for (var step = ${threads / 2}u; step > 0u; step /= 2u) {
    if (local < step) { sums[local] += sums[local + step]; }
    workgroupBarrier();
  }
  if (local == 0u) { totals[group] = sums[0]; }
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
  const [from, to] = [arg(x, 'read'), arg(y, 'write')];
  if (chunks === 1) return [step(node, '', cumsumChunksKernel(rows, count, exclusive, 'none'), [from, to])];
  const totals = context.scratch({ dtype: 'f32', shape: [rows, chunks] });
  const totalling = step(node, ' totals', chunkTotalsKernel(rows, count), [from, arg(totals, 'write')]);
  if (chunks <= mostTotals) return [totalling, step(node, ' sums', cumsumChunksKernel(rows, count, exclusive, 'totals'), [from, arg(totals, 'read'), to])];
  const offsets = context.scratch({ dtype: 'f32', shape: [rows, chunks] });
  return [
    totalling,
    ...rowSteps(node, totals, offsets, rows, chunks, true, context),
    step(node, ' sums', cumsumChunksKernel(rows, count, exclusive, 'summed'), [from, arg(offsets, 'read'), to]),
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
