/**
 * Attention of many query rows on subgroup matrices. A workgroup owns a tile of (token, query head) rows of one KV head and walks the keys up to its last position. Two intervals a
 * tile, with barriers between: the matrices add P V of this tile and make the scores of the next; then every thread turns its part of the scores into P.
 *
 * Result matrices give no access to their elements, so the output in them cannot follow a growing maximum. Each row keeps the maximum of its first tile as the reference of its
 * exponents. The sum of a tile's P, which is needed anyway, exceeds 2^15 as soon as one P is no longer safe in f16: only then does the workgroup take the tile's true maximum,
 * and scale its output through workgroup memory.
 */

import type { GpuCapabilities } from '../core/capabilities.js';
import type { GpuKernel } from '../core/kernel.js';
import { stateWord } from '../ops/state.js';
import { type AttentionProblem, maskedScore, problemParams } from './attention-text.js';
import type { CacheType } from './cache.js';
import { matrixSize, matrixTypes } from './matrix/gemm.js';
import { hasMatrices } from './matrix/linear.js';
import { declareBindings, defineKernel, f32Literal, foldGrid, mainHead, repeat } from './template.js';

export interface MatrixAttentionShape {
  readonly tileRows: number;
  readonly tileKeys: number;
  /** How the subgroups share the scores (rows, keys) and the output (rows, columns). */
  readonly scores: readonly [number, number];
  readonly output: readonly [number, number];
  readonly subgroupSize: number;
}

/** A row's P may reach 2^15 in f16; its sum over a tile tells. */
const largestSum = 2 ** 15;
/**
 * Exponents count from the maximum plus this, so that P starts at 2^-6 and the maximum may grow by about 2^21 before anything is scaled. f16 then resolves a weight to 2^-18 of the
 * largest, which is as good as its 11 bits.
 */
const headroom = 6;

interface Layout {
  readonly subgroups: number;
  readonly threads: number;
  /** Pieces of 16 bytes in a head, and strides of rows in workgroup memory: of keys and values, scores, P. */
  readonly pieces: number;
  readonly keyStride: number;
  readonly scoreStride: number;
  readonly weightStride: number;
  /** Where values, scores and P begin in workgroup memory, and its size, in pieces. */
  readonly valuesAt: number;
  readonly scoresAt: number;
  readonly weightsAt: number;
  readonly size: number;
  /** Matrices of a subgroup: scores down and across, output down and across. */
  readonly si: number;
  readonly sj: number;
  readonly oi: number;
  readonly oj: number;
  /** Matrices along the head and along the keys of a tile. */
  readonly headSteps: number;
  readonly keySteps: number;
  /** Threads of a row of scores, and chunks of 8 scores that each of them has. */
  readonly lanes: number;
  readonly chunks: number;
  /** Pieces of keys (and of values) that a thread moves for a tile. */
  readonly moves: number;
}

function layoutOf({ width }: AttentionProblem, { tileRows, tileKeys, scores, output, subgroupSize }: MatrixAttentionShape): Layout {
  const subgroups = scores[0] * scores[1];
  const threads = subgroups * subgroupSize;
  const pieces = width / 8;
  const [keyStride, scoreStride, weightStride] = [pieces + 1, tileKeys / 4 + 2, tileKeys / 8 + 1];
  const valuesAt = tileKeys * keyStride;
  const scoresAt = 2 * valuesAt;
  const weightsAt = scoresAt + tileRows * scoreStride;
  const lanes = threads / tileRows;
  return {
    subgroups,
    threads,
    pieces,
    keyStride,
    scoreStride,
    weightStride,
    valuesAt,
    scoresAt,
    weightsAt,
    size: weightsAt + tileRows * weightStride,
    si: tileRows / scores[0] / matrixSize,
    sj: tileKeys / scores[1] / matrixSize,
    oi: tileRows / output[0] / matrixSize,
    oj: width / output[1] / matrixSize,
    headSteps: width / matrixSize,
    keySteps: tileKeys / matrixSize,
    lanes,
    chunks: tileKeys / lanes / 8,
    moves: Math.ceil((tileKeys * pieces) / threads),
  };
}

/** Bytes of workgroup memory that a shape takes. */
export function matrixAttentionBytes(problem: AttentionProblem, shape: MatrixAttentionShape): number {
  return layoutOf(problem, shape).size * 16 + shape.tileRows * 4 + 4;
}

/** Rows of (token, head) from which whole tiles are worth filling. */
export const leastMatrixAttentionRows = 32;

/** The shape for a problem, or undefined where matrices are missing or do not fit: heads of 16 to 256 elements, whole matrices wide. */
export function selectMatrixAttention(
  problem: AttentionProblem,
  capabilities: GpuCapabilities,
  leastRows = leastMatrixAttentionRows,
): { readonly shape: MatrixAttentionShape; readonly reason: string } | undefined {
  const { width, heads, kvHeads } = problem;
  const rows = (problem.rows * heads) / kvHeads;
  if (!hasMatrices(capabilities) || capabilities.subgroupMinSize !== 32) return undefined;
  if (width % matrixSize !== 0 || width > 256 || rows < leastRows) return undefined;
  const shape: MatrixAttentionShape =
    width <= 128
      ? { tileRows: 128, tileKeys: 32, scores: [4, 2], output: width % 32 === 0 ? [4, 2] : [8, 1], subgroupSize: 32 }
      : { tileRows: 64, tileKeys: 16, scores: [4, 1], output: [4, 1], subgroupSize: 32 };
  const bytes = matrixAttentionBytes(problem, shape);
  const { maxComputeWorkgroupStorageSize: most, maxComputeInvocationsPerWorkgroup: invocations } = capabilities.limits;
  if (bytes > most || layoutOf(problem, shape).threads > invocations) return undefined;
  return { shape, reason: `f16 matrices, tiles of ${shape.tileRows} rows and ${shape.tileKeys} keys` };
}

export function attentionMatrixKernel(problem: AttentionProblem, shape: MatrixAttentionShape): GpuKernel {
  const layout = layoutOf(problem, shape);
  const ratio = problem.heads / problem.kvHeads;
  const tiles = Math.ceil((problem.rows * ratio) / shape.tileRows);
  const count = tiles * problem.kvHeads;
  return defineKernel({
    family: 'attention_matrix',
    params: { ...problemParams(problem), ...shape },
    bindings: ['read', 'read', 'read', 'read', 'read_write'],
    workgroups: foldGrid(count),
    workgroupSize: layout.threads,
    workgroupBytes: matrixAttentionBytes(problem, shape),
    features: ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'],
    wgsl: () => `${matrixTypes}${declareBindings([
      ['query', 'vec4<f32>', 'read'],
      ['keys', problem.keys === 'f16' ? 'vec4<u32>' : 'vec4<f32>', 'read'],
      ['values', problem.values === 'f16' ? 'vec4<u32>' : 'vec4<f32>', 'read'],
      ['state', 'u32', 'read'],
      ['y', 'vec4<f32>', 'read_write'],
    ])}var<workgroup> memory: array<vec4<u32>, ${layout.size}>;
var<workgroup> rowScale: array<f32, ${shape.tileRows}>;
var<workgroup> grown: atomic<u32>;
fn pack8(a: vec4<f32>, b: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(bitcast<vec2<u32>>(vec4<f16>(a)), bitcast<vec2<u32>>(vec4<f16>(b)));
}
fn limited(v: vec4<f32>) -> vec4<f32> { return clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)); }
${pieceLoad('keys', problem.keys)}${pieceLoad('values', problem.values)}${mainHead(count, layout.threads, '@builtin(subgroup_id) subgroup: u32')}${headText(problem, shape, layout, tiles)}${queryText(problem, shape, layout)}${walkText(problem, shape, layout)}${finishText(problem, shape, layout)}}
`,
  });
}

/** `fn loadNAME(at)`: 8 elements of a cache as f16, `at` counted in pieces of 8. */
function pieceLoad(name: string, type: CacheType): string {
  const body = type === 'f16' ? `${name}[at]` : `pack8(limited(${name}[at * 2u]), limited(${name}[at * 2u + 1u]))`;
  return `fn load_${name}(at: u32) -> vec4<u32> { return ${body}; }\n`;
}

const grid = (n: number, m: number, line: (i: number, j: number) => string, separator = '\n'): string =>
  repeat(n, (i) => repeat(m, (j) => line(i, j), separator), separator);

/** Where this workgroup, subgroup and thread stand. */
function headText(
  { rows, heads, kvHeads, capacity }: AttentionProblem,
  { tileRows, tileKeys, scores, output }: MatrixAttentionShape,
  layout: Layout,
  tiles: number,
): string {
  const ratio = heads / kvHeads;
  const { keyStride, scoreStride, weightStride, scoresAt, weightsAt, valuesAt, lanes, pieces, moves, threads } = layout;
  const swap = lanes === 4 ? 'row & 1u' : lanes === 2 ? 'part' : '(row >> 2u) & 1u';
  return `  // The tiles with the most keys come first, so that no long one is left for the end.
  let kvHead = group % ${kvHeads}u;
  let first = (${tiles - 1}u - group / ${kvHeads}u) * ${tileRows}u;
  let position = state[${stateWord.position}];
  let live = min(state[${stateWord.rows}], ${rows}u);
  if (first / ${ratio}u >= live) { return; }
  let length = min(position + min((first + ${tileRows - 1}u) / ${ratio}u, live - 1u) + 1u, ${capacity}u);
  let tiles = (length + ${tileKeys - 1}u) / ${tileKeys}u;
  let cache = kvHead * ${capacity}u;
  let row = local / ${lanes}u;
  let part = local % ${lanes}u;
  // Half of the threads read the two quads of a chunk in the other order: their rows would meet in the same banks.
  let swap = ${swap};
  let scoreKeys = (subgroup % ${scores[1]}u) * ${(tileKeys / scores[1]) * keyStride}u;
  let scoreTo = ${scoresAt}u + (subgroup / ${scores[1]}u) * ${(tileRows / scores[0]) * scoreStride}u + (subgroup % ${scores[1]}u) * ${tileKeys / scores[1] / 4}u;
  let outRow = subgroup / ${output[1]}u;
  let outColumn = subgroup % ${output[1]}u;
  let weightFrom = ${weightsAt}u + outRow * ${(tileRows / output[0]) * weightStride}u;
  let valueFrom = ${valuesAt}u + outColumn * ${pieces / output[1]}u;
  let scoreFrom = ${scoresAt}u + row * ${scoreStride}u + part * 2u;
  let weightTo = ${weightsAt}u + row * ${weightStride}u + part;
  let lastSeen = position + (first + row) / ${ratio}u;
  let firstSeen = position + first / ${ratio}u;
${repeat(moves, (i) => `  let moveRow${i} = (local + ${i * threads}u) / ${pieces}u;\n  let movePiece${i} = (local + ${i * threads}u) % ${pieces}u;`)}
`;
}

/** The query rows become left matrices, through workgroup memory in slices of the head: each subgroup keeps its rows of all columns. */
function queryText(
  { width, rows, heads, kvHeads }: AttentionProblem,
  { tileRows, scores }: MatrixAttentionShape,
  { threads, size, si, headSteps }: Layout,
): string {
  const ratio = heads / kvHeads;
  const room = Math.floor(size / tileRows);
  // Matrices of a slice: two pieces each, and one piece of padding a row.
  const wide = Math.min(headSteps, Math.floor((room - 1) / 2));
  const text: string[] = [];
  for (let from = 0; from < headSteps; from += wide) {
    const count = Math.min(wide, headSteps - from);
    const stride = count * 2 + 1;
    const items = tileRows * count * 2;
    text.push(`  for (var i = 0u; i < ${Math.ceil(items / threads)}u; i++) {
    let item = i * ${threads}u + local;
    let place = min(first + item / ${count * 2}u, ${rows * ratio - 1}u);
    let source = ((place / ${ratio}u) * ${heads}u + kvHead * ${ratio}u + place % ${ratio}u) * ${width / 4}u + ${from * 4}u + item % ${count * 2}u * 2u;
    ${items % threads === 0 ? '' : `if (item < ${items}u) `}{ memory[item / ${count * 2}u * ${stride}u + item % ${count * 2}u] = pack8(limited(query[source]), limited(query[source + 1u])); }
  }
  workgroupBarrier();
${grid(si, count, (i, k) => `  let query${i}_${from + k} = subgroupMatrixLoad<Left, row_major>(&memory, ((subgroup / ${scores[1]}u) * ${tileRows / scores[0]}u + ${i * matrixSize}u) * ${stride}u + ${k * 2}u, ${stride}u);`)}
  workgroupBarrier();
`);
  }
  return text.join('');
}

function walkText(problem: AttentionProblem, shape: MatrixAttentionShape, layout: Layout): string {
  const { oi, oj, moves, valuesAt, keyStride } = layout;
  const fetch = (name: 'keys' | 'values', tile: string): string =>
    repeat(
      moves,
      // Beyond the last position a cache may hold anything, NaN too, which a weight of 0 would not silence: the last row is read again.
      (i) =>
        `    ${guarded(layout, shape, i, `${name}Next${i} = load_${name}((cache + min((${tile}) * ${shape.tileKeys}u + moveRow${i}, length - 1u)) * ${problem.width / 8}u + movePiece${i});`)}`,
    );
  const put = (name: 'keys' | 'values', at: number): string =>
    repeat(moves, (i) => `    ${guarded(layout, shape, i, `memory[${at}u + moveRow${i} * ${keyStride}u + movePiece${i}] = ${name}Next${i};`)}`);
  return `${grid(oi, oj, (i, j) => `  var out${i}_${j} = Sum(0.0f);`)}
  ${repeat(moves, (i) => `var keysNext${i}: vec4<u32>; var valuesNext${i}: vec4<u32>;`, ' ')}
  var reference = -1e37;
  var sum = 0.0;
${fetch('keys', '0u')}
${put('keys', 0)}
${fetch('values', '0u')}
${fetch('keys', 'min(1u, tiles - 1u)')}
  workgroupBarrier();
${scoresText(shape, layout)}
  for (var tile = 0u; tile < tiles; tile++) {
    workgroupBarrier();
${readScores(shape, layout)}
    if (tile == 0u) {
${rowMaximum(problem, layout)}
      reference = top;
    }
${exponentials(problem, layout)}
    var here = 0.0;
${tileSum(layout)}
${writeWeights(layout)}
${put('values', valuesAt)}
${put('keys', 0)}
    if (here > ${largestSum}.0) { atomicStore(&grown, 1u); }
    if (workgroupUniformLoad(&grown) != 0u) {
${readScores(shape, layout)}
${rowMaximum(problem, layout)}
      var fade = 1.0;
      if (top > reference) { fade = exp2(reference - top); reference = top; sum *= fade; }
${exponentials(problem, layout)}
${tileSum(layout)}
${writeWeights(layout)}
      if (part == 0u) { rowScale[row] = fade; }
      if (local == 0u) { atomicStore(&grown, 0u); }
      workgroupBarrier();
${rescaleText(shape, layout)}
    }
    sum += here;
${fetch('values', 'min(tile + 1u, tiles - 1u)')}
${fetch('keys', 'min(tile + 2u, tiles - 1u)')}
${productText(layout)}
    if (tile + 1u < tiles) {
${scoresText(shape, layout)}
    }
  }
`;
}

/** A statement about move `i`, which the last threads have none of where pieces do not divide evenly. */
function guarded({ pieces, threads, moves }: Layout, { tileKeys }: MatrixAttentionShape, i: number, statement: string): string {
  const whole = tileKeys * pieces >= (i + 1) * threads;
  return whole || i < moves - 1 ? statement : `if (moveRow${i} < ${tileKeys}u) { ${statement} }`;
}

/** The scores of the tile whose keys are in workgroup memory, into it. */
function scoresText(_shape: MatrixAttentionShape, { si, sj, headSteps, keyStride, scoreStride }: Layout): string {
  return `    {
${grid(si, sj, (i, j) => `      var score${i}_${j} = Sum(0.0f);`)}
${repeat(
  headSteps,
  (k) => `      {
${repeat(sj, (j) => `        let key${j} = subgroupMatrixLoad<Right, col_major>(&memory, scoreKeys + ${j * matrixSize * keyStride + k * 2}u, ${keyStride}u);`)}
${grid(si, sj, (i, j) => `        score${i}_${j} = subgroupMatrixMultiplyAccumulate(query${i}_${k}, key${j}, score${i}_${j});`)}
      }`,
)}
${grid(si, sj, (i, j) => `      subgroupMatrixStore<row_major>(&memory, scoreTo + ${i * matrixSize * scoreStride + j * 4}u, score${i}_${j}, ${scoreStride}u);`)}
    }`;
}

/** out += P V of the tile whose values are in workgroup memory. */
function productText({ oi, oj, keySteps, weightStride, keyStride }: Layout): string {
  return repeat(
    keySteps,
    (k) => `    {
${repeat(oi, (i) => `      let weight${i} = subgroupMatrixLoad<Left, row_major>(&memory, weightFrom + ${i * matrixSize * weightStride + k * 2}u, ${weightStride}u);`)}
${repeat(
  oj,
  (j) => `      {
        let value = subgroupMatrixLoad<Right, row_major>(&memory, valueFrom + ${k * matrixSize * keyStride + j * 2}u, ${keyStride}u);
${repeat(oi, (i) => `        out${i}_${j} = subgroupMatrixMultiplyAccumulate(weight${i}, value, out${i}_${j});`)}
      }`,
)}
    }`,
  );
}

/** Declares the thread's scores: near_c and far_c, the two quads of each of its chunks of 8 keys (in the other order where `swap` is 1); what lies beyond the row's position is masked. */
function readScores({ tileKeys }: MatrixAttentionShape, { chunks, lanes }: Layout): string {
  return `${repeat(chunks, (c) => `    var near${c} = bitcast<vec4<f32>>(memory[scoreFrom + ${c * lanes * 2}u + swap]);\n    var far${c} = bitcast<vec4<f32>>(memory[scoreFrom + ${c * lanes * 2}u + 1u - swap]);`)}
    if ((tile + 1u) * ${tileKeys}u > firstSeen + 1u) {
      let last = vec4<i32>(i32(lastSeen) - i32(tile * ${tileKeys}u + part * 8u + swap * 4u));
      let count = vec4<i32>(0, 1, 2, 3);
      let other = 4 - 8 * i32(swap);
${repeat(
  chunks,
  (c) => `      near${c} = select(vec4<f32>(${maskedScore}), near${c}, count + ${c * lanes * 8} <= last);
      far${c} = select(vec4<f32>(${maskedScore}), far${c}, count + ${c * lanes * 8} + other <= last);`,
)}
    }`;
}

const quads = (chunks: number): string[] => Array.from({ length: chunks }, (_, c) => [`near${c}`, `far${c}`]).flat();
const laneSteps = (lanes: number): number[] => Array.from({ length: Math.log2(lanes) }, (_, i) => 2 ** i);
const scaleOf = (problem: AttentionProblem): string => f32Literal(problem.scale * Math.LOG2E);

/** Declares `top`, the row's largest score of this tile in the exponents' units, and the headroom above it. */
function rowMaximum(problem: AttentionProblem, { chunks, lanes }: Layout): string {
  return `      let widest = ${quads(chunks).reduce((a, b) => `max(${a}, ${b})`)};
      var top = max(max(widest.x, widest.y), max(widest.z, widest.w));
${laneSteps(lanes)
  .map((step) => `      top = max(top, subgroupShuffleXor(top, ${step}u));`)
  .join('\n')}
      top = top * ${scaleOf(problem)} + ${headroom}.0;`;
}

function exponentials(problem: AttentionProblem, { chunks }: Layout): string {
  return quads(chunks)
    .map((name) => `    ${name} = exp2(${name} * ${scaleOf(problem)} - reference);`)
    .join('\n');
}

/** `here`: the sum of the thread's P of this tile. */
function tileSum({ chunks }: Layout): string {
  return `    {
      let total = ${quads(chunks).join(' + ')};
      here = (total.x + total.y) + (total.z + total.w);
    }`;
}

function writeWeights({ chunks, lanes }: Layout): string {
  return repeat(chunks, (c) => `    memory[weightTo + ${c * lanes}u] = select(pack8(near${c}, far${c}), pack8(far${c}, near${c}), swap == 1u);`);
}

interface Round {
  readonly first: number;
  /** Matrices that each subgroup passes in a round. */
  readonly wide: number;
  /** Quads of a row, and its stride, over all subgroups of a row. */
  readonly quads: number;
  readonly stride: number;
}

/** The output passes through `room` pieces of workgroup memory in rounds of some matrix columns of every subgroup. */
function roundsOf({ tileRows, output }: MatrixAttentionShape, { oj }: Layout, room: number): readonly Round[] {
  const fits = (wide: number): boolean => oj % wide === 0 && tileRows * (output[1] * wide * 4 + 2) <= room;
  const wide = [16, 8, 6, 5, 4, 3, 2].find(fits) ?? 1;
  return Array.from({ length: oj / wide }, (_, i) => ({ first: i * wide, wide, quads: output[1] * wide * 4, stride: output[1] * wide * 4 + 2 }));
}

function eachMatrix(
  shape: MatrixAttentionShape,
  { oi }: Layout,
  at: number,
  { first, wide, stride }: Round,
  line: (name: string, place: string, stride: number) => string,
): string {
  const ownRows = shape.tileRows / shape.output[0];
  return grid(oi, wide, (i, p) =>
    line(`out${i}_${first + p}`, `${at}u + (outRow * ${ownRows}u + ${i * matrixSize}u) * ${stride}u + outColumn * ${wide * 4}u + ${p * 4}u`, stride),
  );
}

const storeLine = (name: string, place: string, stride: number): string => `      subgroupMatrixStore<row_major>(&memory, ${place}, ${name}, ${stride}u);`;

/** out *= rowScale, in the memory of the scores, which are no longer needed. */
function rescaleText(shape: MatrixAttentionShape, layout: Layout): string {
  const room = shape.tileRows * layout.scoreStride;
  return roundsOf(shape, layout, room)
    .map((round) => {
      const load = (name: string, place: string, stride: number): string =>
        `      ${name} = subgroupMatrixLoad<Sum, row_major>(&memory, ${place}, ${stride}u);`;
      return `${eachMatrix(shape, layout, layout.scoresAt, round, storeLine)}
      workgroupBarrier();
      for (var i = 0u; i < ${(shape.tileRows * round.quads) / layout.threads}u; i++) {
        let item = i * ${layout.threads}u + local;
        let at = ${layout.scoresAt}u + item / ${round.quads}u * ${round.stride}u + item % ${round.quads}u;
        memory[at] = bitcast<vec4<u32>>(bitcast<vec4<f32>>(memory[at]) * rowScale[item / ${round.quads}u]);
      }
      workgroupBarrier();
${eachMatrix(shape, layout, layout.scoresAt, round, load)}
      workgroupBarrier();`;
    })
    .join('\n');
}

/** y = out / sum. */
function finishText({ width, rows, heads, kvHeads }: AttentionProblem, shape: MatrixAttentionShape, layout: Layout): string {
  const ratio = heads / kvHeads;
  const { lanes, threads, size } = layout;
  const own = width / shape.output[1] / 4;
  const store = (round: Round): string => `${eachMatrix(shape, layout, 0, round, storeLine)}
  workgroupBarrier();
  for (var i = 0u; i < ${(shape.tileRows * round.quads) / threads}u; i++) {
    let item = i * ${threads}u + local;
    let itemRow = item / ${round.quads}u;
    let quad = item % ${round.quads}u;
    let place = first + itemRow;
    if (place / ${ratio}u < ${rows}u) {
      let value = bitcast<vec4<f32>>(memory[itemRow * ${round.stride}u + quad]) * rowScale[itemRow];
      let to = ((place / ${ratio}u) * ${heads}u + kvHead * ${ratio}u + place % ${ratio}u) * ${width / 4}u;
      y[to + quad / ${round.wide * 4}u * ${own}u + ${round.first * 4}u + quad % ${round.wide * 4}u] = value;
    }
  }
  workgroupBarrier();`;
  return `${laneSteps(lanes)
    .map((step) => `  sum += subgroupShuffleXor(sum, ${step}u);`)
    .join('\n')}
  workgroupBarrier();
  if (part == 0u) { rowScale[row] = 1.0 / sum; }
${roundsOf(shape, layout, size).map(store).join('\n')}
`;
}
