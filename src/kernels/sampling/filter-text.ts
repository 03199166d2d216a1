/** Text of the filters of a draw: where top-k, top-p and min-p cut the candidates. */

import { samplingWord } from '../../ops/sampling-state.js';
import { noToken } from '../../ops/state.js';
import type { Reduction } from '../template.js';
import { eachGroup, eachListed, shortList } from './list-text.js';
import { keepsAll, lowestOrder, type SurveyLayout } from './text.js';

/** Ids in the order in which equal logits are kept: the lowest id is the largest number. */
const idEnd = 2 ** 24 - 1;

/**
 * Three stages of one loop, so that each part of the text stands there once: (0) the bin that the k-th largest group is in, below which no logit is among the k largest; (1) the list, and where
 * top-k cuts it; (2) where top-p does. Where min-p may, it is a floor of the list. A short list, which is the usual one, is ranked at once instead.
 */
export function filterText(layout: SurveyLayout, threads: number, sum: Reduction): string {
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
