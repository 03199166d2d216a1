/** What operations along axes share: checks of axis numbers, and tensors as lines along one axis. */

import { ShapeError } from '../core/errors.js';
import { elementCount, formatType, type Shape, type TensorType } from '../core/tensor.js';

export function expectAxis(op: string, type: TensorType, axis: number): void {
  if (!(Number.isInteger(axis) && axis >= 0 && axis < type.shape.length))
    throw new ShapeError(`${op}: axis must be one of the ${type.shape.length} axes of ${formatType(type)}, counted from 0, got ${axis}`);
}

/** A tensor seen as [outer, count, inner], where `count` is the size of one axis: element (o, c, i) is number (o * count + c) * inner + i. */
export interface Lines {
  readonly outer: number;
  readonly count: number;
  readonly inner: number;
}

/** The lines along `axes`, which must be neighbours: consecutive numbers, ascending. */
export function linesAlong(shape: Shape, axes: readonly number[]): Lines {
  const [first = 0, last = first] = [axes[0], axes.at(-1)];
  return { outer: elementCount(shape.slice(0, first)), count: elementCount(shape.slice(first, last + 1)), inner: elementCount(shape.slice(last + 1)) };
}

/** `axis` counted from the end where it is negative. */
export function axisFrom(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}

/** Calls `visit` with the index of every line's first element. */
export function forEachLine({ outer, count, inner }: Lines, visit: (first: number, line: number) => void): void {
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < inner; i++) visit(o * count * inner + i, o * inner + i);
  }
}
