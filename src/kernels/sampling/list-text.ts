/** Text that lists the candidates of a draw and walks through them. */

import { repeat } from '../template.js';
import { groupVectors, lowestOrder, type SurveyLayout, surveyThreads, vectorStart } from './text.js';

/** Most candidates of a list that is ranked in workgroup memory, each by a thread of its own. */
export const shortList = 256;

/** Loads that are on their way together: one after another they would be most of the time. */
const groupsTogether = 8;
const listTogether = 4;

/** A loop over the groups; `body` has a `group` and the `key` of its largest logit. */
export function eachGroup({ groups, groupsAt }: SurveyLayout, threads: number, body: string): string {
  const together = Math.min(groupsTogether, Math.ceil(groups / threads));
  const load = (u: number): string => `    held[${u}] = survey[${groupsAt}u + min((i * ${together}u + ${u}u) * ${threads}u + local, ${groups - 1}u)];\n`;
  return `  for (var i = 0u; i < ${Math.ceil(groups / (threads * together))}u; i++) {
    var held: array<u32, ${together}>;
${repeat(together, load, '')}    for (var u = 0u; u < ${together}u; u++) {
      let group = (i * ${together}u + u) * ${threads}u + local;
      let key = held[u];
      if (group >= ${groups}u) { break; }
${body}    }
  }
`;
}

/** A loop over `count` listed candidates; `body` has a `candidate`. */
export function eachListed(threads: number, body: string): string {
  const load = (u: number): string => `    held[${u}] = list[min(start + ${u * threads}u + local, count - 1u)];\n`;
  return `  for (var start = 0u; start < count; start += ${listTogether * threads}u) {
    var held: array<vec2<u32>, ${listTogether}>;
${repeat(listTogether, load, '')}    for (var u = 0u; u < ${listTogether}u; u++) {
      let candidate = held[u];
      if (start + u * ${threads}u + local >= count) { break; }
${body}    }
  }
`;
}

/** Listing the candidates: groups are skipped by their largest logit. */
export function listFunctions(layout: SurveyLayout, threads: number): string {
  return `var<workgroup> listed: atomic<u32>;
var<workgroup> lowest: atomic<u32>;
var<workgroup> pair: vec2<u32>;
var<workgroup> shorts: array<vec4<u32>, ${shortList}>;
var<workgroup> number: f32;

/** A number that all threads have, as one that the compiler knows that they have. */
fn everybody(value: f32, local: u32) -> f32 {
  if (local == 0u) { number = value; }
  return workgroupUniformLoad(&number);
}

/** What a candidate has to reach: a bin of distance from the largest logit, and a logit over the temperature. */
struct Floor {
  bin: u32,
  tempered: f32,
}

/** Distances from the largest logit in bins of a sixteenth of an octave, from 2^-8 to 2^8: orders far apart make a histogram of few bins, distances do not. */
fn binOf(key: u32, top: f32) -> u32 {
  return clamp(bitcast<u32>(top - numberOf(key)) >> 19u, 1904u, 2159u) - 1904u;
}

fn passes(key: u32, floor: Floor, top: f32) -> bool {
  if (key <= ${lowestOrder} || binOf(key, top) > floor.bin) { return false; }
  return temperature == 0.0 || (numberOf(key) - top) / temperature >= floor.tempered;
}

/** Lists the candidates; gives their number and their lowest order. */
fn makeList(floor: Floor, top: f32, local: u32) -> vec2<u32> {
${eachGroup(
  layout,
  threads,
  `      if (!passes(key, floor, top)) { continue; }
      for (var j = 0u; j < ${groupVectors}u; j++) {
        let first = ${vectorStart(`(group / ${surveyThreads}u)`, `(group % ${surveyThreads}u)`, 0)} + j * ${4 * surveyThreads}u;
        let keys = orders(first);
        for (var c = 0u; c < 4u; c++) {
          if (passes(keys[c], floor, top)) {
            list[atomicAdd(&listed, 1u)] = vec2<u32>(keys[c], first + c);
            atomicMin(&lowest, keys[c]);
          }
        }
      }
`,
)}  storageBarrier();
  workgroupBarrier();
  if (local == 0u) { pair = vec2<u32>(atomicLoad(&listed), atomicLoad(&lowest)); }
  return workgroupUniformLoad(&pair);
}

fn within(candidate: vec2<u32>, cut: vec2<u32>) -> bool {
  return candidate.x > cut.x || (candidate.x == cut.x && candidate.y <= cut.y);
}
`;
}
