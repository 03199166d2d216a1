import type { GpuKernel } from '../../core/kernel.js';
import { stateWord } from '../../ops/state.js';
import { declareBindings, defineKernel, foldGrid, mainHead, type SubgroupRange, vectorType, workgroupReduction } from '../template.js';
import { type DecodeShape, decodeSplits, layoutOf } from './decode-layout.js';
import { type AttentionProblem, maskedScore, reachOf, sinksBinding, sinkText } from './text.js';

/** Adds the partial sums of the splits in use: one workgroup per query head. */
export function attentionMergeKernel(problem: AttentionProblem, shape: DecodeShape, subgroups: SubgroupRange | undefined): GpuKernel {
  const { headVectors, vector } = layoutOf(problem, shape);
  const threads = 256;
  const splits = decodeSplits(problem, shape);
  const rows = Math.floor(threads / headVectors);
  const top = workgroupReduction('largest', 'max', threads, subgroups);
  const sum = workgroupReduction('added', 'add', threads, subgroups);
  return defineKernel({
    family: 'attention_merge',
    params: {
      heads: problem.heads,
      width: problem.width,
      capacity: problem.capacity,
      window: reachOf(problem),
      sinks: problem.sinks === true,
      split: shape.split,
      subgroups: subgroups === undefined ? 'none' : { ...subgroups },
    },
    bindings: [...Array.from({ length: problem.sinks === true ? 4 : 3 }, () => 'read' as const), 'read_write'],
    workgroups: foldGrid(problem.heads),
    workgroupSize: threads,
    workgroupBytes: top.bytes + sum.bytes + threads * vector * 4,
    features: top.features,
    wgsl: () => {
      const type = vectorType(vector);
      const walk = Math.ceil(splits / threads);
      return `${declareBindings([
        ['partials', type, 'read'],
        ['stats', 'vec2<f32>', 'read'],
        ['state', 'u32', 'read'],
        ...sinksBinding(problem),
        ['y', type, 'read_write'],
      ])}var<workgroup> parts: array<${type}, ${threads}>;
${top.declarations}${sum.declarations}${mainHead(problem.heads, threads, top.builtins)}  let length = min(state[${stateWord.position}] + 1u, ${problem.capacity}u);
  let used = (min(length, ${reachOf(problem)}u) + ${shape.split - 1}u) / ${shape.split}u;
  var own = ${problem.sinks === true ? sinkText('group') : maskedScore};
  for (var i = 0u; i < ${walk}u; i++) {
    let split = i * ${threads}u + local;
    if (split < used) { own = max(own, stats[split * ${problem.heads}u + group].x); }
  }
  let largest = ${top.call('own')};
  var weight = 0.0;
  for (var i = 0u; i < ${walk}u; i++) {
    let split = i * ${threads}u + local;
    if (split < used) {
      let pair = stats[split * ${problem.heads}u + group];
      weight += pair.y * exp2(pair.x - largest);
    }
  }
  let total = ${problem.sinks === true ? `exp2(${sinkText('group')} - largest) + ` : ''}${sum.call('weight')};
  let place = local % ${headVectors}u;
  let row = local / ${headVectors}u;
  var result = ${type}(0.0);
  for (var i = 0u; i < ${Math.ceil(splits / rows)}u; i++) {
    let split = i * ${rows}u + row;
    if (split < used && row < ${rows}u) {
      let at = split * ${problem.heads}u + group;
      result += exp2(stats[at].x - largest) * partials[at * ${headVectors}u + place];
    }
  }
  parts[local] = result;
  workgroupBarrier();
  if (local < ${headVectors}u) {
    for (var i = 1u; i < ${rows}u; i++) { result += parts[i * ${headVectors}u + local]; }
    y[group * ${headVectors}u + local] = result / total;
  }
}
`;
    },
  });
}
