/** Lowering of `attendToken`. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import type { Step, StepArg } from '../../core/step.js';
import type { TensorType } from '../../core/tensor.js';
import { need } from '../../ops/definition.js';
import type { OpParams } from '../../ops/params.js';
import type { FormDemand, LoweringContext, LoweringNode } from '../../ops/target.js';
import { arg } from '../template.js';
import { activationForm, activationType } from './activations.js';
import { attendKernel } from './attend.js';
import { attendMergeKernel, mergeThreads } from './attend-merge.js';
import { attendProblem, selectAttend, selectSplit } from './attend-select.js';
import { attendSplitKernel, partialFloats } from './attend-split.js';
import type { AttendOutputs, AttendProblem } from './attend-text.js';

/** A reason against the fused attention of these types, or undefined. */
export function refuseAttend(types: readonly TensorType[], params: OpParams['attendToken'], capabilities: GpuCapabilities): string | undefined {
  const problem = attendProblem(types, params, capabilities);
  return typeof problem === 'string' ? problem : undefined;
}

/** The steps of the fused attention; undefined where the device has none for it. */
export function attendSteps(
  node: LoweringNode<'attendToken'>,
  context: LoweringContext,
  capabilities: GpuCapabilities,
): readonly Step<GpuKernel>[] | undefined {
  const problem = attendProblem(
    node.inputs.map((input) => input.type),
    node.params,
    capabilities,
  );
  if (typeof problem === 'string') return undefined;
  const [keys, values, raw, angles, state, ...gains] = node.inputs;
  const [k, v, session] = [need(keys), need(values), need(state)];
  const inputs = [
    arg(k, 'readwrite'),
    arg(v, 'readwrite'),
    arg(need(raw), 'read'),
    arg(need(angles), 'read'),
    arg(session, 'read'),
    ...gains.map((gain) => arg(gain, 'read')),
  ];
  const shape = selectAttend(problem, capabilities);
  if (shape === undefined) return splitSteps(node, context, capabilities, problem, inputs);
  const room = inputs.length + Number(context.forms?.wanted.plain ?? true) < capabilities.limits.maxStorageBuffersPerShaderStage;
  const { outputs, args } = outputsOf(node, context, problem, room);
  return [{ label: node.label, node: node.id, kernel: attendKernel(problem, shape, outputs), args: [...inputs, ...args] }];
}

function splitSteps(
  node: LoweringNode<'attendToken'>,
  context: LoweringContext,
  capabilities: GpuCapabilities,
  problem: AttendProblem,
  inputs: readonly StepArg[],
): readonly Step<GpuKernel>[] {
  const shape = selectSplit(problem, capabilities);
  const partials = context.scratch({ dtype: 'f32', shape: [partialFloats(problem, shape)] });
  const { outputs, args } = outputsOf(node, context, problem, true);
  const threads = mergeThreads(problem, shape, Math.min(256, capabilities.limits.maxComputeInvocationsPerWorkgroup));
  return [
    { label: node.label, node: node.id, kernel: attendSplitKernel(problem, shape), args: [...inputs, arg(partials, 'write')] },
    {
      label: `${node.label} merge`,
      node: node.id,
      kernel: attendMergeKernel(problem, shape, threads, outputs),
      args: [arg(partials, 'read'), arg(need(node.inputs[4]), 'read'), ...args],
    },
  ];
}

/** What the last kernel leaves: the plain values, or the 8-bit form that the next product wants where there is a binding for it. */
function outputsOf(
  node: LoweringNode<'attendToken'>,
  context: LoweringContext,
  { heads, width }: AttendProblem,
  room: boolean,
): { readonly outputs: AttendOutputs; readonly args: readonly StepArg[] } {
  const wanted = context.forms?.wanted ?? { plain: true };
  const packed = formOf(wanted.form, heads * width) && room;
  const outputs = { plain: wanted.plain || !packed, packed };
  const made = packed ? context.scratch(activationType(heads * width)) : undefined;
  if (made !== undefined) context.forms?.provide(made);
  return { outputs, args: [...(outputs.plain ? [arg(node.output, 'write')] : []), ...(made === undefined ? [] : [arg(made, 'write')])] };
}

function formOf(form: FormDemand | undefined, width: number): boolean {
  return form?.kind === activationForm && form.gain === undefined && width % 32 === 0;
}
