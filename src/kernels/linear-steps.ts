/** Steps of `linear` that read the weight where it is. */

import { PlanError } from '../core/errors.js';
import type { GpuKernel } from '../core/kernel.js';
import type { Step, StepArg } from '../core/step.js';
import type { LoweringNode, RowShard } from '../ops/target.js';
import type { LinearProblem } from './linear-text.js';
import { arg } from './template.js';
import { weightLayout } from './weights-layout.js';

export interface LinearStepOptions {
  /** A form of x that the kernels read in its stead. */
  readonly source?: StepArg;
  /** Column of y that the weight's first row makes: y may be wider than the weight is high. Default 0. */
  readonly first?: number;
}

/** One step for each shard of the weight, with the kernel that `kernelFor` makes; each writes its columns of y. */
export function linearSteps(
  node: LoweringNode<'linear'>,
  kernelFor: (problem: LinearProblem) => GpuKernel,
  { source, first = 0 }: LinearStepOptions = {},
): readonly Step<GpuKernel>[] {
  const { inputs, output, params, label, id } = node;
  const [x, w, ...rest] = inputs;
  if (x === undefined || w === undefined) throw new PlanError(`${label}: linear needs x and a weight`);
  const [rows = 0, outputs = 0] = output.type.shape;
  const others = rest.map((ref) => arg(ref, 'read'));
  return w.shards.map((shard, index): Step<GpuKernel> => {
    const layout = weightLayout({ dtype: w.type.dtype, shape: [shard.rows, ...w.type.shape.slice(1)] });
    const problem: LinearProblem = {
      layout,
      start: first + shard.start,
      biasStart: shard.start,
      outputs,
      rows,
      bias: params.bias,
      residual: params.residual ? 'read' : 'none',
    };
    const args: readonly StepArg[] = [source ?? arg(x, 'read'), { value: w.id, shard: index, access: 'read' }, ...others, arg(output, 'write')];
    const step = { label: stepLabel(label, w.shards, index), node: id, kernel: kernelFor(problem), args };
    // With several shards y would have to be in place in every step or in none, which one step cannot promise for the others.
    if (!params.residual || w.shards.length > 1) return step;
    return { ...step, inPlace: { input: args.length - 2, output: args.length - 1, kernel: kernelFor({ ...problem, residual: 'inPlace' }) } };
  });
}

function stepLabel(label: string, shards: readonly RowShard[], index: number): string {
  return shards.length === 1 ? label : `${label} (rows ${shards[index]?.start} on)`;
}
