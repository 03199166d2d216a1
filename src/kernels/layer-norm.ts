/** LayerNorm: one workgroup per row, which it reads three times: for the mean, for the squares of the differences from it, for the result. */

import type { GpuCapabilities } from '../core/capabilities.js';
import type { GpuKernel } from '../core/kernel.js';
import { elementCount } from '../core/tensor.js';
import { need } from '../ops/definition.js';
import type { LoweringRule } from '../ops/target.js';
import {
  arg,
  declareBindings,
  defineKernel,
  f32Literal,
  foldGrid,
  mainHead,
  oneStep,
  type SubgroupRange,
  subgroupRange,
  vectorType,
  vectorWidth,
  workgroupReduction,
} from './template.js';

export interface LayerNormShape {
  readonly rows: number;
  readonly width: number;
  readonly eps: number;
  readonly bias: boolean;
}

/** About four vectors a thread, between 32 and 256 threads. */
function layerNormThreads(width: number): number {
  return Math.min(256, Math.max(32, 2 ** Math.ceil(Math.log2(width / vectorWidth(width) / 4))));
}

export function layerNormKernel(shape: LayerNormShape, subgroups: SubgroupRange | undefined): GpuKernel {
  const { rows, width, eps, bias } = shape;
  const threads = layerNormThreads(width);
  const reduction = workgroupReduction('total', 'add', threads, subgroups);
  const vector = vectorWidth(width);
  const vectors = width / vector;
  const type = vectorType(vector);
  const sum = (v: string): string => (vector === 1 ? v : `dot(${v}, ${type}(1.0))`);
  const square = (v: string): string => (vector === 1 ? `${v} * ${v}` : `dot(${v}, ${v})`);
  const loop = (body: string): string => `  for (var i = 0u; i < ${Math.ceil(vectors / threads)}u; i++) {
    let at = i * ${threads}u + local;
    if (at < ${vectors}u) { ${body} }
  }
`;
  return defineKernel({
    family: 'layer_norm',
    params: { ...shape, threads, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read', ...(bias ? (['read'] as const) : []), 'read_write'],
    workgroups: foldGrid(rows),
    workgroupSize: threads,
    workgroupBytes: reduction.bytes,
    features: reduction.features,
    wgsl: () => `${declareBindings([
      ['x', type, 'read'],
      ['gain', type, 'read'],
      ...(bias ? [['bias', type, 'read'] as const] : []),
      ['y', type, 'read_write'],
    ])}${reduction.declarations}${mainHead(rows, threads, reduction.builtins)}  let base = group * ${vectors}u;
  var own = 0.0f;
${loop(`own += ${sum('x[base + at]')};`)}  let mean = ${reduction.call('own')} * ${f32Literal(1 / width)};
  var squares = 0.0f;
${loop(`let d = x[base + at] - mean; squares += ${square('d')};`)}  let scale = inverseSqrt(${reduction.call('squares')} * ${f32Literal(1 / width)} + ${f32Literal(eps)});
${loop(`y[base + at] = (x[base + at] - mean) * scale * gain[at]${bias ? ' + bias[at]' : ''};`)}}
`,
  });
}

export function layerNormRule(capabilities: GpuCapabilities): LoweringRule<'layerNorm', GpuKernel> {
  return (node) => {
    const [x, gain, bias] = [need(node.inputs[0]), need(node.inputs[1]), node.inputs[2]];
    const width = elementCount(gain.type.shape);
    const shape = { rows: elementCount(x.type.shape) / width, width, eps: node.params.eps, bias: bias !== undefined };
    const args = [arg(x, 'read'), arg(gain, 'read'), ...(bias === undefined ? [] : [arg(bias, 'read')]), arg(node.output, 'write')];
    return oneStep(node, layerNormKernel(shape, subgroupRange(capabilities)), args);
  };
}
