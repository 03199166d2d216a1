/**
 * Sum, maximum or minimum of every 16 x 16 tile of a strided matrix: one workgroup and one partial per tile, partial number workgroup.y * width + workgroup.x of
 * the grid, which is row-major by tile. The tree is fixed (rows from 16 lanes to 1, lane x taking lane x + half; then column 0 alike), so that the CPU can give
 * the same bits.
 *
 * Sums run in f32. Maxima and minima run on integers of the same order, so that -0 < +0, subnormals and NaN (passed over) are decided exactly, on every driver.
 */

import type { GpuKernel, Grid } from '../core/kernel.js';
import { declareBindings, defineKernel, isNanFunction, maxGridAxis } from './template.js';

export type TiledReduceOp = 'sum' | 'max' | 'min';

/** A strided matrix in a buffer, in elements of 4 bytes; fewer than 2^31 of them are in reach. At least one row and one column. */
export interface TiledReduceShape {
  readonly rows: number;
  readonly columns: number;
  /** Index of the element [0, 0]. Default 0. */
  readonly offset?: number;
  /** From one row to the next; may be 0 or negative. Default `columns`. */
  readonly rowStride?: number;
  /** From one column to the next; may be 0 or negative. Default 1. */
  readonly columnStride?: number;
}

const tileSize = 16;
const threads = tileSize * tileSize;

/** Number of partials, 4 bytes each. */
export function tiledReducePartials({ rows, columns }: TiledReduceShape): number {
  return Math.ceil(rows / tileSize) * Math.ceil(columns / tileSize);
}

/**
 * Bindings: the matrix (f32), the partials (f32, `tiledReducePartials` of them), a uniform with `tiledReduceUniform`. One pipeline per operation serves every
 * shape. `maxWorkgroups` is the device's limit along one axis of the grid: more tiles than that take several rows of workgroups, the last ones idle.
 */
export function tiledReduceKernel(op: TiledReduceOp, shape: TiledReduceShape, maxWorkgroups = maxGridAxis): GpuKernel {
  const kernel = defineKernel({
    family: 'tiled-reduce',
    params: { op },
    bindings: ['read', 'read_write', 'uniform'],
    workgroups: [1, 1, 1],
    workgroupSize: threads,
    workgroupBytes: threads * 4,
    wgsl: () => moduleText(op, uniformShape),
  });
  return { ...kernel, workgroups: gridOf(shape, maxWorkgroups), minBindingSizes: [4, 4, uniformWords * 4] };
}

/** The same kernel for a row-major matrix of a known size, without a uniform. Bindings: the matrix, the partials. */
export function tiledReduceConstantKernel(op: TiledReduceOp, rows: number, columns: number): GpuKernel {
  const shape = { rows, columns };
  return defineKernel({
    family: 'tiled-reduce-constant',
    params: { op, rows, columns },
    bindings: ['read', 'read_write'],
    workgroups: gridOf(shape, maxGridAxis),
    workgroupSize: threads,
    workgroupBytes: threads * 4,
    wgsl: () => moduleText(op, constantShape(tiledReduceUniform(shape))),
  });
}

const uniformWords = 8;

/** The uniform of `tiledReduceKernel`, for the same shape and limit: 32 bytes. */
export function tiledReduceUniform(shape: TiledReduceShape, maxWorkgroups = maxGridAxis): Int32Array<ArrayBuffer> {
  const { rows, columns, offset = 0, rowStride = columns, columnStride = 1 } = shape;
  return Int32Array.of(
    rows,
    columns,
    offset,
    rowStride,
    columnStride,
    Math.ceil(columns / tileSize),
    tiledReducePartials(shape),
    gridOf(shape, maxWorkgroups)[0],
  );
}

function gridOf(shape: TiledReduceShape, maxWorkgroups: number): Grid {
  const partials = tiledReducePartials(shape);
  const rows = Math.ceil(partials / maxWorkgroups);
  return [Math.ceil(partials / rows), rows, 1];
}

interface OpText {
  /** What the tree works on. */
  readonly type: 'f32' | 'u32';
  readonly functions: string;
  readonly identity: string;
  /** From the matrix's bits to the tree, and from the tree to the partial's bits. */
  load(bits: string): string;
  store(value: string): string;
  combine(a: string, b: string): string;
}

/** Unsigned integers in the order of the floats, NaN excepted. */
const keyFunctions = `${isNanFunction}fn key(bits: u32, identity: u32) -> u32 {
  let ordered = select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
  return select(ordered, identity, isNan(bitcast<f32>(bits)));
}
fn bitsOf(key: u32) -> u32 {
  return select(~key, key & 0x7fffffffu, (key >> 31u) == 1u);
}
`;

/** One bit pattern for every NaN, where drivers differ. */
const sumFunctions = `${isNanFunction}fn bitsOf(sum: f32) -> u32 {
  return select(bitcast<u32>(sum), 0x7fc00000u, isNan(sum));
}
`;

function ordered(identity: string, builtin: 'max' | 'min'): OpText {
  return {
    type: 'u32',
    functions: keyFunctions,
    identity,
    load: (bits) => `key(${bits}, ${identity})`,
    store: (value) => `bitsOf(${value})`,
    combine: (a, b) => `${builtin}(${a}, ${b})`,
  };
}

const opTexts: { readonly [Op in TiledReduceOp]: OpText } = {
  sum: {
    type: 'f32',
    functions: sumFunctions,
    identity: '0.0f',
    load: (bits) => `bitcast<f32>(${bits})`,
    store: (value) => `bitsOf(${value})`,
    combine: (a, b) => `${a} + ${b}`,
  },
  // The keys of -Infinity and Infinity.
  max: ordered('0x007fffffu', 'max'),
  min: ordered('0xff800000u', 'min'),
};

/** Declares `shape`. */
const uniformShape = '@group(0) @binding(2) var<uniform> shape: Shape;\n';

function constantShape(words: Int32Array): string {
  const members = [...words].map((word, i) => `${word}${i < 5 ? 'i' : 'u'}`);
  return `const shape = Shape(${members.join(', ')});\n`;
}

function moduleText(op: TiledReduceOp, shapeDeclaration: string): string {
  const text = opTexts[op];
  const fold = (stride: number, takesPart: (half: number) => string): string =>
    [8, 4, 2, 1]
      .map((half) => `  if (${takesPart(half)}) { tile[local] = ${text.combine('tile[local]', `tile[local + ${half * stride}u]`)}; }\n  workgroupBarrier();\n`)
      .join('');
  return `struct Shape {
  rows: i32, columns: i32, offset: i32, rowStride: i32, columnStride: i32,
  tilesAcross: u32, tiles: u32, gridWidth: u32,
}
${declareBindings([
  ['matrix', 'u32', 'read'],
  ['partials', 'u32', 'read_write'],
])}${shapeDeclaration}var<workgroup> tile: array<${text.type}, ${threads}>;
${text.functions}@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let group = workgroup.y * shape.gridWidth + workgroup.x;
  if (group >= shape.tiles) { return; }
  let x = local % ${tileSize}u;
  let y = local / ${tileSize}u;
  let column = i32((group % shape.tilesAcross) * ${tileSize}u + x);
  let row = i32((group / shape.tilesAcross) * ${tileSize}u + y);
  var value = ${text.identity};
  if (column < shape.columns && row < shape.rows) {
    value = ${text.load('matrix[u32(shape.offset + row * shape.rowStride + column * shape.columnStride)]')};
  }
  tile[local] = value;
  workgroupBarrier();
${fold(1, (half) => `x < ${half}u`)}${fold(tileSize, (half) => `x == 0u && y < ${half}u`)}  if (local == 0u) { partials[group] = ${text.store('tile[0]')}; }
}
`;
}
