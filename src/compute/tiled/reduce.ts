/**
 * Reductions of a matrix in tiles of 16 x 16, on the CPU, in the order of the GPU kernel: the partials of both agree bit for bit (of NaN, the value alone).
 *
 * A tile is filled up with the identity; then every row is folded from 16 lanes to 8, 4, 2 and 1 (lane x takes lane x + half), then column 0 in the same way.
 * The partials, row-major by tile, are folded from the left, from the identity on.
 */

import { ArgumentError, ShapeError } from '../../core/errors.js';
import { assertWhole } from '../../core/views/axis.js';
import { type HostData, TensorView } from '../../core/views/tensor-view.js';
import { MaxOp, MinOp, type ReduceOp, SumOp } from './reduce-op.js';

/** Rows and columns of a tile. */
export const TILE_SIZE = 16;

/** A view of a matrix, of any layout and strides; its elements count as f32. */
export type MatrixView = TensorView<HostData>;

/**
 * Reduces a matrix to one number.
 * @param data a view of two axes, or at least width * height numbers, row-major (what follows them is not read); rounded to f32 as they are read.
 * @returns the identity of `op` where width or height is 0, or no number is given for them.
 * @throws ArgumentError where `data` is too short; ShapeError for a view that is no matrix.
 */
export function tiledReduce2d(op: ReduceOp, data: HostData, width: number, height: number): number;
export function tiledReduce2d(op: ReduceOp, view: MatrixView): number;
export function tiledReduce2d(op: ReduceOp, data: HostData | MatrixView, width?: number, height?: number): number {
  return foldPartials(op, partialsOf(op, matrixOf(data, width, height)));
}

/** As `tiledReduce2d`, one number for each tile of 16 x 16, row-major by tile: ceil(height / 16) * ceil(width / 16) of them; none for an empty matrix. */
export function tiledReducePartial(op: ReduceOp, data: HostData, width: number, height: number): Float32Array<ArrayBuffer>;
export function tiledReducePartial(op: ReduceOp, view: MatrixView): Float32Array<ArrayBuffer>;
export function tiledReducePartial(op: ReduceOp, data: HostData | MatrixView, width?: number, height?: number): Float32Array<ArrayBuffer> {
  return partialsOf(op, matrixOf(data, width, height));
}

/** Sum of a matrix; 0 for an empty one. Arguments as of `tiledReduce2d`. */
export function tiledSum2d(data: HostData, width: number, height: number): number;
export function tiledSum2d(view: MatrixView): number;
export function tiledSum2d(data: HostData | MatrixView, width?: number, height?: number): number {
  return foldPartials(SumOp, partialsOf(SumOp, matrixOf(data, width, height)));
}

/** Largest number of a matrix, NaN passed over; -Infinity for an empty one. Arguments as of `tiledReduce2d`. */
export function tiledMax2d(data: HostData, width: number, height: number): number;
export function tiledMax2d(view: MatrixView): number;
export function tiledMax2d(data: HostData | MatrixView, width?: number, height?: number): number {
  return foldPartials(MaxOp, partialsOf(MaxOp, matrixOf(data, width, height)));
}

/** Smallest number of a matrix, NaN passed over; Infinity for an empty one. Arguments as of `tiledReduce2d`. */
export function tiledMin2d(data: HostData, width: number, height: number): number;
export function tiledMin2d(view: MatrixView): number;
export function tiledMin2d(data: HostData | MatrixView, width?: number, height?: number): number {
  return foldPartials(MinOp, partialsOf(MinOp, matrixOf(data, width, height)));
}

/** The partials of tiles, from the CPU or from a device, folded from the left. */
export function foldPartials(op: ReduceOp, partials: HostData): number {
  let result = op.identity;
  for (let index = 0; index < partials.length; index++) result = op.combine(result, partials[index] as number);
  return result;
}

/**
 * The matrix that the arguments of a tiled reduction mean.
 * @throws ArgumentError, ShapeError as those do.
 */
export function matrixOf(data: HostData | MatrixView, width: number | undefined, height: number | undefined): MatrixView {
  if (data instanceof TensorView) {
    if (width !== undefined || height !== undefined) throw new ArgumentError('width', 'a view has its own width and height: give it alone');
    if (data.ndim !== 2) throw new ShapeError(`a tiled reduction takes a matrix, got a view of shape [${data.shape.join(', ')}]: reshape it to two axes`);
    return data;
  }
  const columns = width ?? Number.NaN;
  const rows = height ?? Number.NaN;
  assertWhole('width', columns, 0, 'the width of a matrix');
  assertWhole('height', rows, 0, 'the height of a matrix');
  const empty = data.length === 0 || rows === 0 || columns === 0;
  if (!empty && data.length < rows * columns) {
    throw new ArgumentError('data', `a matrix of width ${columns} and height ${rows} has ${rows * columns} elements, got ${data.length}`);
  }
  return TensorView.over(data, empty ? [0, 0] : [rows, columns]);
}

function partialsOf(op: ReduceOp, matrix: MatrixView): Float32Array<ArrayBuffer> {
  const rowOffsets = matrix.axisOffsets(0).map((offset) => offset + matrix.offset);
  const columnOffsets = matrix.axisOffsets(1);
  const across = Math.ceil(columnOffsets.length / TILE_SIZE);
  const partials = new Float32Array(matrix.isEmpty ? 0 : Math.ceil(rowOffsets.length / TILE_SIZE) * across);
  const tile = new Float32Array(TILE_SIZE * TILE_SIZE);
  for (let index = 0; index < partials.length; index++) {
    const top = Math.floor(index / across) * TILE_SIZE;
    const left = (index % across) * TILE_SIZE;
    loadTile(tile, op.identity, matrix.data, rowOffsets.subarray(top, top + TILE_SIZE), columnOffsets.subarray(left, left + TILE_SIZE));
    partials[index] = reduceTile(op, tile);
  }
  return partials;
}

function loadTile(tile: Float32Array, identity: number, data: HostData, rows: Float64Array, columns: Float64Array): void {
  tile.fill(identity);
  for (let y = 0; y < rows.length; y++) {
    const row = rows[y] as number;
    for (let x = 0; x < columns.length; x++) tile[y * TILE_SIZE + x] = data[row + (columns[x] as number)] as number;
  }
}

/** Rows, then column 0. Overwrites the tile. */
function reduceTile(op: ReduceOp, tile: Float32Array): number {
  for (let y = 0; y < TILE_SIZE; y++) foldLanes(op, tile, y * TILE_SIZE, 1);
  foldLanes(op, tile, 0, TILE_SIZE);
  return tile[0] as number;
}

function foldLanes(op: ReduceOp, tile: Float32Array, first: number, stride: number): void {
  for (let half = TILE_SIZE / 2; half >= 1; half /= 2) {
    for (let lane = 0; lane < half; lane++) {
      const at = first + lane * stride;
      tile[at] = op.combine(tile[at] as number, tile[at + half * stride] as number);
    }
  }
}
