/**
 * Matrix times matrix in f32: a workgroup makes a tile of y from tiles of x and of the decoded weight in workgroup memory, both stored by k (row k holds the tile's
 * rows side by side), so that a thread's operands are vec4 reads; each thread keeps 4x4 quadrants of the tile in registers.
 */

import type { GpuKernel } from '../core/kernel.js';
import { type LinearProblem, type LinearText, linearText, problemParams, storesVectors } from './linear-text.js';
import { defineKernel, foldGrid, mainHead, range } from './template.js';

export interface MatmulTile {
  /** Threads along the rows of x and along the rows of the weight. */
  readonly threads: readonly [x: number, w: number];
  /** 4x4 quadrants of a thread along both. */
  readonly quadrants: readonly [x: number, w: number];
  /** Depth of a tile; a multiple of 4. */
  readonly depth: number;
  readonly schedule: MatmulSchedule;
}

/**
 * How tiles follow each other.
 * - `double`: two tiles in workgroup memory, one filled while the other is read, at one barrier a tile; a tile is fetched while the one before it is multiplied
 * - `single`: one tile in workgroup memory, fetched ahead in the same way, at two barriers a tile
 * - `short`: one tile, fetched when it is needed, with the product as a loop: far less text, for rasterisers on the CPU, which take seconds to compile the others
 */
export type MatmulSchedule = 'double' | 'single' | 'short';

/** Rows of x and rows of the weight that a tile covers. */
export function tileSize({ threads, quadrants }: MatmulTile): readonly [x: number, w: number] {
  return [4 * threads[0] * quadrants[0], 4 * threads[1] * quadrants[1]];
}

/** vec4s of a row k of each stored tile: one of padding keeps the transposing stores of a subgroup in different memory banks. */
function rowVectors(tile: MatmulTile): readonly [x: number, w: number] {
  const [x, w] = tileSize(tile);
  return [x / 4 + 1, w / 4 + 1];
}

const buffers = (tile: MatmulTile): number => (tile.schedule === 'double' ? 2 : 1);

export function tileBytes(tile: MatmulTile): number {
  const [x, w] = rowVectors(tile);
  return 16 * (x + w) * tile.depth * buffers(tile);
}

export function matmulKernel(problem: LinearProblem, tile: MatmulTile): GpuKernel {
  const [tileX, tileW] = tileSize(tile);
  const tilesX = Math.ceil(problem.rows / tileX);
  const count = tilesX * Math.ceil(problem.layout.rows / tileW);
  const threads = tile.threads[0] * tile.threads[1];
  const text = linearText(problem, storesVectors(problem));
  return defineKernel({
    family: 'matmul',
    params: { ...problemParams(problem), ...tile },
    bindings: text.bindings,
    workgroups: foldGrid(count),
    workgroupSize: threads,
    workgroupBytes: tileBytes(tile),
    wgsl: () => {
      const [rowX, rowW] = rowVectors(tile);
      return `${text.declarations}var<workgroup> tileX: array<vec4<f32>, ${rowX * tile.depth * buffers(tile)}>;
var<workgroup> tileW: array<vec4<f32>, ${rowW * tile.depth * buffers(tile)}>;
${mainHead(count, threads)}  let firstX = (group % ${tilesX}u) * ${tileX}u;
  let firstW = (group / ${tilesX}u) * ${tileW}u;
${threadPlace(tile)}${fetchPlaces(problem, tile)}${accumulators(tile)}${loop(problem, tile, text)}${stores(problem, tile, text)}}
`;
    },
  });
}

/** A thread's place in the tile. With 16x16 threads, 32 neighbours cover 4x8 places: fewer distinct reads than 2x16. */
function threadPlace({ threads: [x, w] }: MatmulTile): string {
  if (x === 16 && w === 16) return '  let tw = ((local >> 5u) & 1u) * 8u + (local & 7u);\n  let tx = (local >> 6u) * 4u + ((local >> 3u) & 3u);\n';
  return `  let tw = local % ${w}u;\n  let tx = local / ${w}u;\n`;
}

/** How many vec4s of an operand's tile one thread fetches, and how many threads share a row. */
function fetches(rows: number, { threads: [x, w], depth }: MatmulTile): { readonly count: number; readonly perRow: number } {
  return { count: Math.ceil((rows * (depth / 4)) / (x * w)), perRow: depth / 4 };
}

/** For every fetch: the row within the tile, the quad within its depth, and the row of the operand, clamped where the tile hangs over the edge. */
function fetchPlaces(problem: LinearProblem, tile: MatmulTile): string {
  const threads = tile.threads[0] * tile.threads[1];
  const [tileX, tileW] = tileSize(tile);
  const place = (name: string, first: string, rows: number, last: number): string => {
    const { count, perRow } = fetches(rows, tile);
    return range(count)
      .map(
        (q) =>
          `  let ${name}r${q} = (local + ${q * threads}u) / ${perRow}u;\n  let ${name}k${q} = (local + ${q * threads}u) % ${perRow}u;\n  let ${name}g${q} = min(${first} + ${name}r${q}, ${last}u);\n`,
      )
      .join('');
  };
  return place('x', 'firstX', tileX, problem.rows - 1) + place('w', 'firstW', tileW, problem.layout.rows - 1);
}

function accumulators({ quadrants: [x, w] }: MatmulTile): string {
  return range(x)
    .flatMap((i) => range(4).flatMap((r) => range(w).map((j) => `  var c${i}${r}${j} = vec4<f32>(0.0);\n`)))
    .join('');
}

interface Phases {
  /** Reads tile number `k` (an expression) into registers. */
  fetch(k: string): string;
  /** Writes the registers to buffer `b`. */
  put(b: number): string;
  multiply(b: number): string;
}

/** Buffers are told apart by constants, hence two tiles a round where there are two. */
function loop(problem: LinearProblem, tile: MatmulTile, text: LinearText): string {
  const tiles = Math.ceil(problem.layout.columns / tile.depth);
  const { fetch, put, multiply } = phases(problem, tile, text);
  const barrier = '  workgroupBarrier();\n';
  if (tile.schedule === 'short') {
    return `${fetchVariables(tile)}  for (var i = 0u; i < ${tiles}u; i++) {\n${fetch('i')}${put(0)}${barrier}${multiply(0)}${barrier}  }\n`;
  }
  const head = `${fetchVariables(tile)}${fetch('0u')}${put(0)}${barrier}`;
  if (tiles === 1) return head + multiply(0);
  if (tile.schedule === 'single') {
    return `${head}  for (var i = 1u; i < ${tiles}u; i++) {\n${fetch('i')}${multiply(0)}${barrier}${put(0)}${barrier}  }\n${multiply(0)}`;
  }
  const pairs = Math.floor((tiles - 1) / 2);
  const round = `${fetch('(2u * i + 1u)')}${multiply(0)}${put(1)}${barrier}${fetch('(2u * i + 2u)')}${multiply(1)}${put(0)}${barrier}`;
  const body = pairs === 0 ? '' : `  for (var i = 0u; i < ${pairs}u; i++) {\n${round}  }\n`;
  const odd = tiles - 1 - 2 * pairs;
  return head + body + (odd === 0 ? multiply(0) : `${fetch(`${tiles - 1}u`)}${multiply(0)}${put(1)}${barrier}${multiply(1)}`);
}

function fetchVariables(tile: MatmulTile): string {
  const [tileX, tileW] = tileSize(tile);
  const names = (name: string, rows: number): string =>
    range(fetches(rows, tile).count)
      .map((q) => `  var ${name}v${q}: vec4<f32>;\n`)
      .join('');
  return names('x', tileX) + names('w', tileW);
}

function phases(problem: LinearProblem, tile: MatmulTile, text: LinearText): Phases {
  const threads = tile.threads[0] * tile.threads[1];
  const [tileX, tileW] = tileSize(tile);
  const [rowX, rowW] = rowVectors(tile);
  const quads = Math.ceil(problem.layout.columns / 4);
  const whole = problem.layout.columns % tile.depth === 0;
  const operands = [
    { name: 'x', array: 'tileX', rows: tileX, stride: rowX, read: (row: string, quad: string) => text.x(row, quad) },
    { name: 'w', array: 'tileW', rows: tileW, stride: rowW, read: (row: string, quad: string) => `weight4(${row}, ${quad})` },
  ];
  const perFetch = (body: (operand: (typeof operands)[number], q: number, guard: string) => string): string =>
    operands
      .flatMap((operand) => {
        const { count } = fetches(operand.rows, tile);
        const idle = (count * threads) / (tile.depth / 4) > operand.rows;
        return range(count).map((q) => body(operand, q, idle && q === count - 1 ? `${operand.name}r${q} < ${operand.rows}u` : ''));
      })
      .join('');
  return {
    fetch: (k) =>
      perFetch(({ name, read }, q) => {
        const quad = `(${k} * ${tile.depth / 4}u + ${name}k${q})`;
        if (whole) return `  ${name}v${q} = ${read(`${name}g${q}`, quad)};\n`;
        return `  ${name}v${q} = select(vec4<f32>(0.0), ${read(`${name}g${q}`, `min(${quad}, ${quads - 1}u)`)}, ${quad} < ${quads}u);\n`;
      }),
    put: (b) =>
      perFetch(({ name, array, stride }, q, guard) => {
        const at = (i: number): string =>
          `${array}[${b * tile.depth * stride}u + (${name}k${q} * 4u + ${i}u) * ${stride}u + (${name}r${q} >> 2u)][${name}r${q} & 3u]`;
        const lines = range(4)
          .map((i) => `  ${at(i)} = ${name}v${q}.${'xyzw'.charAt(i)};\n`)
          .join('');
        return guard === '' ? lines : `  if (${guard}) {\n${lines}  }\n`;
      }),
    multiply: (b) =>
      tile.schedule === 'short'
        ? `  for (var k = 0u; k < ${tile.depth}u; k++) {\n${outerProduct(tile, (stride) => `k * ${stride}u`)}  }\n`
        : range(tile.depth)
            .map((k) => `  {\n${outerProduct(tile, (stride) => `${(b * tile.depth + k) * stride}u`)}  }\n`)
            .join(''),
  };
}

/** Row k of both tiles, which begins at `at(vec4s of a row)`: every sum of the thread grows by one product. */
function outerProduct(tile: MatmulTile, at: (stride: number) => string): string {
  const [rowX, rowW] = rowVectors(tile);
  const [quadsX, quadsW] = tile.quadrants;
  const reads = [
    ...range(quadsX).map((i) => `    let a${i} = tileX[${at(rowX)} + ${i * tile.threads[0]}u + tx];\n`),
    ...range(quadsW).map((j) => `    let b${j} = tileW[${at(rowW)} + ${j * tile.threads[1]}u + tw];\n`),
  ];
  const sum = (i: number, r: number, j: number): string => `    c${i}${r}${j} = fma(vec4<f32>(a${i}.${'xyzw'.charAt(r)}), b${j}, c${i}${r}${j});\n`;
  return [...reads, ...range(quadsX).flatMap((i) => range(4).flatMap((r) => range(quadsW).map((j) => sum(i, r, j))))].join('');
}

function stores(problem: LinearProblem, tile: MatmulTile, text: LinearText): string {
  const [tileX, tileW] = tileSize(tile);
  const edgeX = problem.rows % tileX !== 0;
  const edgeW = problem.layout.rows % tileW !== 0;
  const vectors = storesVectors(problem);
  const columns = (sum: string, j: number): string => {
    const n = `(firstW + ${4 * j * tile.threads[1]}u + tw * 4u)`;
    if (vectors) return `    ${edgeW ? `if (${n} < ${problem.layout.rows}u) { ` : ''}${text.store(sum, 't', n)}${edgeW ? ' }' : ''}\n`;
    return range(4)
      .map((i) => `    if (${n} + ${i}u < ${problem.layout.rows}u) { ${text.store(`${sum}.${'xyzw'.charAt(i)}`, 't', `(${n} + ${i}u)`)} }\n`)
      .join('');
  };
  return range(tile.quadrants[0])
    .flatMap((i) =>
      range(4).map((r) => {
        const t = `firstX + ${4 * i * tile.threads[0] + r}u + tx * 4u`;
        const body = range(tile.quadrants[1])
          .map((j) => columns(`c${i}${r}${j}`, j))
          .join('');
        return edgeX ? `  if (${t} < ${problem.rows}u) {\n    let t = ${t};\n${body}  }\n` : `  {\n    let t = ${t};\n${body}  }\n`;
      }),
    )
    .join('');
}
