/** A part of one vector to a place in another: what fused operations need where they run as their plain parts. */

import type { GpuKernel } from '../../core/kernel.js';
import type { Step } from '../../core/step.js';
import type { ComputeOp } from '../../ops/params.js';
import type { LoweringNode, TensorRef } from '../../ops/target.js';
import { arg, declareBindings, defineKernel, elementThreads, foldGrid, mainHead } from '../template.js';

export function copyKernel(start: number, to: number, count: number): GpuKernel {
  const groups = Math.ceil(count / elementThreads);
  return defineKernel({
    family: 'copy_part',
    params: { start, to, count },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: elementThreads,
    wgsl: () => `${declareBindings([
      ['source', 'f32', 'read'],
      ['part', 'f32', 'read_write'],
    ])}${mainHead(groups, elementThreads)}  let at = group * ${elementThreads}u + local;
  if (at < ${count}u) { part[at + ${to}u] = source[at + ${start}u]; }
}
`,
  });
}

export function copyStep(node: LoweringNode<ComputeOp>, from: TensorRef, start: number, target: TensorRef, to: number, count: number): Step<GpuKernel> {
  return { label: `${node.label} copy`, node: node.id, kernel: copyKernel(start, to, count), args: [arg(from, 'read'), arg(target, 'write')] };
}
