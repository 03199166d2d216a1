/** The second dispatch of an attention over many positions: adds the partial sums of the splits, one query head a workgroup, and leaves the result plain, packed to 8 bits, or both. */

import type { GpuKernel } from '../../core/kernel.js';
import { declareBindings, defineKernel, foldGrid, lines, mainHead } from '../template.js';
import { packFunction } from './activations.js';
import { type SplitShape, splitStep, splitText } from './attend-split.js';
import type { AttendOutputs, AttendProblem } from './attend-text.js';

/** Partial sums that a thread has in flight at most. */
const most = 8;

export function mergeThreads({ width }: AttendProblem, { subgroupSize, splits }: SplitShape, most: number): number {
  const columns = width / 4;
  return Math.max(subgroupSize, Math.min(most, columns * 2 ** Math.ceil(Math.log2(splits))));
}

export function attendMergeKernel(problem: AttendProblem, shape: SplitShape, threads: number, outputs: AttendOutputs): GpuKernel {
  const { heads, width, capacity } = problem;
  const { splits, subgroupSize } = shape;
  const columns = width / 4;
  const rows = threads / columns;
  const bindings = [
    ['partials', 'vec4<f32>', 'read'] as const,
    ['state', 'u32', 'read'] as const,
    ...(outputs.plain ? [['y', 'vec4<f32>', 'read_write'] as const] : []),
    ...(outputs.packed ? [['packed', 'u32', 'read_write'] as const] : []),
  ];
  const stats = splits * heads * columns;
  const pairs = Math.ceil(splits / subgroupSize);
  const batch = Math.min(most, Math.ceil(splits / rows));
  const bounded = (index: string, count: number): string => (count > splits ? `min(${index}, ${splits - 1}u)` : index);
  const sum = lines(
    batch,
    (i) => `${i === 0 ? '' : '    '}sum += select(vec4<f32>(0.0), exp2(top${i} - most) * part${i}, first + ${i * rows}u + row < live);\n`,
  );
  // The first loads wait for nothing; what dead splits have left is masked.
  const load = (index: (i: number) => string, name: string): string =>
    lines(
      batch,
      (i) =>
        `  ${name} at${i} = ${index(i)};\n  ${name} part${i} = partials[(at${i} * ${heads}u + group) * ${columns}u + column];\n  ${name} top${i} = partials[${stats}u + group * ${splits}u + at${i}].x;\n`,
    );
  return defineKernel({
    family: 'attend_merge',
    params: { heads, width, capacity, splits, step: splitStep(problem, shape), subgroupSize, ...outputs },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(heads),
    workgroupSize: threads,
    workgroupBytes: threads * 16,
    features: ['subgroups'],
    wgsl: () => `${declareBindings(bindings)}${outputs.packed ? packFunction(heads * width) : ''}var<workgroup> sums: array<vec4<f32>, ${threads}>;
${mainHead(heads, threads, '@builtin(subgroup_invocation_id) lane: u32')}  let column = local % ${columns}u;
  let row = local / ${columns}u;
${lines(pairs, (i) => `  let pair${i} = partials[${stats}u + group * ${splits}u + ${bounded(`${i * subgroupSize}u + lane`, (i + 1) * subgroupSize)}];\n`)}${load((i) => bounded(`${i * rows}u + row`, (i + 1) * rows), 'var')}${splitText(problem, shape)}${lines(pairs, (i) => `  let live${i} = ${i * subgroupSize}u + lane < live;\n`)}  var own = -3e38f;
${lines(pairs, (i) => `  own = max(own, select(-3e38f, pair${i}.x, live${i}));\n`)}  let most = subgroupMax(own);
  var weights = 0.0;
${lines(pairs, (i) => `  weights += select(0.0, pair${i}.y * exp2(pair${i}.x - most), live${i});\n`)}  let total = subgroupAdd(weights);
  var sum = vec4<f32>(0.0);
  for (var first = 0u; first < live; first += ${batch * rows}u) {
    ${sum}${batch * rows < splits ? load((i) => `min(first + ${(batch + i) * rows}u + row, live - 1u)`, '').replaceAll('\n   ', '\n    ') : ''}  }
  sums[local] = sum;
  workgroupBarrier();
  var result = sums[column];
${lines(rows - 1, (i) => `  result += sums[${(i + 1) * columns}u + column];\n`)}  result /= total;
${outputs.plain ? `  if (local < ${columns}u) { y[group * ${columns}u + column] = result; }\n` : ''}${outputs.packed ? `  packBlock(result, result, group * ${columns}u + column, local < ${columns}u);\n` : ''}}
`,
  });
}
