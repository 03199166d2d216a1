/** Lowering of `attendToken`. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import type { Step } from '../../core/step.js';
import type { TensorType } from '../../core/tensor.js';
import type { PlainRules } from '../../ops/decode-compose.js';
import { need } from '../../ops/definition.js';
import type { OpParams } from '../../ops/params.js';
import type { FormDemand, LoweringContext, LoweringNode } from '../../ops/target.js';
import { arg } from '../template.js';
import { activationForm, activationType } from './activations.js';
import { attendKernel, placeKernel } from './attend.js';
import { attendProblem, selectAttend } from './attend-select.js';

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
  plain: PlainRules<GpuKernel>['rules'],
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
  const wanted = context.forms?.wanted ?? { plain: true };
  const form = formOf(wanted.form, problem.heads * problem.width);
  const shape = selectAttend(problem, capabilities);
  if (shape !== undefined) {
    const packs = form && inputs.length + Number(wanted.plain) < capabilities.limits.maxStorageBuffersPerShaderStage;
    const outputs = { plain: wanted.plain || !packs, packed: packs === true };
    const made = outputs.packed ? context.scratch(activationType(problem.heads * problem.width)) : undefined;
    if (made !== undefined) context.forms?.provide(made);
    const args = [...inputs, ...(outputs.plain ? [arg(node.output, 'write')] : []), ...(made === undefined ? [] : [arg(made, 'write')])];
    return [{ label: node.label, node: node.id, kernel: attendKernel(problem, shape, outputs), args }];
  }
  const query = context.scratch({ dtype: 'f32', shape: [1, problem.heads, problem.width] });
  const place = {
    label: `${node.label} place`,
    node: node.id,
    kernel: placeKernel(problem, capabilities.subgroupMinSize),
    args: [...inputs, arg(query, 'write')],
  };
  const attention = {
    op: 'attention' as const,
    params: { scale: problem.scale },
    inputs: [query, k, v, session],
    output: node.output,
    label: node.label,
    id: node.id,
  };
  return [
    place,
    ...plain.attention(attention, { scratch: (type) => context.scratch(type), derived: (source, form, type) => context.derived(source, form, type) }),
  ];
}

function formOf(form: FormDemand | undefined, width: number): boolean {
  return form?.kind === activationForm && form.gain === undefined && width % 32 === 0;
}
