/**
 * Attention of one token over windows whose scores fit in workgroup memory, one dispatch. A workgroup takes one query head and a slice of its columns: all scores, then the slice. The token's own key
 * and value never pass through the cache: one workgroup of each KV head writes them for the tokens to come.
 */

import type { GpuKernel } from '../../core/kernel.js';
import { stateWord } from '../../ops/state.js';
import { declareBindings, defineKernel, f32Literal, foldGrid, lines, mainHead, range } from '../template.js';
import { packFunction } from './activations.js';
import {
  type AttendOutputs,
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

export interface AttendShape {
  readonly subgroupSize: number;
  readonly subgroups: number;
  /** Workgroups that share the columns of a head. */
  readonly slices: number;
  /** Keys that a lane loads before it computes. */
  readonly unroll: number;
}

interface AttendLayout {
  /** Lanes of a row of keys, and rows that a subgroup takes at a time. */
  readonly keyLanes: number;
  readonly keyRows: number;
  readonly keyStep: number;
  readonly keySteps: number;
  /** The same for a slice of the values. */
  readonly valueLanes: number;
  readonly valueRows: number;
  readonly valueStep: number;
  readonly rounds: number;
  /** Columns of a slice. */
  readonly columns: number;
}

function layoutOf({ width, window }: AttendProblem, { subgroupSize, subgroups, slices, unroll }: AttendShape): AttendLayout {
  const keyLanes = width / 8;
  const keyRows = subgroupSize / keyLanes;
  const keyStep = subgroups * keyRows * unroll;
  const columns = width / slices;
  const valueLanes = columns / 8;
  const valueRows = subgroupSize / valueLanes;
  const valueStep = subgroups * valueRows;
  return {
    keyLanes,
    keyRows,
    keyStep,
    keySteps: Math.ceil(window / keyStep),
    valueLanes,
    valueRows,
    valueStep,
    rounds: Math.ceil(window / valueStep),
    columns,
  };
}

function scoreCount(layout: AttendLayout): number {
  return Math.max(layout.keySteps * layout.keyStep, layout.rounds * layout.valueStep);
}

/** Rows of values that each lane takes. */
export function attendRounds(problem: AttendProblem, shape: AttendShape): number {
  return layoutOf(problem, shape).rounds;
}

export function attendBytes(problem: AttendProblem, shape: AttendShape): number {
  const layout = layoutOf(problem, shape);
  return (scoreCount(layout) + shape.subgroups * (layout.columns + 2) + layout.columns) * 4;
}

export function attendKernel(problem: AttendProblem, shape: AttendShape, outputs: AttendOutputs): GpuKernel {
  const threads = shape.subgroups * shape.subgroupSize;
  const groups = problem.heads * shape.slices;
  const bindings = [
    ...attendInputs(problem),
    ...(outputs.plain ? [['y', 'f32', 'read_write'] as const] : []),
    ...(outputs.packed ? [['packed', 'u32', 'read_write'] as const] : []),
  ];
  return defineKernel({
    family: 'attend_token',
    params: { ...problem, eps: problem.eps ?? 'none', ...shape, ...outputs },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    workgroupBytes: attendBytes(problem, shape),
    features: ['subgroups'],
    wgsl: () =>
      `${declareBindings(bindings)}${nearestHalfFunction}${outputs.packed ? packFunction(problem.heads * problem.width) : ''}${attendText(problem, shape, groups, threads, outputs)}`,
  });
}

function attendText(problem: AttendProblem, shape: AttendShape, groups: number, threads: number, outputs: AttendOutputs): string {
  const { heads, kvHeads, width, capacity } = problem;
  const { subgroups, slices } = shape;
  const layout = layoutOf(problem, shape);
  const { keyLanes, valueLanes, columns, valueRows } = layout;
  const ratio = heads / kvHeads;
  // Loaded as soon as the keys' registers are free: with the keys they cost occupancy, after the sums latency.
  const inBounds = (token: string, count: number): string => (count > capacity ? `min(${token}, ${capacity - 1}u)` : token);
  const valueToken = (i: number): string => `${i * layout.valueStep}u + subgroup * ${valueRows}u + lane / ${valueLanes}u`;
  const values = lines(layout.rounds, (i) => {
    const token = inBounds(valueToken(i), (i + 1) * layout.valueStep);
    return `  let v${i} = values[(kv * ${capacity}u + ${token}) * ${keyLanes}u + slice * ${valueLanes}u + lane % ${valueLanes}u];\n`;
  });
  const output = scatterSums(
    range(8).map((i) => `o${i >> 2}.${'xyzw'.charAt(i & 3)}`),
    shape.subgroupSize / 2,
    valueLanes,
    'o',
  );
  const left = output.sums.length;
  const store = output.sums
    .map((name, r) => `  part[subgroup * ${columns}u + lane % ${valueLanes}u * 8u + lane / ${valueLanes}u * ${left}u + ${r}u] = ${name};\n`)
    .join('');
  const rounds = lines(
    layout.rounds,
    (i) => `  {
    let token = ${valueToken(i)};
    let p = exp2(score[token] - most);
    total += p;
    // What lies beyond the position is no number to multiply with, not even with nought.
    let words = select(vec4<u32>(0u), v${i}, token < position);
    ${unpackHalves('w', 'words')}
    o0 = fma(vec4<f32>(p), w0, o0);
    o1 = fma(vec4<f32>(p), w1, o1);
  }
`,
  );
  return `var<workgroup> score: array<f32, ${scoreCount(layout)}>;
var<workgroup> part: array<f32, ${subgroups * columns}>;
var<workgroup> tops: array<f32, ${subgroups}>;
var<workgroup> totals: array<f32, ${subgroups}>;
var<workgroup> result: array<f32, ${columns}>;
${mainHead(groups, threads, '@builtin(subgroup_invocation_id) lane: u32')}  let subgroup = local / ${shape.subgroupSize}u;
  let slice = group % ${slices}u;
  let head = group / ${slices}u;
  let kv = head / ${ratio}u;
  let sub = lane % ${keyLanes}u;
  let row = lane / ${keyLanes}u;
  let position = state[${stateWord.position}];
${keyLoads(problem, shape, layout, '0u')}  let column = slice * ${columns}u + local % ${columns}u;
  let quad = raw[(${heads + kvHeads}u + kv) * ${width / 4}u + column / 4u];
${anglesText(problem)}${turnedText(problem, 'q', `head * ${width / 4}u`, (i) => `queryGain[sub * 2u + ${i}u]`)}  q0 *= ${f32Literal(problem.scale * Math.LOG2E)};
  q1 *= ${f32Literal(problem.scale * Math.LOG2E)};
${turnedText(problem, 'k', `(${heads}u + kv) * ${width / 4}u`, (i) => `keyGain[sub * 2u + ${i}u]`)}  ${roundHalves('r', ['k0', 'k1'])}
  var ownScore = dot(q0, r0) + dot(q1, r1);
${range(Math.log2(keyLanes))
  .map((i) => `  ownScore += subgroupShuffleXor(ownScore, ${2 ** i}u);\n`)
  .join('')}${writeText(problem)}  var best = ownScore;
${scoresText(problem, shape, layout, values)}  let top = subgroupMax(best);
  if (lane == 0u) { tops[subgroup] = top; }
  workgroupBarrier();
  let most = ${range(subgroups)
    .map((i) => `tops[${i}]`)
    .reduce((a, b) => `max(${a}, ${b})`)};
  var total = 0.0;
  var o0 = vec4<f32>(0.0);
  var o1 = vec4<f32>(0.0);
${rounds}${output.text}${store}  let whole = subgroupAdd(total) * ${f32Literal(1 / valueLanes)};
  if (lane == 0u) { totals[subgroup] = whole; }
  workgroupBarrier();
  let ownWeight = exp2(ownScore - most);
  if (local < ${columns}u) {
    let pair = select(quad.xy, quad.zw, (column & 2u) != 0u);
    let own = nearestHalf(vec4<f32>(select(pair.x, pair.y, (column & 1u) != 0u))).x;
    let sum = ${range(subgroups)
      .map((i) => `part[${i * columns}u + local]`)
      .join(' + ')};
    let weight = ${range(subgroups)
      .map((i) => `totals[${i}]`)
      .join(' + ')};
    let value = (sum + ownWeight * own) / (weight + ownWeight);
    result[local] = value;
${outputs.plain ? `    y[head * ${width}u + column] = value;\n` : ''}  }
${
  outputs.packed
    ? `  workgroupBarrier();
  let slot = min(local, ${columns / 4 - 1}u);
  let four = vec4<f32>(result[slot * 4u], result[slot * 4u + 1u], result[slot * 4u + 2u], result[slot * 4u + 3u]);
  packBlock(four, four, head * ${width / 4}u + slice * ${columns / 4}u + slot, local < ${columns / 4}u);
`
    : ''
}}
`;
}

/** Rows that no state bounds, so that no load waits for the state: those beyond the position are masked. */
function keyLoads({ capacity }: AttendProblem, { unroll }: AttendShape, layout: AttendLayout, step: string): string {
  const beyond = layout.keySteps * layout.keyStep > capacity;
  return lines(unroll, (u) => {
    const index = `(${step}) * ${layout.keyStep}u + subgroup * ${layout.keyRows * unroll}u + ${u * layout.keyRows}u + row`;
    const token = beyond ? `min(${index}, ${capacity - 1}u)` : index;
    const load = `keys[(kv * ${capacity}u + ${token}) * ${layout.keyLanes}u + sub]`;
    return step === '0u' ? `  var key${u} = ${load};\n` : `    key${u} = ${load};\n`;
  });
}

/** Scores of the cached positions, each whole in one lane, in workgroup memory; `best` takes the largest. `values` is the text that loads the values. */
function scoresText(problem: AttendProblem, shape: AttendShape, layout: AttendLayout, values: string): string {
  const { unroll } = shape;
  const { keyLanes, keyStep, keySteps } = layout;
  const products = lines(unroll, (u) => `  var s${u} = 0.0;\n  { ${unpackHalves('w', `key${u}`)} s${u} = dot(w0, q0) + dot(w1, q1); }\n`);
  const { text, sums } = scatterSums(
    range(unroll).map((u) => `s${u}`),
    keyLanes / 2,
    1,
    's',
  );
  const sumUp = (step: string): string => text + storeScores(shape, layout, sums, step);
  const walk = `  for (var i = 0u; i < ${keySteps - 1}u; i++) {\n${products}${keyLoads(problem, shape, layout, 'i + 1u')}${sumUp('i')}  }\n`;
  const pad = scoreCount(layout) - keySteps * keyStep;
  const threads = shape.subgroups * shape.subgroupSize;
  const padding =
    pad > 0
      ? `  for (var i = 0u; i < ${Math.ceil(pad / threads)}u; i++) { let at = i * ${threads}u + local; if (at < ${pad}u) { score[${keySteps * keyStep}u + at] = -3e38f; } }\n`
      : '';
  return `${keySteps > 1 ? walk : ''}${products}${values}${sumUp(`${keySteps - 1}u`)}${padding}`;
}

function storeScores({ unroll }: AttendShape, { keyRows, keyStep }: AttendLayout, sums: readonly string[], step: string): string {
  return sums
    .map(
      (name, r) => `  {
    let token = ${step} * ${keyStep}u + subgroup * ${keyRows * unroll}u + (sub * ${sums.length}u + ${r}u) * ${keyRows}u + row;
    let value = select(-3e38f, ${name}, token < position);
    best = max(best, value);
    score[token] = value;
  }
`,
    )
    .join('');
}

/** The first subgroup of one workgroup of each KV head writes the token's key and value. */
function writeText({ heads, kvHeads, width, capacity }: AttendProblem): string {
  return `  if (slice == 0u && head % ${heads / kvHeads}u == 0u && local < ${width / 8}u && position < ${capacity}u) {
    let at = (kv * ${capacity}u + position) * ${width / 8}u + sub;
    let word = (${heads + kvHeads}u + kv) * ${width / 4}u + sub * 2u;
    ${roundHalves('f', ['raw[word]', 'raw[word + 1u]'])}
    keys[at] = ${packHalves('r')};
    values[at] = ${packHalves('f')};
  }
`;
}
