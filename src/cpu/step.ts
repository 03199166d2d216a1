import { PlanError } from '../core/errors.js';
import type { Access, Step } from '../core/step.js';
import type { ComputeOp } from '../ops/params.js';
import { stateWord } from '../ops/state.js';
import type { LoweringNode, TensorRef } from '../ops/target.js';
import type { CpuKernel } from './kernel.js';

/** A step of `node`, its arguments in the order of the kernel's. */
export function cpuStep(node: LoweringNode<ComputeOp>, kernel: CpuKernel, ...args: readonly (readonly [TensorRef, Access])[]): Step<CpuKernel> {
  return { label: `${node.label} ${kernel.family}`, node: node.id, kernel, args: args.map(([ref, access]) => ({ value: ref.id, shard: 0, access })) };
}

/** Input `index`, which the operation's arity has proven. */
export function inputOf(node: LoweringNode<ComputeOp>, index: number): TensorRef {
  const ref = node.inputs[index];
  if (ref === undefined) throw new PlanError(`${node.label}: input ${index} is missing`);
  return ref;
}

/** Size of axis `axis`. */
export function axisOf(ref: TensorRef, axis: number): number {
  const size = ref.type.shape.at(axis);
  if (size === undefined) throw new PlanError(`value ${ref.id} has no axis ${axis}`);
  return size;
}

/** Live rows of this run, of `rows` rows at most. */
export function liveRows(state: Uint32Array, rows: number): number {
  return Math.min(state[stateWord.rows] ?? 0, rows);
}
