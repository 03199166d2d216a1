/**
 * y = a w^T on subgroup matrices: a [T, K] and w [N, K] in f16, sums in f32. Tiles of both operands pass through workgroup memory as 16-byte pieces; each subgroup keeps its part of
 * the result in matrices.
 *
 * What makes it fast, in the order of what it brings: rows padded by one piece, so that the rows that a matrix load touches lie in different banks; the next tile read into
 * registers while the current one is multiplied; stores by lanes that meet no bank conflict; workgroups that run together share rows and columns in the L2 cache.
 */

import type { BindingKind, GpuKernel } from '../../core/kernel.js';
import { declareBindings, defineKernel, foldGrid, mainHead, repeat } from '../template.js';

/** The component size of the matrices: rows, columns and depth of one. */
export const matrixSize = 16;

export interface GemmTile {
  /** Rows of a and of w that a workgroup multiplies. */
  readonly rows: number;
  readonly columns: number;
  /** Depth of a tile: 32 or 64. */
  readonly depth: number;
  /** The part of the tile that one subgroup makes. */
  readonly subgroupRows: number;
  readonly subgroupColumns: number;
}

/** How sums leave the matrices. `direct`: stored as they are, onto a residual at most, which whole tiles alone allow. `staged`: through workgroup memory, element by element. */
export type GemmStore = 'direct' | 'staged';

export interface GemmProblem {
  /** Rows of a and y. */
  readonly rows: number;
  /** Rows of w. */
  readonly outputs: number;
  /** Columns of a and w: a multiple of the tile's depth. */
  readonly depth: number;
  /** Columns of y, and the first that w makes. */
  readonly columns: number;
  readonly start: number;
  readonly bias: boolean;
  /** 'inPlace': y holds the residual already. */
  readonly residual: 'none' | 'read' | 'inPlace';
  /** Parts of the depth that workgroups of their own add up; with more than one, y is f32 [splits, T, outputs], without bias and residual. Divides the depth's tiles. */
  readonly splits: number;
}

/** f16 elements of a 16-byte piece. */
const piece = 8;
/** Row tiles whose workgroups run side by side. */
const groupRows = 16;

interface Layout {
  readonly subgroups: number;
  readonly threads: number;
  /** Subgroups side by side. */
  readonly across: number;
  /** Matrices of a subgroup, down and across. */
  readonly down: number;
  readonly wide: number;
  readonly rowTiles: number;
  readonly columnTiles: number;
  /** Pieces of a tile's row, and the stride in workgroup memory. */
  readonly pieces: number;
  readonly stride: number;
  /** Tiles along the depth of one split. */
  readonly steps: number;
}

function layoutOf(problem: GemmProblem, tile: GemmTile, subgroupSize: number): Layout {
  const across = tile.columns / tile.subgroupColumns;
  const subgroups = (tile.rows / tile.subgroupRows) * across;
  return {
    subgroups,
    threads: subgroups * subgroupSize,
    across,
    down: tile.subgroupRows / matrixSize,
    wide: tile.subgroupColumns / matrixSize,
    rowTiles: Math.ceil(problem.rows / tile.rows),
    columnTiles: Math.ceil(problem.outputs / tile.columns),
    pieces: tile.depth / piece,
    stride: tile.depth / piece + 1,
    steps: problem.depth / tile.depth / problem.splits,
  };
}

/** Workgroups that a problem makes. */
export function gemmTiles({ rows, outputs }: Pick<GemmProblem, 'rows' | 'outputs'>, tile: GemmTile): number {
  return Math.ceil(rows / tile.rows) * Math.ceil(outputs / tile.columns);
}

/** Bytes of workgroup memory that a tile takes. */
export function gemmBytes(tile: GemmTile): number {
  return (tile.rows + tile.columns) * (tile.depth / piece + 1) * 16;
}

/** Whether every workgroup has a whole tile, so that matrices may be stored as they are. */
export function gemmStore(problem: GemmProblem, tile: GemmTile): GemmStore {
  const whole = problem.rows % tile.rows === 0 && problem.outputs % tile.columns === 0;
  return whole && !problem.bias ? 'direct' : 'staged';
}

export function gemmKernel(problem: GemmProblem, tile: GemmTile, subgroupSize: number): GpuKernel {
  const layout = layoutOf(problem, tile, subgroupSize);
  const store = gemmStore(problem, tile);
  const count = layout.rowTiles * layout.columnTiles * problem.splits;
  const bindings = bindingsOf(problem);
  return defineKernel({
    family: 'gemm_f16',
    params: { problem: { ...problem }, tile: { ...tile }, subgroupSize },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(count),
    workgroupSize: layout.threads,
    workgroupBytes: gemmBytes(tile),
    features: ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'],
    wgsl: () => `${matrixTypes}${declareBindings(bindings)}var<workgroup> tiles: array<vec4<u32>, ${gemmBytes(tile) / 16}>;
${mainHead(count, layout.threads, '@builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32')}${placeText(problem, tile, layout)}${loopText(problem, tile, layout)}${
  store === 'direct' ? directText(problem, layout) : stagedText(problem, tile, layout, subgroupSize)
}}
`,
  });
}

export const matrixTypes = `diagnostic(off, subgroup_uniformity);
alias Left = subgroup_matrix_left<f16, ${matrixSize}, ${matrixSize}>;
alias Right = subgroup_matrix_right<f16, ${matrixSize}, ${matrixSize}>;
alias Sum = subgroup_matrix_result<f32, ${matrixSize}, ${matrixSize}>;
`;

function bindingsOf(problem: GemmProblem): readonly (readonly [string, string, BindingKind])[] {
  const bindings: (readonly [string, string, BindingKind])[] = [
    ['a', 'vec4<u32>', 'read'],
    ['w', 'vec4<u32>', 'read'],
  ];
  if (problem.bias) bindings.push(['bias', 'f32', 'read']);
  if (problem.residual === 'read') bindings.push(['residual', 'f32', 'read']);
  bindings.push(['y', 'f32', 'read_write']);
  return bindings;
}

/** Which tile this workgroup makes: column by column within groups of row tiles. Then which pieces of it this thread moves. */
function placeText(problem: GemmProblem, tile: GemmTile, layout: Layout): string {
  const { rowTiles, columnTiles, across, pieces, stride, threads, steps } = layout;
  const share = groupRows * columnTiles;
  const depthPieces = problem.depth / piece;
  const plan = (name: 'a' | 'w', first: string, count: number, offset: number, last: number): string =>
    repeat(
      count,
      (i) => `  let ${name}Row${i} = ${rowOf(`(local + ${i * threads}u)`, pieces)};
  let ${name}From${i} = min(${first} + ${name}Row${i}, ${last}u) * ${depthPieces}u + (local + ${i * threads}u) % ${pieces}u + depthFrom;
  let ${name}To${i} = ${offset}u + ${name}Row${i} * ${stride}u + (local + ${i * threads}u) % ${pieces}u;
`,
      '',
    );
  return `  let split = group / ${rowTiles * columnTiles}u;
  let place = group % ${rowTiles * columnTiles}u;
  let firstTile = place / ${share}u * ${groupRows}u;
  let tilesHere = min(${rowTiles}u - firstTile, ${groupRows}u);
  let firstRow = (firstTile + place % ${share}u % tilesHere) * ${tile.rows}u;
  let firstColumn = place % ${share}u / tilesHere * ${tile.columns}u;
  let subgroupRow = subgroup / ${across}u * ${tile.subgroupRows}u;
  let subgroupColumn = subgroup % ${across}u * ${tile.subgroupColumns}u;
  let depthFrom = split * ${steps * pieces}u;
${plan('a', 'firstRow', (tile.rows * pieces) / threads, 0, problem.rows - 1)}${plan('w', 'firstColumn', (tile.columns * pieces) / threads, tile.rows * stride, problem.outputs - 1)}`;
}

/** The row of piece `index`. With four pieces a row, 8 lanes in turn take rows r and r + 4: their stores fall in different banks, those of neighbouring rows would not. */
function rowOf(index: string, pieces: number): string {
  return pieces === 4 ? `(((${index} >> 3u) & 3u) + ((${index} >> 2u) & 1u) * 4u + (${index} >> 5u) * 8u)` : `(${index} / ${pieces}u)`;
}

function loopText(problem: GemmProblem, tile: GemmTile, layout: Layout): string {
  const { down, wide, pieces, stride, threads, steps } = layout;
  const [aCount, wCount] = [(tile.rows * pieces) / threads, (tile.columns * pieces) / threads];
  const load = (at: string): string =>
    `${repeat(aCount, (i) => `aNext${i} = a[aFrom${i} + ${at}];`, ' ')} ${repeat(wCount, (i) => `wNext${i} = w[wFrom${i} + ${at}];`, ' ')}`;
  const multiply = repeat(
    tile.depth / matrixSize,
    (k) => `    {
${repeat(down, (i) => `      let left${i} = subgroupMatrixLoad<Left, row_major>(&tiles, (subgroupRow + ${i * matrixSize}u) * ${stride}u + ${k * 2}u, ${stride}u);`)}
${repeat(wide, (j) => `      let right${j} = subgroupMatrixLoad<Right, col_major>(&tiles, ${tile.rows * stride}u + (subgroupColumn + ${j * matrixSize}u) * ${stride}u + ${k * 2}u, ${stride}u);`)}
${repeat(down, (i) => repeat(wide, (j) => `      sum${i}_${j} = subgroupMatrixMultiplyAccumulate(left${i}, right${j}, sum${i}_${j});`))}
    }`,
  );
  return `${sumsText(problem, tile, layout)}  ${repeat(aCount, (i) => `var aNext${i}: vec4<u32>;`, ' ')} ${repeat(wCount, (i) => `var wNext${i}: vec4<u32>;`, ' ')}
  ${load('0u')}
  for (var step = 0u; step < ${steps}u; step++) {
    ${repeat(aCount, (i) => `tiles[aTo${i}] = aNext${i};`, ' ')} ${repeat(wCount, (i) => `tiles[wTo${i}] = wNext${i};`, ' ')}
    workgroupBarrier();
    let next = min(step + 1u, ${steps - 1}u) * ${pieces}u;
    ${load('next')}
${multiply}
    workgroupBarrier();
  }
`;
}

/** The sums start at the residual where matrices are stored as they are. */
function sumsText(problem: GemmProblem, tile: GemmTile, { down, wide }: Layout): string {
  if (problem.residual === 'none' || gemmStore(problem, tile) === 'staged')
    return `${repeat(down, (i) => repeat(wide, (j) => `  var sum${i}_${j} = Sum(0.0f);`, ''), '\n')}\n`;
  const source = problem.residual === 'read' ? 'residual' : 'y';
  return repeat(down, (i) =>
    repeat(wide, (j) => `  var sum${i}_${j} = subgroupMatrixLoad<Sum, row_major>(&${source}, ${resultAt(problem, i, j)}, ${problem.columns}u);`),
  ).concat('\n');
}

function resultAt({ rows, outputs, columns, start, splits }: GemmProblem, i: number, j: number): string {
  const row = `firstRow + subgroupRow + ${i * matrixSize}u`;
  const column = `firstColumn + subgroupColumn + ${j * matrixSize}u`;
  return splits > 1 ? `split * ${rows * outputs}u + (${row}) * ${outputs}u + ${column}` : `(${row}) * ${columns}u + ${start}u + ${column}`;
}

function directText(problem: GemmProblem, { down, wide }: Layout): string {
  const columns = problem.splits > 1 ? problem.outputs : problem.columns;
  return repeat(down, (i) => repeat(wide, (j) => `  subgroupMatrixStore<row_major>(&y, ${resultAt(problem, i, j)}, sum${i}_${j}, ${columns}u);`)).concat('\n');
}

/** A subgroup's part leaves in bands of 16 rows through workgroup memory; lanes then take elements in the order of y. */
function stagedText(problem: GemmProblem, tile: GemmTile, { down, wide, subgroups }: Layout, subgroupSize: number): string {
  const { rows, outputs, columns, start, bias, residual, splits } = problem;
  // vec4 of f32 of a band's row, and one more against bank conflicts.
  const room = Math.floor(gemmBytes(tile) / 16 / subgroups / matrixSize);
  const perBand = Math.min(wide, Math.floor((room - 1) / 4));
  const stride = perBand * 4 + 1;
  const at = splits > 1 ? `split * ${rows * outputs}u + row * ${outputs}u + column` : `row * ${columns}u + ${start}u + column`;
  const onto = { none: '', read: ' + residual[at]', inPlace: ' + y[at]' }[residual];
  const band = (i: number, first: number): string => {
    const count = Math.min(perBand, wide - first);
    const items = matrixSize * count * matrixSize;
    return `${repeat(count, (j) => `  subgroupMatrixStore<row_major>(&tiles, bandAt + ${j * 4}u, sum${i}_${first + j}, ${stride}u);`)}
  workgroupBarrier();
  for (var item = 0u; item < ${items / subgroupSize}u; item++) {
    let index = item * ${subgroupSize}u + lane;
    let bandColumn = index % ${count * matrixSize}u;
    let row = firstRow + subgroupRow + ${i * matrixSize}u + index / ${count * matrixSize}u;
    let column = firstColumn + subgroupColumn + ${first * matrixSize}u + bandColumn;
    if (row < ${rows}u && column < ${outputs}u) {
      let at = ${at};
      let value = bitcast<vec4<f32>>(tiles[bandAt + index / ${count * matrixSize}u * ${stride}u + bandColumn / 4u])[bandColumn % 4u];
      y[at] = value${bias ? ` + bias[${start}u + column]` : ''}${onto};
    }
  }
  workgroupBarrier();
`;
  };
  const bands: string[] = [];
  for (let i = 0; i < down; i++) for (let first = 0; first < wide; first += perBand) bands.push(band(i, first));
  return `  let bandAt = subgroup * ${matrixSize * stride}u;\n${bands.join('')}`;
}
