/** The first pass of `redraw`: every logit once, over many workgroups. */

import type { GpuKernel } from '../../core/kernel.js';
import { samplingWord } from '../../ops/sampling-state.js';
import { declareBindings, defineKernel, foldGrid, mainHead, repeat, type SubgroupRange, workgroupReduction } from '../template.js';
import {
  groupVectors,
  infiniteOrder,
  isUnfiltered,
  keepsAll,
  logitFunctions,
  logitType,
  lowestOrder,
  noiseFunctions,
  readParameters,
  surveyLayout,
  surveyThreads,
  vectorStart,
} from './text.js';

/**
 * The largest logit of every group and chunk; where top-p looks at the whole vocabulary, each chunk's sum of e^((logit - the chunk's largest) / temperature); and where nothing is filtered,
 * each chunk's draw. Bindings: logits, sampling state, survey.
 */
export function surveyKernel(vocabulary: number, subgroups: SubgroupRange | undefined): GpuKernel {
  const { chunks, chunksAt, groupsAt } = surveyLayout(vocabulary);
  const sum = workgroupReduction('total', 'add', surveyThreads, subgroups);
  const lines = (line: (vector: number) => string): string => repeat(groupVectors, line, '');
  return defineKernel({
    family: 'sample_survey',
    params: { vocabulary, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read', 'read_write'],
    workgroups: foldGrid(chunks),
    workgroupSize: surveyThreads,
    workgroupBytes: sum.bytes + 12,
    features: sum.features,
    wgsl: () => `${declareBindings([
      ['logits', logitType(vocabulary), 'read'],
      ['sampling', 'u32', 'read'],
      ['survey', 'u32', 'read_write'],
    ])}${logitFunctions(vocabulary)}${noiseFunctions}${sum.declarations}var<workgroup> most: atomic<u32>;
var<workgroup> bestScore: atomic<u32>;
var<workgroup> bestToken: atomic<u32>;

fn largest(v: vec4<u32>) -> u32 {
  return max(max(v.x, v.y), max(v.z, v.w));
}

/** Weights of four logits, from \`top\` down; 0 for those that cannot be drawn. */
fn weights(v: vec4<u32>, top: f32) -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < 4u; i++) {
    if (v[i] > ${lowestOrder} && v[i] < ${infiniteOrder}) { sum += exp((numberOf(v[i]) - top) / temperature); }
  }
  return sum;
}

${mainHead(chunks, surveyThreads, sum.builtins)}${readParameters('sampling')}  let at = ${chunksAt}u + 4u * group;
${lines((j) => `  let v${j} = orders(${vectorStart('group', 'local', j)});\n`)}  let most4 = ${repeat(groupVectors - 1, () => 'max(', '')}largest(v0)${repeat(groupVectors - 1, (j) => `, largest(v${j + 1}))`, '')};
  survey[${groupsAt}u + group * ${surveyThreads}u + local] = most4;
  if (group == 0u && local < ${samplingWord.counts}u) { survey[local] = sampling[local]; }
  // Workgroup memory begins as anything: an unchecked device does not clear it.
  if (local == 0u) {
    atomicStore(&most, 0u);
    atomicStore(&bestScore, 0u);
    atomicStore(&bestToken, 0xffffffffu);
  }
  workgroupBarrier();
  atomicMax(&most, most4);
  workgroupBarrier();
  let top = atomicLoad(&most);
  if (local == 0u) { survey[at] = top; }
  if (${keepsAll('sampling', vocabulary)} && bitcast<f32>(sampling[${samplingWord.topP}]) < 1.0) {
    let peak = numberOf(clamp(top, ${lowestOrder}, ${infiniteOrder}));
    let sum = ${sum.call(repeat(groupVectors, (j) => `weights(v${j}, peak)`, ' + '))};
    if (local == 0u) { survey[at + 1u] = bitcast<u32>(sum); }
  }
  if (${isUnfiltered('sampling', vocabulary)}) {
    let seed = vec2<u32>(sampling[${samplingWord.seed}], sampling[${samplingWord.seed + 1}]);
    var best = 0u;
    var token = 0xffffffffu;
${lines((j) => `    contend(v${j}, ${vectorStart('group', 'local', j)}, seed, &best, &token);\n`)}    atomicMax(&bestScore, best);
    workgroupBarrier();
    if (best == atomicLoad(&bestScore)) { atomicMin(&bestToken, token); }
    workgroupBarrier();
    if (local == 0u) {
      survey[at + 2u] = atomicLoad(&bestScore);
      survey[at + 3u] = atomicLoad(&bestToken);
    }
  }
}

/** Lets four logits and their noise contend with the thread's best score. */
fn contend(v: vec4<u32>, first: u32, seed: vec2<u32>, best: ptr<function, u32>, token: ptr<function, u32>) {
  let words = philox(first / 4u, sampling[${samplingWord.step}], seed);
  for (var i = 0u; i < 4u; i++) {
    if (v[i] > ${lowestOrder} && v[i] < ${infiniteOrder}) {
      let score = order(numberOf(v[i]) / temperature + gumbel(words[i]));
      if (score > *best) {
        *best = score;
        *token = first + i;
      }
    }
  }
}
`,
  });
}
