/**
 * Attention of many query rows: a tile of query rows walks the keys from the first that its first row sees up to its last position, tile by tile, with the softmax kept as a running maximum and sum. The rows
 * of a tile are (token, query head) pairs of one KV head, so that its heads share every load. Each thread makes 4 x 4 scores and 4 rows of output columns; query, keys
 * and values pass through workgroup memory in slices.
 */

import type { GpuKernel } from '../../core/kernel.js';
import { roundUp } from '../../core/tensor.js';
import { stateWord } from '../../ops/state.js';
import { declareBindings, defineKernel, foldGrid, mainHead, repeat, vectorType, vectorWidth } from '../template.js';
import { type CacheReader, cacheFunctions, cacheReader } from './cache-reader.js';
import {
  type AttentionProblem,
  attentionReads,
  cappedFunction,
  cappedText,
  firstSeenText,
  maskedScore,
  problemParams,
  scoreScale,
  sinksBinding,
  sinkText,
} from './text.js';

export interface PrefillShape {
  /** Query rows and keys of a tile: multiples of 4. */
  readonly tileRows: number;
  readonly tileKeys: number;
  /** Columns of query and keys in workgroup memory at a time: a multiple of 4. */
  readonly slice: number;
  /** Row maxima and sums by shuffles: the threads of a row must lie in one subgroup. */
  readonly shuffles: boolean;
}

const four = [0, 1, 2, 3] as const;

interface Layout {
  readonly threads: number;
  readonly across: number;
  readonly down: number;
  /** vec4 columns of a head, padded. */
  readonly columns: number;
  /** vec4 columns of a slice, and the stride of its rows in workgroup memory. */
  readonly slice: number;
  readonly stride: number;
  readonly slices: number;
  /** vec4 in the array of slices. */
  readonly room: number;
  /** Keys of a slice of values. */
  readonly valueKeys: number;
  /** vec4 columns of output per thread. */
  readonly own: number;
}

function layoutOf({ width }: AttentionProblem, { tileRows, tileKeys, slice }: PrefillShape): Layout {
  const [across, down] = [tileKeys / 4, tileRows / 4];
  const columns = roundUp(width, 4) / 4;
  const wide = Math.min(slice / 4, columns);
  const stride = wide + 1;
  const room = Math.max((tileRows + tileKeys) * stride, columns);
  const valueKeys = Math.min(tileKeys, 2 ** Math.floor(Math.log2(room / columns)));
  return {
    threads: across * down,
    across,
    down,
    columns,
    slice: wide,
    stride,
    slices: Math.ceil(columns / wide),
    room,
    valueKeys,
    own: Math.ceil(columns / across),
  };
}

/** Bytes of workgroup memory that a shape takes. */
export function prefillBytes(problem: AttentionProblem, shape: PrefillShape): number {
  const { room, down, across } = layoutOf(problem, shape);
  const reductions = shape.shuffles ? 0 : shape.tileRows * (across + 1) + shape.tileRows;
  return (room * 4 + shape.tileKeys * (down + 1) * 4 + reductions) * 4;
}

export function attentionPrefillKernel(problem: AttentionProblem, shape: PrefillShape): GpuKernel {
  const layout = layoutOf(problem, shape);
  const [keys, values] = [cacheReader(problem, 'keys', 4), cacheReader(problem, 'values', 4)];
  const { tileRows, tileKeys } = shape;
  const ratio = problem.heads / problem.kvHeads;
  const tiles = Math.ceil((problem.rows * ratio) / tileRows);
  const count = tiles * problem.kvHeads;
  return defineKernel({
    family: 'attention_prefill',
    params: { ...problemParams(problem), ...shape },
    bindings: [...Array.from({ length: attentionReads(problem) }, () => 'read' as const), 'read_write'],
    workgroups: foldGrid(count),
    workgroupSize: layout.threads,
    workgroupBytes: prefillBytes(problem, shape),
    features: shape.shuffles ? ['subgroups'] : [],
    wgsl: () => {
      const sliced = layout.slices * layout.slice;
      const reductions = shape.shuffles
        ? ''
        : `var<workgroup> lanes: array<f32, ${tileRows * (layout.across + 1)}>;\nvar<workgroup> rowResult: array<f32, ${tileRows}>;\n`;
      return `${declareBindings([
        ['query', vectorType(vectorWidth(problem.width)), 'read'],
        ...keys.bindings,
        ...values.bindings,
        ['state', 'u32', 'read'],
        ...sinksBinding(problem),
        ['y', vectorType(vectorWidth(problem.width)), 'read_write'],
      ])}var<workgroup> staged: array<vec4<f32>, ${layout.room}>;
var<workgroup> weights: array<vec4<f32>, ${tileKeys * (layout.down + 1)}>;
${reductions}${cappedFunction(problem, 'f32')}${cacheFunctions(problem)}${keys.functions}${values.functions}${rowLoad('query', queryReader(problem), problem.width, sliced)}${rowLoad('keys', keys, problem.width, sliced)}${rowLoad('values', values, problem.width, layout.columns)}${mainHead(count, layout.threads)}  // The tiles with the most keys come first, so that no long one is left for the end.
  let kvHead = group % ${problem.kvHeads}u;
  let first = (${tiles - 1}u - group / ${problem.kvHeads}u) * ${tileRows}u;
  let position = state[${stateWord.position}];
  let live = min(state[${stateWord.rows}], ${problem.rows}u);
  if (first / ${ratio}u >= live) { return; }
  let lastToken = min((first + ${tileRows - 1}u) / ${ratio}u, live - 1u);
  let length = min(position + lastToken + 1u, ${problem.capacity}u);
  let cache = kvHead * ${problem.capacity}u;
  let across = local % ${layout.across}u;
  let down = local / ${layout.across}u;
${rowsText(problem)}${four
  .map((i) => repeat(layout.own, (c) => `  var o${i}_${c} = vec4<f32>(0.0);\n`, ''))
  .join('')}  // Bounds known at run time only: compilers unroll short loops over constants, and some take minutes for what comes of that around barriers.
  let once = min(length, 1u);
  let tiles = (length + ${tileKeys - 1}u) / ${tileKeys}u;
  for (var tile = ${firstTileText(problem, tileKeys)}; tile < tiles; tile++) {
    let firstKey = tile * ${tileKeys}u;
${scoresText(problem, shape, layout)}${softmaxText(problem, shape, layout)}${valuesText(shape, layout)}  }
${resultText(problem, shape, layout)}}
`;
    },
  });
}

/** The thread's rows: the last position that each sees, and its running maximum and sum. A sink is what they begin with, counted by one thread of the row. */
function rowsText(problem: AttentionProblem): string {
  const ratio = problem.heads / problem.kvHeads;
  const [top, sum] = problem.sinks === true ? [sinkText, 'select(0.0, 1.0, across == 0u)'] : [() => '-1e37', '0.0'];
  // Padding rows attend as the last live one.
  const seen = (i: number): string => `min(position + row${i} / ${ratio}u, length - 1u)`;
  return four
    .map(
      (i) => `  let row${i} = first + down * 4u + ${i}u;
  let seen${i} = ${seen(i)};
  var top${i} = ${top(`kvHead * ${ratio}u + row${i} % ${ratio}u`)};
  var sum${i} = ${sum};
`,
    )
    .join('');
}

/** The tile of the first key that the first row sees. */
function firstTileText(problem: AttentionProblem, tileKeys: number): string {
  if (problem.window === undefined) return '0u';
  const ratio = problem.heads / problem.kvHeads;
  return `(${firstSeenText(problem, `min(position + first / ${ratio}u + 1u, length)`)}) / ${tileKeys}u`;
}

/** The query is read as an f32 cache would be. */
function queryReader({ width }: AttentionProblem): Pick<CacheReader, 'elements' | 'parts' | 'load'> {
  return { elements: vectorWidth(width), parts: [(chunk) => chunk], load: (at) => `query[${at}]` };
}

/** `fn load_NAME(row, column)`: the vec4 `column` (below `loaded`) of a row of `width` elements, zeros past its end. */
function rowLoad(name: string, chunks: Pick<CacheReader, 'elements' | 'parts' | 'load'>, width: number, loaded: number): string {
  const perRow = width / chunks.elements;
  const unpack = (chunk: string): string => chunks.parts[0]?.(chunk) ?? chunk;
  if (chunks.elements === 4) {
    const guard = loaded <= perRow ? '' : `  if (column >= ${perRow}u) { return vec4<f32>(0.0); }\n`;
    return `fn load_${name}(row: u32, column: u32) -> vec4<f32> {\n${guard}  return ${unpack(chunks.load(`row * ${perRow}u + column`))};\n}\n`;
  }
  const pieces = 4 / chunks.elements;
  const type1 = vectorType(chunks.elements === 2 ? 2 : 1);
  return `fn load_${name}(row: u32, column: u32) -> vec4<f32> {
${repeat(pieces, (i) => `  var p${i} = ${type1}(0.0);\n  if (column * ${pieces}u + ${i}u < ${perRow}u) { p${i} = ${unpack(chunks.load(`row * ${perRow}u + column * ${pieces}u + ${i}u`))}; }\n`, '')}  return vec4<f32>(${repeat(pieces, (i) => `p${i}`, ', ')});
}
`;
}

/** Copies `count` vec4 into workgroup memory with all threads; `body` uses `item`. */
function stage(count: number, threads: number, body: string): string {
  const rounds = Math.ceil(count / threads);
  const guard = count % threads === 0 ? '' : `if (item < ${count}u) `;
  return `      for (var i = 0u; i < ${rounds}u * once; i++) {
        let item = i * ${threads}u + local;
        ${guard}{ ${body} }
      }
`;
}

/** `body` for every `k` below `count`: written out up to four times, and a loop around. */
function steps(count: number, body: string): string {
  const unroll = [4, 3, 2].find((n) => count % n === 0) ?? 1;
  return `      for (var step = 0u; step < ${count / unroll}u * once; step++) {
${repeat(unroll, (u) => `        {\n          let k = step * ${unroll}u + ${u}u;\n${body}        }\n`, '')}      }
`;
}

/** s_i_j = q[row i] . k[key across + j * across-size]. */
function scoresText(problem: AttentionProblem, { tileRows, tileKeys }: PrefillShape, layout: Layout): string {
  const { slice, stride, slices, threads, across } = layout;
  const ratio = problem.heads / problem.kvHeads;
  const last = problem.rows * ratio - 1;
  const queryRow = `let place = min(first + item / ${slice}u, ${last}u); let source = (place / ${ratio}u) * ${problem.heads}u + kvHead * ${ratio}u + place % ${ratio}u;`;
  const to = (offset: number): string => `staged[${offset}u + (item / ${slice}u) * ${stride}u + item % ${slice}u]`;
  return `${four.map((i) => four.map((j) => `    var s${i}_${j} = 0.0;\n`).join('')).join('')}    for (var slice = 0u; slice < ${slices}u * once; slice++) {
      workgroupBarrier();
${stage(tileRows * slice, threads, `${queryRow} ${to(0)} = load_query(source, slice * ${slice}u + item % ${slice}u);`)}${stage(
  tileKeys * slice,
  threads,
  `let key = min(firstKey + item / ${slice}u, length - 1u); ${to(tileRows * stride)} = load_keys(cache + key, slice * ${slice}u + item % ${slice}u);`,
)}      workgroupBarrier();
${steps(
  slice,
  `${four.map((i) => `          let q${i} = staged[(down * 4u + ${i}u) * ${stride}u + k];\n`).join('')}${four
    .map(
      (j) =>
        `          let k${j} = staged[${tileRows * stride}u + (across + ${j * across}u) * ${stride}u + k];\n${four.map((i) => `          s${i}_${j} += dot(q${i}, k${j});\n`).join('')}`,
    )
    .join('')}`,
)}    }
`;
}

/** The largest or the sum over the threads of a row, for the thread's four rows at once: `name_i` becomes the whole. */
function acrossRow(shape: PrefillShape, layout: Layout, name: string, operation: 'max' | 'add', indent: string): string {
  const { across, threads } = layout;
  const combine = (a: string, b: string): string => (operation === 'max' ? `max(${a}, ${b})` : `${a} + ${b}`);
  if (shape.shuffles) {
    const steps = Array.from({ length: Math.log2(across) }, (_, i) => 2 ** i);
    return steps
      .map((step) => four.map((i) => `${indent}${name}${i} = ${combine(`${name}${i}`, `subgroupShuffleXor(${name}${i}, ${step}u)`)};\n`).join(''))
      .join('');
  }
  return `${indent}workgroupBarrier();
${four.map((i) => `${indent}lanes[(down * 4u + ${i}u) * ${across + 1}u + across] = ${name}${i};\n`).join('')}${indent}workgroupBarrier();
${indent}for (var row = local; row < ${shape.tileRows}u; row += ${threads}u) {
${indent}  var whole = lanes[row * ${across + 1}u];
${indent}  for (var i = 1u; i < ${across}u; i++) { whole = ${combine('whole', `lanes[row * ${across + 1}u + i]`)}; }
${indent}  rowResult[row] = whole;
${indent}}
${indent}workgroupBarrier();
${four.map((i) => `${indent}${name}${i} = rowResult[down * 4u + ${i}u];\n`).join('')}`;
}

/** Scores become weights against the running maximum; what was summed before is brought to the new one. */
function softmaxText(problem: AttentionProblem, shape: PrefillShape, layout: Layout): string {
  const { across, down, own } = layout;
  const scale = scoreScale(problem);
  const isSeen = (i: number, j: number): string => `key${j} <= seen${i}${problem.window === undefined ? '' : ` && key${j} + ${problem.window}u > seen${i}`}`;
  const score = (i: number, j: number): string => cappedText(problem, `s${i}_${j} * ${scale}`);
  return `${four.map((j) => `    let key${j} = firstKey + across + ${j * across}u;\n${four.map((i) => `    s${i}_${j} = select(${maskedScore}, ${score(i, j)}, ${isSeen(i, j)});\n`).join('')}`).join('')}${four
    .map((i) => `    var m${i} = max(max(s${i}_0, s${i}_1), max(s${i}_2, s${i}_3));\n`)
    .join('')}${acrossRow(shape, layout, 'm', 'max', '    ')}${four
    .map(
      (i) => `    m${i} = max(m${i}, top${i});
    let fade${i} = exp2(top${i} - m${i});
    top${i} = m${i};
    sum${i} *= fade${i};
${repeat(own, (c) => `    o${i}_${c} *= fade${i};\n`, '')}`,
    )
    .join('')}${four
    .map(
      (j) => `    {
      let w = vec4<f32>(${four.map((i) => `exp2(s${i}_${j} - top${i})`).join(', ')});
${four.map((i) => `      sum${i} += w[${i}];\n`).join('')}      weights[(across + ${j * across}u) * ${down + 1}u + down] = w;
    }
`,
    )
    .join('')}`;
}

function valuesText({ tileKeys }: PrefillShape, layout: Layout): string {
  const { columns, valueKeys, threads, across, down, own } = layout;
  const column = (c: number): string => ((c + 1) * across <= columns ? `across + ${c * across}u` : `min(across + ${c * across}u, ${columns - 1}u)`);
  return `    for (var part = 0u; part < ${tileKeys / valueKeys}u * once; part++) {
      workgroupBarrier();
${stage(valueKeys * columns, threads, `let key = min(firstKey + part * ${valueKeys}u + item / ${columns}u, length - 1u); staged[item] = load_values(cache + key, item % ${columns}u);`)}      workgroupBarrier();
${steps(
  valueKeys,
  `          let w = weights[(part * ${valueKeys}u + k) * ${down + 1}u + down];
${repeat(own, (c) => `          let v${c} = staged[k * ${columns}u + ${column(c)}];\n${four.map((i) => `          o${i}_${c} += w[${i}] * v${c};\n`).join('')}`, '')}`,
)}    }
`;
}

function resultText(problem: AttentionProblem, shape: PrefillShape, layout: Layout): string {
  const { width, heads, kvHeads } = problem;
  const { across, columns, own } = layout;
  const ratio = heads / kvHeads;
  const vector = vectorWidth(width);
  const perRow = width / vector;
  const pieces = 4 / vector;
  const piece = (value: string, k: number): string => (vector === 4 ? value : vector === 2 ? `${value}.${k === 0 ? 'xy' : 'zw'}` : `${value}[${k}]`);
  const write = (i: number, c: number): string => {
    const column = `across + ${c * across}u`;
    const guard = (c + 1) * across > columns ? `if (${column} < ${columns}u) ` : '';
    const stores = repeat(
      pieces,
      (k) => {
        const at = pieces === 1 ? column : `(${column}) * ${pieces}u + ${k}u`;
        return `${perRow % pieces === 0 ? '' : `if (${at} < ${perRow}u) `}{ y[at + ${at}] = ${piece('value', k)}; }`;
      },
      ' ',
    );
    return `    ${guard}{ let value = o${i}_${c} / sum${i}; ${stores} }\n`;
  };
  return `${acrossRow(shape, layout, 'sum', 'add', '  ')}${four
    .map(
      (i) => `  if (row${i} / ${ratio}u < live) {
    let at = ((row${i} / ${ratio}u) * ${heads}u + kvHead * ${ratio}u + row${i} % ${ratio}u) * ${perRow}u;
${repeat(own, (c) => write(i, c), '')}  }
`,
    )
    .join('')}`;
}
