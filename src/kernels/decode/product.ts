/**
 * Products of one token with packed weights, 8-bit activations in: a few rows of weights to a subgroup, whole activations staged in workgroup memory, the first weight loads issued before the
 * barrier. The norm in front is applied to the sums (the activations come multiplied with its gain, and with their squares summed). Ends: the sums as they are, with a residual, silu(gate) * up,
 * or the largest of each workgroup; and the 8-bit form for the kernel that follows.
 */

import { PlanError } from '../../core/errors.js';
import type { BindingKind, GpuKernel } from '../../core/kernel.js';
import type { TunedShape } from '../../core/tuning.js';
import { declareBindings, decodeHalfFunction, defineKernel, f32Literal, foldGrid, lines, mainHead, range } from '../template.js';
import { isBlockType, type WeightLayout } from '../weights-layout.js';
import { activationParts, packFunction } from './activations.js';
import { rankFunction } from './choose.js';
import { blockDot, type HalfDecode, headerPlace } from './product-text.js';

export interface ProductMatrix {
  readonly layout: WeightLayout;
  /** First element of the output that the matrix makes. */
  readonly start: number;
  readonly bias: boolean;
}

/** 'none': sums. 'residual': plus the residual. 'gated': two matrices, silu of the first times the second. */
export type ProductEnd = 'none' | 'residual' | 'gated';

export interface ProductProblem {
  /** Columns of every matrix. */
  readonly depth: number;
  readonly matrices: readonly ProductMatrix[];
  /** eps of the norm in front. */
  readonly eps: number | undefined;
  readonly end: ProductEnd;
  /** Write f32 results. */
  readonly plain: boolean;
  /** Write the 8-bit form: of the results, or of the results times a gain. */
  readonly packed: 'none' | 'plain' | 'gain';
  /** Write the best (rank, index) of each workgroup. */
  readonly best: boolean;
}

export interface ProductShape extends TunedShape {
  readonly subgroupSize: number;
  /** Stage the activations in workgroup memory. */
  readonly staged: boolean;
  readonly halves: HalfDecode;
}

/** More steps than this are looped over: the text would only grow. */
const longestUnroll = 20;

/** Results of a workgroup. */
export function productOutputs(end: ProductEnd, { subgroups, rows, split }: ProductShape): number {
  return ((subgroups / split) * rows) / (end === 'gated' ? 2 : 1);
}

/** Rows that a subgroup reads at once with one load. */
function productStrips({ subgroupSize, lanes }: Pick<ProductShape, 'subgroupSize' | 'lanes'>): number {
  return subgroupSize / lanes;
}

export function productBytes({ depth, end, best }: Pick<ProductProblem, 'depth' | 'end' | 'best'>, shape: ProductShape): number {
  return (shape.staged ? depth + depth / 2 : 0) + productOutputs(end, shape) * shape.split * 4 + (best ? shape.subgroups * productStrips(shape) * 8 : 0);
}

type Binding = readonly [name: string, element: string, kind: BindingKind];

/** Bindings in the order of the step's arguments: activations, weights, biases, residual, gain, then the outputs (plain, packed, best). */
function bindingsOf({ matrices, end, plain, packed, best }: ProductProblem): readonly Binding[] {
  return [
    ['x', 'vec4<u32>', 'read'],
    ...matrices.map((_, i): Binding => [`w${i}`, 'vec4<u32>', 'read']),
    ...matrices.flatMap(({ bias }, i): Binding[] => (bias ? [[`bias${i}`, 'f32', 'read']] : [])),
    ...(end === 'residual' ? [['residual', 'vec4<f32>', 'read'] as const] : []),
    ...(packed === 'gain' ? [['gain', 'vec4<f32>', 'read'] as const] : []),
    ...(plain ? [['y', end === 'none' ? 'f32' : 'vec4<f32>', 'read_write'] as const] : []),
    ...(packed === 'none' ? [] : [['packed', 'u32', 'read_write'] as const]),
    ...(best ? [['bests', 'vec2<u32>', 'read_write'] as const] : []),
  ];
}

export function productGroups({ matrices, end }: Pick<ProductProblem, 'matrices' | 'end'>, shape: ProductShape): readonly number[] {
  return matrixGroups(end, matrices, productOutputs(end, shape));
}

/** Workgroups of each matrix, of so many results each; gated ones share theirs. */
export function matrixGroups(end: ProductEnd, matrices: readonly { readonly layout: WeightLayout }[], outputs: number): readonly number[] {
  const counted = end === 'gated' ? matrices.slice(0, 1) : matrices;
  return counted.map(({ layout }) => Math.ceil(layout.rows / outputs));
}

export function productKernel(problem: ProductProblem, shape: ProductShape): GpuKernel {
  const groups = productGroups(problem, shape);
  const total = groups.reduce((sum, count) => sum + count, 0);
  const threads = shape.subgroups * shape.subgroupSize;
  const bindings = bindingsOf(problem);
  const { depth, eps, end, plain, packed, best } = problem;
  return defineKernel({
    family: 'token_product',
    params: {
      matrices: problem.matrices.map(({ layout, start, bias }) => ({ type: layout.dtype, rows: layout.rows, start, bias })),
      ...{ depth, eps: eps ?? 'none', end, plain, packed, best },
      ...shape,
    },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(total),
    workgroupSize: threads,
    workgroupBytes: productBytes(problem, shape),
    features: ['subgroups'],
    wgsl: () => productText(problem, shape, bindings, groups, threads),
  });
}

function productText(problem: ProductProblem, shape: ProductShape, bindings: readonly Binding[], groups: readonly number[], threads: number): string {
  const { depth, end, packed, best, eps } = problem;
  const outputs = productOutputs(end, shape);
  const total = groups.reduce((sum, count) => sum + count, 0);
  const width = problem.matrices[0]?.layout.rows ?? 0;
  const { split, rows, lanes } = shape;
  const size = shape.subgroupSize;
  const strips = productStrips(shape);
  const slots = rows / strips;
  const memory = `${shape.staged ? `var<workgroup> quants: array<vec4<u32>, ${depth / 16}>;\nvar<workgroup> scales: array<vec4<f32>, ${depth / 32}>;\n` : ''}${
    needsSums(problem, shape) ? `var<workgroup> sums: array<f32, ${outputs * split}>;\n` : ''
  }${best ? `var<workgroup> contest: array<vec2<u32>, ${shape.subgroups * strips}>;\n` : ''}`;
  const starts = groups.map((_, i) => groups.slice(0, i).reduce((sum, count) => sum + count, 0));
  const branch = (i: number): string => `{\n${rowsText(problem, shape, i, starts[i] ?? 0, threads)}  }`;
  const branches = groups.map((count, i) => (i === groups.length - 1 ? branch(i) : `if (group < ${(starts[i] ?? 0) + count}u) ${branch(i)} else `)).join('');
  return `${declareBindings(bindings)}${shape.halves === 'integers' ? decodeHalfFunction : ''}${packed === 'none' ? '' : packFunction(width)}${best ? rankFunction : ''}${strips > 1 ? stripFunction(lanes) : ''}${memory}${mainHead(total, threads, '@builtin(subgroup_invocation_id) lane: u32')}  let subgroup = local / ${size}u;
  let part = subgroup % ${split}u;
  let own = subgroup / ${split}u * ${end === 'gated' ? rows / 2 : rows}u;
  let column = ${strips === 1 ? 'lane' : `lane % ${lanes}u`};
  let strip = ${strips === 1 ? '0u' : `lane / ${lanes}u`};
  ${headerPlace('lane')}
${lines(slots, (r) => `  var a${r} = 0.0;\n`)}${eps === undefined ? '' : squaresText(depth, size)}${residualText(problem, outputs)}  ${branches}
${eps === undefined ? '' : `  let norm = inverseSqrt(subgroupAdd(squares) * ${f32Literal(1 / depth)} + ${f32Literal(eps)});\n`}${lines(
  slots,
  (r) => `  a${r} = ${strips === 1 ? 'subgroupAdd' : 'stripAdd'}(a${r})${eps === undefined ? '' : ' * norm'};\n`,
)}${endText(problem, shape, groups, starts)}}
`;
}

/** The sum of the lanes that share a row. */
function stripFunction(lanes: number): string {
  const folds = range(Math.log2(lanes)).map((i) => `  sum += subgroupShuffleXor(sum, ${lanes >> (i + 1)}u);\n`);
  return `fn stripAdd(own: f32) -> f32 {\n  var sum = own;\n${folds.join('')}  return sum;\n}\n`;
}

/** The sum of squares that the producer left, added up by every subgroup for itself. */
function squaresText(depth: number, size: number): string {
  const vectors = depth / 64;
  const at = activationParts(depth).squares;
  const load = (i: number): string => {
    const index = `${i * size}u + lane`;
    const vector = `bitcast<vec4<f32>>(x[${at}u + ${(i + 1) * size > vectors ? `min(${index}, ${vectors - 1}u)` : index}])`;
    const sum = `dot(${vector}, vec4<f32>(1.0))`;
    return `  squares += ${(i + 1) * size > vectors ? `select(0.0, ${sum}, ${index} < ${vectors}u)` : sum};\n`;
  };
  return `  var squares = 0.0;\n${lines(Math.ceil(vectors / size), load)}`;
}

/** The residual and the gain, loaded before the products: four results to a thread of the first outputs / 4. */
function residualText({ end, packed }: ProductProblem, outputs: number): string {
  if (end === 'none') return '';
  return `  let quad = group * ${outputs / 4}u + min(local, ${outputs / 4 - 1}u);
${end === 'residual' ? '  let old = residual[quad];\n' : ''}${packed === 'gain' ? '  let nextGain = gain[quad];\n' : ''}`;
}

function needsSums({ end }: ProductProblem, { split }: ProductShape): boolean {
  return end !== 'none' || split > 1;
}

/** One matrix (or a gated pair): loads ahead, staging, products. */
function rowsText(problem: ProductProblem, shape: ProductShape, index: number, firstGroup: number, threads: number): string {
  const { depth, end } = problem;
  const { lanes, split } = shape;
  const strips = productStrips(shape);
  const [rows, together] = [shape.rows / strips, shape.together / strips];
  const blocks = depth / 32;
  const steps = Math.ceil(blocks / (lanes * split));
  const gated = end === 'gated';
  const matrices = gated ? problem.matrices.slice(0, 2) : [problem.matrices[index]];
  const slots = range(rows).map((r) => {
    const which = gated && r >= rows / 2 ? 1 : 0;
    const matrix = matrices[which];
    if (matrix === undefined || !isBlockType(matrix.layout.dtype)) throw new PlanError('a token product needs packed weights');
    const name = gated ? `w${which}` : `w${index}`;
    return { row: `row${gated ? r % (rows / 2) : r}`, dot: blockDot(matrix.layout, matrix.layout.dtype, name, shape.halves, lanes >= 8) };
  });
  const count = matrices[0]?.layout.rows ?? 0;
  const own = gated ? rows / 2 : rows;
  const base = `(group - ${firstGroup}u) * ${productOutputs(end, shape)}u + own${strips === 1 ? '' : ' + strip'}`;
  const rowLine = (r: number): string => `    let row${r} = min(${base} + ${r * strips}u, ${count - 1}u) * ${blocks}u;\n`;
  const chunk = (step: number | string): string =>
    `column + ${typeof step === 'number' ? step * lanes : `${step} * ${lanes}`}u${split === 1 ? '' : ` + part * ${steps * lanes}u`}`;
  /** Whether some lane of a step is beyond the row's end. */
  const guarded = (step: number | string): boolean => (typeof step === 'number' ? step + 1 : steps) * lanes + (split - 1) * steps * lanes > blocks;
  const parts = activationParts(depth);
  const activations = (u: number, { step }: Task): string => {
    const [a, b, z] = shape.staged
      ? [`quants[c${u}]`, `quants[${blocks}u + c${u}]`, `scales[c${u}]`]
      : [`x[c${u}]`, `x[${parts.odd}u + c${u}]`, `bitcast<vec4<f32>>(x[${parts.scales}u + c${u}])`];
    const scale = guarded(step) ? `select(vec4<f32>(0.0), ${z}, ${chunk(step)} < ${blocks}u)` : z;
    return `    let xa${u} = ${a}; let xb${u} = ${b}; let z${u} = ${scale};\n`;
  };
  // A task is one step of some rows. Its names end in `u`: loads of later tasks are issued before the sums of earlier ones.
  const loads = (u: number, task: Task): string =>
    `    let c${u} = ${guarded(task.step) ? `min(${chunk(task.step)}, ${blocks - 1}u)` : chunk(task.step)};\n${slots
      .slice(task.first, task.first + together)
      .map(({ row, dot }, i) => `    let b${task.first + i}_${u} = ${row} + c${u}; ${dot.load(`${task.first + i}_${u}`, `b${task.first + i}_${u}`)}\n`)
      .join('')}${shape.staged ? '' : activations(u, task)}`;
  const math = (u: number, { first }: Task): string =>
    slots
      .slice(first, first + together)
      .map(({ dot }, i) => {
        const { statements, sum } = dot.value(`${first + i}_${u}`, `${u}`);
        return `    { ${statements}\n    a${first + i} += ${sum}; }\n`;
      })
      .join('');
  const use = (u: number, task: Task): string => `${shape.staged ? activations(u, task) : ''}${math(u, task)}`;
  const stage = shape.staged ? stageText(depth, threads) : '';
  const head = lines(own, rowLine);
  const turns = range(rows / together).map((turn) => turn * together);
  if (steps * turns.length > longestUnroll) {
    const whole = (u: number, task: Task): string => `${loads(u, task)}${use(u, task)}`;
    return `${head}${stage}${turns.map((first, u) => `    for (var i = 0u; i < ${steps}u; i++) {\n${whole(u, { step: 'i', first })}    }\n`).join('')}`;
  }
  const tasks = turns.flatMap((first) => range(steps).map((step): Task => ({ step, first })));
  const early = Math.min(shape.ahead, tasks.length);
  const load = (u: number): string => (tasks[u] === undefined ? '' : loads(u, tasks[u]));
  return `${head}${lines(early, load)}${stage}${tasks.map((task, u) => `${load(u + early)}${use(u, task)}`).join('')}`;
}

/** One step along the columns, a number or the name of one, of the rows from `first` on. */
interface Task {
  readonly step: number | string;
  readonly first: number;
}

function stageText(depth: number, threads: number): string {
  const copy = (count: number, line: (at: string) => string): string =>
    lines(Math.ceil(count / threads), (i) => {
      const at = `${i * threads}u + local`;
      return (i + 1) * threads > count ? `    if (${at} < ${count}u) { ${line(at)} }\n` : `    ${line(at)}\n`;
    });
  return `${copy(depth / 16, (at) => `quants[${at}] = x[${at}];`)}${copy(depth / 32, (at) => `scales[${at}] = bitcast<vec4<f32>>(x[${depth / 16}u + ${at}]);`)}    workgroupBarrier();\n`;
}

function endText(problem: ProductProblem, shape: ProductShape, groups: readonly number[], starts: readonly number[]): string {
  const { end, plain, packed } = problem;
  const { split } = shape;
  const strips = productStrips(shape);
  const rows = shape.rows / strips;
  const place = (r: number): string => `own + ${r * strips}u${strips === 1 ? '' : ' + strip'}`;
  const outputs = productOutputs(end, shape);
  if (end === 'none') return plainEnd(problem, shape, groups, starts);
  const results =
    end === 'gated'
      ? lines(rows / 2, (r) => `    sums[${place(r)}] = a${r} / (1.0 + exp(-a${r})) * a${r + rows / 2};\n`)
      : lines(rows, (r) => `    sums[(${place(r)}) * ${split}u + part] = a${r};\n`);
  const sum = (i: number): string =>
    range(split)
      .map((s) => `sums[(slot * 4u + ${i}u) * ${split}u + ${s}u]`)
      .join(' + ');
  const finish = `  let y4 = vec4<f32>(${range(4).map(sum).join(', ')})${end === 'residual' ? ' + old' : ''};\n`;
  return `  if (column == 0u) {\n${results}  }
  workgroupBarrier();
  let slot = min(local, ${outputs / 4 - 1}u);
${finish}${plain ? `  if (local < ${outputs / 4}u) { y[quad] = y4; }\n` : ''}${packed === 'none' ? '' : `  packBlock(y4${packed === 'gain' ? ' * nextGain' : ''}, y4, quad, local < ${outputs / 4}u);\n`}`;
}

/** Sums go to their places one by one; the first lane of a subgroup (or, where subgroups share rows, of the first of them) writes. */
function plainEnd(problem: ProductProblem, shape: ProductShape, groups: readonly number[], starts: readonly number[]): string {
  const { matrices, best, plain } = problem;
  const { split } = shape;
  const strips = productStrips(shape);
  const rows = shape.rows / strips;
  const outputs = productOutputs('none', shape);
  const gather =
    split === 1
      ? ''
      : `  if (column == 0u) {\n${lines(rows, (r) => `    sums[(own + ${r * strips}u + strip) * ${split}u + part] = a${r};\n`)}  }
  workgroupBarrier();
${lines(
  rows,
  (r) =>
    `  a${r} = ${range(split)
      .map((s) => `sums[(own + ${r * strips}u + strip) * ${split}u + ${s}u]`)
      .join(' + ')};\n`,
)}`;
  const store = matrices.map(({ layout, start, bias }, i) => {
    const write = (r: number): string =>
      `      if (row + ${r * strips}u < ${layout.rows}u) { y[${start}u + row + ${r * strips}u] = a${r}${bias ? ` + bias${i}[row + ${r * strips}u]` : ''}; }\n`;
    const block = `{\n      let row = (group - ${starts[i] ?? 0}u) * ${outputs}u + own + strip;\n${lines(rows, write)}    }`;
    return i === matrices.length - 1 ? block : `if (group < ${(starts[i] ?? 0) + (groups[i] ?? 0)}u) ${block} else `;
  });
  const stored = plain ? `  if (column == 0u && part == 0u) {\n    ${store.join('')}\n  }\n` : '';
  return gather + stored + (best ? bestText(matrices[0]?.layout.rows ?? 0, shape, outputs) : '');
}

/** The best (rank, index) of a workgroup, lowest index first where several are equal. Every subgroup looks through all of them; the first thread's is written. */
function bestText(count: number, shape: ProductShape, outputs: number): string {
  const { subgroups, subgroupSize: size } = shape;
  const strips = productStrips(shape);
  const consider = (r: number): string =>
    `    if (row + ${r * strips}u < ${count}u) { let o = rank(a${r}); if (o > top.x) { top = vec2<u32>(o, row + ${r * strips}u); } }\n`;
  const entries = subgroups * strips;
  const other = (i: number): string => `  {
    let other = contest[min(lane + ${i * size}u, ${entries - 1}u)];
    if (other.x > top.x || (other.x == top.x && other.y < top.y)) { top = other; }
  }
`;
  return `  var top = vec2<u32>(0u, 0xffffffffu);
  if (column == 0u) {
    let row = group * ${outputs}u + own + strip;
${lines(shape.rows / strips, consider)}    contest[subgroup * ${strips}u + strip] = top;
  }
  workgroupBarrier();
  top = contest[min(lane, ${entries - 1}u)];
${lines(Math.ceil(entries / size) - 1, (i) => other(i + 1))}  let most = subgroupMax(top.x);
  let first = subgroupMin(select(0xffffffffu, top.y, top.x == most));
  if (local == 0u) { bests[group] = vec2<u32>(most, first); }
`;
}
