/**
 * Matrix times one or a few vectors: every weight is read once and multiplied with all rows of x. A team of threads makes `teamRows` outputs, each thread taking
 * every team-size-th chunk of those rows. Integer-dot variants have their own file: they need x quantised.
 */

import type { GpuKernel } from '../core/kernel.js';
import type { WeightGroup } from './blocks.js';
import { type LinearProblem, type LinearText, linearText, problemParams } from './linear-text.js';
import { defineKernel, foldGrid, mainHead, range } from './template.js';

/**
 * How a team adds up.
 * - `subgroup`: a team is a subgroup, whose size is known: no workgroup memory, no barrier
 * - `subgroups`: a team is the workgroup, made of subgroups of any size from `subgroupSize` on
 * - `tree`: a team is the workgroup, which adds in workgroup memory
 */
export type TeamKind = 'subgroup' | 'subgroups' | 'tree';

export interface MatvecShape {
  readonly team: TeamKind;
  readonly threads: number;
  /** The size (team `subgroup`), the smallest possible size (`subgroups`), or 0. */
  readonly subgroupSize: number;
  /** Outputs of a team for each row of x. */
  readonly teamRows: number;
  /** Chunks that a thread loads before it computes. */
  readonly unroll: number;
}

export function matvecKernel(problem: LinearProblem, shape: MatvecShape): GpuKernel {
  const teams = shape.team === 'subgroup' ? shape.threads / shape.subgroupSize : 1;
  const groups = Math.ceil(problem.layout.rows / (teams * shape.teamRows));
  const sums = shape.teamRows * problem.rows;
  const parts = { subgroup: 0, subgroups: (shape.threads / shape.subgroupSize) * sums, tree: shape.threads * sums }[shape.team];
  const text = linearText(problem, false);
  return defineKernel({
    family: 'matvec',
    params: { ...problemParams(problem), ...shape },
    bindings: text.bindings,
    workgroups: foldGrid(groups),
    workgroupSize: shape.threads,
    workgroupBytes: parts * 4,
    features: shape.team === 'tree' ? [] : ['subgroups'],
    wgsl: () => {
      const builtins = {
        subgroup: '@builtin(subgroup_invocation_id) lane: u32',
        subgroups: '@builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) lanes: u32',
        tree: '',
      };
      const team = shape.team === 'subgroup' ? `(group * ${teams}u + local / ${shape.subgroupSize}u)` : 'group';
      return `${text.declarations}${parts > 0 ? `var<workgroup> parts: array<f32, ${parts}>;\n` : ''}${mainHead(groups, shape.threads, builtins[shape.team])}
  // Rows beyond the shard repeat its last row, so that every load is in bounds; their sums are not written.
  let row = ${team} * ${shape.teamRows}u;
${range(shape.teamRows)
  .map((r) => `  let row${r} = min(row + ${r}u, ${problem.layout.rows - 1}u);\n`)
  .join('')}${sumNames(problem, shape)
  .map((name) => `  var ${name} = 0.0;\n`)
  .join('')}${products(problem, shape, text)}${finish(problem, shape, text)}}
`;
    },
  });
}

const sumNames = ({ rows }: LinearProblem, { teamRows }: MatvecShape): readonly string[] =>
  range(teamRows).flatMap((r) => range(rows).map((t) => `a${r}_${t}`));

/** The loop over a row's chunks: whole rounds of the team in steps of `unroll`, then the rest, the last round guarded. */
function products(problem: LinearProblem, shape: MatvecShape, text: LinearText): string {
  const { chunk } = text.reader;
  const chunks = Math.ceil(problem.layout.columns / chunk);
  const lanes = shape.team === 'subgroup' ? shape.subgroupSize : shape.threads;
  const lane = shape.team === 'subgroup' ? 'lane' : 'local';
  const rounds = Math.floor(chunks / lanes);
  const loops = Math.floor(rounds / shape.unroll);
  const round = (steps: number, first: string): string => {
    const at = (u: number): string => `  let c${u} = (${first} + ${u}u) * ${lanes}u + ${lane};\n`;
    return (
      range(steps)
        .map((u) => at(u) + loads(shape, text, u))
        .join('') +
      range(steps)
        .map((u) => chunkProducts(problem, shape, text, u))
        .join('')
    );
  };
  const body =
    loops > 1
      ? `  for (var i = 0u; i < ${loops}u; i++) {\n${round(shape.unroll, `i * ${shape.unroll}u`)}  }\n`
      : loops === 1
        ? `  {\n${round(shape.unroll, '0u')}  }\n`
        : '';
  const rest = rounds - loops * shape.unroll;
  const tail = rest > 0 ? `  {\n${round(rest, `${loops * shape.unroll}u`)}  }\n` : '';
  const last = chunks % lanes === 0 ? '' : `  if (${lane} < ${chunks - rounds * lanes}u) {\n${round(1, `${rounds}u`)}  }\n`;
  return body + tail + last;
}

function loads(shape: MatvecShape, text: LinearText, u: number): string {
  return range(shape.teamRows)
    .map((r) => `  ${text.reader.load(`${r}_${u}`, `row${r}`, `c${u}`)}\n`)
    .join('');
}

/** One chunk of every row of the team times the same part of x. With one row of x the scales multiply sums; with more they multiply the weights, once for all. */
function chunkProducts(problem: LinearProblem, shape: MatvecShape, text: LinearText, u: number): string {
  const quads = text.reader.chunk / 4;
  const x = (t: number, j: number): string => text.x(`${t}u`, `c${u} * ${quads}u + ${j}u`);
  const chunks = range(shape.teamRows).map((r) => text.reader.groups(`${r}_${u}`));
  if (problem.rows === 1) {
    const load = range(quads).map((j) => `  let x${u}_${j} = ${x(0, j)};\n`);
    return load.join('') + chunks.map((groups, r) => oneRow(groups, r, u)).join('');
  }
  const scales = chunks.map((groups, r) => groups.map((group, g) => scaleNames(group, `${r}_${u}_${g}`)));
  const lines = scales.flat().map(({ declare }) => declare);
  for (const j of range(quads)) {
    for (const [r, groups] of chunks.entries()) {
      const per = quads / groups.length;
      const g = Math.floor(j / per);
      lines.push(`  let w${r}_${u}_${j} = ${scales[r]?.[g]?.apply(groups[g]?.quads[j - g * per] ?? '') ?? ''};\n`);
    }
    for (const t of range(problem.rows)) {
      lines.push(`  let x${u}_${j}_${t} = ${x(t, j)};\n`);
      for (const r of range(shape.teamRows)) lines.push(`  a${r}_${t} += dot(w${r}_${u}_${j}, x${u}_${j}_${t});\n`);
    }
  }
  return lines.join('');
}

function scaleNames(group: WeightGroup, id: string): { readonly declare: string; apply(quad: string): string } {
  if (group.scale === undefined) return { declare: '', apply: (quad) => quad };
  if (group.minimum === undefined) return { declare: `  let f${id} = ${group.scale};\n`, apply: (quad) => `f${id} * ${quad}` };
  return { declare: `  let f${id} = ${group.scale};\n  let m${id} = ${group.minimum};\n`, apply: (quad) => `f${id} * ${quad} - m${id}` };
}

/** The team's first row declares the sums of x that minimums multiply. */
function oneRow(groups: readonly WeightGroup[], r: number, u: number): string {
  let first = 0;
  return groups
    .map(({ quads, scale, minimum }, g) => {
      const names = quads.map((_, j) => `x${u}_${first + j}`);
      first += quads.length;
      const sum = quads.map((quad, j) => `dot(${quad}, ${names[j]})`).join(' + ');
      const scaled = scale === undefined ? sum : `${scale} * (${sum})`;
      if (minimum === undefined) return `  a${r}_0 += ${scaled};\n`;
      const total = r > 0 ? '' : `  let s${u}_${g} = dot(${names.join(' + ')}, vec4<f32>(1.0));\n`;
      return `${total}  a${r}_0 += ${scaled} - ${minimum} * s${u}_${g};\n`;
    })
    .join('');
}

function finish(problem: LinearProblem, shape: MatvecShape, text: LinearText): string {
  const names = sumNames(problem, shape);
  if (shape.team === 'subgroup') {
    const added = names.map((name) => `  ${name} = subgroupAdd(${name});\n`).join('');
    const rows = range(shape.teamRows).map((r) => {
      const stores = range(problem.rows).map((t) => `      ${text.store(`a${r}_${t}`, `${t}u`, `(row + ${r}u)`)}\n`);
      return `    if (row + ${r}u < ${problem.layout.rows}u) {\n${stores.join('')}    }\n`;
    });
    return `${added}  if (lane == 0u) {\n${rows.join('')}  }\n`;
  }
  const total = shape.team === 'tree' ? treeTotal(names, shape) : subgroupsTotal(names, shape);
  return `${total}  if (local < ${names.length}u && row + local / ${problem.rows}u < ${problem.layout.rows}u) {
    ${text.store('total', `local % ${problem.rows}u`, `(row + local / ${problem.rows}u)`)}
  }
`;
}

/** Thread i gets the total of sum i; the array holds one stripe of all threads for each sum. */
function treeTotal(names: readonly string[], { threads }: MatvecShape): string {
  const put = names.map((name, i) => `  parts[${i * threads}u + local] = ${name};\n`).join('');
  const levels = range(Math.log2(threads)).map((level) => {
    const half = threads >> (level + 1);
    const add = `parts[s * ${threads}u + local] += parts[s * ${threads}u + local + ${half}u];`;
    return `  workgroupBarrier();\n  if (local < ${half}u) {\n    for (var s = 0u; s < ${names.length}u; s++) { ${add} }\n  }\n`;
  });
  return `${put}${levels.join('')}  workgroupBarrier();\n  let total = parts[min(local, ${names.length - 1}u) * ${threads}u];\n`;
}

/** Thread i gets the total of sum i; the array holds all sums of one subgroup after another. */
function subgroupsTotal(names: readonly string[], { threads, subgroupSize }: MatvecShape): string {
  const added = names.map((name) => `  ${name} = subgroupAdd(${name});\n`).join('');
  const put = names.map((name, i) => `    parts[(local / lanes) * ${names.length}u + ${i}u] = ${name};\n`).join('');
  return `${added}  if (lane == 0u) {
${put}  }
  workgroupBarrier();
  var total = 0.0;
  for (var s = 0u; s < ${threads / subgroupSize}u; s++) {
    if (s * lanes < ${threads}u) { total += parts[s * ${names.length}u + min(local, ${names.length - 1}u)]; }
  }
`;
}
