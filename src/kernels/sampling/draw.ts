/** The second pass of `redraw`: one workgroup lists what the filters can keep, finds where they cut, draws, and updates both states. */

import type { GpuKernel } from '../../core/kernel.js';
import { samplingWord } from '../../ops/sampling-state.js';
import { historyLength, noToken, stateWord } from '../../ops/state.js';
import { declareBindings, defineKernel, type Reduction, repeat, type SubgroupRange, workgroupReduction } from '../template.js';
import { histogramBytes, histogramFunctions } from './select-text.js';
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
  type SurveyLayout,
  surveyLayout,
  surveyThreads,
  vectorStart,
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

/** Loads that are on their way together: one after another they would be most of the time. */
const groupsTogether = 8;
const listTogether = 4;

/** A loop over the groups; `body` has a `group` and the `key` of its largest logit. */
function eachGroup({ groups, groupsAt }: SurveyLayout, threads: number, body: string): string {
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
function eachListed(threads: number, body: string): string {
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
function listFunctions(layout: SurveyLayout, threads: number): string {
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

/** Ids in the order in which equal logits are kept: the lowest id is the largest number. */
const idEnd = 2 ** 24 - 1;

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

/**
 * Three stages of one loop, so that each part of the text stands there once: (0) the bin that the k-th largest group is in, below which no logit is among the k largest; (1) the list, and where
 * top-k cuts it; (2) where top-p does. Where min-p may, it is a floor of the list. A short list, which is the usual one, is ranked at once instead.
 */
function filterText(layout: SurveyLayout, threads: number, sum: Reduction): string {
  const { vocabulary, chunks, chunksAt, groups } = layout;
  const word = (name: keyof typeof samplingWord): string => `survey[${samplingWord[name]}]`;
  return `    let top = numberOf(topKey);
    let heat = bitcast<f32>(${word('temperature')});
    let topP = bitcast<f32>(${word('topP')});
    let minP = bitcast<f32>(${word('minP')});
    let all = ${keepsAll('survey', vocabulary)} && heat > 0.0;
    let k = select(select(${word('topK')}, ${vocabulary}u, all), 1u, heat == 0.0);
    let nucleus = topP < 1.0 && k > 1u;
    let least = select(-3.4e38, min(log(max(minP, 1e-37)), 0.0), minP > 0.0);
    // The mass of what top-k keeps is counted from the list, with what min-p then takes away.
    var floor = Floor(255u, select(least - 1e-3, -3.4e38, nucleus && !all));
    var cut = vec2<u32>(0u, ${noToken}u);
    var count = 0u;
    var high = 7u;
    var mass = 0.0;
    var scale = 0.0;
    for (var stage = 0u; stage < 3u; stage++) {
      var left = vec2<u32>(k, 0u);
      if (nucleus && stage == select(2u, 0u, all)) {
        var part = 0.0;
        if (all) {
          for (var chunk = local; chunk < ${chunks}u; chunk += ${threads}u) {
            let at = ${chunksAt}u + 4u * chunk;
            let key = survey[at];
            if (key > ${lowestOrder}) { part += bitcast<f32>(survey[at + 1u]) * exp((numberOf(key) - top) / heat); }
          }
        } else {
${eachListed(threads, `      if (within(candidate, cut)) { part += exp((numberOf(candidate.x) - top) / heat); }\n`)}        }
        mass = everybody(${sum.call('part')}, local);
        // The mass is 2^23 to 2^24 units: a power of 2 rounds no weight.
        scale = bitcast<f32>((277u - (bitcast<u32>(mass) >> 23u)) << 23u);
        // What is below this weighs less than 1 - p together.
        if (all) { floor.tempered = max(floor.tempered, log((1.0 - topP) * mass / ${vocabulary}.0) - 1e-3); }
      }
      if (stage == 1u) {
        let made = makeList(floor, top, local);
        count = made.x;
        high = firstLeadingBit((topKey ^ made.y) | 1u);
        if (count <= ${shortList}u && heat > 0.0) {
${shortText()}          count = 0u;
          break;
        }
      }
      if (stage == 2u) { left = goal(topP * mass * scale); }
      if (select(select(nucleus, k < count && heat > 0.0, stage == 1u), k < ${groups}u, stage == 0u)) {
        var mask = select(0u - (2u << high), 0u, high == 31u);
        var prefix = topKey & mask;
        if (stage == 0u) { mask = 0u; prefix = 0u; }
        var shift = max(high, 7u) - 7u;
        var cutKey = 0u;
        var byId = false;
        for (var turn = 0u; turn < 8u; turn++) {
          clear(local);
          if (stage == 0u) {
${eachGroup(layout, threads, `      if (key > ${lowestOrder}) { atomicAdd(&units[255u - binOf(key, top)], 1u); }\n`)}          }
${eachListed(
  threads,
  `      let key = select(candidate.x, ${idEnd}u - candidate.y, byId);
      if ((key & mask) != prefix || (byId && candidate.x != cutKey) || !within(candidate, cut)) { continue; }
      let bin = (key >> shift) & 255u;
      if (stage < 2u || byId) {
        atomicAdd(&units[bin], 1u);
      } else {
        let weight = fixed(exp((numberOf(key) - top) / heat) * scale);
        atomicAdd(&units[bin], weight.x);
        atomicAdd(&partials[bin], weight.y);
      }
`,
)}          let cross = crossing(left, local);
          if (cross.exists == 0u) { break; }
          left = minus(left, carried(cross.above));
          mask = 0u - (1u << shift);
          prefix |= cross.bin << shift;
          if (shift > 0u) {
            shift = max(shift, 8u) - 8u;
            continue;
          }
          if (stage == 0u) {
            floor.bin = 255u - prefix;
            break;
          }
          if (byId) {
            cut = vec2<u32>(cutKey, ${idEnd}u - prefix);
            break;
          }
          // Of the candidates of this very order, so many are kept: those of the lowest ids.
          var each = 1.0;
          if (stage == 2u) { each = unitsOf(fixed(exp((numberOf(prefix) - top) / heat) * scale)); }
          let kept = max(u32(ceil(unitsOf(left) / each)), 1u);
          if (kept >= u32(round(unitsOf(cross.here) / each))) {
            cut = vec2<u32>(prefix, select(${noToken}u, cut.y, prefix == cut.x));
            break;
          }
          byId = true;
          cutKey = prefix;
          left = vec2<u32>(kept, 0u);
          mask = 0u;
          prefix = 0u;
          shift = 16u;
        }
      }
    }
${eachListed(
  threads,
  `      let tempered = (numberOf(candidate.x) - top) / heat;
      if (within(candidate, cut) && (heat == 0.0 || tempered >= least)) {
        var score = candidate.x;
        if (heat > 0.0) { score = order(tempered + noise(candidate.y, ${word('step')}, seed)); }
        if (score > best || (score == best && candidate.y < token)) {
          best = score;
          token = candidate.y;
        }
      }
`,
)}`;
}

/** Most candidates of a list that is ranked in workgroup memory, each by a thread of its own. */
const shortList = 256;

/** Every thread counts what comes before its candidate, and what that weighs: no searching, and the filters are comparisons. */
function shortText(): string {
  return `          clear(local);
          var mine = vec4<u32>(0u);
          if (local < count) {
            let candidate = list[local];
            mine = vec4<u32>(candidate, fixed(exp((numberOf(candidate.x) - top) / heat) * 8192.0));
            shorts[local] = mine;
          }
          workgroupBarrier();
          var rank = 0u;
          var before = vec2<u32>(0u);
          for (var i = 0u; i < count; i++) {
            let other = shorts[i];
            if (other.x > mine.x || (other.x == mine.x && other.y < mine.y)) {
              rank++;
              before += other.zw;
            }
          }
          let inTop = local < count && rank < k;
          if (inTop) {
            atomicAdd(&units[0], mine.z);
            atomicAdd(&partials[0], mine.w);
          }
          workgroupBarrier();
          let whole = select(unitsOf(carried(binSum(0u))), mass * 8192.0, all);
          let tempered = (numberOf(mine.x) - top) / heat;
          if (inTop && (!nucleus || less(carried(before), goal(topP * whole))) && tempered >= least) {
            best = order(tempered + noise(mine.y, survey[${samplingWord.step}], seed));
            token = mine.y;
          }
`;
}
