/** The end of a decode step: the best of all workgroups of the head becomes the next token, and the state moves on. */

import type { GpuKernel } from '../../core/kernel.js';
import { historyLength, noToken, stateWord } from '../../ops/state.js';
import { contest, merge } from '../argmax.js';
import { declareBindings, defineKernel, foldGrid, mainHead, repeat, type SubgroupRange } from '../template.js';

/** The form of logits that `chooseNext` takes: u32 [n, 2], the largest (rank, index) of every part of them. */
export const bestForm = 'best';
const leastThreads = 256;
/** Loads of a thread that are on their way together. */
const ahead = 8;

/** An unsigned integer in the order of the floats, both zeros equal and NaN above all: one NaN among the logits wins, and ends the generation. */
export const rankFunction = `fn rank(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return 0xffffffffu; }
  if (magnitude == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, bits != magnitude);
}
`;

/** Logits of a part. */
const partSize = 2048;

export function surveyParts(width: number): number {
  return Math.ceil(width / partSize);
}

/** The best (rank, index) of every part of a row of plain logits, for heads that leave no pairs. */
export function surveyKernel(width: number, subgroups: SubgroupRange | undefined): GpuKernel {
  const parts = surveyParts(width);
  const duel = contest(subgroups);
  return defineKernel({
    family: 'survey_logits',
    params: { width, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(parts),
    workgroupSize: leastThreads,
    workgroupBytes: duel.bytes,
    features: duel.features,
    wgsl: () => `${declareBindings([
      ['logits', 'f32', 'read'],
      ['pairs', 'vec2<u32>', 'read_write'],
    ])}${rankFunction}${duel.declarations}${mainHead(parts, leastThreads, duel.builtins)}  var best = 0u;
  var at = 0xffffffffu;
  for (var i = 0u; i < ${partSize / leastThreads}u; i++) {
    let index = group * ${partSize}u + i * ${leastThreads}u + local;
    if (index < ${width}u) {
      let value = rank(logits[index]);
${merge('value', 'index')}    }
  }
${duel.body}  if (local == 0u) { pairs[group] = vec2<u32>(best, at); }
}
`,
  });
}

/** One workgroup reads all pairs: of up to `mostThreads`, so that its loads are on their way at once. Where subgroups vary in size, many threads would make the contest long. */
export function chooseKernel(pairs: number, subgroups: SubgroupRange | undefined, mostThreads = leastThreads): GpuKernel {
  const limit = subgroups?.min === subgroups?.max ? mostThreads : leastThreads;
  let threads = leastThreads;
  while (threads * 2 <= limit && threads * ahead < pairs) threads *= 2;
  const duel = contest(subgroups, threads);
  return defineKernel({
    family: 'choose_token',
    params: { pairs, threads, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read_write', 'read'],
    workgroups: [1, 1, 1],
    workgroupSize: threads,
    workgroupBytes: duel.bytes,
    features: duel.features,
    wgsl: () => `${declareBindings([
      ['state', 'u32', 'read_write'],
      ['pairs', 'vec2<u32>', 'read'],
    ])}${duel.declarations}${mainHead(1, threads, duel.builtins)}  let steps = state[${stateWord.steps}];
  let position = state[${stateWord.position}] + state[${stateWord.rows}];
  var best = 0u;
  var at = 0xffffffffu;
${rounds(pairs, threads)}${duel.body}  if (local == 0u) {
    let known = best != 0xffffffffu;
    let token = select(${noToken}u, at, known);
    state[${stateWord.position}] = position;
    state[${stateWord.rows}] = 1u;
    state[${stateWord.token}] = token;
    state[${stateWord.steps}] = steps + 1u;
    state[${stateWord.history}u + (steps & ${historyLength - 1}u)] = token;
    state[${stateWord.ids}] = select(0u, at, known);
  }
}
`,
  });
}

/** The thread's best pair, several loads at a time. */
function rounds(pairs: number, threads: number): string {
  const each = Math.ceil(pairs / threads);
  const together = Math.min(ahead, each);
  const load = (u: number): string => `    let pair${u} = pairs[min((i * ${together}u + ${u}u) * ${threads}u + local, ${pairs - 1}u)];\n`;
  return `  for (var i = 0u; i < ${Math.ceil(each / together)}u; i++) {
${repeat(together, load, '')}${repeat(together, (u) => merge(`pair${u}.x`, `pair${u}.y`), '')}  }
`;
}
