/** How a tensor's elements lie in its storage, and the axes that follow from it. */

import { ArgumentError, ShapeError } from '../errors.js';
import { elementCount, roundUp, type Shape } from '../tensor.js';
import { type Axis, assertWhole } from './axis.js';

/**
 * `row-major`: the last axis is the fastest. `column-major`: the first is. `{ tiled: [rows, columns] }`: the last two axes are cut into tiles, stored row-major
 * one after the other, each row-major inside; tiles at the edges are stored whole, so that such a matrix takes ceil(R / rows) * ceil(C / columns) tiles. Axes
 * before the last two are row-major over whole matrices.
 */
export type MemoryLayout = 'row-major' | 'column-major' | { readonly tiled: readonly [rows: number, columns: number] };

/** "row-major", "column-major" or "tiled 16x16". */
export function formatLayout(layout: MemoryLayout): string {
  return typeof layout === 'string' ? layout : `tiled ${layout.tiled.join('x')}`;
}

/** @throws ArgumentError where a size is not a whole number from 0. */
export function assertShape(shape: Shape): void {
  if (!Array.isArray(shape)) throw new ArgumentError('shape', `a shape is an array of sizes, got ${String(shape)}`);
  for (const [axis, size] of shape.entries()) assertWhole('shape', size, 0, `the size of axis ${axis}`);
  if (!Number.isSafeInteger(elementCount(shape))) throw new ArgumentError('shape', `[${shape.join(', ')}] has more elements than can be counted exactly`);
}

/** Strides in elements: the last axis is the fastest. */
export function rowMajorStrides(shape: Shape): number[] {
  const strides: number[] = [];
  let stride = 1;
  for (const size of shape.toReversed()) {
    strides.unshift(stride);
    stride *= size;
  }
  return strides;
}

/** Strides in elements: the first axis is the fastest. */
function columnMajorStrides(shape: Shape): number[] {
  return rowMajorStrides(shape.toReversed()).reverse();
}

/** Axes of a whole tensor in a storage of its own. */
export function layoutAxes(shape: Shape, layout: MemoryLayout): readonly Axis[] {
  if (layout === 'row-major') return stridedAxes(shape, rowMajorStrides(shape));
  if (layout === 'column-major') return stridedAxes(shape, columnMajorStrides(shape));
  if (!Array.isArray(layout?.tiled))
    throw new ArgumentError('layout', `a layout is 'row-major', 'column-major' or { tiled: [rows, columns] }, got ${String(layout)}`);
  return tiledAxes(shape, layout.tiled);
}

export function stridedAxes(shape: Shape, strides: readonly number[]): readonly Axis[] {
  return shape.map((size, axis) => ({ size, stride: strides[axis] ?? 0 }));
}

function tiledAxes(shape: Shape, [tileRows, tileColumns]: readonly [number, number]): readonly Axis[] {
  assertWhole('layout', tileRows, 1, 'the number of rows of a tile');
  assertWhole('layout', tileColumns, 1, 'the number of columns of a tile');
  const rows = shape.at(-2);
  const columns = shape.at(-1);
  if (rows === undefined || columns === undefined) {
    throw new ShapeError(`a tiled layout needs two axes or more, got the shape [${shape.join(', ')}]: use row-major, or add an axis of size 1`);
  }
  const tileElements = tileRows * tileColumns;
  const tilesAcross = Math.ceil(columns / tileColumns);
  const whole = { origin: 0, step: 1 };
  const matrix = roundUp(rows, tileRows) * roundUp(columns, tileColumns);
  const leading = shape.slice(0, -2);
  return [
    ...stridedAxes(
      leading,
      rowMajorStrides(leading).map((stride) => stride * matrix),
    ),
    { ...whole, size: rows, tile: tileRows, inner: tileColumns, outer: tilesAcross * tileElements },
    { ...whole, size: columns, tile: tileColumns, inner: 1, outer: tileElements },
  ];
}
