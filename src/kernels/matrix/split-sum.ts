/** Adds up the parts that splits of the depth have made. */

import type { BindingKind, GpuKernel } from '../../core/kernel.js';
import { declareBindings, defineKernel, elementThreads, foldGrid, mainHead, repeat } from '../template.js';

export interface SplitSum {
  readonly splits: number;
  readonly rows: number;
  /** Columns of the parts. */
  readonly outputs: number;
  /** Columns of y, and the first that the parts make. */
  readonly columns: number;
  readonly start: number;
  readonly bias: boolean;
  readonly residual: 'none' | 'read';
}

/** y[t, start + n] = sum over s of parts[s, t, n] (+ bias[start + n]) (+ residual[t, start + n]). */
export function splitSumKernel(sum: SplitSum): GpuKernel {
  const { splits, rows, outputs, columns, start, bias, residual } = sum;
  const count = rows * outputs;
  const groups = Math.ceil(count / elementThreads);
  const bindings: (readonly [string, string, BindingKind])[] = [['parts', 'f32', 'read']];
  if (bias) bindings.push(['bias', 'f32', 'read']);
  if (residual === 'read') bindings.push(['residual', 'f32', 'read']);
  bindings.push(['y', 'f32', 'read_write']);
  return defineKernel({
    family: 'split_sum',
    params: { ...sum },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(groups),
    workgroupSize: elementThreads,
    wgsl: () => `${declareBindings(bindings)}${mainHead(groups, elementThreads)}  let index = group * ${elementThreads}u + local;
  if (index >= ${count}u) { return; }
  let column = ${start}u + index % ${outputs}u;
  let at = index / ${outputs}u * ${columns}u + column;
  y[at] = ${repeat(splits, (s) => `parts[index + ${s * count}u]`, ' + ')}${bias ? ' + bias[column]' : ''}${residual === 'read' ? ' + residual[at]' : ''};
}
`,
  });
}
