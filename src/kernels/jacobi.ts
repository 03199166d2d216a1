/**
 * Eigenvalues of a symmetric matrix by Jacobi rotations, n/2 disjoint ones at a time.
 *
 * A sweep of `size` - 1 rounds meets every pair of indices once: the last index stays, the others go round a table of `size` / 2 seats, and those who face each
 * other are a pair. One dispatch is one round: A' = J^T A J and V' = V J. The blocks of 2 x 2 elements where the rows of one pair cross the columns of another
 * do not depend on each other, but every rotation depends on three elements that three blocks change: so A is read from one buffer and written to another,
 * and each workgroup works out the rotations of its tile by itself. V needs no copy.
 *
 * A rotation by the angle w is applied through h = tan(w / 2), s = 2 h / (1 + h^2): x' = x - s (y + h x), y' = y + s (x - h y). It is orthogonal whatever the error of
 * h, and where s is small the rounding of x' is that of one addition; with c and s rounded apart, columns would lose their length over thousands of rounds.
 */

import type { GpuKernel } from '../core/kernel.js';
import { declareBindings, defineKernel } from './template.js';

/** Pairs of columns and of rows that one workgroup rotates. */
const tileColumns = 32;
const tileRows = 8;
const threads = tileColumns * tileRows;

/** Smaller elements are taken for zero; the squares of larger ones are normal numbers. The matrix is scaled so that its largest element is at least 1. */
const negligible = '1e-18f';

/** Elements of the buffer of A: the matrix, then the number of the round that comes next. `size` is even. */
export function jacobiMatrixElements(size: number): number {
  return size * size + 1;
}

/** The uniform of both kernels: 16 bytes. */
export function jacobiUniform(size: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.of(size, size / 2, tilesOf(size, tileRows), 0);
}

function tilesOf(size: number, pairsOfTile: number): number {
  return Math.ceil(size / 2 / pairsOfTile);
}

/**
 * One round. Bindings: A before it and A after it (f32, `jacobiMatrixElements`), V (f32 [size, size], eigenvectors as columns), `jacobiUniform`. A is scaled to a
 * largest element from 1 to 2; an index whose row and column are zero stays as it is. One pipeline serves every size.
 */
export function jacobiRoundKernel(size: number): GpuKernel {
  const kernel = defineKernel({
    family: 'jacobi_round',
    params: {},
    bindings: ['read', 'read_write', 'read_write', 'uniform'],
    workgroups: [1, 1, 1],
    workgroupSize: [tileColumns, tileRows, 1],
    workgroupBytes: (tileColumns + tileRows) * 16,
    wgsl: roundText,
  });
  const matrixBytes = jacobiMatrixElements(2) * 4;
  return { ...kernel, workgroups: [tilesOf(size, tileColumns), 2 * tilesOf(size, tileRows), 1], minBindingSizes: [matrixBytes, matrixBytes, 16, 16] };
}

// Tiles of A come first, those of V after them: there a block is two neighbouring rows, which are not rotated.
function roundText(): string {
  return `${declareBindings([
    ['source', 'f32', 'read'],
    ['result', 'f32', 'read_write'],
    ['vectors', 'f32', 'read_write'],
    ['shape', 'vec4<u32>', 'uniform'],
  ])}
// tan of half the angle, sine, tan of the angle
var<workgroup> rotations: array<vec3<f32>, ${tileColumns + tileRows}>;

fn pairOf(seat: u32, round: u32) -> vec2<u32> {
  let around = shape.x - 1u;
  if (seat == 0u) { return vec2<u32>(round, around); }
  let ahead = round + seat;
  let behind = round + around - seat;
  return vec2<u32>(select(ahead, ahead - around, ahead >= around), select(behind, behind - around, behind >= around));
}

fn rotationOf(seat: u32, round: u32) -> vec3<f32> {
  if (seat >= shape.y) { return vec3<f32>(); }
  let pair = pairOf(seat, round);
  let size = shape.x;
  let twice = 2f * source[pair.x * size + pair.y];
  if (abs(twice) < ${negligible}) { return vec3<f32>(); }
  let gap = source[pair.y * size + pair.y] - source[pair.x * size + pair.x];
  let root = sqrt(gap * gap + twice * twice);
  let tangent = twice / select(gap - root, gap + root, gap >= 0f);
  let half = tangent / (1f + sqrt(1f + tangent * tangent));
  return vec3<f32>(half, 2f * half / (1f + half * half), tangent);
}

fn rotate(pair: vec2<f32>, by: vec3<f32>) -> vec2<f32> {
  return vec2<f32>(pair.x - by.y * (pair.y + by.x * pair.x), pair.y + by.y * (pair.x - by.x * pair.y));
}

// Above and below the diagonal with the same operations in the same order, so that A stays symmetric to the bit.
fn rotateBlock(block: vec4<f32>, rows: vec3<f32>, columns: vec3<f32>) -> vec4<f32> {
  let left = rotate(block.xz, rows);
  let right = rotate(block.yw, rows);
  let top = rotate(vec2<f32>(left.x, right.x), columns);
  let bottom = rotate(vec2<f32>(left.y, right.y), columns);
  return vec4<f32>(top, bottom);
}

@compute @workgroup_size(${tileColumns}, ${tileRows})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let size = shape.x;
  let round = u32(source[size * size]);
  let ofVectors = workgroup.y >= shape.z;
  let tileRow = workgroup.y - select(0u, shape.z, ofVectors);
  if (index < ${tileColumns}u) {
    rotations[index] = rotationOf(workgroup.x * ${tileColumns}u + index, round);
  } else if (index < ${tileColumns + tileRows}u) {
    rotations[index] = rotationOf(tileRow * ${tileRows}u + index - ${tileColumns}u, round);
  }
  workgroupBarrier();
  let column = workgroup.x * ${tileColumns}u + local.x;
  let row = tileRow * ${tileRows}u + local.y;
  if (column >= shape.y || row >= shape.y) { return; }
  let columns = pairOf(column, round);
  let byColumn = rotations[local.x];
  if (ofVectors) {
    let upper = 2u * row * size;
    let lower = upper + size;
    let top = rotate(vec2<f32>(vectors[upper + columns.x], vectors[upper + columns.y]), byColumn);
    let bottom = rotate(vec2<f32>(vectors[lower + columns.x], vectors[lower + columns.y]), byColumn);
    vectors[upper + columns.x] = top.x;
    vectors[upper + columns.y] = top.y;
    vectors[lower + columns.x] = bottom.x;
    vectors[lower + columns.y] = bottom.y;
    return;
  }
  let rows = pairOf(row, round) * size;
  let byRow = rotations[${tileColumns}u + local.y];
  var block = vec4<f32>(source[rows.x + columns.x], source[rows.x + columns.y], source[rows.y + columns.x], source[rows.y + columns.y]);
  if (row < column) {
    block = rotateBlock(block, byRow, byColumn);
  } else if (row > column) {
    block = rotateBlock(block.xzyw, byColumn, byRow).xzyw;
  } else {
    let shift = byColumn.z * block.y;
    block = vec4<f32>(block.x - shift, 0f, 0f, block.w + shift);
  }
  result[rows.x + columns.x] = block.x;
  result[rows.x + columns.y] = block.y;
  result[rows.y + columns.x] = block.z;
  result[rows.y + columns.y] = block.w;
  if (row == 0u && column == 0u) { result[size * size] = f32(select(round + 1u, 0u, round + 2u == size)); }
}
`;
}

/** Words of what `jacobiCheckKernel` writes. */
export function jacobiCheckWords(size: number): number {
  return size + 1;
}

/**
 * What is left to do: word 0 becomes the larger of itself and the bits of the largest |a_ij| off the diagonal (floats from 0 on are ordered as their bits), the others the
 * diagonal's bits. Bindings: A, `jacobiCheckWords` words (word 0 zeroed before), `jacobiUniform`. One workgroup for each row.
 */
export function jacobiCheckKernel(size: number): GpuKernel {
  const kernel = defineKernel({
    family: 'jacobi_check',
    params: {},
    bindings: ['read', 'read_write', 'uniform'],
    workgroups: [1, 1, 1],
    workgroupSize: threads,
    workgroupBytes: 4,
    wgsl: checkText,
  });
  return { ...kernel, workgroups: [size, 1, 1], minBindingSizes: [jacobiMatrixElements(2) * 4, jacobiCheckWords(2) * 4, 16] };
}

function checkText(): string {
  return `${declareBindings([
    ['source', 'f32', 'read'],
    ['check', 'atomic<u32>', 'read_write'],
    ['shape', 'vec4<u32>', 'uniform'],
  ])}
var<workgroup> largestOfRow: atomic<u32>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let row = workgroup.x;
  let size = shape.x;
  var largest = 0u;
  for (var column = local; column < size; column += ${threads}u) {
    let bits = bitcast<u32>(source[row * size + column]);
    if (column == row) {
      atomicStore(&check[1u + row], bits);
    } else {
      largest = max(largest, bits & 0x7fffffffu);
    }
  }
  // Unchecked devices do not zero workgroup memory.
  if (local == 0u) { atomicStore(&largestOfRow, 0u); }
  workgroupBarrier();
  atomicMax(&largestOfRow, largest);
  workgroupBarrier();
  if (local == 0u) { atomicMax(&check[0], atomicLoad(&largestOfRow)); }
}
`;
}
