/** Operations whose rows do not depend on each other, on arrays that are longer than one binding of the device holds: in pieces of whole rows, one after another. */

import type { Operation } from './operation-cache.js';

export interface RowOperation extends Pick<Operation, 'key' | 'build'> {
  readonly rows: number;
  /** Numbers of a row of each input; 0 for an input that belongs to every row. */
  readonly widths: readonly number[];
  /** Numbers of a row of the result. */
  readonly out: number;
  /** Of the inputs, for so many rows. */
  shapes(rows: number): readonly (readonly number[])[];
}

type Run = (operation: Operation, inputs: readonly Float32Array[]) => Promise<Float32Array>;

/** Rows of a piece, where no array of it may have more than `most` numbers: as many as there are where all fit, or where a single one does not (which planning then refuses). */
export function rowsOfPiece({ rows, widths, out }: Pick<RowOperation, 'rows' | 'widths' | 'out'>, most: number): number {
  const fitting = Math.floor(most / Math.max(1, out, ...widths));
  if (fitting >= rows || fitting === 0) return rows;
  // Whole vectors of four, where rows are single numbers.
  return fitting >= 4 ? fitting - (fitting % 4) : fitting;
}

export async function runRows(run: Run, operation: RowOperation, inputs: readonly Float32Array[], most: number): Promise<Float32Array> {
  const { key, build, rows, widths, out } = operation;
  const step = rowsOfPiece(operation, most);
  if (step === rows) return run({ key, build, shapes: operation.shapes(rows) }, inputs);
  const y = new Float32Array(rows * out);
  for (let start = 0; start < rows; start += step) {
    const count = Math.min(step, rows - start);
    const parts = inputs.map((data, i) => {
      const width = widths[i] ?? 0;
      return width === 0 ? data : data.subarray(start * width, (start + count) * width);
    });
    y.set(await run({ key, build, shapes: operation.shapes(count) }, parts), start * out);
  }
  return y;
}

/** Runs `product` for pieces of at most `step` of `columns` columns, and lays the results [rows, count] side by side. */
export async function runColumns(
  product: (start: number, count: number) => Promise<Float32Array>,
  rows: number,
  columns: number,
  step: number,
): Promise<Float32Array> {
  if (step >= columns) return product(0, columns);
  const y = new Float32Array(rows * columns);
  for (let start = 0; start < columns; start += step) {
    const count = Math.min(step, columns - start);
    const part = await product(start, count);
    for (let row = 0; row < rows; row++) y.set(part.subarray(row * count, (row + 1) * count), row * columns + start);
  }
  return y;
}
