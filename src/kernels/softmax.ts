/**
 * Softmax and its logarithm along an axis. A row goes to one workgroup; long rows are cut into chunks, whose maxima and sums of exponentials are made first and
 * joined by the workgroups that write (or, where there are many chunks, once before). Short columns go to one thread each; long ones are transposed to rows and back.
 */

import type { GpuCapabilities } from '../core/capabilities.js';
import type { GpuKernel } from '../core/kernel.js';
import type { Step } from '../core/step.js';
import { elementCount } from '../core/tensor.js';
import { type Lines, linesAlong } from '../ops/axes.js';
import { need } from '../ops/definition.js';
import type { LoweringContext, LoweringNode, LoweringRule, TensorRef } from '../ops/target.js';
import { namedFunctions } from './elementwise-functions.js';
import { type CopyAxis, permutedAxes, stridedCopyKernel } from './strided-copy.js';
import {
  arg,
  declareBindings,
  defineKernel,
  foldGrid,
  lines,
  mainHead,
  type Reduction,
  type SubgroupRange,
  subgroupRange,
  vectorType,
  vectorWidth,
  workgroupReduction,
} from './template.js';

export type SoftmaxOp = 'softmax' | 'logSoftmax';

export type SoftmaxChoice = { readonly reason: string } & (
  | { readonly kind: 'columns' }
  | { readonly kind: 'transposed' }
  | { readonly kind: 'rows'; readonly threads: number }
  | { readonly kind: 'chunks'; readonly chunk: number; readonly chunks: number; readonly joined: boolean }
);

/** Elements that the registers of 256 threads hold, 32 each. */
const longestRow = 8192;
/** Elements of a chunk. */
const chunkSize = 4096;
/** Chunks that every writing workgroup may join for itself. */
const maxJoined = 1024;
const chunkThreads = 256;

export function selectSoftmax({ outer, count, inner }: Lines): SoftmaxChoice {
  const lines = outer * inner;
  const columns = inner > 1 ? count <= 256 : count <= 16;
  if (columns) return { kind: 'columns', reason: `${lines} lines of ${count}: a thread each` };
  if (inner > 1) return { kind: 'transposed', reason: `columns of ${count}: transposed to rows and back` };
  if (count <= longestRow) {
    const threads = Math.min(256, Math.max(32, 2 ** Math.ceil(Math.log2(count / 8))));
    return { kind: 'rows', threads, reason: `${lines} rows of ${count}: a workgroup each` };
  }
  const chunks = Math.ceil(count / chunkSize);
  return { kind: 'chunks', chunk: chunkSize, chunks, joined: chunks > maxJoined, reason: `rows of ${count} in ${chunks} chunks` };
}

/** `exact(x)` is the exponential; `term` counts -infinity as 0 even where it is the maximum so far, so that it only spoils a line that has nothing else. */
const functions = `${namedFunctions([
  { name: 'exact', fn: 'exp' },
  { name: 'logarithm', fn: 'log' },
])}fn term(x: f32, largest: f32) -> f32 {
  return select(exact(x - largest), 0.0f, bitcast<u32>(x) == 0xff800000u);
}
`;

const least = 'nonFinite(0xff800000u)';

/** Text of the results: `tail` is made once of `sum`, then every element of x. */
const finish: { readonly [O in SoftmaxOp]: { readonly tail: string; value(x: string): string } } = {
  softmax: { tail: 'sum', value: (x) => `exact(${x} - largest) / tail` },
  logSoftmax: { tail: 'logarithm(sum)', value: (x) => `(${x} - largest) - tail` },
};

/** One thread per line. */
function softmaxColumnsKernel(op: SoftmaxOp, { outer, count, inner }: Lines): GpuKernel {
  const lines = outer * inner;
  const groups = Math.ceil(lines / 256);
  return defineKernel({
    family: 'softmax_columns',
    params: { op, outer, count, inner },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: 256,
    wgsl: () => `${declareBindings([
      ['x', 'f32', 'read'],
      ['y', 'f32', 'read_write'],
    ])}${functions}${mainHead(groups, 256)}  let line = group * 256u + local;
  if (line >= ${lines}u) { return; }
  let first = line / ${inner}u * ${count * inner}u + line % ${inner}u;
  var largest = ${least};
  for (var c = 0u; c < ${count}u; c++) { largest = max(largest, x[first + c * ${inner}u]); }
  var sum = 0.0f;
  for (var c = 0u; c < ${count}u; c++) { sum += term(x[first + c * ${inner}u], largest); }
  let tail = ${finish[op].tail};
  for (var c = 0u; c < ${count}u; c++) { y[first + c * ${inner}u] = ${finish[op].value(`x[first + c * ${inner}u]`)}; }
}
`,
  });
}

interface RowText {
  readonly bound: string;
  readonly largest: Reduction;
  readonly total: Reduction;
}

function rowReductions(threads: number, subgroups: SubgroupRange | undefined): RowText {
  const [largest, total] = [workgroupReduction('largestOf', 'max', threads, subgroups), workgroupReduction('totalOf', 'add', threads, subgroups)];
  return { bound: largest.builtins, largest, total };
}

/** The components of vector `v` by name. */
function components(width: 1 | 2 | 4, v: string): readonly string[] {
  return width === 1 ? [v] : ['x', 'y', 'z', 'w'].slice(0, width).map((c) => `${v}.${c}`);
}

/** The components joined pairwise. */
function foldComponents(width: 1 | 2 | 4, v: string, join: (a: string, b: string) => string, part: (x: string) => string = (x) => x): string {
  const fold = (list: readonly string[]): string =>
    list.length === 1 ? part(list[0] ?? '') : join(fold(list.slice(0, list.length / 2)), fold(list.slice(list.length / 2)));
  return fold(components(width, v));
}

function componentwise(width: 1 | 2 | 4, v: string, value: (x: string) => string): string {
  return width === 1 ? value(v) : `${vectorType(width)}(${components(width, v).map(value).join(', ')})`;
}

/** A loop of the workgroup over vectors [0, vectors) of what begins at `base`: `v` is each. */
function overVectors(vectors: number, threads: number, body: string, limit = `${vectors}u`): string {
  return `  for (var k = 0u; k < ${Math.ceil(vectors / threads)}u; k++) {
    let at = k * ${threads}u + local;
    if (at < ${limit}) {
      let v = x[base + at];
      ${body}
    }
  }
`;
}

/** Declares `largest` and `sum` of the vectors that begin at `base`, the same in every thread. */
function statistics(vectors: number, threads: number, width: 1 | 2 | 4, text: RowText, limit?: string): string {
  const largest = foldComponents(width, 'v', (a, b) => `max(${a}, ${b})`);
  const terms = foldComponents(
    width,
    'v',
    (a, b) => `(${a} + ${b})`,
    (part) => `term(${part}, largest)`,
  );
  return `  var own = ${least};
${overVectors(vectors, threads, `own = max(own, ${largest});`, limit)}  let largest = ${text.largest.call('own')};
  var terms = 0.0f;
${overVectors(vectors, threads, `terms += ${terms};`, limit)}  let sum = ${text.total.call('terms')};
`;
}

/** A row in the registers of its workgroup: read once, each exponential made once. */
function softmaxRowsKernel(op: SoftmaxOp, rows: number, count: number, threads: number, subgroups: SubgroupRange | undefined): GpuKernel {
  const text = rowReductions(threads, subgroups);
  const width = vectorWidth(count);
  const vectors = count / width;
  return defineKernel({
    family: 'softmax_rows',
    params: { op, rows, count, threads, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(rows),
    workgroupSize: threads,
    workgroupBytes: text.largest.bytes + text.total.bytes,
    features: text.largest.features,
    wgsl: () => `${declareBindings([
      ['x', vectorType(width), 'read'],
      ['y', vectorType(width), 'read_write'],
    ])}${functions}${text.largest.declarations}${text.total.declarations}${mainHead(rows, threads, text.bound)}  let base = group * ${vectors}u;
${keptRow(op, vectors, threads, text, width)}}
`,
  });
}

/** The last vector of a thread may lie beyond the row. */
function keptRow(op: SoftmaxOp, vectors: number, threads: number, text: RowText, width: 1 | 2 | 4): string {
  const kept = Math.ceil(vectors / threads);
  const within = (i: number): string => `${i * threads}u + local < ${vectors}u`;
  const partial = (i: number): boolean => (i + 1) * threads > vectors;
  const each = (line: (i: number) => string): string => lines(kept, line);
  const guarded = (i: number, statement: string): string => (partial(i) ? `  if (${within(i)}) { ${statement} }\n` : `  ${statement}\n`);
  const type = vectorType(width);
  // Softmax needs the exponentials again, its logarithm the values.
  const value = (i: number): string => (op === 'softmax' ? `e${i} * inverse` : componentwise(width, `v${i}`, finish.logSoftmax.value));
  return `${each((i) => `  var v${i} = ${type}(${least});\n${guarded(i, `v${i} = x[base + ${i * threads}u + local];`)}`)}  var own = ${least};
${each((i) => `  own = max(own, ${foldComponents(width, `v${i}`, (a, b) => `max(${a}, ${b})`)});\n`)}  let largest = ${text.largest.call('own')};
  var terms = 0.0f;
${each((i) => `  let e${i} = ${componentwise(width, `v${i}`, (part) => `term(${part}, largest)`)};\n  terms += ${foldComponents(width, `e${i}`, (a, b) => `(${a} + ${b})`)};\n`)}  let sum = ${text.total.call('terms')};
  let ${op === 'softmax' ? 'inverse = 1.0f / sum' : `tail = ${finish[op].tail}`};
${each((i) => guarded(i, `y[base + ${i * threads}u + local] = ${value(i)};`))}`;
}

interface Chunked {
  readonly rows: number;
  readonly count: number;
  readonly chunk: number;
  readonly chunks: number;
}

/** (maximum, sum of exponentials) of every chunk: pairs [rows, chunks, 2]. */
function softmaxChunksKernel(shape: Chunked, subgroups: SubgroupRange | undefined): GpuKernel {
  const { rows, count, chunk, chunks } = shape;
  const text = rowReductions(chunkThreads, subgroups);
  const width = vectorWidth(count);
  const [vectors, perChunk] = [count / width, chunk / width];
  return defineKernel({
    family: 'softmax_chunks',
    params: { ...shape, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(rows * chunks),
    workgroupSize: chunkThreads,
    workgroupBytes: text.largest.bytes + text.total.bytes,
    features: text.largest.features,
    wgsl: () => `${declareBindings([
      ['x', vectorType(width), 'read'],
      ['pairs', 'vec2<f32>', 'read_write'],
    ])}${functions}${text.largest.declarations}${text.total.declarations}${mainHead(rows * chunks, chunkThreads, text.bound)}  let first = group % ${chunks}u * ${perChunk}u;
  let base = group / ${chunks}u * ${vectors}u + first;
${statistics(perChunk, chunkThreads, width, text, `min(${perChunk}u, ${vectors}u - first)`)}  if (local == 0u) { pairs[group] = vec2<f32>(largest, sum); }
}
`,
  });
}

/** Declares `largest` and `sum` of a row from its pairs, which begin at `begin`. */
function join(pairs: number, text: RowText): string {
  const loop = (body: string): string => `  for (var k = 0u; k < ${Math.ceil(pairs / chunkThreads)}u; k++) {
    let at = k * ${chunkThreads}u + local;
    if (at < ${pairs}u) {
      let pair = pairs[begin + at];
      ${body}
    }
  }
`;
  return `  var own = ${least};
${loop('own = max(own, pair.x);')}  let largest = ${text.largest.call('own')};
  var terms = 0.0f;
${loop('terms += pair.y * term(pair.x, largest);')}  let sum = ${text.total.call('terms')};
`;
}

/** The pairs of every row joined into one: [rows, 2]. */
function softmaxJoinKernel(rows: number, chunks: number, subgroups: SubgroupRange | undefined): GpuKernel {
  const text = rowReductions(chunkThreads, subgroups);
  return defineKernel({
    family: 'softmax_join',
    params: { rows, chunks, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(rows),
    workgroupSize: chunkThreads,
    workgroupBytes: text.largest.bytes + text.total.bytes,
    features: text.largest.features,
    wgsl: () => `${declareBindings([
      ['pairs', 'vec2<f32>', 'read'],
      ['joined', 'vec2<f32>', 'read_write'],
    ])}${functions}${text.largest.declarations}${text.total.declarations}${mainHead(rows, chunkThreads, text.bound)}  let begin = group * ${chunks}u;
${join(chunks, text)}  if (local == 0u) { joined[group] = vec2<f32>(largest, sum); }
}
`,
  });
}

/** Writes every chunk from the `pairs` of its row. */
function softmaxWriteKernel(op: SoftmaxOp, shape: Chunked, pairs: number, subgroups: SubgroupRange | undefined): GpuKernel {
  const { rows, count, chunk, chunks } = shape;
  const text = rowReductions(chunkThreads, subgroups);
  const width = vectorWidth(count);
  const [vectors, perChunk] = [count / width, chunk / width];
  return defineKernel({
    family: 'softmax_write',
    params: { op, ...shape, pairs, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read', 'read_write'],
    workgroups: foldGrid(rows * chunks),
    workgroupSize: chunkThreads,
    workgroupBytes: text.largest.bytes + text.total.bytes,
    features: text.largest.features,
    wgsl: () => `${declareBindings([
      ['x', vectorType(width), 'read'],
      ['pairs', 'vec2<f32>', 'read'],
      ['y', vectorType(width), 'read_write'],
    ])}${functions}${text.largest.declarations}${text.total.declarations}${mainHead(rows * chunks, chunkThreads, text.bound)}  let begin = group / ${chunks}u * ${pairs}u;
  let first = group % ${chunks}u * ${perChunk}u;
  let base = group / ${chunks}u * ${vectors}u + first;
${join(pairs, text)}  let tail = ${finish[op].tail};
${overVectors(perChunk, chunkThreads, `y[base + at] = ${componentwise(width, 'v', finish[op].value)};`, `min(${perChunk}u, ${vectors}u - first)`)}}
`,
  });
}

type SoftmaxNode = LoweringNode<SoftmaxOp>;

function rowSteps(
  node: SoftmaxNode,
  x: TensorRef,
  y: TensorRef,
  rows: number,
  count: number,
  subgroups: SubgroupRange | undefined,
  context: LoweringContext,
): readonly Step<GpuKernel>[] {
  const step = (suffix: string, kernel: GpuKernel, ...args: Step<GpuKernel>['args']): Step<GpuKernel> => ({
    label: `${node.label}${suffix}`,
    node: node.id,
    kernel,
    args,
  });
  const choice = selectSoftmax({ outer: rows, count, inner: 1 });
  if (choice.kind === 'rows') return [step('', softmaxRowsKernel(node.op, rows, count, choice.threads, subgroups), arg(x, 'read'), arg(y, 'write'))];
  if (choice.kind !== 'chunks') return [step('', softmaxColumnsKernel(node.op, { outer: rows, count, inner: 1 }), arg(x, 'read'), arg(y, 'write'))];
  const { chunk, chunks, joined } = choice;
  const shape = { rows, count, chunk, chunks };
  const pairs = context.scratch({ dtype: 'f32', shape: [rows, chunks, 2] });
  const row = joined ? context.scratch({ dtype: 'f32', shape: [rows, 2] }) : pairs;
  return [
    step(' chunks', softmaxChunksKernel(shape, subgroups), arg(x, 'read'), arg(pairs, 'write')),
    ...(joined ? [step(' join', softmaxJoinKernel(rows, chunks, subgroups), arg(pairs, 'read'), arg(row, 'write'))] : []),
    step(' write', softmaxWriteKernel(node.op, shape, joined ? 1 : chunks, subgroups), arg(x, 'read'), arg(row, 'read'), arg(y, 'write')),
  ];
}

function softmaxSteps(node: SoftmaxNode, context: LoweringContext, subgroups: SubgroupRange | undefined): readonly Step<GpuKernel>[] {
  const x = need(node.inputs[0]);
  const lines = linesAlong(x.type.shape, [node.params.axis]);
  const { outer, count, inner } = lines;
  const choice = selectSoftmax(lines);
  if (choice.kind === 'columns') {
    return [{ label: node.label, node: node.id, kernel: softmaxColumnsKernel(node.op, lines), args: [arg(x, 'read'), arg(node.output, 'write')] }];
  }
  if (choice.kind !== 'transposed') return rowSteps(node, x, node.output, outer, count, subgroups, context);
  const size = elementCount(x.type.shape);
  const [turned, result] = [context.scratch({ dtype: 'f32', shape: [size] }), context.scratch({ dtype: 'f32', shape: [size] })];
  const copy = (suffix: string, axes: readonly CopyAxis[], from: TensorRef, to: TensorRef): Step<GpuKernel> => ({
    label: `${node.label} ${suffix}`,
    node: node.id,
    kernel: stridedCopyKernel(axes, 0),
    args: [arg(from, 'read'), arg(to, 'write')],
  });
  return [
    copy('to rows', permutedAxes([outer, count, inner], [0, 2, 1]), x, turned),
    ...rowSteps(node, turned, result, outer * inner, count, subgroups, context),
    copy('to columns', permutedAxes([outer, inner, count], [0, 2, 1]), result, node.output),
  ];
}

export function softmaxRule(capabilities: GpuCapabilities): LoweringRule<'softmax', GpuKernel> {
  return (node, context) => softmaxSteps(node, context, subgroupRange(capabilities));
}

export function logSoftmaxRule(capabilities: GpuCapabilities): LoweringRule<'logSoftmax', GpuKernel> {
  return (node, context) => softmaxSteps(node, context, subgroupRange(capabilities));
}
