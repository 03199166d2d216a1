/**
 * Attention of one query row. A workgroup takes up to `split` positions of one KV head and all or some of the query heads that read it: scores by small teams of
 * threads, weights, then the weighted sum of the values with a thread per chunk of columns. Where all that a row sees is one split, it writes the result (`direct`); else
 * partial sums with their (maximum, sum), which the merge kernel adds. Splits count from the first position that the row sees. The grid covers the capacity, or the window; workgroups
 * beyond the position leave at once.
 */

import type { GpuKernel, KernelFeature } from '../../core/kernel.js';
import { stateWord } from '../../ops/state.js';
import { declareBindings, defineKernel, foldGrid, mainHead, vectorType } from '../template.js';
import { cacheFunctions } from './cache-reader.js';
import { type DecodeShape, decodeBytes, decodeSplits, layoutOf } from './decode-layout.js';
import { scoresText, stageQuery, weightsText } from './decode-scores.js';
import { firstValues, sumsText, valuesText } from './decode-values.js';
import { type AttentionProblem, attentionReads, cappedFunction, firstSeenText, problemParams, sinksBinding } from './text.js';

export function attentionDecodeKernel(problem: AttentionProblem, shape: DecodeShape): GpuKernel {
  const layout = layoutOf(problem, shape);
  const parts = problem.heads / shape.groupHeads;
  const count = decodeSplits(problem, shape) * parts * shape.slices;
  const usesSubgroups = shape.lanes > 1 || layout.folded;
  const features: readonly KernelFeature[] = usesSubgroups ? ['subgroups'] : [];
  return defineKernel({
    family: 'attention_decode',
    params: { ...problemParams(problem), ...shape },
    bindings: [
      ...Array.from({ length: attentionReads({ ...problem, sinks: shape.direct && problem.sinks === true }) }, () => 'read' as const),
      ...(shape.direct ? (['read_write'] as const) : (['read_write', 'read_write'] as const)),
    ],
    workgroups: foldGrid(count),
    workgroupSize: shape.threads,
    workgroupBytes: decodeBytes(problem, shape),
    features,
    wgsl: () => {
      const type = vectorType(layout.vector);
      const bindings = declareBindings([
        ['query', type, 'read'],
        ...layout.keyChunks.bindings,
        ...layout.valueChunks.bindings,
        ['state', 'u32', 'read'],
        ...(shape.direct ? sinksBinding(problem) : []),
        ...(shape.direct ? [['y', type, 'read_write'] as const] : [['partials', type, 'read_write'] as const, ['stats', 'vec2<f32>', 'read_write'] as const]),
      ]);
      const groupHeads = shape.groupHeads;
      return `${bindings}var<workgroup> pool: array<${type}, ${layout.pool}>;
var<workgroup> scores: array<f32, ${groupHeads * shape.split}>;
var<workgroup> tops: array<f32, ${groupHeads * layout.team}>;
var<workgroup> sums: array<f32, ${groupHeads * layout.team}>;
${cappedFunction(problem, 'f32')}${cacheFunctions(problem)}${layout.keyChunks.functions}${layout.valueChunks.functions}${mainHead(count, shape.threads)}  let slice = group % ${shape.slices}u;
  let part = (group / ${shape.slices}u) % ${parts}u;
  let split = group / ${parts * shape.slices}u;
  let length = min(state[${stateWord.position}] + 1u, ${problem.capacity}u);
  let start = ${problem.window === undefined ? '' : `${firstSeenText(problem, 'length')} + `}split * ${shape.split}u;
  if (start >= length) { return; }
  let count = min(length - start, ${shape.split}u);
  let firstHead = part * ${groupHeads}u;
  let base = firstHead / ${problem.heads / problem.kvHeads}u * ${problem.capacity}u + start;
${stageQuery(layout)}${firstValues(layout)}  workgroupBarrier();
${scoresText(layout)}  workgroupBarrier();
${weightsText(layout)}${valuesText(layout)}${sumsText(layout)}}
`;
    },
  });
}
