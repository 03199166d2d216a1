/** Reshapes without moving elements. */

import type { Shape } from '../tensor.js';
import type { Axis } from './axis.js';
import { rowMajorStrides, stridedAxes } from './layout.js';

/**
 * Axes with which the same elements, enumerated with the last axis fastest, have the shape `shape` (of equal element count), or undefined where no strides do
 * that. Axes are matched in the smallest groups of equal element count; a group of old axes must be walkable with one stride, and a tiled axis can only stay as
 * it is.
 */
export function reshapedAxes(axes: readonly Axis[], shape: Shape): readonly Axis[] | undefined {
  if (shape.includes(0)) return stridedAxes(shape, rowMajorStrides(shape));
  const old = axes.filter(({ size }) => size !== 1);
  const result: Axis[] = [];
  let taken = 0;
  for (let begin = 0; begin < shape.length; ) {
    if (shape[begin] === 1) {
      result.push({ size: 1, stride: 0 });
      begin++;
      continue;
    }
    const group = nextGroup(old, taken, shape, begin);
    const merged = mergeAxes(old.slice(taken, group.oldEnd), shape.slice(begin, group.newEnd));
    if (merged === undefined) return undefined;
    result.push(...merged);
    taken = group.oldEnd;
    begin = group.newEnd;
  }
  return withUnitStrides(result);
}

/** Ends (exclusive) of the smallest runs of old and new axes, from `taken` and `begin` on, with equal element counts. */
function nextGroup(old: readonly Axis[], taken: number, shape: Shape, begin: number): { oldEnd: number; newEnd: number } {
  let oldEnd = taken + 1;
  let newEnd = begin + 1;
  let oldCount = old[taken]?.size ?? 1;
  let newCount = shape[begin] ?? 1;
  while (oldCount !== newCount) {
    if (oldCount < newCount) oldCount *= old[oldEnd++]?.size ?? 1;
    else newCount *= shape[newEnd++] ?? 1;
  }
  return { oldEnd, newEnd };
}

function mergeAxes(group: readonly Axis[], shape: Shape): readonly Axis[] | undefined {
  const last = group.at(-1);
  if (last === undefined) return undefined;
  const kept = shape.filter((size) => size !== 1);
  if (group.length === 1 && kept.length === 1) return shape.map((size) => (size === 1 ? { size, stride: 0 } : last));
  if (last.tile !== undefined) return undefined;
  for (const [index, axis] of group.slice(0, -1).entries()) {
    const next = group[index + 1];
    if (axis.tile !== undefined || next?.tile !== undefined || axis.stride !== (next?.size ?? 0) * (next?.stride ?? 0)) return undefined;
  }
  return stridedAxes(
    shape,
    rowMajorStrides(shape).map((stride) => stride * last.stride),
  );
}

/** Axes of one coordinate get the stride that a packed row-major tensor would have there, for readers: it is never multiplied by anything but 0. */
function withUnitStrides(axes: readonly Axis[]): readonly Axis[] {
  const result = [...axes];
  for (let index = result.length - 1; index >= 0; index--) {
    if (result[index]?.size !== 1) continue;
    const next = result[index + 1];
    result[index] = { size: 1, stride: next === undefined ? 1 : next.tile === undefined ? next.size * next.stride : 0 };
  }
  return result;
}
