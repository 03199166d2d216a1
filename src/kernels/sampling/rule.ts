/** `redraw` in two dispatches: many workgroups read the row once, then one draws from what they leave. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import { need } from '../../ops/definition.js';
import type { LoweringRule } from '../../ops/target.js';
import { arg, subgroupRange } from '../template.js';
import { drawKernel } from './draw.js';
import { surveyKernel } from './survey.js';
import { surveyLayout } from './text.js';

/** Threads of the one workgroup that draws: its loops are long and wait for memory, so as many as there may be. */
export function drawThreads({ limits }: GpuCapabilities): number {
  const most = Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX);
  return most >= 1024 ? 1024 : most >= 512 ? 512 : 256;
}

export function redrawRule(capabilities: GpuCapabilities): LoweringRule<'redraw', GpuKernel> {
  const subgroups = subgroupRange(capabilities);
  const threads = drawThreads(capabilities);
  return (node, context) => {
    const [session, sampling, logits] = [need(node.inputs[0]), need(node.inputs[1]), need(node.inputs[2])];
    const vocabulary = logits.type.shape[1] ?? 0;
    const survey = context.scratch({ dtype: 'u32', shape: [surveyLayout(vocabulary).words] });
    const list = context.scratch({ dtype: 'u32', shape: [vocabulary, 2] });
    return [
      {
        label: `${node.label} survey`,
        node: node.id,
        kernel: surveyKernel(vocabulary, subgroups),
        args: [arg(logits, 'read'), arg(sampling, 'read'), arg(survey, 'write')],
      },
      {
        label: node.label,
        node: node.id,
        kernel: drawKernel(vocabulary, { threads, subgroups }),
        args: [arg(session, 'readwrite'), arg(sampling, 'readwrite'), arg(logits, 'read'), arg(survey, 'read'), arg(list, 'write'), arg(node.output, 'write')],
      },
    ];
  };
}
