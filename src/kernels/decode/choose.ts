/** The end of a decode step: the best of all workgroups of the head becomes the next token, and the state moves on. */

import type { GpuKernel } from '../../core/kernel.js';
import { stateWord } from '../../ops/state.js';
import { contest, merge } from '../argmax.js';
import { declareBindings, defineKernel, mainHead, type SubgroupRange } from '../template.js';

export const bestForm = 'best';
const threads = 256;

export function chooseKernel(pairs: number, subgroups: SubgroupRange | undefined): GpuKernel {
  const duel = contest(subgroups);
  return defineKernel({
    family: 'choose_token',
    params: { pairs, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read_write', 'read'],
    workgroups: [1, 1, 1],
    workgroupSize: threads,
    workgroupBytes: duel.bytes,
    features: duel.features,
    wgsl: () => `${declareBindings([
      ['state', 'u32', 'read_write'],
      ['pairs', 'vec2<u32>', 'read'],
    ])}${duel.declarations}${mainHead(1, threads, duel.builtins)}  var best = 0u;
  var at = 0xffffffffu;
  for (var i = 0u; i < ${Math.ceil(pairs / threads)}u; i++) {
    let pair = pairs[min(i * ${threads}u + local, ${pairs - 1}u)];
${merge('pair.x', 'pair.y')}  }
${duel.body}  if (local == 0u) {
    state[${stateWord.position}] += state[${stateWord.rows}];
    state[${stateWord.rows}] = 1u;
    state[${stateWord.token}] = at;
    state[${stateWord.steps}] += 1u;
    state[${stateWord.ids}] = at;
  }
}
`,
  });
}
