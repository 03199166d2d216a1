/**
 * One axis of a view: how many coordinates it has, and what each adds to the storage index. The contributions of a view's axes are independent of each other and
 * add up, in every layout, so that slices, permutations and kernels treat axes one by one.
 */

import { ArgumentError } from '../errors.js';

/** Coordinate x adds x * stride. A stride may be 0 (broadcast) or negative (flipped). */
export interface StridedAxis {
  readonly size: number;
  /** Elements. */
  readonly stride: number;
  readonly tile?: undefined;
}

/** An axis of a tiled storage: with p = origin + x * step, coordinate x adds floor(p / tile) * outer + (p mod tile) * inner. */
export interface TiledAxis {
  readonly size: number;
  readonly origin: number;
  readonly step: number;
  /** Coordinates of a tile along this axis. */
  readonly tile: number;
  /** Elements from one coordinate of a tile to the next. */
  readonly inner: number;
  /** Elements from one tile to the next. */
  readonly outer: number;
}

export type Axis = StridedAxis | TiledAxis;

/** What coordinate `x` adds to the storage index. */
export function axisOffset(axis: Axis, x: number): number {
  if (axis.tile === undefined) return x * axis.stride;
  const position = axis.origin + x * axis.step;
  const within = position % axis.tile;
  return ((position - within) / axis.tile) * axis.outer + within * axis.inner;
}

/** What every coordinate adds, by coordinate. */
export function axisOffsets(axis: Axis): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: axis.size }, (_, x) => axisOffset(axis, x));
}

/** Coordinates start, start + step, ... of an axis, `size` of them; `start` is what becomes 0. The shift of the view's offset comes with it. */
export function sliceAxis(axis: Axis, start: number, size: number, step: number): { axis: Axis; shift: number } {
  // An empty slice reaches nothing: its offset stays where it is, inside the storage.
  if (axis.tile === undefined) return { axis: { size, stride: axis.stride * step }, shift: size === 0 ? 0 : start * axis.stride };
  return { axis: { ...axis, size, origin: axis.origin + start * axis.step, step: axis.step * step }, shift: 0 };
}

/** The smallest and the largest contribution of an axis with at least one coordinate. */
export function axisExtent(axis: Axis): readonly [least: number, most: number] {
  if (axis.tile !== undefined) {
    const offsets = axisOffsets(axis);
    return [offsets.reduce((a, b) => Math.min(a, b)), offsets.reduce((a, b) => Math.max(a, b))];
  }
  const end = (axis.size - 1) * axis.stride;
  return end < 0 ? [end, 0] : [0, end];
}

/** Whether two axes index alike. */
export function sameAxis(a: Axis, b: Axis): boolean {
  if (a.size !== b.size) return false;
  if (a.tile === undefined) return b.tile === undefined && a.stride === b.stride;
  return b.tile !== undefined && a.origin === b.origin && a.step === b.step && a.tile === b.tile && a.inner === b.inner && a.outer === b.outer;
}

/** Throws where `value` is not a whole number from `least` on. */
export function assertWhole(argument: string, value: number, least: number, what: string): void {
  if (!Number.isSafeInteger(value) || value < least) throw new ArgumentError(argument, `${what} is a whole number from ${least}, got ${value}`);
}
