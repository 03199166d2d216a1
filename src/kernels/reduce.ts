/**
 * Sums, means, products, maxima and minima along axes, and the dot product. Every reduction is a sequence of passes over [outer, count, inner]: a pass gives each
 * thread at most 64 elements in four sums, adds those up in a tree, and leaves one partial per chunk for the next pass; so no sum is longer than 16 additions in a row.
 *
 * Maxima and minima run on integers of the floats' order with NaN at the winning end, so that -0 < +0 and NaN are decided exactly.
 */

import type { GpuKernel } from '../core/kernel.js';
import type { Step } from '../core/step.js';
import { elementCount, type TensorType } from '../core/tensor.js';
import { type Lines, linesAlong } from '../ops/axes.js';
import { need } from '../ops/definition.js';
import type { ReduceFunction } from '../ops/params.js';
import type { LoweringContext, LoweringRule, TensorRef } from '../ops/target.js';
import { arg, declareBindings, defineKernel, f32Literal, foldGrid, isNanFunction, mainHead } from './template.js';

const threads = 256;
/** Elements that one thread takes at most, in `lanes` sums. */
const maxItems = 64;
const lanes = 4;
/** Threads that fill a large GPU. */
const busyThreads = 65_536;

/** How one pass is laid over threads. */
export interface ReducePass extends Lines {
  /** Threads that share a line: a power of two; 1 unless inner is 1. */
  readonly team: number;
  /** Chunks that every line is cut into: the pass turns [outer, count, inner] into [outer, chunks, inner]. */
  readonly chunks: number;
}

/**
 * Rows (inner 1) are read by teams of neighbouring threads, columns by one thread each, with neighbours side by side; both are cut into chunks where there are too
 * few of them to fill a GPU, or too long to be added up in one pass.
 */
export function selectReducePass({ outer, count, inner }: Lines): ReducePass {
  if (inner === 1) {
    const team = Math.min(threads, 2 ** Math.ceil(Math.log2(Math.max(1, count / 4))));
    const chunk = team < threads ? count : threads * (outer >= 1024 || count > 2 ** 24 ? maxItems : maxItems / 4);
    return { outer, count, inner, team, chunks: Math.ceil(count / chunk) };
  }
  const wanted = Math.min(Math.ceil(count / 16), Math.ceil(busyThreads / (outer * inner)));
  return { outer, count, inner, team: 1, chunks: Math.max(Math.ceil(count / maxItems), wanted) };
}

/** What the first pass of a reduction reads: the tensor, or the product of two. */
type Source = 'tensor' | 'product' | 'partials';

type Fold = 'sum' | 'max' | 'min' | 'prod';

interface FoldText {
  readonly type: 'f32' | 'u32';
  readonly functions: string;
  readonly identity: string;
  combine(a: string, b: string): string;
  /** From an element of the source to what is folded, and from the result to the output. */
  load(value: string): string;
  store(value: string): string;
}

const keyFunctions = (nan: string): string => `${isNanFunction}fn key(x: f32) -> u32 {
  if (isNan(x)) { return ${nan}; }
  let bits = bitcast<u32>(x);
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
fn valueOf(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}
`;

const plain = (identity: string, operator: string): FoldText => ({
  type: 'f32',
  functions: '',
  identity,
  combine: (a, b) => `${a} ${operator} ${b}`,
  load: (value) => value,
  store: (value) => value,
});

const keyed = (builtin: 'max' | 'min', identity: string, nan: string): FoldText => ({
  type: 'u32',
  functions: keyFunctions(nan),
  identity,
  combine: (a, b) => `${builtin}(${a}, ${b})`,
  load: (value) => `key(${value})`,
  store: (value) => `valueOf(${value})`,
});

const foldTexts: { readonly [F in Fold]: FoldText } = {
  sum: plain('0.0f', '+'),
  prod: plain('1.0f', '*'),
  max: keyed('max', '0u', '0xffffffffu'),
  min: keyed('min', '0xffffffffu', '0u'),
};

/** One pass. Its source has `count` elements a line; `last` makes the output out of the fold, times `scale`. */
export function reduceKernel(fold: Fold, pass: ReducePass, source: Source, last: boolean, scale: number): GpuKernel {
  const { outer, inner, team, chunks } = pass;
  const units = outer * chunks * inner;
  const groups = Math.ceil(units / (threads / team));
  const text = foldTexts[fold];
  const element = source === 'partials' ? text.type : 'f32';
  return defineKernel({
    family: 'reduce',
    params: { fold, ...pass, source, last, scale },
    bindings: source === 'product' ? ['read', 'read', 'read_write'] : ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    workgroupBytes: team > 1 ? threads * 4 : 0,
    wgsl: () => `${declareBindings([
      ['x', element, 'read'],
      ...(source === 'product' ? [['b', element, 'read'] as const] : []),
      ['y', last ? 'f32' : text.type, 'read_write'],
    ])}${text.functions}${team > 1 ? `var<workgroup> parts: array<${text.type}, ${threads}>;\n` : ''}${mainHead(groups, threads)}${passBody(text, pass, source, last, scale)}}
`,
  });
}

function passBody(text: FoldText, { outer, count, inner, team, chunks }: ReducePass, source: Source, last: boolean, scale: number): string {
  const units = outer * chunks * inner;
  const perGroup = threads / team;
  const chunk = team === 1 ? 0 : Math.ceil(count / chunks / team) * team;
  const items = team === 1 ? Math.ceil(count / chunks) : chunk / team;
  const read = source === 'product' ? 'x[at] * b[at]' : 'x[at]';
  const value = source === 'partials' ? read : text.load(read);
  // Rows: neighbours take neighbouring elements of a chunk. Columns: chunk s takes elements s, s + chunks, s + 2 chunks, ...
  const places =
    team === 1
      ? `  let i = unit % ${inner}u;
  let s = unit / ${inner}u % ${chunks}u;
  let start = unit / ${inner * chunks}u * ${count}u;
  let end = ${count}u;
`
      : `  let s = unit % ${chunks}u;
  let start = unit / ${chunks}u * ${count}u;
  let end = min((s + 1u) * ${chunk}u, ${count}u);
`;
  const element = team === 1 ? (k: string) => `s + ${k} * ${chunks}u` : (k: string) => `s * ${chunk}u + ${k} * ${team}u + lane`;
  const position = inner === 1 ? 'start + r' : `(start + r) * ${inner}u + i`;
  const body = Array.from(
    { length: lanes },
    (_, j) => `    {
      let r = ${element(`(k * ${lanes}u + ${j}u)`)};
      if (r < limit) {
        let at = ${position};
        sum${j} = ${text.combine(`sum${j}`, value)};
      }
    }
`,
  ).join('');
  const result = `${text.combine(`(${text.combine('sum0', 'sum1')})`, `(${text.combine('sum2', 'sum3')})`)}`;
  const write = (total: string): string => `y[unit] = ${last ? scaled(text.store(total), scale) : total};`;
  const halves: string[] = [];
  for (let half = team / 2; half >= 1; half /= 2) {
    halves.push(`  if (lane < ${half}u) { parts[local] = ${text.combine('parts[local]', `parts[local + ${half}u]`)}; }\n  workgroupBarrier();\n`);
  }
  return `  let unit = group * ${perGroup}u + local / ${team}u;
${team === 1 ? '' : `  let lane = local % ${team}u;\n`}${places}  // Threads beyond the last line read nothing, and meet the others at the barriers.
  let limit = select(0u, end, unit < ${units}u);
${Array.from({ length: lanes }, (_, j) => `  var sum${j} = ${text.identity};\n`).join('')}  for (var k = 0u; k < ${Math.ceil(items / lanes)}u; k++) {
${body}  }
${
  team === 1
    ? `  let total = ${result};
  if (unit < ${units}u) { ${write('total')} }
`
    : `  parts[local] = ${result};
  workgroupBarrier();
${halves.join('')}  if (lane == 0u && unit < ${units}u) { ${write('parts[local]')} }
`
}`;
}

function scaled(value: string, scale: number): string {
  return scale === 1 ? value : `${value} * ${f32Literal(scale)}`;
}

/** The axes in runs of neighbours, each of which is one reduction over [outer, count, inner]; the last run first, so that rows are read as rows. */
function runsOf(axes: readonly number[]): readonly (readonly number[])[] {
  const runs: number[][] = [];
  for (const axis of axes) {
    const run = runs.at(-1);
    if (run !== undefined && run.at(-1) === axis - 1) run.push(axis);
    else runs.push([axis]);
  }
  return runs.reverse();
}

export interface Reduction {
  readonly fold: Fold;
  readonly scale: number;
  readonly source: Source;
}

/** The steps of a reduction of `inputs` (elements of shape `shape`) into `output`, pass after pass. */
function reduceSteps(
  node: { readonly label: string; readonly id: number },
  { fold, scale, source }: Reduction,
  inputs: readonly TensorRef[],
  shape: readonly number[],
  axes: readonly number[],
  output: TensorRef,
  context: LoweringContext,
): readonly Step<GpuKernel>[] {
  const passes: ReducePass[] = [];
  let sizes = [...shape];
  for (const run of runsOf(axes)) {
    let lines = linesAlong(sizes, run);
    do {
      const pass = selectReducePass(lines);
      passes.push(pass);
      lines = { ...lines, count: pass.chunks };
    } while (lines.count > 1);
    sizes = sizes.map((size, axis) => (run.includes(axis) ? 1 : size));
  }
  let from = inputs;
  return passes.map((pass, index): Step<GpuKernel> => {
    const last = index === passes.length - 1;
    const partials: TensorType = { dtype: foldTexts[fold].type, shape: [pass.outer, pass.chunks, pass.inner] };
    const to = last ? output : context.scratch(partials);
    const kernel = reduceKernel(fold, pass, index === 0 ? source : 'partials', last, last ? scale : 1);
    const step = {
      label: passes.length === 1 ? node.label : `${node.label} pass ${index + 1}`,
      node: node.id,
      kernel,
      args: [...from.map((ref) => arg(ref, 'read')), arg(to, 'write')],
    };
    from = [to];
    return step;
  });
}

const foldOf: { readonly [F in ReduceFunction]: Fold } = { sum: 'sum', mean: 'sum', max: 'max', min: 'min', prod: 'prod' };

export const reduceRule: LoweringRule<'reduce', GpuKernel> = (node, context) => {
  const x = need(node.inputs[0]);
  const { fn, axes } = node.params;
  const { shape } = x.type;
  const scale = fn === 'mean' ? elementCount(node.output.type.shape) / elementCount(shape) : 1;
  return reduceSteps(node, { fold: foldOf[fn], scale, source: 'tensor' }, [x], shape, axes, node.output, context);
};

export const dotRule: LoweringRule<'dot', GpuKernel> = (node, context) => {
  const [a, b] = [need(node.inputs[0]), need(node.inputs[1])];
  return reduceSteps(node, { fold: 'sum', scale: 1, source: 'product' }, [a, b], [elementCount(a.type.shape)], [0], node.output, context);
};
