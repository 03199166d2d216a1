/**
 * Attention of one query row. A workgroup takes up to `split` positions of one KV head and all or some of the query heads that read it: scores by small teams of
 * threads, weights, then the weighted sum of the values with a thread per chunk of columns. Where all that a row sees is one split, it writes the result (`direct`); else
 * partial sums with their (maximum, sum), which the merge kernel adds. Splits count from the first position that the row sees. The grid covers the capacity, or the window; workgroups
 * beyond the position leave at once.
 */

import type { GpuKernel, KernelFeature } from '../core/kernel.js';
import { stateWord } from '../ops/state.js';
import {
  type AttentionProblem,
  attentionReads,
  cappedFunction,
  cappedText,
  dotText,
  firstSeenText,
  maskedScore,
  problemParams,
  reachOf,
  scoreScale,
  sinksBinding,
  sinkText,
} from './attention-text.js';
import { type CacheReader, cacheFunctions, cacheReader } from './cache-reader.js';
import { declareBindings, defineKernel, foldGrid, mainHead, repeat, type SubgroupRange, vectorType, workgroupReduction } from './template.js';

export interface DecodeShape {
  readonly threads: number;
  /** Positions of a workgroup. */
  readonly split: number;
  /** Query heads of a workgroup; all read one KV head. */
  readonly groupHeads: number;
  /** Threads that share a score: a power of two. More than 1 needs subgroups of at least that size. */
  readonly lanes: number;
  /** Workgroups that share the columns of the values; more than 1 only where `direct`. */
  readonly slices: number;
  /** Subgroup size where it is the only one that the device has, else 0: then rows are added in registers first. */
  readonly subgroupSize: number;
  readonly direct: boolean;
}

/** Everything that the text needs, derived once. */
interface Layout {
  readonly problem: AttentionProblem;
  readonly shape: DecodeShape;
  readonly keyChunks: CacheReader;
  readonly valueChunks: CacheReader;
  /** Width of the f32 vectors, the same for query, keys and values. */
  readonly vector: 1 | 2 | 4;
  /** Vectors of a head. */
  readonly headVectors: number;
  /** Chunks of a row of keys. */
  readonly keyRow: number;
  readonly valueRow: number;
  /** Chunks of a row of values within a slice. */
  readonly sliceRow: number;
  /** Vectors of a row of values within a slice. */
  readonly sliceVectors: number;
  /** Rows of values that the workgroup takes at a time. */
  readonly valueRows: number;
  /** Rows of partial sums after those of a subgroup are added in registers. */
  readonly sumRows: number;
  readonly folded: boolean;
  /** Threads of a head that work on its weights. */
  readonly team: number;
  /** Heads whose rows are added at a time. */
  readonly roundHeads: number;
  /** Vectors of the workgroup array that holds the query first and rows of sums later. */
  readonly pool: number;
}

function layoutOf(problem: AttentionProblem, shape: DecodeShape): Layout {
  const { width } = problem;
  const [keyChunks, valueChunks] = [cacheReader(problem, 'keys', 16), cacheReader(problem, 'values', 8)];
  const vector = width % 4 === 0 ? 4 : width % 2 === 0 ? 2 : 1;
  const headVectors = width / vector;
  const [keyRow, valueRow] = [width / keyChunks.elements, width / valueChunks.elements];
  const sliceRow = valueRow / shape.slices;
  const size = shape.subgroupSize;
  const folded = size > sliceRow && Number.isInteger(Math.log2(sliceRow)) && shape.threads % size === 0;
  const valueRows = Math.floor(shape.threads / sliceRow);
  const sumRows = folded ? shape.threads / size : valueRows;
  const sliceVectors = headVectors / shape.slices;
  const room = Math.max(shape.groupHeads * headVectors, sumRows * sliceVectors);
  return {
    problem,
    shape,
    keyChunks,
    valueChunks,
    vector,
    headVectors,
    keyRow,
    valueRow,
    sliceRow,
    sliceVectors,
    valueRows,
    sumRows,
    folded,
    team: Math.min(Math.floor(shape.threads / shape.groupHeads), 2 ** Math.ceil(Math.log2(shape.split) / 2)),
    roundHeads: Math.min(shape.groupHeads, Math.floor(room / (sumRows * sliceVectors))),
    pool: room,
  };
}

/** Bytes of workgroup memory that a shape takes. */
export function decodeBytes(problem: AttentionProblem, shape: DecodeShape): number {
  const { pool, vector, team } = layoutOf(problem, shape);
  return (pool * vector + shape.groupHeads * shape.split + 2 * shape.groupHeads * team) * 4;
}

export function decodeSplits(problem: AttentionProblem, shape: DecodeShape): number {
  return Math.ceil(reachOf(problem) / shape.split);
}

export function attentionDecodeKernel(problem: AttentionProblem, shape: DecodeShape): GpuKernel {
  const layout = layoutOf(problem, shape);
  const parts = problem.heads / shape.groupHeads;
  const count = decodeSplits(problem, shape) * parts * shape.slices;
  const usesSubgroups = shape.lanes > 1 || layout.folded;
  const features: readonly KernelFeature[] = usesSubgroups ? ['subgroups'] : [];
  return defineKernel({
    family: 'attention_decode',
    params: { ...problemParams(problem), ...shape },
    bindings: [
      ...Array.from({ length: attentionReads({ ...problem, sinks: shape.direct && problem.sinks === true }) }, () => 'read' as const),
      ...(shape.direct ? (['read_write'] as const) : (['read_write', 'read_write'] as const)),
    ],
    workgroups: foldGrid(count),
    workgroupSize: shape.threads,
    workgroupBytes: decodeBytes(problem, shape),
    features,
    wgsl: () => {
      const type = vectorType(layout.vector);
      const bindings = declareBindings([
        ['query', type, 'read'],
        ...layout.keyChunks.bindings,
        ...layout.valueChunks.bindings,
        ['state', 'u32', 'read'],
        ...(shape.direct ? sinksBinding(problem) : []),
        ...(shape.direct ? [['y', type, 'read_write'] as const] : [['partials', type, 'read_write'] as const, ['stats', 'vec2<f32>', 'read_write'] as const]),
      ]);
      const groupHeads = shape.groupHeads;
      return `${bindings}var<workgroup> pool: array<${type}, ${layout.pool}>;
var<workgroup> scores: array<f32, ${groupHeads * shape.split}>;
var<workgroup> tops: array<f32, ${groupHeads * layout.team}>;
var<workgroup> sums: array<f32, ${groupHeads * layout.team}>;
${cappedFunction(problem, 'f32')}${cacheFunctions(problem)}${layout.keyChunks.functions}${layout.valueChunks.functions}${mainHead(count, shape.threads)}  let slice = group % ${shape.slices}u;
  let part = (group / ${shape.slices}u) % ${parts}u;
  let split = group / ${parts * shape.slices}u;
  let length = min(state[${stateWord.position}] + 1u, ${problem.capacity}u);
  let start = ${problem.window === undefined ? '' : `${firstSeenText(problem, 'length')} + `}split * ${shape.split}u;
  if (start >= length) { return; }
  let count = min(length - start, ${shape.split}u);
  let firstHead = part * ${groupHeads}u;
  let base = firstHead / ${problem.heads / problem.kvHeads}u * ${problem.capacity}u + start;
${stageQuery(layout)}${firstValues(layout)}  workgroupBarrier();
${scoresText(layout)}  workgroupBarrier();
${weightsText(layout)}${valuesText(layout)}${sumsText(layout)}}
`;
    },
  });
}

/** The query, so that its product with a key is a score in units where e^x is exp2, or what is to be capped. */
function stageQuery({ problem, shape, headVectors }: Layout): string {
  const vectors = shape.groupHeads * headVectors;
  const scale = scoreScale(problem);
  return repeat(
    Math.ceil(vectors / shape.threads),
    (i) => {
      const at = `local + ${i * shape.threads}u`;
      const guard = (i + 1) * shape.threads > vectors ? `if (${at} < ${vectors}u) ` : '';
      return `  ${guard}{ pool[${at}] = query[firstHead * ${headVectors}u + ${at}] * ${scale}; }\n`;
    },
    '',
  );
}

/** Largest divisor of `count` that is at most `most`. */
function divisorUpTo(count: number, most: number): number {
  for (let divisor = Math.min(count, most); divisor > 1; divisor--) if (count % divisor === 0) return divisor;
  return 1;
}

/** Scores of all heads: `lanes` neighbours share the columns of a position, each thread takes several positions at once so that many loads are in flight. */
function scoresText({ problem, shape, keyChunks, vector, headVectors, keyRow }: Layout): string {
  const { lanes, threads, split, groupHeads } = shape;
  const perPass = threads / lanes;
  const perLane = keyRow / lanes;
  const positions = Math.max(1, Math.min(4, Math.ceil(split / perPass), Math.floor(8 / perLane)));
  const batch = divisorUpTo(perLane, Math.max(1, Math.floor(8 / positions)));
  const batches = perLane / batch;
  const each = (make: (u: number, h: number) => string): string => repeat(positions, (u) => repeat(groupHeads, (h) => make(u, h), ''), '');
  const loads = repeat(
    positions,
    (u) => repeat(batch, (j) => `    let k${u}_${j} = ${keyChunks.load(`row${u} + (chunk + ${j}u) * ${lanes}u + sub`)};\n`, ''),
    '',
  );
  const products = repeat(
    batch,
    (j) =>
      repeat(
        keyChunks.parts.length,
        (part) => {
          const unpack = keyChunks.parts[part];
          return `    {
${repeat(positions, (u) => `      let k${u} = ${unpack?.(`k${u}_${j}`) ?? ''};\n`, '')}      let column = ((chunk + ${j}u) * ${lanes}u + sub) * ${keyChunks.parts.length}u + ${part}u;
${repeat(groupHeads, (h) => `      let q${h} = pool[${h * headVectors}u + column];\n${repeat(positions, (u) => `      s${u}_${h} += ${dotText(vector, `q${h}`, `k${u}`)};\n`, '')}`, '')}    }
`;
        },
        '',
      ),
    '',
  );
  const inner =
    batches === 1
      ? `    let chunk = 0u;\n${loads}${products}`
      : `    for (var step = 0u; step < ${batches}u; step++) {\n    let chunk = step * ${batch}u;\n${loads}${products}    }\n`;
  const steps = Array.from({ length: Math.log2(lanes) }, (_, i) => 2 ** i);
  return `  let sub = local % ${lanes}u;
  let slot = local / ${lanes}u;
  for (var round = 0u; round < ${Math.ceil(split / (perPass * positions))}u; round++) {
    let first = round * ${perPass * positions}u;
    if (first >= count) { break; }
${repeat(positions, (u) => `    let at${u} = first + ${u * perPass}u + slot;\n    let row${u} = (base + min(at${u}, count - 1u)) * ${keyRow}u;\n`, '')}${each((u, h) => `    var s${u}_${h} = 0.0;\n`)}${inner}${steps
  .map((step) => each((u, h) => `    s${u}_${h} += subgroupShuffleXor(s${u}_${h}, ${step}u);\n`))
  .join('')}${repeat(
  positions,
  (u) => `    if (at${u} < count) {
${repeat(groupHeads, (h) => `      ${lanes > 1 ? `if (sub == ${h % lanes}u) ` : ''}{ scores[${h * split}u + at${u}] = ${cappedText(problem, `s${u}_${h}`)}; }\n`, '')}    }
`,
  '',
)}  }
`;
}

/** Scores become weights e^(score - maximum); each head has a team of threads. \`tops\` and \`sums\` keep the parts of its maximum and sum. */
function weightsText({ problem, shape, team }: Layout): string {
  const { split, groupHeads, threads, direct } = shape;
  const sink = direct && problem.sinks === true;
  const walk = (body: string): string => `    for (var i = 0u; i < ${Math.ceil(split / team)}u; i++) {
      let at = i * ${team}u + local % ${team}u;
      if (at < count) { ${body} }
    }
`;
  const guard = groupHeads * team < threads ? `if (local < ${groupHeads * team}u) ` : '';
  return `  let member = (local / ${team}u) * ${split}u;
  ${guard}{
    var top = ${sink ? sinkText(`firstHead + local / ${team}u`) : maskedScore};
${walk('top = max(top, scores[member + at]);')}    tops[local] = top;
  }
  workgroupBarrier();
  ${guard}{
    let own = local / ${team}u * ${team}u;
    var top = tops[own];
    for (var i = 1u; i < ${team}u; i++) { top = max(top, tops[own + i]); }
    var sum = 0.0;
${walk('let weight = exp2(scores[member + at] - top); scores[member + at] = weight; sum += weight;')}    sums[local] = sum;
  }
  workgroupBarrier();
`;
}

/** Rows of values that a thread has in registers at a time, and how often. */
function valueBatches({ shape, valueRows }: Layout): { readonly batch: number; readonly batches: number } {
  const rows = Math.ceil(shape.split / valueRows);
  const batch = Math.min(8, rows);
  return { batch, batches: Math.ceil(rows / batch) };
}

const valueLoad = ({ valueChunks, valueRow, valueRows }: Layout, target: string, first: string, i: number): string =>
  `${target}${i} = ${valueChunks.load(`(base + min(${first} + ${i * valueRows}u + valueSlot, count - 1u)) * ${valueRow}u + column`)};\n`;

/** The first values do not depend on the scores: they are on their way while those are made. */
function firstValues(layout: Layout): string {
  const { sliceRow } = layout;
  return `  let valueSlot = local / ${sliceRow}u;
  let column = slice * ${sliceRow}u + local % ${sliceRow}u;
${repeat(valueBatches(layout).batch, (i) => `  var ${valueLoad(layout, 'v', '0u', i)}`, '')}`;
}

/** `o` of each head: the weighted sum of the rows that this thread takes. Rows beyond the count repeat the last one with weight 0. */
function valuesText(layout: Layout): string {
  const { shape, valueChunks, vector, valueRows } = layout;
  const { split, groupHeads } = shape;
  const { batch, batches } = valueBatches(layout);
  const type = vectorType(vector);
  const parts = valueChunks.parts.length;
  const accumulate = repeat(
    batch,
    (i) => `    {
      let at = first + ${i * valueRows}u + valueSlot;
      let live = at < count;
      let place = min(at, count - 1u);
${valueChunks.parts.map((unpack, p) => `      let x${p} = ${unpack(`v${i}`)};\n`).join('')}${repeat(
  groupHeads,
  (h) => `      let w${h} = select(0.0, scores[${h * split}u + place], live);
${repeat(parts, (p) => `      o${h}_${p} += w${h} * x${p};\n`, '')}`,
  '',
)}    }
`,
    '',
  );
  const next = repeat(batch, (i) => `    let ${valueLoad(layout, 'n', `first + ${batch * valueRows}u`, i)}`, '');
  const declare = repeat(groupHeads, (h) => repeat(parts, (p) => `  var o${h}_${p} = ${type}(0.0);\n`, ''), '');
  if (batches === 1) return `${declare}  {\n    let first = 0u;\n${accumulate}  }\n`;
  return `${declare}  for (var round = 0u; round < ${batches}u; round++) {
    let first = round * ${batch * valueRows}u;
    if (first >= count) { break; }
${next}${accumulate}${repeat(batch, (i) => `    v${i} = n${i};\n`, '')}  }
`;
}

/** Rows of sums are added over the workgroup and written. */
function sumsText(layout: Layout): string {
  const { problem, shape, valueChunks, sliceRow, sliceVectors, headVectors, valueRows, sumRows, folded, team, roundHeads } = layout;
  const { groupHeads, threads, subgroupSize, direct } = shape;
  const parts = valueChunks.parts.length;
  const folds = folded ? Array.from({ length: Math.log2(subgroupSize / sliceRow) }, (_, i) => sliceRow * 2 ** i) : [];
  const fold = folds
    .map((step) => repeat(groupHeads, (h) => repeat(parts, (p) => `  o${h}_${p} += subgroupShuffleXor(o${h}_${p}, ${step}u);\n`, ''), ''))
    .join('');
  const row = folded ? `local / ${subgroupSize}u` : 'valueSlot';
  const writer = folded ? `local % ${subgroupSize}u < ${sliceRow}u` : `valueSlot < ${valueRows}u`;
  const headTop = `    var top = tops[head * ${team}u];
    for (var i = 1u; i < ${team}u; i++) { top = max(top, tops[head * ${team}u + i]); }
`;
  const sink = direct && problem.sinks === true;
  const headSum = `${sink ? `${headTop}    var total = exp2(${sinkText('firstHead + head')} - top);` : '    var total = 0.0;'}
    for (var i = 0u; i < ${team}u; i++) { total += sums[head * ${team}u + i]; }
`;
  const round = (first: number): string => {
    const heads = Math.min(roundHeads, groupHeads - first);
    const items = heads * sliceVectors;
    return `  if (${writer}) {
    let place = (${row}) * ${sliceVectors}u + (local % ${sliceRow}u) * ${parts}u;
${repeat(heads, (h) => repeat(parts, (p) => `    pool[${h * sumRows * sliceVectors}u + place + ${p}u] = o${first + h}_${p};\n`, ''), '')}  }
  workgroupBarrier();
  for (var item = local; item < ${items}u; item += ${threads}u) {
    let head = ${first}u + item / ${sliceVectors}u;
    let place = item % ${sliceVectors}u;
    let origin = (item / ${sliceVectors}u) * ${sumRows * sliceVectors}u + place;
    var sum = pool[origin];
    for (var i = 1u; i < ${sumRows}u; i++) { sum += pool[origin + i * ${sliceVectors}u]; }
${
  direct
    ? `${headSum}    y[(firstHead + head) * ${headVectors}u + slice * ${sliceVectors}u + place] = sum / total;\n`
    : `    partials[(split * ${problem.heads}u + firstHead + head) * ${headVectors}u + place] = sum;\n`
}  }
`;
  };
  const rounds: string[] = [];
  for (let first = 0; first < groupHeads; first += roundHeads) rounds.push(round(first));
  const stats = direct
    ? ''
    : `  if (local < ${groupHeads}u) {
    let head = local;
${headTop}${headSum}    stats[split * ${problem.heads}u + firstHead + head] = vec2<f32>(top, total);
  }
`;
  return `${fold}${rounds.join('  workgroupBarrier();\n')}${stats}`;
}

/** Adds the partial sums of the splits in use: one workgroup per query head. */
export function attentionMergeKernel(problem: AttentionProblem, shape: DecodeShape, subgroups: SubgroupRange | undefined): GpuKernel {
  const { headVectors, vector } = layoutOf(problem, shape);
  const threads = 256;
  const splits = decodeSplits(problem, shape);
  const rows = Math.floor(threads / headVectors);
  const top = workgroupReduction('largest', 'max', threads, subgroups);
  const sum = workgroupReduction('added', 'add', threads, subgroups);
  return defineKernel({
    family: 'attention_merge',
    params: {
      heads: problem.heads,
      width: problem.width,
      capacity: problem.capacity,
      window: reachOf(problem),
      sinks: problem.sinks === true,
      split: shape.split,
      subgroups: subgroups === undefined ? 'none' : { ...subgroups },
    },
    bindings: [...Array.from({ length: problem.sinks === true ? 4 : 3 }, () => 'read' as const), 'read_write'],
    workgroups: foldGrid(problem.heads),
    workgroupSize: threads,
    workgroupBytes: top.bytes + sum.bytes + threads * vector * 4,
    features: top.features,
    wgsl: () => {
      const type = vectorType(vector);
      const walk = Math.ceil(splits / threads);
      return `${declareBindings([
        ['partials', type, 'read'],
        ['stats', 'vec2<f32>', 'read'],
        ['state', 'u32', 'read'],
        ...sinksBinding(problem),
        ['y', type, 'read_write'],
      ])}var<workgroup> parts: array<${type}, ${threads}>;
${top.declarations}${sum.declarations}${mainHead(problem.heads, threads, top.builtins)}  let length = min(state[${stateWord.position}] + 1u, ${problem.capacity}u);
  let used = (min(length, ${reachOf(problem)}u) + ${shape.split - 1}u) / ${shape.split}u;
  var own = ${problem.sinks === true ? sinkText('group') : maskedScore};
  for (var i = 0u; i < ${walk}u; i++) {
    let split = i * ${threads}u + local;
    if (split < used) { own = max(own, stats[split * ${problem.heads}u + group].x); }
  }
  let largest = ${top.call('own')};
  var weight = 0.0;
  for (var i = 0u; i < ${walk}u; i++) {
    let split = i * ${threads}u + local;
    if (split < used) {
      let pair = stats[split * ${problem.heads}u + group];
      weight += pair.y * exp2(pair.x - largest);
    }
  }
  let total = ${problem.sinks === true ? `exp2(${sinkText('group')} - largest) + ` : ''}${sum.call('weight')};
  let place = local % ${headVectors}u;
  let row = local / ${headVectors}u;
  var result = ${type}(0.0);
  for (var i = 0u; i < ${Math.ceil(splits / rows)}u; i++) {
    let split = i * ${rows}u + row;
    if (split < used && row < ${rows}u) {
      let at = split * ${problem.heads}u + group;
      result += exp2(stats[at].x - largest) * partials[at * ${headVectors}u + place];
    }
  }
  parts[local] = result;
  workgroupBarrier();
  if (local < ${headVectors}u) {
    for (var i = 1u; i < ${rows}u; i++) { result += parts[i * ${headVectors}u + local]; }
    y[group * ${headVectors}u + local] = result / total;
  }
}
`;
    },
  });
}
