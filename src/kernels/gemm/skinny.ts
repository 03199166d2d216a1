/**
 * Products in which one side is at most a few lines (a vector, say): the other matrix is read once, at memory's speed. `depth`: its depth is contiguous, and a team of
 * threads adds up each line. `lines`: its lines are contiguous, each thread has one of them, and slices of the depth are added up in workgroup memory.
 */

import type { GpuKernel } from '../../core/kernel.js';
import { declareBindings, defineKernel, f32Literal, foldGrid, mainHead } from '../template.js';
import { type GemmShape, range } from './shape.js';

/** Lines of the small side up to which these kernels serve. */
export const maxSkinny = 4;

const threads = 256;
const team = 32;
const linesOfGroup = 64;
const slices = threads / linesOfGroup;

interface Sides {
  /** Name of the large operand's binding, its lines, and whether its depth is contiguous. */
  readonly large: 'a' | 'b';
  readonly small: 'a' | 'b';
  readonly lines: number;
  readonly few: number;
  readonly depthFast: boolean;
  /** Index of (few, k) in the small operand, and of (line, few) in y. */
  smallAt(s: number, k: string): string;
  outputAt(line: string, s: number): string;
}

function sidesOf(shape: GemmShape): Sides {
  const { m, n, k, transposeA, transposeB } = shape;
  // The rows of A are few, or else the columns of B.
  if (m <= n) {
    return {
      large: 'b',
      small: 'a',
      lines: n,
      few: m,
      depthFast: transposeB,
      smallAt: (s, at) => (transposeA ? `${at} * ${m}u + ${s}u` : `${s * k}u + ${at}`),
      outputAt: (line, s) => `${s * n}u + ${line}`,
    };
  }
  return {
    large: 'a',
    small: 'b',
    lines: m,
    few: n,
    depthFast: !transposeA,
    smallAt: (s, at) => (transposeB ? `${s * k}u + ${at}` : `${at} * ${n}u + ${s}u`),
    outputAt: (line, s) => `${line} * ${n}u + ${s}u`,
  };
}

/** Parts of the depth, each a workgroup's, that keep a GPU busy. */
export function skinnySplits(shape: GemmShape): number {
  const { lines, depthFast } = sidesOf(shape);
  const groups = Math.ceil(lines / (depthFast ? threads / team : linesOfGroup));
  return Math.max(1, Math.min(Math.ceil(1024 / groups), Math.floor(shape.k / 256)));
}

/** Bindings: a, b, y; with several splits y is [splits, M, N], to be added up. */
export function skinnyKernel(shape: GemmShape, splits: number): GpuKernel {
  const sides = sidesOf(shape);
  const groups = Math.ceil(sides.lines / (sides.depthFast ? threads / team : linesOfGroup)) * splits;
  return defineKernel({
    family: 'gemm_skinny',
    params: { ...shape, splits },
    bindings: ['read', 'read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    workgroupBytes: threads * 4,
    wgsl: () => `${declareBindings([
      ['a', 'f32', 'read'],
      ['b', 'f32', 'read'],
      ['y', 'f32', 'read_write'],
    ])}var<workgroup> parts: array<f32, ${threads}>;
${mainHead(groups, threads)}${sides.depthFast ? depthBody(shape, sides, splits) : linesBody(shape, sides, splits)}}
`,
  });
}

/** Products from k = `lane` on in steps of `stride`, four loads in flight, up to `end`. */
function products({ k }: GemmShape, sides: Sides, perSplit: number, stride: number, largeAt: (k: string) => string): string {
  const unroll = 4;
  const rounds = Math.ceil(perSplit / (stride * unroll));
  const round = range(unroll)
    .map(
      (u) => `    {
      let d = first + (i * ${unroll}u + ${u}u) * ${stride}u;
      if (d < end) {
        let w = ${sides.large}[${largeAt('d')}];
${range(sides.few)
  .map((s) => `        sum${s} = fma(w, ${sides.small}[${sides.smallAt(s, 'd')}], sum${s});\n`)
  .join('')}      }
    }
`,
    )
    .join('');
  return `  let end = select(0u, min((split + 1u) * ${perSplit}u, ${k}u), line < ${sides.lines}u);
${range(sides.few)
  .map((s) => `  var sum${s} = 0.0f;\n`)
  .join('')}  for (var i = 0u; i < ${rounds}u; i++) {
${round}  }
`;
}

/** Adds `parts` over `count` threads that lie `step` apart; the first of them writes y. */
function addUp(shape: GemmShape, sides: Sides, count: number, step: number, index: string): string {
  const { m, n, alpha } = shape;
  const halves: string[] = [];
  for (let half = count / 2; half >= 1; half /= 2) {
    halves.push(`  if (${index} < ${half}u) { parts[local] += parts[local + ${half * step}u]; }\n  workgroupBarrier();\n`);
  }
  const scale = alpha === 1 ? '' : ` * ${f32Literal(alpha)}`;
  return range(sides.few)
    .map(
      (s) => `  parts[local] = sum${s};
  workgroupBarrier();
${halves.join('')}  if (${index} == 0u && line < ${sides.lines}u) { y[split * ${m * n}u + ${sides.outputAt('line', s)}] = parts[local]${scale}; }
  workgroupBarrier();
`,
    )
    .join('');
}

function depthBody(shape: GemmShape, sides: Sides, splits: number): string {
  const perSplit = Math.ceil(shape.k / splits);
  const groups = Math.ceil(sides.lines / (threads / team));
  return `  let split = group / ${groups}u;
  let lane = local % ${team}u;
  let line = group % ${groups}u * ${threads / team}u + local / ${team}u;
  let first = split * ${perSplit}u + lane;
${products(shape, sides, perSplit, team, (d) => `line * ${shape.k}u + ${d}`)}${addUp(shape, sides, team, 1, 'lane')}`;
}

function linesBody(shape: GemmShape, sides: Sides, splits: number): string {
  const perSplit = Math.ceil(shape.k / splits);
  const groups = Math.ceil(sides.lines / linesOfGroup);
  return `  let split = group / ${groups}u;
  let slice = local / ${linesOfGroup}u;
  let line = group % ${groups}u * ${linesOfGroup}u + local % ${linesOfGroup}u;
  let first = split * ${perSplit}u + slice;
${products(shape, sides, perSplit, slices, (d) => `${d} * ${sides.lines}u + line`)}${addUp(shape, sides, slices, linesOfGroup, 'slice')}`;
}
