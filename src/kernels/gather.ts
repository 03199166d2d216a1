/** Rows of a table of any weight type, decoded: the embedding of token ids. */

import { PlanError } from '../core/errors.js';
import type { BindingKind, GpuKernel } from '../core/kernel.js';
import type { Step } from '../core/step.js';
import type { LoweringRule } from '../ops/target.js';
import { weightReader } from './blocks.js';
import { arg, declareBindings, defineKernel, foldGrid, mainHead } from './template.js';
import { type WeightLayout, weightLayout } from './weights-layout.js';

export interface GatherProblem {
  /** One shard of the table. */
  readonly layout: WeightLayout;
  /** The table's row that the shard begins with. */
  readonly start: number;
  /** Number of ids. */
  readonly ids: number;
}

const threads = 64;

/** A thread decodes four neighbours of one row. Ids outside the shard are another dispatch's: their rows are left alone. */
export function gatherKernel({ layout, start, ids }: GatherProblem): GpuKernel {
  const { columns } = layout;
  const reader = weightReader(layout);
  const quads = Math.ceil(columns / 4);
  const whole = columns % 4 === 0;
  const groups = Math.ceil((ids * quads) / threads);
  const bindings: readonly (readonly [string, string, BindingKind])[] = [
    ['w', reader.element, 'read'],
    ['ids', 'u32', 'read'],
    ['y', whole ? 'vec4<f32>' : 'f32', 'read_write'],
  ];
  return defineKernel({
    family: 'gather',
    params: { type: layout.dtype, columns, rows: layout.rows, start, ids },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    wgsl: () => {
      const store = whole
        ? `    y[t * ${quads}u + quad] = v;\n`
        : [0, 1, 2, 3].map((i) => `    if (quad * 4u + ${i}u < ${columns}u) { y[t * ${columns}u + quad * 4u + ${i}u] = v[${i}]; }\n`).join('');
      return `${declareBindings(bindings)}${reader.functions}${mainHead(groups, threads)}  let index = group * ${threads}u + local;
  let t = index / ${quads}u;
  let quad = index % ${quads}u;
  if (t >= ${ids}u) { return; }
  let row = ids[t] - ${start}u;
  if (row < ${layout.rows}u) {
    let v = weight4(row, quad);
${store}  }
}
`;
    },
  });
}

export const gatherRule: LoweringRule<'gatherRows', GpuKernel> = ({ inputs: [table, ids], output, label, id }) => {
  if (table === undefined || ids === undefined) throw new PlanError(`${label}: gatherRows needs a table and ids`);
  return table.shards.map((shard, index): Step<GpuKernel> => {
    const layout = weightLayout({ dtype: table.type.dtype, shape: [shard.rows, ...table.type.shape.slice(1)] });
    return {
      label: table.shards.length === 1 ? label : `${label} (rows ${shard.start} on)`,
      node: id,
      kernel: gatherKernel({ layout, start: shard.start, ids: ids.type.shape[0] ?? 0 }),
      args: [{ value: table.id, shard: index, access: 'read' }, arg(ids, 'read'), arg(output, 'write')],
    };
  });
};
