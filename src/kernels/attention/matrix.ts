/**
 * Attention of many query rows on subgroup matrices. A workgroup owns a tile of (token, query head) rows of one KV head and walks the keys up to its last position. Two intervals a
 * tile, with barriers between: the matrices add P V of this tile and make the scores of the next; then every thread turns its part of the scores into P.
 *
 * Result matrices give no access to their elements, so the output in them cannot follow a growing maximum. Each row keeps the maximum of its first tile as the reference of its
 * exponents. The sum of a tile's P, which is needed anyway, exceeds 2^15 as soon as one P is no longer safe in f16: only then does the workgroup take the tile's true maximum,
 * and scale its output through workgroup memory.
 */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import { stateWord } from '../../ops/state.js';
import { limitedFunction, packHalvesFunction } from '../matrix/form.js';
import { matrixSize, matrixTypes } from '../matrix/gemm.js';
import { hasMatrices } from '../matrix/linear.js';
import { declareBindings, defineKernel, foldGrid, mainHead, repeat } from '../template.js';
import { cacheFunctions, cacheReader } from './cache-reader.js';
import { grid, type MatrixAttentionLayout, type MatrixAttentionShape, matrixAttentionBytes, matrixAttentionLayout } from './matrix-layout.js';
import { finishText, rescaleText } from './matrix-output.js';
import { exponentials, firstReference, largestSum, readScores, rowMaximum, tileSum, windowText, writeWeights } from './matrix-softmax.js';
import { type AttentionProblem, attentionReads, cappedFunction, problemParams, sinksBinding } from './text.js';

/** Rows of (token, head) from which whole tiles are worth filling. */
const leastMatrixAttentionRows = 32;

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
  if (bytes > most || matrixAttentionLayout(problem, shape).threads > invocations) return undefined;
  return { shape, reason: `f16 matrices, tiles of ${shape.tileRows} rows and ${shape.tileKeys} keys` };
}

/** `half`: y is f16. */
export function attentionMatrixKernel(problem: AttentionProblem, shape: MatrixAttentionShape, half = false): GpuKernel {
  const layout = matrixAttentionLayout(problem, shape);
  const ratio = problem.heads / problem.kvHeads;
  const tiles = Math.ceil((problem.rows * ratio) / shape.tileRows);
  const count = tiles * problem.kvHeads;
  return defineKernel({
    family: 'attention_matrix',
    params: { ...problemParams(problem), ...shape, half },
    bindings: [...Array.from({ length: attentionReads(problem) }, () => 'read' as const), 'read_write'],
    workgroups: foldGrid(count),
    workgroupSize: layout.threads,
    workgroupBytes: matrixAttentionBytes(problem, shape),
    features: ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'],
    wgsl: () => `${matrixTypes}${declareBindings([
      ['query', 'vec4<f32>', 'read'],
      ...cacheReader(problem, 'keys', 8).bindings,
      ...cacheReader(problem, 'values', 8).bindings,
      ['state', 'u32', 'read'],
      ...sinksBinding(problem),
      ['y', half ? 'vec2<u32>' : 'vec4<f32>', 'read_write'],
    ])}var<workgroup> memory: array<vec4<u32>, ${layout.size}>;
var<workgroup> rowScale: array<f32, ${shape.tileRows}>;
var<workgroup> grown: atomic<u32>;
fn pack8(a: vec4<f32>, b: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(bitcast<vec2<u32>>(vec4<f16>(a)), bitcast<vec2<u32>>(vec4<f16>(b)));
}
${half ? packHalvesFunction : ''}${limitedFunction}${cappedFunction(problem, 'vec4<f32>')}${cacheFunctions(problem)}${pieceLoad(problem, 'keys')}${pieceLoad(problem, 'values')}${mainHead(count, layout.threads, '@builtin(subgroup_id) subgroup: u32')}${headText(problem, shape, layout, tiles)}${windowText(problem)}${queryText(problem, shape, layout)}${walkText(problem, shape, layout)}${finishText(problem, shape, layout, half ? 'pack4(value)' : 'value')}}
`,
  });
}

/** `fn load_NAME(at)`: 8 elements of a cache as f16, `at` counted in pieces of 8. */
function pieceLoad(problem: AttentionProblem, name: 'keys' | 'values'): string {
  const { functions, load, elements, parts } = cacheReader(problem, name, 8);
  const vectors = elements === 8 ? parts.map((part) => part('chunk')) : [0, 1].map((i) => load(`at * 2u + ${i}u`));
  const packed = `return pack8(${vectors.map((vector) => `limited(${vector})`).join(', ')});`;
  const body = problem[name] === 'f16' ? `return ${load('at')};` : elements === 8 ? `let chunk = ${load('at')}; ${packed}` : packed;
  return `${functions}fn load_${name}(at: u32) -> vec4<u32> { ${body} }\n`;
}

/** Where this workgroup, subgroup and thread stand. */
function headText(
  { rows, heads, kvHeads, capacity }: AttentionProblem,
  { tileRows, tileKeys, scores, output }: MatrixAttentionShape,
  layout: MatrixAttentionLayout,
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
  // Padding rows attend as the last live one.
  let lastSeen = min(position + (first + row) / ${ratio}u, length - 1u);
  let firstSeen = position + first / ${ratio}u;
${repeat(moves, (i) => `  let moveRow${i} = (local + ${i * threads}u) / ${pieces}u;\n  let movePiece${i} = (local + ${i * threads}u) % ${pieces}u;`)}
`;
}

/** The query rows become left matrices, through workgroup memory in slices of the head: each subgroup keeps its rows of all columns. */
function queryText(
  { width, rows, heads, kvHeads }: AttentionProblem,
  { tileRows, scores }: MatrixAttentionShape,
  { threads, size, si, headSteps }: MatrixAttentionLayout,
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

function walkText(problem: AttentionProblem, shape: MatrixAttentionShape, layout: MatrixAttentionLayout): string {
  const { oi, oj, moves, valuesAt, keyStride } = layout;
  const start = problem.window === undefined ? '0u' : `(firstFrom / ${shape.tileKeys}u)`;
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
  if (local == 0u) { atomicStore(&grown, 0u); }
${fetch('keys', start)}
${put('keys', 0)}
${fetch('values', start)}
${fetch('keys', `min(${problem.window === undefined ? '1u' : `${start} + 1u`}, tiles - 1u)`)}
  workgroupBarrier();
${scoresText(shape, layout)}
  for (var tile = ${start}; tile < tiles; tile++) {
    workgroupBarrier();
${readScores(problem, shape, layout)}
${firstReference(problem, shape, layout)}
${exponentials(problem, layout)}
    var here = 0.0;
${tileSum(layout)}
${writeWeights(layout)}
${put('values', valuesAt)}
${put('keys', 0)}
    if (here > ${largestSum}.0) { atomicStore(&grown, 1u); }
    if (workgroupUniformLoad(&grown) != 0u) {
${readScores(problem, shape, layout)}
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
function guarded({ pieces, threads, moves }: MatrixAttentionLayout, { tileKeys }: MatrixAttentionShape, i: number, statement: string): string {
  const whole = tileKeys * pieces >= (i + 1) * threads;
  return whole || i < moves - 1 ? statement : `if (moveRow${i} < ${tileKeys}u) { ${statement} }`;
}

/** The scores of the tile whose keys are in workgroup memory, into it. */
function scoresText(_shape: MatrixAttentionShape, { si, sj, headSteps, keyStride, scoreStride }: MatrixAttentionLayout): string {
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
function productText({ oi, oj, keySteps, weightStride, keyStride }: MatrixAttentionLayout): string {
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
