/** The second pass of `redraw`: one workgroup lists what the filters can keep, finds where they cut, draws, and updates both states. */

import type { GpuKernel } from '../../core/kernel.js';
import { samplingWord } from '../../ops/sampling-state.js';
import { historyLength, noToken, stateWord } from '../../ops/state.js';
import { declareBindings, defineKernel, type Reduction, type SubgroupRange, workgroupReduction } from '../template.js';
import { filterText } from './filter-text.js';
import { listFunctions, shortList } from './list-text.js';
import { histogramBytes, histogramFunctions } from './select-text.js';
import {
  infiniteOrder,
  isUnfiltered,
  logitFunctions,
  logitType,
  lowestOrder,
  noiseFunctions,
  readParameters,
  type SurveyLayout,
  surveyLayout,
} from './text.js';

export interface DrawShape {
  /** Of the one workgroup: 256 or more. */
  readonly threads: number;
  readonly subgroups: SubgroupRange | undefined;
}

/** Bindings: session, sampling state, logits, survey, room for a pair (order, token) for every token, the token. */
export function drawKernel(vocabulary: number, { threads, subgroups }: DrawShape): GpuKernel {
  const layout = surveyLayout(vocabulary);
  const sum = workgroupReduction('total', 'add', threads, subgroups);
  return defineKernel({
    family: 'sample_draw',
    params: { vocabulary, threads, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read_write', 'read_write', 'read', 'read', 'read_write', 'read_write'],
    workgroups: [1, 1, 1],
    workgroupSize: threads,
    workgroupBytes: sum.bytes + histogramBytes + 16 * shortList + 32,
    features: sum.features,
    wgsl: () =>
      `${declareBindings([
        ['session', 'u32', 'read_write'],
        ['sampling', 'u32', 'read_write'],
        ['logits', logitType(vocabulary), 'read'],
        ['survey', 'u32', 'read'],
        ['list', 'vec2<u32>', 'read_write'],
        ['y', 'u32', 'read_write'],
      ])}${logitFunctions(vocabulary)}${noiseFunctions}${sum.declarations}${histogramFunctions}${listFunctions(layout, threads)}${mainText(layout, threads, sum)}`,
  });
}

/** The parameters that decide the way, read from the survey: from a buffer that nobody writes, so that they are uniform. */
function mainText(layout: SurveyLayout, threads: number, sum: Reduction): string {
  const { vocabulary, chunks, chunksAt } = layout;
  const word = (name: keyof typeof samplingWord): string => `survey[${samplingWord[name]}]`;
  return `var<workgroup> most: atomic<u32>;
var<workgroup> bestScore: atomic<u32>;
var<workgroup> bestToken: atomic<u32>;

@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) local: u32${sum.builtins === '' ? '' : `, ${sum.builtins}`}) {
${readParameters('survey')}  // Workgroup memory begins as anything: an unchecked device does not clear it.
  if (local == 0u) {
    atomicStore(&most, 0u);
    atomicStore(&listed, 0u);
    atomicStore(&lowest, 0xffffffffu);
    atomicStore(&bestScore, 0u);
    atomicStore(&bestToken, ${noToken}u);
  }
  workgroupBarrier();
  for (var chunk = local; chunk < ${chunks}u; chunk += ${threads}u) { atomicMax(&most, survey[${chunksAt}u + 4u * chunk]); }
  workgroupBarrier();
  if (local == 0u) { pair = vec2<u32>(atomicLoad(&most), 0u); }
  let topKey = workgroupUniformLoad(&pair).x;
  let sound = topKey > ${lowestOrder} && topKey < ${infiniteOrder};
  let seed = vec2<u32>(survey[${samplingWord.seed}], survey[${samplingWord.seed + 1}]);
  var best = 0u;
  var token = ${noToken}u;
  if (sound && ${isUnfiltered('survey', vocabulary)}) {
    for (var chunk = local; chunk < ${chunks}u; chunk += ${threads}u) {
      let at = ${chunksAt}u + 4u * chunk;
      if (survey[at + 2u] > best || (survey[at + 2u] == best && survey[at + 3u] < token)) {
        best = survey[at + 2u];
        token = survey[at + 3u];
      }
    }
  } else if (sound) {
${filterText(layout, threads, sum)}  }
  atomicMax(&bestScore, best);
  workgroupBarrier();
  if (best == atomicLoad(&bestScore)) { atomicMin(&bestToken, token); }
  workgroupBarrier();
  if (local == 0u) {
    let drawn = atomicLoad(&bestToken);
    y[0] = drawn;
    session[${stateWord.token}] = drawn;
    session[${stateWord.history}u + ((session[${stateWord.steps}] + ${historyLength - 1}u) & ${historyLength - 1}u)] = drawn;
    session[${stateWord.ids}] = select(drawn, 0u, drawn == ${noToken}u);
    sampling[${samplingWord.step}] = ${word('step')} + 1u;
    if (drawn != ${noToken}u) { sampling[${samplingWord.counts}u + drawn] += 1u; }
  }
}
`;
}
