/**
 * Packed weights times many rows of 8-bit activations, for devices that multiply packed bytes but no matrices. A workgroup makes a tile of y; a stage brings some blocks of 32 columns of both
 * operands to workgroup memory as signed bytes with their scales. A thread's products of one block are summed as integers, then scaled into f32 sums.
 */

import { PlanError } from '../../core/errors.js';
import type { GpuKernel } from '../../core/kernel.js';
import { type LinearProblem, outputText, problemParams } from '../linear-text.js';
import { declareBindings, defineKernel, foldGrid, lines, mainHead } from '../template.js';
import { isBlockType } from '../weights-layout.js';
import { rowBlock, rowScalesAt } from './activations.js';
import { type BlockBytes, type BlockScales, blockBytes } from './weights.js';

export interface PackedTile {
  /** Threads along the rows of x and along the rows of the weight. */
  readonly threads: readonly [x: number, w: number];
  /** Results of a thread along both. */
  readonly results: readonly [x: number, w: number];
  /** Blocks of 32 columns of a stage. */
  readonly blocks: number;
  /** Whether a stage is loaded while the one before it is multiplied: more registers, and less waiting where few workgroups share a processor. */
  readonly ahead: boolean;
}

/** The columns are cut in `splits` parts; with several y is [splits, T, N of the shard], to be added up. */
export interface PackedProblem extends LinearProblem {
  readonly splits: number;
}

/** Rows of x and rows of the weight that a tile covers. */
export function packedTileSize({ threads, results }: PackedTile): readonly [x: number, w: number] {
  return [threads[0] * results[0], threads[1] * results[1]];
}

/** Bytes of workgroup memory at most: 32 quants and two floats for each row and block. */
export function packedTileBytes(tile: PackedTile): number {
  const [x, w] = packedTileSize(tile);
  return (x + w) * tile.blocks * (rowBlock + 8);
}

interface Context {
  readonly problem: PackedProblem;
  readonly tile: PackedTile;
  readonly weights: BlockBytes;
  readonly threads: number;
  /** Blocks of a row, and stages of a part. */
  readonly blocks: number;
  readonly stages: number;
  /** Whether the last stage of a part may reach beyond the columns. */
  readonly ragged: boolean;
}

const scaleType: { readonly [S in BlockScales]: string } = { scale: 'f32', minimum: 'vec2<f32>', halves: 'vec2<f32>' };

export function packedKernel(problem: PackedProblem, tile: PackedTile): GpuKernel {
  const { layout, rows, splits } = problem;
  if (!isBlockType(layout.dtype)) throw new PlanError(`products of 8-bit activations need packed weights, got ${layout.dtype}`);
  const weights = blockBytes(layout, layout.dtype);
  const [tileX, tileW] = packedTileSize(tile);
  const tilesX = Math.ceil(rows / tileX);
  const tiles = tilesX * Math.ceil(layout.rows / tileW);
  const threads = tile.threads[0] * tile.threads[1];
  const blocks = layout.columns / rowBlock;
  const stages = Math.ceil(blocks / (tile.blocks * splits));
  const context: Context = { problem, tile, weights, threads, blocks, stages, ragged: stages * tile.blocks * splits !== blocks };
  const output = outputText(problem, false);
  const bindings = [['x', 'vec4<u32>', 'read'], ['w', 'vec4<u32>', 'read'], ...output.bindings] as const;
  return defineKernel({
    family: 'gemm_int8',
    params: { ...problemParams(problem), splits, ...tile },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(tiles * splits),
    workgroupSize: threads,
    workgroupBytes: packedTileBytes(tile),
    wgsl: () => `${declareBindings(bindings)}${weights.functions}${memory(context)}${mainHead(tiles * splits, threads)}  let place = group % ${tiles}u;
  let firstX = (place % ${tilesX}u) * ${tileX}u;
  let firstW = (place / ${tilesX}u) * ${tileW}u;
  let firstBlock = ${splits === 1 ? '0u' : `(group / ${tiles}u) * ${stages * tile.blocks}u`};
${threadPlace(tile)}${lines(tile.results[0], (i) => lines(tile.results[1], (j) => `  var c${i}_${j} = 0.0;\n`))}${loop(context)}${stores(context, output.store)}}
`,
  });
}

/** Quants as [block][half][row] vec4s, so that neighbouring threads read and write neighbouring ones; scales as [block][row]. */
function memory({ tile, weights: { scales } }: Context): string {
  const [x, w] = packedTileSize(tile);
  const xScale = scales === 'minimum' ? 'vec2<f32>' : 'f32';
  return `var<workgroup> xq: array<vec4<u32>, ${2 * tile.blocks * x}>;
var<workgroup> wq: array<vec4<u32>, ${2 * tile.blocks * w}>;
var<workgroup> xs: array<${xScale}, ${tile.blocks * x}>;
var<workgroup> ws: array<${scaleType[scales]}, ${tile.blocks * w}>;
fn scalesOfX(i: u32) -> vec2<f32> {
  let pair = x[i >> 1u];
  return bitcast<vec2<f32>>(select(pair.xy, pair.zw, (i & 1u) == 1u));
}
`;
}

/** A thread's place in the tile. With 16 and more along the weight, 32 neighbours cover 4x8 places: fewer distinct reads than 2x16. */
function threadPlace({ threads: [x, w] }: PackedTile): string {
  if (w % 8 !== 0 || x % 4 !== 0) return `  let tw = local % ${w}u;\n  let tx = local / ${w}u;\n`;
  const across = w / 8;
  return `  let square = local >> 5u;
  let tw = (square % ${across}u) * 8u + (local & 7u);
  let tx = (square / ${across}u) * 4u + ((local >> 3u) & 3u);
`;
}

/** One of the operands' loads: registers, global to registers, registers to workgroup memory. Unit `q` of a thread is `local + q * threads`. */
interface Load {
  readonly units: number;
  readonly held: readonly (readonly [name: string, type: string])[];
  fetch(q: number, unit: string): string;
  put(q: number, unit: string): string;
}

/** The block of a stage, kept within the columns, and whether it is one of them. */
const blockAt = ({ blocks, ragged }: Context, block: string): string => (ragged ? `min(now + ${block}, ${blocks - 1}u)` : `now + ${block}`);
const live = ({ blocks, ragged }: Context, block: string, value: string, zero: string): string =>
  ragged ? `select(${zero}, ${value}, now + ${block} < ${blocks}u)` : value;

function loadsOf(context: Context): readonly Load[] {
  const { problem, tile, weights } = context;
  const { rows, layout } = problem;
  const [tileX, tileW] = packedTileSize(tile);
  const minimum = weights.scales === 'minimum';
  const quants: Load = {
    units: 2 * tile.blocks * tileX,
    held: [['a', 'vec4<u32>']],
    fetch: (q, u) => {
      const row = `min(firstX + ${u} % ${tileX}u, ${rows - 1}u)`;
      return `  a${q} = x[(${blockAt(context, `${u} / ${2 * tileX}u`)}) * ${2 * rows}u + (${u} / ${tileX}u % 2u) * ${rows}u + ${row}];\n`;
    },
    put: (q, u) => `  xq[${u}] = a${q};\n`,
  };
  const scales: Load = {
    units: tile.blocks * tileX,
    held: [['z', minimum ? 'vec2<f32>' : 'f32']],
    fetch: (q, u) => {
      const block = `${u} / ${tileX}u`;
      const at = `${rowScalesAt(rows, layout.columns) / 2}u + (${blockAt(context, block)}) * ${rows}u + min(firstX + ${u} % ${tileX}u, ${rows - 1}u)`;
      return `  z${q} = ${live(context, block, `scalesOfX(${at})${minimum ? '' : '.x'}`, minimum ? 'vec2<f32>(0.0)' : '0.0')};\n`;
    },
    put: (q, u) => `  xs[${u}] = z${q};\n`,
  };
  const packed: Load = {
    units: tile.blocks * tileW,
    held: [['b', 'u32'], ...weights.held],
    // Neighbours take the blocks of one row, which lie side by side.
    fetch: (q, u) => {
      const row = `min(firstW + ${u} / ${tile.blocks}u, ${layout.rows - 1}u)`;
      return `  b${q} = ${row} * ${context.blocks}u + ${blockAt(context, `${u} % ${tile.blocks}u`)};\n  ${weights.fetch(`${q}`, `b${q}`)}\n`;
    },
    put: (q, u) => {
      const at = (part: 0 | 1): string => `(${u} % ${tile.blocks}u) * ${2 * tileW}u + ${part * tileW}u + ${u} / ${tile.blocks}u`;
      const scale = weights.scale(`${q}`, `b${q}`);
      return `  wq[${at(0)}] = ${weights.bytes(`${q}`, 0)};
  wq[${at(1)}] = ${weights.bytes(`${q}`, 1)};
  ws[(${u} % ${tile.blocks}u) * ${tileW}u + ${u} / ${tile.blocks}u] = ${scale};
`;
    },
  };
  return [quants, scales, packed];
}

function loop(context: Context): string {
  const { tile, threads, stages } = context;
  const loads = loadsOf(context);
  const each = (body: (load: Load, q: number, unit: string) => string, guards: boolean): string =>
    loads
      .map((load) =>
        lines(Math.ceil(load.units / threads), (q) => {
          const unit = q === 0 ? 'local' : `(local + ${q * threads}u)`;
          const text = body(load, q, unit);
          return guards && (q + 1) * threads > load.units ? `  if (${unit} < ${load.units}u) {\n${text}  }\n` : text;
        }),
      )
      .join('');
  const registers = each(({ held }, q) => held.map(([name, type]) => `  var ${name}${q}: ${type};\n`).join(''), false);
  const fetch = each((load, q, unit) => load.fetch(q, unit), true);
  const put = each((load, q, unit) => load.put(q, unit), true);
  const barrier = '  workgroupBarrier();\n';
  const stage = (i: string): string => `  let now = firstBlock + ${i} * ${tile.blocks}u;\n`;
  if (!tile.ahead || stages === 1) {
    const body = `${stage('i')}${fetch}${put}${barrier}${multiply(context)}${barrier}`;
    return `${registers}  for (var i = 0u; i < ${stages}u; i++) {\n${body}  }\n`;
  }
  // The last round loads its own stage once more, which costs less than a branch.
  const next = `  let now = firstBlock + min(i + 1u, ${stages - 1}u) * ${tile.blocks}u;\n`;
  return `${registers}  {\n${stage('0u')}${fetch}  }\n  for (var i = 0u; i < ${stages}u; i++) {\n${put}${barrier}${next}${fetch}${multiply(context)}${barrier}  }\n`;
}

/** The f32 value of the sum of products of four words and four more. Sums stay far below 2^22, so that adding 1.5 * 2^23 in the bits makes the float exactly. */
const dots = (x: string, w: string): string => ['x', 'y', 'z', 'w'].map((c) => `dot4I8Packed(${x}.${c}, ${w}.${c})`).join(' + ');
const float = (sum: string): string => `(bitcast<f32>(0x4b400000i + ${sum}) - 12582912.0)`;

function multiply({ tile, weights: { scales } }: Context): string {
  const [tileX, tileW] = packedTileSize(tile);
  const { threads, results } = tile;
  const product = (i: number, j: number): string => {
    const c = `c${i}_${j}`;
    if (scales === 'halves') return `    ${c} = fma(xs${i}, fma(ws${j}.x, ${float(dots('xa', `wa${j}`))}, ws${j}.y * ${float(dots('xb', `wb${j}`))}), ${c});\n`;
    const sum = float(`${dots('xa', `wa${j}`)} + ${dots('xb', `wb${j}`)}`);
    if (scales === 'scale') return `    ${c} = fma(xs${i} * ws${j}, ${sum}, ${c});\n`;
    return `    ${c} = fma(xs${i}.x * ws${j}.x, ${sum}, fma(-ws${j}.y, xs${i}.y, ${c}));\n`;
  };
  const wAt = (j: number): string => `${j * threads[1]}u + tw`;
  const xAt = (i: number): string => `${i * threads[0]}u + tx`;
  const body = `${lines(
    results[1],
    (j) => `    let wa${j} = wq[b * ${2 * tileW}u + ${wAt(j)}];
    let wb${j} = wq[b * ${2 * tileW}u + ${tileW}u + ${wAt(j)}];
    let ws${j} = ws[b * ${tileW}u + ${wAt(j)}];
`,
  )}${lines(
    results[0],
    (i) => `    {
    let xa = xq[b * ${2 * tileX}u + ${xAt(i)}];
    let xb = xq[b * ${2 * tileX}u + ${tileX}u + ${xAt(i)}];
    let xs${i} = xs[b * ${tileX}u + ${xAt(i)}];
${lines(results[1], (j) => product(i, j))}    }
`,
  )}`;
  return tile.blocks === 1 ? `  {\n    let b = 0u;\n${body}  }\n` : `  for (var b = 0u; b < ${tile.blocks}u; b++) {\n${body}  }\n`;
}

function stores({ problem, tile }: Context, store: (sum: string, t: string, n: string) => string): string {
  const [tileX, tileW] = packedTileSize(tile);
  const { rows, layout, splits } = problem;
  const guard = (condition: string, needed: boolean, text: string): string => (needed ? `if (${condition}) { ${text} }` : text);
  const parts = `(group / ${Math.ceil(rows / tileX) * Math.ceil(layout.rows / tileW)}u)`;
  return lines(tile.results[0], (i) => {
    const t = `firstX + ${i * tile.threads[0]}u + tx`;
    const row = lines(tile.results[1], (j) => {
      const n = `firstW + ${j * tile.threads[1]}u + tw`;
      const sum = `c${i}_${j}`;
      const text = splits === 1 ? store(sum, 't', `(${n})`) : `y[(${parts} * ${rows}u + t) * ${layout.rows}u + ${n}] = ${sum};`;
      return `    ${guard(`${n} < ${layout.rows}u`, layout.rows % tileW !== 0, text)}\n`;
    });
    return `  ${guard(`${t} < ${rows}u`, rows % tileX !== 0, `{\n    let t = ${t};\n${row}  }`)}\n`;
  });
}
