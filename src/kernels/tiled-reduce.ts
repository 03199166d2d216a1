/**
 * Sum, maximum or minimum of every 16 x 16 tile of a strided matrix: one workgroup and one partial per tile, partial number workgroup.y * width + workgroup.x of
 * the grid, which is row-major by tile. The tree is fixed (rows from 16 lanes to 1, lane x taking lane x + half; then column 0 alike), so that the CPU can give
 * the same bits.
 *
 * Sums run in f32. Maxima and minima run on integers of the same order, so that -0 < +0, subnormals and NaN (passed over) are decided exactly, on every driver.
 */

import type { GpuKernel, Grid } from '../core/kernel.js';
import { declareBindings, defineKernel, isNanFunction, maxGridAxis } from './template.js';

export interface TiledReduceParams {
  readonly op: 'sum' | 'max' | 'min';
  readonly rows: number;
  readonly columns: number;
  /** Index of the element [0, 0] in the buffer, in elements. Default 0. */
  readonly offset?: number;
  /** Elements from one row to the next; may be 0 or negative. Default `columns`. */
  readonly rowStride?: number;
  /** Elements from one column to the next; may be 0 or negative. Default 1. */
  readonly columnStride?: number;
}

const tileSize = 16;
const threads = tileSize * tileSize;

/** Number of partials, 4 bytes each. */
export function tiledReducePartials({ rows, columns }: TiledReduceParams): number {
  return Math.ceil(rows / tileSize) * Math.ceil(columns / tileSize);
}

/**
 * Bindings: the matrix (f32), the partials (f32, `tiledReducePartials` of them). The matrix has at least one row and one column. `maxWorkgroups` is the device's
 * limit along one axis of the grid: more tiles than that take several rows of workgroups, the last ones idle.
 */
export function tiledReduceKernel(params: TiledReduceParams, maxWorkgroups = maxGridAxis): GpuKernel {
  const { op, rows, columns, offset = 0, rowStride = columns, columnStride = 1 } = params;
  const partials = tiledReducePartials(params);
  const gridRows = Math.ceil(partials / maxWorkgroups);
  const workgroups: Grid = [Math.ceil(partials / gridRows), gridRows, 1];
  return defineKernel({
    family: 'tiled-reduce',
    params: { op, rows, columns, offset, rowStride, columnStride },
    bindings: ['read', 'read_write'],
    workgroups,
    workgroupSize: threads,
    workgroupBytes: threads * 4,
    wgsl: () => moduleText({ op, rows, columns, offset, rowStride, columnStride }, partials, workgroups),
  });
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

const opTexts: { readonly [Op in TiledReduceParams['op']]: OpText } = {
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

function moduleText({ op, rows, columns, offset, rowStride, columnStride }: Required<TiledReduceParams>, partials: number, [width]: Grid): string {
  const text = opTexts[op];
  const across = Math.ceil(columns / tileSize);
  const fold = (stride: number, takesPart: (half: number) => string): string =>
    [8, 4, 2, 1]
      .map((half) => `  if (${takesPart(half)}) { tile[local] = ${text.combine('tile[local]', `tile[local + ${half * stride}u]`)}; }\n  workgroupBarrier();\n`)
      .join('');
  return `${declareBindings([
    ['matrix', 'u32', 'read'],
    ['partials', 'u32', 'read_write'],
  ])}var<workgroup> tile: array<${text.type}, ${threads}>;
${text.functions}@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let group = workgroup.y * ${width}u + workgroup.x;
  if (group >= ${partials}u) { return; }
  let x = local % ${tileSize}u;
  let y = local / ${tileSize}u;
  let column = (group % ${across}u) * ${tileSize}u + x;
  let row = (group / ${across}u) * ${tileSize}u + y;
  var value = ${text.identity};
  if (column < ${columns}u && row < ${rows}u) {
    value = ${text.load(`matrix[u32(${offset}i + i32(row) * ${literal(rowStride)} + i32(column) * ${literal(columnStride)})]`)};
  }
  tile[local] = value;
  workgroupBarrier();
${fold(1, (half) => `x < ${half}u`)}${fold(tileSize, (half) => `x == 0u && y < ${half}u`)}  if (local == 0u) { partials[group] = ${text.store('tile[0]')}; }
}
`;
}

function literal(value: number): string {
  return value < 0 ? `(${value}i)` : `${value}i`;
}
