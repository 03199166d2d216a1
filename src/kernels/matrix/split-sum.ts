/** Adds up the parts that splits of the depth have made. */

import type { BindingKind, GpuKernel } from '../../core/kernel.js';
import { elementKernel } from '../element-kernel.js';
import { type Epilogue, epilogueBindings, epilogueFunctions, finished } from '../gemm/epilogue.js';
import { repeat } from '../template.js';

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
  /** What the sum is finished with, in a row and column of y. */
  readonly epilogue?: Epilogue;
}

/** y[t, start + n] = sum over s of parts[s, t, n] (+ bias[start + n]) (+ residual[t, start + n]), then the epilogue. */
export function splitSumKernel(sum: SplitSum): GpuKernel {
  const { splits, rows, outputs, columns, start, bias, residual, epilogue } = sum;
  const { epilogue: _, ...plain } = sum;
  const count = rows * outputs;
  const bindings: (readonly [string, string, BindingKind])[] = [['parts', 'f32', 'read']];
  if (bias) bindings.push(['bias', 'f32', 'read']);
  if (residual === 'read') bindings.push(['residual', 'f32', 'read']);
  bindings.push(...epilogueBindings(epilogue), ['y', 'f32', 'read_write']);
  const total = `${repeat(splits, (s) => `parts[index + ${s * count}u]`, ' + ')}${bias ? ' + bias[column]' : ''}${residual === 'read' ? ' + residual[at]' : ''}`;
  return elementKernel({
    family: 'split_sum',
    params: epilogue === undefined ? plain : { ...plain, epilogue },
    count,
    bindings,
    functions: () => epilogueFunctions(epilogue),
    body: () => `  let column = ${start}u + index % ${outputs}u;
  let at = index / ${outputs}u * ${columns}u + column;
  y[at] = ${finished(epilogue, total, `index / ${outputs}u`, 'column')};
`,
  });
}
