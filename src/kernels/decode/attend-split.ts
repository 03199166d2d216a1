/**
 * Attention of one token over many positions, in two dispatches. Workgroups of the first share the cached positions, whatever their number: each turns the queries of one KV head, walks its part of
 * the cache and leaves a partial sum. The first part turns the token's own key, writes key and value for the tokens to come and adds them from registers, never through the cache. The second
 * dispatch adds the parts (attend-merge.ts).
 *
 * A subgroup takes `rows x unroll` keys at a time; a row lies in `lanes` lanes. Scores end whole in one lane each. What scales the exponents is the maximum of a subgroup's first rows: f32 has room
 * for sums up to 2^64 times theirs. Where a later score is higher still, the workgroup walks its part again with the true maximum.
 */

import type { GpuKernel } from '../../core/kernel.js';
import { stateWord } from '../../ops/state.js';
import { declareBindings, defineKernel, f32Literal, foldGrid, lines, mainHead, range } from '../template.js';
import {
  type AttendProblem,
  anglesText,
  attendInputs,
  nearestHalfFunction,
  packHalves,
  roundHalves,
  scatterSums,
  turnedText,
  unpackHalves,
} from './attend-text.js';

export interface SplitShape {
  readonly subgroupSize: number;
  readonly subgroups: number;
  /** Keys and values that a lane has in registers at a time. */
  readonly unroll: number;
  /** Query heads of a workgroup; all read one KV head. */
  readonly groupHeads: number;
  /** Workgroups that share the positions of a KV head, at most. */
  readonly splits: number;
  /** Whether the next keys and values are loaded before a step computes (twice the registers), or each when its registers are free. */
  readonly ahead: boolean;
}

interface SplitLayout {
  /** Lanes of a row, and rows that a subgroup reads with one load. */
  readonly rowLanes: number;
  readonly rows: number;
  /** Positions of a subgroup and of a workgroup in one step. */
  readonly subgroupStep: number;
  readonly step: number;
  /** Heads as the scores count them: the next power of two. */
  readonly slots: number;
  /** Whole scores of a lane, and lanes that hold the same one. */
  readonly scores: number;
  readonly copies: number;
  /** Workgroups that share the query heads of a KV head. */
  readonly parts: number;
}

function layoutOf({ width, heads, kvHeads }: AttendProblem, { subgroupSize, subgroups, unroll, groupHeads }: SplitShape): SplitLayout {
  const rowLanes = width / 8;
  const rows = subgroupSize / rowLanes;
  const slots = 2 ** Math.ceil(Math.log2(groupHeads));
  return {
    rowLanes,
    rows,
    subgroupStep: rows * unroll,
    step: rows * unroll * subgroups,
    slots,
    scores: Math.max(1, (unroll * slots) / rowLanes),
    copies: Math.max(1, rowLanes / (unroll * slots)),
    parts: heads / kvHeads / groupHeads,
  };
}

/** Positions of a workgroup's step: splits are multiples of it. */
export function splitStep(problem: AttendProblem, shape: SplitShape): number {
  return layoutOf(problem, shape).step;
}

export function splitBytes({ width }: AttendProblem, { subgroups, groupHeads }: SplitShape): number {
  return (subgroups * groupHeads * width + 2 * (subgroups + 1) * groupHeads + 1) * 4;
}

/** Floats of the partial sums: [splits, heads, width], then [heads, splits] of (maximum, sum, 0, 0). */
export function partialFloats({ heads, width }: AttendProblem, { splits }: SplitShape): number {
  return splits * heads * (width + 4);
}

/** Declares `position` and the number `live` of splits that have any positions; at least one, for the token itself. Splits take steps in turn. */
export function splitText(problem: AttendProblem, shape: SplitShape): string {
  const step = splitStep(problem, shape);
  return `  let position = min(state[${stateWord.position}], ${problem.capacity - 1}u);
  let live = clamp((position + ${step - 1}u) / ${step}u, 1u, ${shape.splits}u);
`;
}

export function attendSplitKernel(problem: AttendProblem, shape: SplitShape): GpuKernel {
  const { subgroups, subgroupSize, splits, groupHeads } = shape;
  const layout = layoutOf(problem, shape);
  const threads = subgroups * subgroupSize;
  const groups = splits * problem.kvHeads * layout.parts;
  const bindings = [...attendInputs(problem), ['partials', 'f32', 'read_write'] as const];
  return defineKernel({
    family: 'attend_split',
    params: { ...problem, eps: problem.eps ?? 'none', ...shape },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    workgroupBytes: splitBytes(problem, shape),
    features: ['subgroups'],
    wgsl: () => `${declareBindings(bindings)}${nearestHalfFunction}var<workgroup> sums: array<f32, ${subgroups * groupHeads * problem.width}>;
var<workgroup> tops: array<vec2<f32>, ${(subgroups + 1) * groupHeads}>;
var<workgroup> grown: atomic<u32>;
${mainHead(groups, threads, '@builtin(subgroup_invocation_id) lane: u32')}${walkText(problem, shape, layout)}${partialText(problem, shape, layout, threads)}}
`,
  });
}

const masked = '-3e38f';
/** Above `masked`, so that the weight of a masked score is nought even where a subgroup has no other. */
const lowest = '-1e37f';
/** Powers of two by which a score may exceed the maximum of the first rows. */
const headroom = 64;

function walkText(problem: AttendProblem, shape: SplitShape, layout: SplitLayout): string {
  const { heads, kvHeads, width, capacity, scale } = problem;
  const { groupHeads, unroll, subgroupSize, splits, ahead } = shape;
  const { rowLanes, rows, subgroupStep, step, parts, scores } = layout;
  const heads8 = range(groupHeads);
  const load = (name: string, from: string, at: string, most = 'last'): string =>
    lines(unroll, (u) => {
      const token = `${at} + ${u * rows}u + row`;
      return `${name}${u} = ${from}[(base + ${most === '' ? token : `min(${token}, ${most})`}) * ${rowLanes}u + sub];\n`;
    });
  // The first loads wait for nothing, the position included: what lies beyond it is masked.
  const bound = splits * step > capacity ? `${capacity - 1}u` : '';
  const stride = splits * step;
  const next = (name: string, from: string): string => load(`      ${name}`, from, `here + ${stride}u`);
  const queries = heads8
    .map(
      (g) =>
        `${turnedText(problem, `h${g}q`, `(head + ${g}u) * ${width / 4}u`, (i) => `queryGain[sub * 2u + ${i}u]`)}  h${g}q0 *= ${f32Literal(scale * Math.LOG2E)};\n  h${g}q1 *= ${f32Literal(scale * Math.LOG2E)};\n`,
    )
    .join('');
  const declare = (names: readonly string[], value: string): string => names.map((name) => `  var ${name} = ${value};\n`).join('');
  return `  let subgroup = local / ${subgroupSize}u;
  let part = group % ${parts}u;
  let kv = (group / ${parts}u) % ${kvHeads}u;
  let split = group / ${parts * kvHeads}u;
  let head = kv * ${heads / kvHeads}u + part * ${groupHeads}u;
  let sub = lane % ${rowLanes}u;
  let row = lane / ${rowLanes}u;
  let base = kv * ${capacity}u;
  let first = split * ${step}u + subgroup * ${subgroupStep}u;
${load('  var key', 'keys', 'first', bound)}${load('  var value', 'values', 'first', bound)}${splitText(problem, shape)}  if (split >= live) { return; }
  let last = max(position, 1u) - 1u;
  let steps = (position + ${stride - 1}u - split * ${step}u) / ${stride}u;
${anglesText(problem)}${queries}${ownText(problem, shape, layout)}  if (local == 0u) { atomicStore(&grown, 0u); }
  workgroupBarrier();
${declare(
  heads8.flatMap((g) => [`o${g}_0`, `o${g}_1`]),
  'vec4<f32>(0.0)',
)}${declare(
  heads8.map((g) => `top${g}`),
  lowest,
)}${declare(
  range(scores).flatMap((r) => [`most${r}`, `best${r}`]),
  lowest,
)}${declare(
  range(scores).map((r) => `total${r}`),
  '0.0',
)}  for (var walk = 0u; walk < 2u; walk++) {
    for (var i = 0u; i < steps; i++) {
      let here = first + i * ${stride}u;
${ahead ? `${next('let nextKey', 'keys')}${next('let nextValue', 'values')}` : ''}${scoresText(shape, layout)}${ahead ? '' : next('key', 'keys')}      if (i + walk == 0u) {
${maximaText(shape, layout, 'score')}${lines(unroll, (u) => `        value${u} = select(vec4<u32>(0u), value${u}, here + ${u * rows}u + row < position);\n`)}      }
${weightsText(shape, layout)}${ahead ? lines(unroll, (u) => `      key${u} = nextKey${u};\n      value${u} = nextValue${u};\n`) : next('value', 'values')}    }
    if (${range(scores)
      .map((r) => `best${r} > most${r} + ${headroom}.0`)
      .join(' || ')}) { atomicStore(&grown, 1u); }
    if (workgroupUniformLoad(&grown) == 0u || walk == 1u) { break; }
${maximaText(shape, layout, 'best')}${load('    key', 'keys', 'first')}${load('    value', 'values', 'first')}${heads8.map((g) => `    o${g}_0 = vec4<f32>(0.0);\n    o${g}_1 = vec4<f32>(0.0);\n`).join('')}${lines(scores, (r) => `    total${r} = 0.0;\n`)}  }
`;
}

/** The token's own score and its entry in the caches, by the workgroups of the first split. */
function ownText(problem: AttendProblem, { subgroups, groupHeads }: SplitShape, { rowLanes, parts }: SplitLayout): string {
  const { heads, kvHeads, width } = problem;
  const steps = range(Math.log2(rowLanes));
  const entry = `tops[${subgroups * groupHeads}u`;
  const scores = range(groupHeads)
    .map(
      (g) =>
        `    var own${g} = dot(h${g}q0, r0) + dot(h${g}q1, r1);\n${steps.map((i) => `    own${g} += subgroupShuffleXor(own${g}, ${2 ** i}u);\n`).join('')}    if (local == 0u) { ${entry} + ${g}u] = vec2<f32>(own${g}, 1.0); }\n`,
    )
    .join('');
  return `  if (split == 0u) {
${turnedText(problem, 'k', `(${heads}u + kv) * ${width / 4}u`, (i) => `keyGain[sub * 2u + ${i}u]`)}    ${roundHalves('r', ['k0', 'k1'])}
${scores}    if (${parts > 1 ? 'part == 0u && ' : ''}local < ${rowLanes}u) {
      let at = (base + position) * ${rowLanes}u + sub;
      let word = (${heads + kvHeads}u + kv) * ${width / 4}u + sub * 2u;
      ${roundHalves('f', ['raw[word]', 'raw[word + 1u]'])}
      keys[at] = ${packHalves('r')};
      values[at] = ${packHalves('f')};
    }
  } else if (local < ${groupHeads}u) {
    ${entry} + local] = vec2<f32>(${lowest}, 0.0);
  }
`;
}

/** Which of a subgroup's scores the lane's whole score `r` is, as head and unrolled row. */
function slotText({ scores, copies, slots }: SplitLayout, r: number): { readonly head: string; readonly row: string } {
  const index = `(sub / ${copies}u * ${scores}u + ${r}u)`;
  return { head: scores % slots === 0 ? `${r % slots}u` : `${index} % ${slots}u`, row: `${index} / ${slots}u` };
}

/** `score0`...: the whole scores of this lane, masked beyond the end. */
function scoresText({ unroll, groupHeads }: SplitShape, layout: SplitLayout): string {
  const { rows, rowLanes, slots, copies, scores } = layout;
  const products = lines(
    unroll,
    (u) =>
      `${range(groupHeads)
        .map((g) => `      var d${u}_${g}: f32;\n`)
        .join('')}      { ${unpackHalves('w', `key${u}`)}${range(groupHeads)
        .map((g) => ` d${u}_${g} = dot(w0, h${g}q0) + dot(w1, h${g}q1);`)
        .join('')} }\n`,
  );
  const names = range(unroll).flatMap((u) => range(slots).map((g) => (g < groupHeads ? `d${u}_${g}` : '0.0f')));
  const { text, sums } = scatterSums(names, rowLanes / 2, copies, 's');
  const whole = lines(scores, (r) => {
    const rest = range(Math.log2(copies))
      .map((i) => `      part${r} += subgroupShuffleXor(part${r}, ${2 ** i}u);\n`)
      .join('');
    const { row } = slotText(layout, r);
    return `      var part${r} = ${sums[r]};\n${rest}      let score${r} = select(${masked}, part${r}, here + ${row} * ${rows}u + row < position);\n      best${r} = max(best${r}, score${r});\n`;
  });
  return products + text + whole;
}

/** The maximum of each head over the subgroup in `top0`..., and that of each of the lane's scores in `most0`.... */
function maximaText({ groupHeads }: SplitShape, layout: SplitLayout, from: string): string {
  const { scores } = layout;
  const heads = range(scores).map((r) => slotText(layout, r).head);
  const tops = range(groupHeads).map((g) => {
    const own = heads.map((head, r) => `select(${lowest}, ${from}${r}, ${head} == ${g}u)`).reduce((a, b) => `max(${a}, ${b})`);
    return `top${g} = max(subgroupMax(${own}), ${lowest});`;
  });
  const mosts = heads.map(
    (head, r) =>
      `most${r} = ${range(groupHeads)
        .slice(1)
        .reduce((rest, g) => `select(${rest}, top${g}, ${head} == ${g}u)`, 'top0')};`,
  );
  return [...tops, ...mosts].map((line) => `        ${line}\n`).join('');
}

/** Weights of the scores, and the values that they weigh, added to each head's `o`. */
function weightsText({ unroll, groupHeads }: SplitShape, { scores, copies, slots }: SplitLayout): string {
  const weights = lines(scores, (r) => `      let p${r} = exp2(score${r} - most${r});\n      total${r} += p${r};\n`);
  const from = (index: number): string => `subgroupShuffle(p${index % scores}, lane - sub + ${Math.floor(index / scores) * copies}u)`;
  const products = lines(
    unroll,
    (u) =>
      `      { ${unpackHalves('w', `value${u}`)}\n${range(groupHeads)
        .map((g) => `        let f${g} = vec4<f32>(${from(u * slots + g)}); o${g}_0 = fma(f${g}, w0, o${g}_0); o${g}_1 = fma(f${g}, w1, o${g}_1);\n`)
        .join('')}      }\n`,
  );
  return weights + products;
}

/** Sums over the rows of a subgroup, then over the workgroup with the token's own value, into `partials`. */
function partialText(problem: AttendProblem, shape: SplitShape, layout: SplitLayout, threads: number): string {
  const { heads, kvHeads, width } = problem;
  const { subgroups, groupHeads, subgroupSize, splits } = shape;
  const { rowLanes, copies, scores } = layout;
  const output = scatterSums(
    range(groupHeads * 8).map((i) => `o${i >> 3}_${(i >> 2) & 1}.${'xyzw'.charAt(i & 3)}`),
    subgroupSize / 2,
    rowLanes,
    'out',
  );
  const left = output.sums.length;
  const size = groupHeads * width;
  const store = output.sums
    .map((name, r) => `  { let at = row * ${left}u + ${r}u; sums[subgroup * ${size}u + at / 8u * ${width}u + sub * 8u + at % 8u] = ${name}; }\n`)
    .join('');
  const totals = range(groupHeads)
    .map((g) => {
      const own = range(scores).map((r) => `select(0.0, total${r}, ${slotText(layout, r).head} == ${g}u)`);
      return `  let sum${g} = subgroupAdd(${own.join(' + ')}) * ${f32Literal(1 / copies)};\n  if (lane == 0u) { tops[subgroup * ${groupHeads}u + ${g}u] = vec2<f32>(top${g}, sum${g}); }\n`;
    })
    .join('');
  const stats = splits * heads * width;
  return `${output.text}${store}${totals}  workgroupBarrier();
  for (var item = local; item < ${size}u; item += ${threads}u) {
    let h = item / ${width}u;
    let column = item % ${width}u;
    let own = tops[${subgroups * groupHeads}u + h];
    var most = own.x;
${lines(subgroups, (s) => `    let t${s} = tops[${s * groupHeads}u + h];\n    most = max(most, t${s}.x);\n`)}    let word = (${heads + kvHeads}u + kv) * ${width}u + column;
    let ownValue = nearestHalf(vec4<f32>(raw[word / 4u][word % 4u])).x;
    let weight = own.y * exp2(own.x - most);
    var total = weight;
    var sum = weight * ownValue;
${lines(subgroups, (s) => `    { let w = exp2(t${s}.x - most); total += w * t${s}.y; sum += w * sums[${s * size}u + item]; }\n`)}    partials[(split * ${heads}u + head) * ${width}u + item] = sum;
    if (column == 0u) {
      let at = ${stats}u + ((head + h) * ${splits}u + split) * 4u;
      partials[at] = most;
      partials[at + 1u] = total;
    }
  }
`;
}
