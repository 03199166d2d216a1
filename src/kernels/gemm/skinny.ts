/**
 * Products in which one side is at most a few lines (a vector, say): the other matrix is read once, at memory's speed. `depth`: its depth is contiguous, and a team of
 * threads adds up each line. `lines`: its lines are contiguous, each thread has up to four of them, and slices of the depth are added up in workgroup memory.
 */

import type { GpuKernel } from '../../core/kernel.js';
import { declareBindings, defineKernel, f32Literal, foldGrid, mainHead, range } from '../template.js';
import { epilogueBindings, epilogueFunctions, finished } from './epilogue.js';
import { type GemmShape, shapeParams } from './shape.js';

/** Lines of the small side up to which these kernels serve. */
export const maxSkinny = 4;

/** How the work is dealt out. */
export interface SkinnyPlan {
  /** Threads of a workgroup. */
  readonly threads: number;
  /** Threads next to each other in memory: of a line's depth (`depth`), or of neighbouring lines (`lines`). */
  readonly lanes: number;
  /** Loads that a thread has in flight. */
  readonly unroll: number;
  /** Parts of the depth, each a workgroup's. */
  readonly splits: number;
}

interface Sides {
  /** Name of the large operand's binding, its lines, and whether its depth is contiguous. */
  readonly large: 'a' | 'b';
  readonly small: 'a' | 'b';
  readonly lines: number;
  readonly few: number;
  readonly depthFast: boolean;
  /** Elements that a thread loads of the large operand at once. */
  readonly vector: 1 | 4;
  /** Whether the small operand is read in vectors along the depth too. */
  readonly smallVectors: boolean;
  /** Index of (few, k) in the small operand, and of (line, few) in y. */
  smallAt(s: number, k: string): string;
  outputAt(line: string, s: number): string;
}

function sidesOf(shape: GemmShape): Sides {
  const { m, n, k, transposeA, transposeB } = shape;
  // The rows of A are few, or else the columns of B.
  const rows = m <= n;
  const depthFast = rows ? transposeB : !transposeA;
  const [lines, few] = rows ? [n, m] : [m, n];
  const vector = (depthFast ? k : lines) % 4 === 0 ? 4 : 1;
  const smallDepthFast = (rows ? !transposeA : transposeB) || few === 1;
  return {
    large: rows ? 'b' : 'a',
    small: rows ? 'a' : 'b',
    lines,
    few,
    depthFast,
    vector,
    smallVectors: depthFast && vector === 4 && smallDepthFast,
    smallAt: (s, at) => (smallDepthFast ? (s === 0 ? at : `${s * k}u + ${at}`) : `${at} * ${few}u + ${s}u`),
    outputAt: (line, s) => (rows ? `${s * n}u + ${line}` : `${line} * ${n}u + ${s}u`),
  };
}

/** Lines of a workgroup. */
const groupLines = ({ depthFast, vector }: Sides, { threads, lanes }: Pick<SkinnyPlan, 'threads' | 'lanes'>): number =>
  depthFast ? threads / lanes : lanes * vector;

/** Workgroups that keep the memory of a large GPU busy. */
const busyGroups = 256;

/**
 * Along the depth a workgroup has one line where there are enough of them, and no part is added up. Along the lines, workgroups for one vector are made narrow first (64 bytes of a row are read
 * as fast as more) and deep, and only then the depth is split: adding up parts costs a dispatch more. Several vectors keep wide workgroups and split the depth.
 */
export function selectSkinny(shape: GemmShape, maxThreads: number): SkinnyPlan {
  const sides = sidesOf(shape);
  const narrow = !sides.depthFast && sides.few === 1;
  // A power of two: slices are added up in halves.
  const threads = narrow ? 2 ** Math.floor(Math.log2(Math.min(512, maxThreads))) : 256;
  const groups = (lanes: number): number => Math.ceil(sides.lines / groupLines(sides, { threads, lanes }));
  const widths = sides.depthFast ? [32, 64, 128, 256] : narrow ? [32, 16, 8, 4] : [32];
  const enough = sides.depthFast ? 4 * busyGroups : busyGroups;
  const lanes = widths.find((width) => groups(width) >= enough && (!sides.depthFast || shape.k <= 4 * sides.vector * width)) ?? widths.at(-1) ?? 32;
  // Parts of at least two rounds of a workgroup.
  const round = sides.depthFast ? lanes * sides.vector : threads / lanes;
  const wanted = (sides.few === 1 ? 1 : 2) * busyGroups;
  const splits = Math.min(Math.ceil(wanted / groups(lanes)), Math.max(1, Math.floor(shape.k / (2 * round))), 64);
  const rounds = Math.max(1, Math.floor(shape.k / (round * splits)));
  return { threads, lanes, unroll: Math.min(8, rounds), splits };
}

/** Bindings: a, b, y; with several splits y is [splits, M, N], to be added up. */
export function skinnyKernel(shape: GemmShape, plan: SkinnyPlan): GpuKernel {
  const sides = sidesOf(shape);
  const groups = Math.ceil(sides.lines / groupLines(sides, plan)) * plan.splits;
  const sum = sumType(sides);
  const element = (name: 'a' | 'b'): string => ((name === sides.large ? sides.vector === 4 : sides.smallVectors) ? 'vec4<f32>' : 'f32');
  return defineKernel({
    family: 'gemm_skinny',
    params: { ...shapeParams(shape), ...plan },
    bindings: ['read', 'read', ...epilogueBindings(shape.epilogue).map(([, , kind]) => kind), 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: plan.threads,
    workgroupBytes: plan.threads * (sum === 'f32' ? 4 : 16),
    wgsl: () => `${declareBindings([
      ['a', element('a'), 'read'],
      ['b', element('b'), 'read'],
      ...epilogueBindings(shape.epilogue),
      ['y', 'f32', 'read_write'],
    ])}${epilogueFunctions(shape.epilogue)}var<workgroup> parts: array<${sum}, ${plan.threads}>;
${mainHead(groups, plan.threads)}${place(sides, plan)}${products(shape, sides, plan)}${addUp(shape, sides, plan)}}
`,
  });
}

const sumType = ({ depthFast, vector }: Sides): 'f32' | 'vec4<f32>' => (depthFast || vector === 1 ? 'f32' : 'vec4<f32>');

/** `line`: the (first) line of a thread, kept within the matrix; `lane` and `slice`: its place in its workgroup. */
function place(sides: Sides, { threads, lanes, splits }: SkinnyPlan): string {
  const { lines, depthFast, vector } = sides;
  const groups = Math.ceil(lines / groupLines(sides, { threads, lanes }));
  const [split, group] = splits === 1 ? ['0u', 'group'] : [`group / ${groups}u`, `group % ${groups}u`];
  const own = depthFast ? `${group} * ${threads / lanes}u + local / ${lanes}u` : `(${group} * ${lanes}u + local % ${lanes}u) * ${vector}u`;
  return `  let split = ${split};
  let lane = local % ${lanes}u;
  let slice = local / ${lanes}u;
  let line = ${own};
  let read = min(line, ${lines - (depthFast ? 1 : vector)}u);
`;
}

/** A thread's products: units of its part of the depth (vectors along the depth, or rows) at paces of the team. */
function products(shape: GemmShape, sides: Sides, { threads, lanes, unroll, splits }: SkinnyPlan): string {
  const { depthFast, vector, few } = sides;
  const units = depthFast ? shape.k / vector : shape.k;
  const pace = depthFast ? lanes : threads / lanes;
  const perSplit = Math.ceil(units / splits);
  const whole = splits * perSplit === units ? Math.floor(perSplit / (pace * unroll)) : 0;
  const first = `  let first = split * ${perSplit}u + ${depthFast ? 'lane' : 'slice'};\n`;
  const at = depthFast ? (d: string) => `read * ${shape.k / vector}u + ${d}` : (d: string) => `${d} * ${sides.lines / vector}u + read / ${vector}u`;
  const loads = range(unroll)
    .map(
      (u) =>
        `    let d${u} = first + (i * ${unroll}u + ${u}u) * ${pace}u;\n    let w${u} = ${sides.large}[${at(`d${u}`)}];\n${smallLoads(sides, `${u}`, `d${u}`)}`,
    )
    .join('');
  const sums = range(unroll)
    .map((u) => term(sides, `w${u}`, `${u}`))
    .join('');
  const loop = whole === 0 ? '' : `  for (var i = 0u; i < ${whole}u; i++) {\n${loads}${sums}  }\n`;
  const rest = Math.ceil((perSplit - whole * pace * unroll) / pace);
  const end = `min((split + 1u) * ${perSplit}u, ${units}u)`;
  const tail = `  for (var i = 0u; i < ${rest}u; i++) {
    let d = first + (${whole * unroll}u + i) * ${pace}u;
    if (d < ${end}) {
    let w = ${sides.large}[${at('d')}];
${smallLoads(sides, '', 'd')}${term(sides, 'w', '')}    }
  }
`;
  const zero = sumType(sides) === 'f32' ? '0.0' : 'vec4<f32>(0.0)';
  return `${first}${range(few)
    .map((s) => `  var sum${s} = ${zero};\n`)
    .join('')}${loop}${rest === 0 ? '' : tail}`;
}

/** Loads what unit `d` of the large operand is multiplied with, of every line of the small one, as `x<id>_<line>`. */
function smallLoads({ depthFast, vector, few, small, smallVectors, smallAt }: Sides, id: string, d: string): string {
  const load = (s: number): string => {
    if (!depthFast || vector === 1) return `${small}[${smallAt(s, d)}]`;
    if (smallVectors) return `${small}[${vectorAt(smallAt(s, '#'), d)}]`;
    return `vec4<f32>(${range(4)
      .map((i) => `${small}[${smallAt(s, `(${d} * 4u + ${i}u)`)}]`)
      .join(', ')})`;
  };
  return range(few)
    .map((s) => `    let x${id}_${s} = ${load(s)};\n`)
    .join('');
}

/** Adds the products of one load `w` to every sum. */
function term({ depthFast, vector, few }: Sides, w: string, id: string): string {
  const product = (x: string): string => (vector === 1 ? `${w} * ${x}` : depthFast ? `dot(${w}, ${x})` : `${w} * vec4<f32>(${x})`);
  return range(few)
    .map((s) => `    sum${s} += ${product(`x${id}_${s}`)};\n`)
    .join('');
}

/** The vector's index for an element index of the form `offset + #`. */
function vectorAt(pattern: string, d: string): string {
  const offset = /^(\d+)u \+ #$/.exec(pattern)?.[1];
  return offset === undefined ? d : `${Number(offset) / 4}u + ${d}`;
}

/** Adds the sums of a team (`depth`) or of the slices of a line (`lines`) in workgroup memory; the first writes y. */
function addUp(shape: GemmShape, sides: Sides, { threads, lanes, splits }: SkinnyPlan): string {
  const { m, n, alpha, epilogue } = shape;
  const { depthFast, vector, lines, few } = sides;
  const [count, step, index] = depthFast ? [lanes, 1, 'lane'] : [threads / lanes, lanes, 'slice'];
  const halves: string[] = [];
  for (let half = count / 2; half >= 1; half /= 2) {
    halves.push(`  if (${index} < ${half}u) { parts[local] += parts[local + ${half * step}u]; }\n  workgroupBarrier();\n`);
  }
  const scale = alpha === 1 ? '' : ` * ${f32Literal(alpha)}`;
  const part = splits === 1 ? '' : `split * ${m * n}u + `;
  const store = (s: number): string => {
    const element = (line: string, value: string): string => {
      const [row, column] = sides.small === 'a' ? [`${s}u`, line] : [line, `${s}u`];
      return `y[${part}${sides.outputAt(line, s)}] = ${finished(epilogue, `${value}${scale}`, row, column)};`;
    };
    if (sumType(sides) === 'f32') return element('line', 'parts[local]');
    return range(vector)
      .map((i) => element(`(line + ${i}u)`, `parts[local].${'xyzw'.charAt(i)}`))
      .join(' ');
  };
  return range(few)
    .map(
      (s) => `  parts[local] = sum${s};
  workgroupBarrier();
${halves.join('')}  if (${index} == 0u && line < ${lines}u) { ${store(s)} }
${s === few - 1 ? '' : '  workgroupBarrier();\n'}`,
    )
    .join('');
}
