/** The end of a decode step: the best of all workgroups of the head becomes the next token, and the state moves on. */

import type { GpuKernel } from '../../core/kernel.js';
import { stateWord } from '../../ops/state.js';
import { contest, merge } from '../argmax.js';
import { declareBindings, defineKernel, mainHead, repeat, type SubgroupRange } from '../template.js';

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
${rounds(pairs)}${duel.body}  if (local == 0u) {
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

/** Loads of a round that are on their way together. */
const ahead = 8;

/** The thread's best pair, several loads at a time. */
function rounds(pairs: number): string {
  const each = Math.ceil(pairs / threads);
  const together = Math.min(ahead, each);
  const load = (u: number): string => `    let pair${u} = pairs[min((i * ${together}u + ${u}u) * ${threads}u + local, ${pairs - 1}u)];\n`;
  return `  for (var i = 0u; i < ${Math.ceil(each / together)}u; i++) {
${repeat(together, load, '')}${repeat(together, (u) => merge(`pair${u}.x`, `pair${u}.y`), '')}  }
`;
}
