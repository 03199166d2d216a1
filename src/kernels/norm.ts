/** RMSNorm: one workgroup per row (a token, or one head of a token). */

import type { GpuCapabilities } from '../core/capabilities.js';
import type { GpuKernel } from '../core/kernel.js';
import { elementCount } from '../core/tensor.js';
import { need } from '../ops/definition.js';
import type { LoweringRule } from '../ops/target.js';
import { halvesOf, packHalvesFunction, wantsHalves } from './matrix/form.js';
import {
  arg,
  declareBindings,
  defineKernel,
  f32Literal,
  foldGrid,
  mainHead,
  oneStep,
  repeat,
  type SubgroupRange,
  subgroupRange,
  vectorType,
  vectorWidth,
  workgroupReduction,
} from './template.js';

export interface NormShape {
  readonly threads: number;
  /** Vectors of the row that each thread keeps in registers; 0 where the row is too long and is read twice. */
  readonly held: number;
  readonly reason: string;
}

/** Two vectors a thread, between 32 and 512 threads. */
export function selectNorm(width: number, capabilities: GpuCapabilities): NormShape {
  const vectors = width / vectorWidth(width);
  const most = Math.min(512, capabilities.limits.maxComputeInvocationsPerWorkgroup);
  const threads = Math.min(most, Math.max(32, 2 ** Math.ceil(Math.log2(vectors / 2))));
  const each = Math.ceil(vectors / threads);
  const held = each <= 8 ? each : 0;
  return { threads, held, reason: held > 0 ? `${threads} threads hold a row of ${width}` : `${threads} threads read a row of ${width} twice` };
}

/** `half`: y is f16, for rows of whole vectors of 4. */
export function normKernel(
  rows: number,
  width: number,
  eps: number,
  { threads, held }: NormShape,
  subgroups: SubgroupRange | undefined,
  half = false,
): GpuKernel {
  const reduction = workgroupReduction('total', 'add', threads, subgroups);
  const vector = vectorWidth(width);
  const vectors = width / vector;
  return defineKernel({
    family: 'rms_norm',
    params: { rows, width, eps, threads, held, half, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read', 'read_write'],
    workgroups: foldGrid(rows),
    workgroupSize: threads,
    workgroupBytes: reduction.bytes,
    features: [...reduction.features, ...(half ? (['shader-f16'] as const) : [])],
    wgsl: () => {
      const type = vectorType(vector);
      const result = (v: string): string => (half ? `pack4(${v})` : v);
      const square = (v: string): string => (vector === 1 ? `${v} * ${v}` : `dot(${v}, ${v})`);
      const scale = `  let scale = inverseSqrt(${reduction.call('sum')} * ${f32Literal(1 / width)} + ${f32Literal(eps)});\n`;
      const at = (index: number): string => `local + ${index * threads}u`;
      const guarded = (index: number, statement: string): string =>
        (index + 1) * threads > vectors ? `  if (${at(index)} < ${vectors}u) { ${statement} }` : `  ${statement}`;
      const body =
        held > 0
          ? `${repeat(held, (i) => `  var v${i} = ${type}(0.0);\n${guarded(i, `v${i} = x[base + ${at(i)}];`)}\n  sum += ${square(`v${i}`)};`)}
${scale}${repeat(held, (i) => guarded(i, `y[base + ${at(i)}] = ${result(`v${i} * scale * gain[${at(i)}]`)};`))}
`
          : `  for (var i = 0u; i < ${Math.ceil(vectors / threads)}u; i++) {
    let at = i * ${threads}u + local;
    if (at < ${vectors}u) { let v = x[base + at]; sum += ${square('v')}; }
  }
${scale}  for (var i = 0u; i < ${Math.ceil(vectors / threads)}u; i++) {
    let at = i * ${threads}u + local;
    if (at < ${vectors}u) { y[base + at] = ${result('x[base + at] * scale * gain[at]')}; }
  }
`;
      return `${declareBindings([
        ['x', type, 'read'],
        ['gain', type, 'read'],
        ['y', half ? 'vec2<u32>' : type, 'read_write'],
      ])}${half ? packHalvesFunction : ''}${reduction.declarations}${mainHead(rows, threads, reduction.builtins)}  let base = group * ${vectors}u;
  var sum = 0.0;
${body}}
`;
    },
  });
}

export function rmsNormRule(capabilities: GpuCapabilities): LoweringRule<'rmsNorm', GpuKernel> {
  return (node, context) => {
    const [x, gain] = [need(node.inputs[0]), need(node.inputs[1])];
    const width = elementCount(gain.type.shape);
    const rows = elementCount(x.type.shape) / width;
    const half = width % 4 === 0 && wantsHalves(context);
    const kernel = normKernel(rows, width, node.params.eps, selectNorm(width, capabilities), subgroupRange(capabilities), half);
    return oneStep(node, kernel, [arg(x, 'read'), arg(gain, 'read'), arg(half ? halvesOf(node.output, context) : node.output, 'write')]);
  };
}
