/** RMSNorm: one workgroup per row (a token), or one subgroup per short row (a head of a token). */

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
  /** Threads of a row. */
  readonly threads: number;
  /** Rows of a workgroup; more than one where a subgroup takes a row each. */
  readonly rows: number;
  /** Vectors of the row that each thread keeps in registers; 0 where the row is too long and is read twice. */
  readonly held: number;
  readonly reason: string;
}

/** Vectors that a lane holds where a subgroup takes a row. */
const mostOfLane = 4;
const teamThreads = 256;

/** Rows that a subgroup holds take one each, many to a workgroup: a workgroup for each would be too small to keep loads on their way. Else two vectors a thread, between 32 and 512 threads. */
export function selectNorm(rows: number, width: number, capabilities: GpuCapabilities): NormShape {
  const vectors = width / vectorWidth(width);
  const { subgroupMinSize: lanes, subgroupMaxSize, limits } = capabilities;
  const most = Math.min(512, limits.maxComputeInvocationsPerWorkgroup);
  const teams = Math.min(teamThreads, most) / lanes;
  if (subgroupRange(capabilities) !== undefined && lanes === subgroupMaxSize && vectors <= mostOfLane * lanes && rows >= teams && teams > 1) {
    return {
      threads: lanes,
      rows: teams,
      held: Math.ceil(vectors / lanes),
      reason: `a subgroup of ${lanes} holds a row of ${width}, ${teams} rows a workgroup`,
    };
  }
  const threads = Math.min(most, Math.max(32, 2 ** Math.ceil(Math.log2(vectors / 2))));
  const each = Math.ceil(vectors / threads);
  const held = each <= 8 ? each : 0;
  return { threads, rows: 1, held, reason: held > 0 ? `${threads} threads hold a row of ${width}` : `${threads} threads read a row of ${width} twice` };
}

/** `half`: y is f16, for rows of whole vectors of 4. */
export function normKernel(
  rows: number,
  width: number,
  eps: number,
  { threads, rows: together, held }: NormShape,
  subgroups: SubgroupRange | undefined,
  half = false,
): GpuKernel {
  const reduction = workgroupReduction('total', 'add', threads, subgroups);
  const vector = vectorWidth(width);
  const vectors = width / vector;
  const groups = Math.ceil(rows / together);
  const partial = groups * together > rows;
  return defineKernel({
    family: 'rms_norm',
    params: { rows, width, eps, threads, together, held, half, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: threads * together,
    workgroupBytes: reduction.bytes,
    features: [...reduction.features, ...(half ? (['shader-f16'] as const) : [])],
    wgsl: () => {
      const type = vectorType(vector);
      const result = (v: string): string => (half ? `pack4(${v})` : v);
      const square = (v: string): string => (vector === 1 ? `${v} * ${v}` : `dot(${v}, ${v})`);
      const scale = `  let scale = inverseSqrt(${reduction.call('sum')} * ${f32Literal(1 / width)} + ${f32Literal(eps)});\n`;
      const at = (index: number): string => `item + ${index * threads}u`;
      const guarded = (index: number, statement: string, more: readonly string[] = []): string => {
        const conditions = [...((index + 1) * threads > vectors ? [`${at(index)} < ${vectors}u`] : []), ...more];
        return conditions.length > 0 ? `  if (${conditions.join(' && ')}) { ${statement} }` : `  ${statement}`;
      };
      const live = partial ? [`row < ${rows}u`] : [];
      const body =
        held > 0
          ? `${repeat(held, (i) => `  var v${i} = ${type}(0.0);\n${guarded(i, `v${i} = x[base + ${at(i)}];`)}\n  sum += ${square(`v${i}`)};`)}
${scale}${repeat(held, (i) => guarded(i, `y[base + ${at(i)}] = ${result(`v${i} * scale * gain[${at(i)}]`)};`, live))}
`
          : `  for (var i = 0u; i < ${Math.ceil(vectors / threads)}u; i++) {
    let at = i * ${threads}u + item;
    if (at < ${vectors}u) { let v = x[base + at]; sum += ${square('v')}; }
  }
${scale}  for (var i = 0u; i < ${Math.ceil(vectors / threads)}u; i++) {
    let at = i * ${threads}u + item;
    if (at < ${vectors}u) { y[base + at] = ${result('x[base + at] * scale * gain[at]')}; }
  }
`;
      // Rows beyond the last are the last again, and are not written.
      const line = partial ? `min(row, ${rows - 1}u)` : 'row';
      const place =
        together === 1
          ? `  let item = local;\n  let base = group * ${vectors}u;`
          : `  let row = group * ${together}u + local / ${threads}u;\n  let item = local % ${threads}u;\n  let base = ${line} * ${vectors}u;`;
      return `${declareBindings([
        ['x', type, 'read'],
        ['gain', type, 'read'],
        ['y', half ? 'vec2<u32>' : type, 'read_write'],
      ])}${half ? packHalvesFunction : ''}${reduction.declarations}${mainHead(groups, threads * together, reduction.builtins)}${place}
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
    const kernel = normKernel(rows, width, node.params.eps, selectNorm(rows, width, capabilities), subgroupRange(capabilities), half);
    return oneStep(node, kernel, [arg(x, 'read'), arg(gain, 'read'), arg(half ? halvesOf(node.output, context) : node.output, 'write')]);
  };
}
